"""A look-up believes what Twilio lists only where it can mean one thing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from tests.senders.in_a_loop import NewPlain, NewSender, Sender
from tests.senders.twilio_servers import ACCOUNT_SID, AUTH_TOKEN, FROM, SERVICE, TO, clerk, http, refusing_port

from smsretry.core.message import Message, Receipt
from smsretry.ports import CanLookUp, CannotTell, Found, LookUp, NotSeen
from smsretry.senders.twilio import TwilioSender
from smsretry.senders.twilio.lookup import MOST_PAGES, TRIAL_PREFIX, ListedMessage, OwnSids
from smsretry.testing import FakeClock, TwilioSimulator
from smsretry.testing.simulator import FAULTS, Call, Fault, RateLimited, Refused, Reset, ServerError

BODY = "Your parcel is on its way."
MESSAGE = Message(TO, BODY, id="parcel-1")
OTHER = replace(MESSAGE, id="parcel-2")


@pytest.fixture
def simulator() -> Iterator[TwilioSimulator]:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as running:
        yield running


SenderTo = Callable[..., Sender]


@pytest.fixture
def sender_to(new_sender: NewSender) -> SenderTo:
    return lambda url, **options: new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=url, **options)


@pytest.fixture
def sender(simulator: TwilioSimulator, sender_to: SenderTo) -> Iterator[Sender]:
    made = sender_to(simulator.url)
    yield made
    made.close()


@pytest.fixture
def elsewhere(simulator: TwilioSimulator, sender_to: SenderTo) -> Iterator[Sender]:
    """A sender of another process: it knows nothing of our SIDs, nor we of its."""
    made = sender_to(simulator.url)
    yield made
    made.close()


def lately() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=300)


def find(sender: Sender, message: Message = MESSAGE, *exclude: str) -> LookUp:
    return sender.find(message, since=lately(), exclude=exclude)


def lose(sender: Sender, simulator: TwilioSimulator, message: Message = MESSAGE, *, taken: bool = True) -> None:
    """Send a message whose answer is lost."""
    simulator.script(Reset(taken=taken))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        sender.send(message)
    assert sender.classify(caught.value).maybe_sent


def test_the_sender_can_be_asked() -> None:
    assert isinstance(TwilioSender.from_env({}), CanLookUp)


def test_a_text_that_was_taken_is_found(sender: Sender, simulator: TwilioSimulator) -> None:
    lose(sender, simulator)
    answer = find(sender)
    assert isinstance(answer, Found)
    (text,) = simulator.texts
    assert answer.receipt == Receipt("twilio", text.sid, text.at.replace(microsecond=0), 1, "sent")


def test_a_text_that_was_not_taken_is_not_seen(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    asked_at = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, clock=FakeClock(asked_at))
    lose(sender, simulator, taken=False)
    assert find(sender) == NotSeen(asked_at)
    sender.close()


def test_the_list_is_asked_for_the_recipient_alone(sender: Sender, simulator: TwilioSimulator) -> None:
    find(sender)
    (request,) = simulator.requests
    assert request.query == {"To": [TO], "PageSize": ["1000"]}


def test_two_candidates_settle_nothing(sender: Sender, elsewhere: Sender, simulator: TwilioSimulator) -> None:
    lose(sender, simulator)
    elsewhere.send(MESSAGE)
    assert find(sender) == CannotTell("2 messages with this text went to this number")


def test_another_text_to_the_number_may_be_this_one_changed_on_its_way(
    sender: Sender, elsewhere: Sender, simulator: TwilioSimulator
) -> None:
    lose(sender, simulator, taken=False)
    elsewhere.send(Message(TO, "Your parcel: https://twil.io/x", id="y"))
    assert isinstance(find(sender), CannotTell)


def test_a_text_with_another_beside_it_is_found(sender: Sender, elsewhere: Sender, simulator: TwilioSimulator) -> None:
    elsewhere.send(Message(TO, "Another text", id="y"))
    lose(sender, simulator)
    assert isinstance(find(sender), Found)


def test_texts_to_other_numbers_do_not_matter(sender: Sender, elsewhere: Sender, simulator: TwilioSimulator) -> None:
    elsewhere.send(replace(MESSAGE, to="+14155550199"))
    assert isinstance(find(sender), NotSeen)


def test_a_sid_of_another_message_is_passed_over(sender: Sender, elsewhere: Sender, simulator: TwilioSimulator) -> None:
    held = elsewhere.send(OTHER).provider_id
    assert isinstance(find(sender, MESSAGE, held), NotSeen)
    assert isinstance(find(sender, MESSAGE, "SM" + "0" * 32), Found)


def test_two_equal_texts_to_one_number_do_not_find_each_other(sender: Sender, simulator: TwilioSimulator) -> None:
    first = sender.send(OTHER)
    lose(sender, simulator, MESSAGE, taken=False)
    assert isinstance(find(sender, MESSAGE), NotSeen), "the only one listed is the other's"
    answer = find(sender, OTHER)
    assert isinstance(answer, Found)
    assert answer.receipt.provider_id == first.provider_id


def test_two_lost_texts_alike_share_no_sid(sender: Sender, simulator: TwilioSimulator) -> None:
    lose(sender, simulator, MESSAGE, taken=True)
    lose(sender, simulator, OTHER, taken=False)
    assert isinstance(find(sender, MESSAGE), Found)
    assert isinstance(find(sender, OTHER), NotSeen)
    assert isinstance(find(sender, MESSAGE), Found), "asking again changes nothing"


def test_only_one_of_many_threads_finds_the_only_candidate(simulator: TwilioSimulator) -> None:
    sender = NewPlain()(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url)
    lose(sender, simulator)
    answers: list[LookUp] = []

    def ask(number: int) -> None:
        answers.append(find(sender, replace(MESSAGE, id=f"alike-{number}")))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(isinstance(answer, Found) for answer in answers) == 1


def test_messages_without_an_id_cannot_be_told_apart(sender: Sender, simulator: TwilioSimulator) -> None:
    nameless = replace(MESSAGE, id=None)
    sender.send(nameless)
    assert isinstance(find(sender, nameless), CannotTell)
    assert isinstance(find(sender, MESSAGE), NotSeen), "the only one listed is the other's"


def test_a_trial_accounts_prefix_does_not_hide_a_text(sender_to: SenderTo) -> None:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, body_prefix=TRIAL_PREFIX) as simulator:
        sender = sender_to(simulator.url)
        lose(sender, simulator)
        assert isinstance(find(sender), Found)
        assert isinstance(find(sender, replace(MESSAGE, body=BODY[5:])), CannotTell), "a mere ending is not enough"
        sender.close()


def test_a_text_just_accepted_by_a_messaging_service_is_found_without_date_or_sender(sender_to: SenderTo) -> None:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, sent_after_s=3600) as simulator:
        sender = sender_to(simulator.url)
        message = replace(MESSAGE, sender_id=SERVICE)
        lose(sender, simulator, message)
        answer = find(sender, message)
        sender.close()
    assert isinstance(answer, Found)
    assert (answer.receipt.segments, answer.receipt.raw_status) == (None, "accepted")


@pytest.mark.parametrize("sender_id", ["+15005550009", "MG" + "b" * 32, "Shop"])
def test_the_same_text_from_another_sender_settles_nothing(
    sender_id: str, sender: Sender, elsewhere: Sender, simulator: TwilioSimulator
) -> None:
    elsewhere.send(replace(MESSAGE, sender_id=sender_id))
    assert isinstance(find(sender), CannotTell)
    assert isinstance(find(sender, replace(MESSAGE, sender_id=SERVICE)), CannotTell)


def test_the_same_text_with_other_media_settles_nothing(
    sender: Sender, elsewhere: Sender, simulator: TwilioSimulator
) -> None:
    elsewhere.send(replace(MESSAGE, media_urls=("https://example.invalid/1.png",)))
    assert isinstance(find(sender), CannotTell)


def test_a_picture_without_words_is_found(sender: Sender, simulator: TwilioSimulator) -> None:
    picture = Message(TO, "", media_urls=("https://example.invalid/1.png",), id="picture")
    lose(sender, simulator, picture)
    assert isinstance(find(sender, picture), Found)


def test_without_a_known_sender_the_text_decides(
    simulator: TwilioSimulator, elsewhere: Sender, new_sender: NewSender
) -> None:
    elsewhere.send(MESSAGE)
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, base_url=simulator.url)
    assert isinstance(find(sender), Found)
    sender.close()


def test_what_was_created_before_the_window_does_not_count(
    sender: Sender, elsewhere: Sender, simulator: TwilioSimulator
) -> None:
    elsewhere.send(MESSAGE)
    (text,) = simulator.texts
    assert isinstance(sender.find(MESSAGE, since=text.at + timedelta(seconds=1)), NotSeen)
    assert isinstance(sender.find(MESSAGE, since=text.at), Found), "Twilio cuts its times to whole seconds"


@pytest.mark.parametrize(
    "fault",
    [
        Refused(code=20003, status=401),
        Refused(code=20403, status=403),
        RateLimited(),
        ServerError(status=500),
        ServerError(status=502),
        ServerError(status=503),
        FAULTS["bad_gateway"],
        FAULTS["redirected"],
        FAULTS["empty_success"],
        FAULTS["page_success"],
        FAULTS["list_success"],
        FAULTS["null_success"],
        FAULTS["cut_status_line"],
        FAULTS["cut_headers"],
        FAULTS["cut_body"],
        FAULTS["lost_before_taken"],
        FAULTS["closed_before_taken"],
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_list_that_is_refused_or_broken_cannot_tell(fault: Fault, sender: Sender, simulator: TwilioSimulator) -> None:
    simulator.script(fault, on=Call.LOOK_UP)
    answer = find(sender)
    assert isinstance(answer, CannotTell)
    assert answer.why
    assert TO[1:] not in answer.why
    assert simulator.gets == 1


@pytest.mark.parametrize("name", ["hang", "slow_headers", "slow_body"])
def test_a_list_that_does_not_end_in_time_cannot_tell(
    name: str, simulator: TwilioSimulator, sender_to: SenderTo
) -> None:
    sender = sender_to(simulator.url, timeout_s=0.5)
    simulator.script(FAULTS[name], on=Call.LOOK_UP)
    began_s = monotonic()
    assert isinstance(find(sender), CannotTell)
    assert monotonic() - began_s < 1.0
    sender.close()


def test_test_credentials_cannot_tell(sender_to: SenderTo) -> None:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, test_credentials=True) as simulator:
        sender = sender_to(simulator.url)
        assert find(sender) == CannotTell("Twilio answered the look-up with HTTP 403")
        sender.close()


def test_a_refused_connection_cannot_tell(sender_to: SenderTo) -> None:
    with refusing_port() as address:
        assert isinstance(find(sender_to(f"http://{address}")), CannotTell)


def test_a_list_that_lags_says_not_seen_with_its_time(sender_to: SenderTo) -> None:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, list_lag_s=3600) as simulator:
        sender = sender_to(simulator.url)
        lose(sender, simulator)
        before = datetime.now(UTC)
        answer = find(sender)
        sender.close()
    assert isinstance(answer, NotSeen)
    assert before <= answer.as_of <= datetime.now(UTC)


def row(**fields: object) -> dict[str, object]:
    usual: dict[str, object] = {
        "sid": "SM" + "1" * 32,
        "to": TO,
        "from": FROM,
        "body": BODY,
        "direction": "outbound-api",
        "date_created": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000"),
        "num_media": "0",
        "num_segments": "1",
        "status": "sent",
        "messaging_service_sid": None,
    }
    return usual | fields


def page(*rows: object, following: object = None) -> bytes:
    return http(200, {"messages": list(rows), "next_page_uri": following})


AnsweredWith = Callable[..., LookUp]


@pytest.fixture
def answered_with(sender_to: SenderTo) -> AnsweredWith:
    def answered(*pages: bytes) -> LookUp:
        with clerk(*pages) as server:
            sender = sender_to(server.url)
            answer = find(sender)
            sender.close()
            return answer

    return answered


def test_every_page_is_read(sender_to: SenderTo) -> None:
    others = [
        row(sid=f"SM{number:032}", body="x", date_created="Mon, 01 Jan 2024 00:00:00 +0000") for number in range(3)
    ]
    with clerk(page(*others, following="/2010-04-01/next?Page=1"), page(following="/again"), page(row())) as server:
        sender = sender_to(server.url)
        assert isinstance(find(sender), Found)
        sender.close()
    targets = [head.split(" ", maxsplit=2)[1] for head in server.heads]
    assert targets[1:] == ["/2010-04-01/next?Page=1", "/again"]


def test_a_list_without_end_cannot_tell(answered_with: AnsweredWith) -> None:
    answer = answered_with(page(following="/for-ever"))
    assert answer == CannotTell(f"the list of messages to this number has more than {MOST_PAGES} pages")


def test_an_error_on_a_later_page_cannot_tell(answered_with: AnsweredWith) -> None:
    assert isinstance(answered_with(page(row(), following="/next"), http(503, "")), CannotTell)


@pytest.mark.parametrize(
    "answer",
    [
        http(200, {"messages": None, "next_page_uri": None}),
        http(200, {"errors": [], "next_page_uri": None}),
        http(200, {"messages": []}),
        http(200, {"messages": [], "next_page_uri": 7}),
        http(200, {"messages": [], "next_page_uri": "https://elsewhere.invalid/"}),
        http(200, {"messages": [None], "next_page_uri": None}),
        http(200, {"messages": [{"sid": ""}], "next_page_uri": None}),
        http(200, {"messages": [{"sid": 7}], "next_page_uri": None}),
        http(206, {"messages": [], "next_page_uri": None}),
    ],
)
def test_what_is_no_list_of_messages_cannot_tell(answer: bytes, answered_with: AnsweredWith) -> None:
    assert isinstance(answered_with(answer), CannotTell)


@pytest.mark.parametrize("direction", ["inbound", "outbound-reply", "outbound-call"])
def test_what_the_api_did_not_create_does_not_count(direction: str, answered_with: AnsweredWith) -> None:
    assert isinstance(answered_with(page(row(direction=direction))), NotSeen)


@pytest.mark.parametrize("odd", [{"date_created": None}, {"date_created": "soon"}, {"direction": None}, {"from": None}])
def test_what_cannot_be_read_excludes_nothing(odd: dict[str, object], answered_with: AnsweredWith) -> None:
    assert isinstance(answered_with(page(row(**odd))), Found)


@pytest.mark.parametrize(
    "odd", [{"body": None}, {"body": ""}, {"to": None}, {"num_media": "2"}, {"from": "+15005550001"}]
)
def test_what_is_not_exactly_this_text_settles_nothing(odd: dict[str, object], answered_with: AnsweredWith) -> None:
    assert isinstance(answered_with(page(row(**odd))), CannotTell)


def test_a_row_without_a_date_was_accepted_when_the_list_was_asked_for(answered_with: AnsweredWith) -> None:
    before = datetime.now(UTC)
    answer = answered_with(page(row(date_created=None, num_segments="x", status=None)))
    assert isinstance(answer, Found)
    assert before <= answer.receipt.accepted_at <= datetime.now(UTC)
    assert (answer.receipt.segments, answer.receipt.raw_status) == (None, "")


def test_a_listed_message_shows_no_number_and_no_text() -> None:
    told = repr(ListedMessage.from_json(row()))
    assert BODY not in told
    assert TO[1:] not in told
    assert FROM[1:] not in told


def test_sids_beyond_the_bound_are_forgotten_oldest_first() -> None:
    sids = OwnSids(most=2)
    assert all(sids.claim(sid, sid) for sid in ("a", "b", "c"))
    assert not sids.is_anothers("a", "x")
    assert sids.is_anothers("b", "x")
    assert not sids.is_anothers("b", "b")
    assert not sids.claim("c", "x")
