"""Messages are planned before they are queued, and come back when nobody works on them any more."""

from __future__ import annotations

import asyncio
import math
import random
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.store.clock import pass_time
from tests.store.journeys import NUMBER, attempt, begin, claimed, everything_in, message, miscounted, row_of
from tests.store.told import BUSY, retry

from smsretry import (
    Accepted,
    AsyncDispatcher,
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    InvalidMessage,
    Message,
)
from smsretry.adapters.generic import AsyncGenericQueue
from smsretry.core.claims import Claim, Ended, NotDue
from smsretry.core.outcome import AttemptState, DeferReason, Deferred, Outcome
from smsretry.store import Recovered, SQLStore, recover, requeue
from smsretry.testing import ScriptedSender

LOST = Failure.of(FailureKind.LOST_ANSWER)
REFUSED = Failure.of(FailureKind.SENDER_CONFIG, code=21606, provider="twilio")


@dataclass(slots=True)
class Queue:
    """A task that can queue messages: it keeps them, or fails for those in ``refuses``."""

    queued: list[Message] = field(default_factory=list)
    refuses: frozenset[str] = frozenset()

    def send(self, one: Message, /) -> None:
        if one.id in self.refuses:
            raise ConnectionError("the broker is away")
        self.queued.append(one)

    @property
    def ids(self) -> list[str]:
        return [str(one.id) for one in self.queued]


def test_what_is_planned_is_counted_once(store: SQLStore) -> None:
    messages = [message(f"m{number}") for number in range(1_201)]
    assert store.plan(iter(messages)) == 1_201
    assert store.plan(messages) == 0
    assert (store.campaign_summary("spring").pending, miscounted(store)) == (1_201, {})


def test_what_is_planned_for_later_waits(store: SQLStore) -> None:
    store.plan(message("m"), due=datetime.now(UTC) + timedelta(hours=1))
    answer = begin(store, message("m"))
    assert isinstance(answer, NotDue)
    assert 3_500 < answer.left_s <= 3_600


@pytest.mark.parametrize("other", [message("m", "another"), message("m", to="+15005550009")])
def test_an_id_of_another_message_is_not_planned_nor_what_is_planned_with_it(store: SQLStore, other: Message) -> None:
    store.plan(message("m"))
    with pytest.raises(InvalidMessage, match="belongs to a message with another"):
        store.plan([message("beside"), other])
    with pytest.raises(InvalidMessage, match="belongs to a message with another"):
        store.plan([message("twice"), message("twice", "another")])
    assert (store.campaign_summary("spring").planned, miscounted(store)) == (1, {})


def test_a_campaign_that_is_run_again_keeps_its_first_texts(store: SQLStore) -> None:
    store.plan(message("m", "It is 12:04."))
    assert store.plan([message("m", "It is 12:05."), message("new")], rerun=True) == 1
    assert claimed(store, message("m", "It is 12:06."), rerun=True).message.body == "It is 12:04."
    with pytest.raises(InvalidMessage, match="another recipient"):
        store.plan(message("m", to="+15005550009"), rerun=True)


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (
            {"due": datetime.now(UTC).replace(tzinfo=None)},
            "due must be an aware datetime or None, got a naive datetime",
        ),
        ({"due": "2026-03-01"}, "due must be an aware datetime or None, got a str"),
        ({"due_in_s": math.nan}, "due_in_s must be a number of seconds.* got nan"),
        ({"due_in_s": math.inf}, "due_in_s must be a number of seconds.* got inf"),
        ({"due_in_s": 1e300}, "due_in_s must be a number of seconds"),
        ({"due_in_s": "60"}, "due_in_s must be a number of seconds.* got '60'"),
    ],
)
def test_a_time_that_is_none_plans_nothing(store: SQLStore, when: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        store.plan(message("m"), **when)
    assert store.message("m") is None


def test_planning_needs_an_id(store: SQLStore) -> None:
    with pytest.raises(InvalidMessage, match="needs an id"):
        store.plan(Message("+15005550006", "no id"))


@pytest.mark.parametrize("said_before", [False, True])
def test_what_is_left_out_after_it_was_planned_is_not_sent(store: SQLStore, *, said_before: bool) -> None:
    if said_before:
        store.skipped(message("m"), "no consent")
    store.plan(message("m"))
    for _ in range(2):
        store.skipped(message("m"), "no consent")
    summary = store.campaign_summary("spring")
    assert (summary.skipped, summary.pending, miscounted(store)) == (1, 0, {})
    sender = ScriptedSender([])
    end = Dispatcher(sender, journal=store).attempt(message("m"))
    assert isinstance(end, GaveUp)
    assert (end.reason, sender.sent) == (GiveUpReason.CANCELED, [])
    assert isinstance(begin(store, message("m", "rendered anew"), rerun=True), Ended)
    pass_time(store, 3_600)
    assert recover(store, Queue()) == Recovered()
    assert (store.plan(message("m")), store.cancel("m"), row_of(store, "m").body) == (0, False, None)
    assert store.campaign_summary("spring").skipped == 1


def test_a_message_behind_a_refused_account_may_still_be_left_out(store: SQLStore) -> None:
    store.hold("a", Failure.of(FailureKind.AUTH))
    begin(store, message("m"))
    store.skipped(message("m"), "no consent")
    assert isinstance(begin(store, message("m")), Ended)
    assert (store.campaign_summary("spring").skipped, miscounted(store)) == (1, {})


def test_a_message_of_which_a_send_is_known_is_not_left_out(store: SQLStore) -> None:
    claimed(store, message("sending"))
    attempt(store, message("retried"), BUSY)
    attempt(store, message("lost"), LOST)
    attempt(store, message("requeued"), REFUSED)
    requeue(store, Queue(), campaign="spring", kind="sender_config")
    attempt(store, message("taken"))
    for name in ("sending", "retried", "lost", "requeued", "taken"):
        store.skipped(message(name), "no consent")
    summary = store.campaign_summary("spring")
    assert (summary.skipped, summary.sent, summary.planned, miscounted(store)) == (0, 1, 5, {})


def test_what_was_left_out_or_only_analytics_knew_is_planned_as_pending(store: SQLStore) -> None:
    store.skipped(message("left-out"), "no consent")
    store.record(retry("known", 1))
    assert store.plan([message("left-out"), message("known")]) == 0
    summary = store.campaign_summary("spring")
    assert (summary.pending, summary.skipped, miscounted(store)) == (2, 0, {})
    pass_time(store, 61)
    assert {one.message_id for one in store.overdue()} == {"left-out", "known"}


def test_planning_what_has_ended_changes_nothing(store: SQLStore) -> None:
    attempt(store, message("m"))
    assert store.plan(message("m")) == 0
    assert store.campaign_summary("spring").sent == 1
    assert "A secret" not in everything_in(store)


def test_a_planned_message_that_the_queue_lost_comes_back(store: SQLStore) -> None:
    store.plan(message("m", metadata={"order": 7}))
    queue = Queue()
    assert recover(store, queue) == Recovered()
    pass_time(store, 61)
    assert recover(store, queue) == Recovered(handed_over=1)
    assert queue.queued == [message("m", metadata={"order": 7})]


def due_for_a_retry(store: SQLStore) -> None:
    attempt(store, message("m"), BUSY)


def put_off_in_doubt(store: SQLStore) -> None:
    attempt(store, message("m"), LOST)


def claimed_by_a_dead_worker(store: SQLStore) -> None:
    claimed(store, message("m"))


def put_off_by_a_hold(store: SQLStore) -> None:
    store.hold("a", REFUSED)
    begin(store, message("m"))


@pytest.mark.parametrize("left", [due_for_a_retry, put_off_in_doubt, claimed_by_a_dead_worker, put_off_by_a_hold])
def test_whatever_was_begun_and_is_past_its_time_comes_back(store: SQLStore, left: Callable[[SQLStore], None]) -> None:
    left(store)
    assert store.overdue() == ()
    pass_time(store, 59)
    assert store.overdue() == ()
    pass_time(store, 62)
    assert [one.message_id for one in store.overdue()] == ["m"]


def test_what_has_ended_does_not_come_back(store: SQLStore) -> None:
    attempt(store, message("m"))
    pass_time(store, 1e6)
    assert store.overdue() == ()


def test_what_is_handed_over_comes_back_ever_more_slowly(store: SQLStore) -> None:
    store.plan(message("m"))
    pass_time(store, 61)
    assert len(store.overdue()) == 1
    assert [minutes_until_it_comes_back(store) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def minutes_until_it_comes_back(store: SQLStore) -> int:
    for minutes in range(1, 100):
        pass_time(store, 60)
        if store.overdue():
            return minutes
    return 0


def test_a_message_that_was_worked_on_meanwhile_comes_back_at_its_own_time(store: SQLStore) -> None:
    store.plan(message("m"))
    pass_time(store, 61)
    store.overdue()
    attempt(store, message("m"), BUSY)
    row = row_of(store, "m")
    assert (row.handed_over_at, row.hand_overs) == (None, 0)


def test_what_was_never_handed_over_comes_first(store: SQLStore) -> None:
    store.plan([message(f"old-{number}") for number in range(3)])
    pass_time(store, 3_600)
    store.overdue()
    store.plan(message("young"))
    pass_time(store, 3_600)
    assert [one.message_id for one in store.overdue(limit=1)] == ["young"]


def test_what_the_queue_does_not_take_is_tried_again(store: SQLStore, caplog: pytest.LogCaptureFixture) -> None:
    store.plan([message("m"), message("n")])
    pass_time(store, 61)
    assert recover(store, Queue(refuses=frozenset({"m"}))) == Recovered(handed_over=1, failed=1)
    assert re.search(r"m could not be queued again \(ConnectionError in send, test_recovery.py:\d+\)\.", caplog.text)
    pass_time(store, 61)
    queue = Queue()
    assert recover(store, queue) == Recovered(handed_over=2)


def test_an_applications_own_function_gets_id_and_metadata(store: SQLStore) -> None:
    store.plan(message("m", metadata={"order": 7}))
    pass_time(store, 61)
    got: list[tuple[str, Mapping[str, Any]]] = []
    assert recover(store, lambda name, metadata: got.append((name, metadata))) == Recovered(handed_over=1)
    assert got == [("m", {"order": 7})]


def test_more_than_one_batch_is_handed_over_once(store: SQLStore) -> None:
    store.plan([message(f"m{number}") for number in range(450)])
    pass_time(store, 61)
    queue = Queue()
    assert recover(store, queue, grace_s=0.0) == Recovered(handed_over=450)
    assert len(set(queue.ids)) == 450


def test_a_run_over_a_slow_queue_does_not_come_round(store: SQLStore) -> None:
    store.plan([message(f"m{number}") for number in range(201)])
    pass_time(store, 61)
    waits = iter([1.2])
    done = recover(store, lambda name, metadata: time.sleep(next(waits, 0.0)), grace_s=0.0)
    assert done == Recovered(handed_over=201)


def test_recover_run_several_times_at_once_hands_over_once(open_store: Callable[[], SQLStore]) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].plan([message(f"m{number}") for number in range(300)])
    pass_time(stores[0], 61)
    queue, gate = Queue(), threading.Barrier(4)

    def run(store: SQLStore) -> None:
        gate.wait()
        recover(store, queue)

    together([(run, (store,)) for store in stores])
    assert Counter(queue.ids) == Counter({f"m{number}": 1 for number in range(300)})


def test_recover_beside_a_worker_that_is_merely_slow_doubles_nothing(store: SQLStore) -> None:
    slow = claimed(store, message("m"))
    pass_time(store, 121)
    queue, sender = Queue(), ScriptedSender()
    recover(store, queue)
    renewed = store.renew(slow, lease_s=60)
    outcome = Dispatcher(sender, journal=store).attempt(queue.queued[0])
    assert (renewed, isinstance(outcome, Deferred), sender.sent) == (True, True, [])


def test_without_its_text_a_lost_message_ends_unrecoverable(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False) as store:
        store.plan([message("planned"), message("doubtful")])
        attempt(store, message("doubtful"), LOST)
        pass_time(store, 90_000)
        assert recover(store, Queue()) == Recovered(unrecoverable=2)
        summary = store.campaign_summary("spring")
        assert (summary.failed, summary.unknown, summary.pending, miscounted(store)) == (1, 1, 0, {})
        reasons = {(one.kind, one.reason) for one in store.failure_reasons("spring")}
        assert reasons == {("other", "unrecoverable"), ("other", "outcome_unknown")}
        answer = begin(store, message("planned"))
        assert isinstance(answer, Ended)
        assert isinstance(answer.outcome, GaveUp)
        assert answer.outcome.reason is GiveUpReason.UNRECOVERABLE
        assert store.unrecoverable("planned") == store.unrecoverable("unheard-of") == 0


def test_without_its_text_a_message_that_merely_waits_in_a_long_queue_is_sent(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False) as store:
        store.plan(message("m"))
        pass_time(store, 3_600)
        assert recover(store, Queue()) == Recovered(without_text=1)
        assert isinstance(attempt(store, message("m")), Accepted)
        assert (store.campaign_summary("spring").sent, miscounted(store)) == (1, {})


def test_how_long_a_message_without_its_text_may_wait_is_set(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False, lost_after_s=600.0) as store:
        store.plan(message("m"))
        pass_time(store, 599)
        assert recover(store, Queue()) == Recovered(without_text=1)
        pass_time(store, 3_600)
        assert recover(store, Queue()) == Recovered(unrecoverable=1)


@pytest.mark.parametrize("lost_after_s", [0.0, -1.0, math.nan, math.inf, "86400"])
def test_a_time_after_which_nothing_is_lost_is_refused(lost_after_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="lost_after_s must be more than 0"):
        SQLStore("sqlite://", lost_after_s=lost_after_s)


def test_a_message_without_its_text_that_a_worker_has_begun_meanwhile_goes_on(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False) as store:
        store.plan(message("m"))
        pass_time(store, 90_000)
        assert len(store.overdue()) == 1
        claim = claimed(store, message("m"))
        assert store.unrecoverable("m") == 0
        assert store.renew(claim, lease_s=60)


def test_without_its_text_only_the_application_sends_a_failed_message_once_more(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False) as store:
        attempt(store, message("m", metadata={"order": 7}), REFUSED)
        mended: dict[str, Any] = {"campaign": "spring", "kind": "sender_config"}
        assert requeue(store, Queue(), **mended) == Recovered(without_text=1)
        assert store.campaign_summary("spring").failed == 1
        got: list[tuple[str, Mapping[str, Any]]] = []
        assert requeue(store, lambda name, metadata: got.append((name, metadata)), **mended) == Recovered(handed_over=1)
        assert got == [("m", {"order": 7})]
        assert (store.campaign_summary("spring").pending, miscounted(store)) == (1, {})


def test_without_its_text_a_message_is_rendered_anew_by_the_application(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False) as store:
        store.plan(message("m", metadata={"order": 7}))
        pass_time(store, 61)
        got: list[str] = []
        assert recover(store, lambda name, _: got.append(name)) == Recovered(handed_over=1)
        assert got == ["m"]
        assert isinstance(attempt(store, message("m")), Accepted)


def rendered_anew(store: SQLStore, sender: ScriptedSender) -> Outcome:
    return Dispatcher(sender, journal=store).attempt(message("m", "It is 12:05."), rerun=True)


def test_without_its_first_text_a_message_is_sent_as_it_was_rendered_anew(store_without_texts: SQLStore) -> None:
    store, sender = store_without_texts, ScriptedSender()
    attempt(store, message("m", "It is 12:04."), BUSY)
    pass_time(store, 61)
    assert isinstance(rendered_anew(store, sender), Accepted)
    assert [one.body for one in sender.sent] == ["It is 12:05."]
    assert (store.campaign_summary("spring").sent, miscounted(store)) == (1, {})


def test_what_was_rendered_anew_waits_for_a_like_text(store_without_texts: SQLStore) -> None:
    store, sender = store_without_texts, ScriptedSender()
    attempt(store, message("m", "It is 12:04."), BUSY)
    pass_time(store, 61)
    claimed(store, message("like", "It is 12:05."))
    outcome = rendered_anew(store, sender)
    assert isinstance(outcome, Deferred)
    assert (outcome.reason, sender.sent) == (DeferReason.BUSY, [])


def doubtful(store: SQLStore) -> None:
    attempt(store, message("m", "It is 12:04."), LOST)


def dead(store: SQLStore) -> None:
    claimed(store, message("m", "It is 12:04."))


@pytest.mark.parametrize("left", [doubtful, dead])
def test_what_may_have_been_sent_with_a_text_that_was_not_kept_ends_as_unknown(
    store_without_texts: SQLStore, left: Callable[[SQLStore], None]
) -> None:
    store, sender = store_without_texts, ScriptedSender()
    left(store)
    assert isinstance(rendered_anew(store, sender), Deferred)
    pass_time(store, 300)
    outcome = rendered_anew(store, sender)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, sender.sent) == (GiveUpReason.OUTCOME_UNKNOWN, [])
    assert (store.campaign_summary("spring").unknown, miscounted(store)) == (1, {})
    assert rendered_anew(store, sender) == outcome


def test_what_the_provider_is_known_to_have_is_accepted_however_it_was_rendered(store_without_texts: SQLStore) -> None:
    store, sender = store_without_texts, ScriptedSender()
    dead(store)
    pass_time(store, 300)
    evidence = AttemptState(provider_id="SM7")
    outcome = Dispatcher(sender, journal=store).attempt(message("m", "It is 12:05."), evidence, rerun=True)
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.provider_id == "SM7"


@pytest.mark.parametrize("other", [message("m", "It is 12:05."), message("m", "It is 12:04.", to="+15005550009")])
def test_without_its_text_another_message_under_its_id_is_refused(
    store_without_texts: SQLStore, other: Message
) -> None:
    attempt(store_without_texts, message("m", "It is 12:04."), BUSY)
    rerun = other.to != NUMBER
    with pytest.raises(InvalidMessage, match="belongs to a message with another"):
        Dispatcher(ScriptedSender(), journal=store_without_texts).attempt(other, rerun=rerun)


@pytest.fixture
def store_without_texts(file_url: str) -> Iterator[SQLStore]:
    """Lend an empty store that keeps no texts."""
    with SQLStore(file_url, keep_bodies=False) as store:
        yield store


@pytest.mark.parametrize("kind", ["bogus", "invalid_number", FailureKind.OPTED_OUT, None])
def test_what_nobody_can_mend_is_not_sent_once_more(store: SQLStore, kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\(account, auth, geo_permission, sender_config\), got"):
        requeue(store, Queue(), campaign="spring", kind=kind)


def test_what_is_no_message_is_not_planned(store: SQLStore) -> None:
    texts: Any = ["+15005550006"]
    with pytest.raises(InvalidMessage, match=r"must be a smsretry\.Message, got str"):
        store.plan(texts)


def test_what_the_account_was_refused_for_is_sent_once_more(store: SQLStore) -> None:
    for name in ("m", "n"):
        attempt(store, message(name), REFUSED)
    attempt(store, message("elsewhere", campaign="autumn"), REFUSED)
    attempt(store, message("wrong"), Failure.of(FailureKind.INVALID_NUMBER))
    queue = Queue()
    assert requeue(store, queue, campaign="spring", kind="sender_config") == Recovered(handed_over=2)
    assert requeue(store, queue, campaign="spring", kind="sender_config") == Recovered()
    summary = store.campaign_summary("spring")
    assert (summary.pending, summary.failed, miscounted(store)) == (2, 1, {})
    sender = ScriptedSender()
    outcomes = [Dispatcher(sender, journal=store).attempt(one) for one in queue.queued]
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted]
    summary = store.campaign_summary("spring")
    assert (summary.sent, summary.failed, summary.doubled, miscounted(store)) == (2, 1, 0, {})
    assert [(one.round, one.outcome.value) for one in store.history("m")] == [(1, "failed"), (2, "accepted")]


def test_a_message_of_a_new_round_that_the_queue_lost_comes_back(store: SQLStore) -> None:
    attempt(store, message("m"), REFUSED)
    requeue(store, Queue(), campaign="spring", kind="sender_config")
    pass_time(store, 61)
    assert recover(store, Queue()) == Recovered(handed_over=1)


def test_a_message_without_a_campaign_is_sent_once_more(store: SQLStore) -> None:
    attempt(store, message("m", campaign=None), REFUSED)
    assert requeue(store, Queue(), campaign=None, kind="sender_config") == Recovered(handed_over=1)
    assert (store.campaign_summary(None).pending, miscounted(store)) == (1, {})


def test_what_was_just_requeued_is_not_handed_over_beside_it(store: SQLStore) -> None:
    attempt(store, message("m"), REFUSED)
    requeue(store, Queue(), campaign="spring", kind="sender_config")
    assert store.overdue(grace_s=0.0) == ()
    pass_time(store, 2)
    assert [one.message_id for one in store.overdue(grace_s=0.0)] == ["m"]


def test_a_new_round_has_all_its_retries(store: SQLStore) -> None:
    attempt(store, message("m"), BUSY)
    pass_time(store, 10)
    attempt(store, message("m"), REFUSED)
    requeue(store, Queue(), campaign="spring", kind="sender_config")
    claim = claimed(store, message("m"))
    assert (claim.state.retries, claim.state.round) == (0, 2)


def test_the_counters_add_up_at_every_instant(open_store: Callable[[], SQLStore]) -> None:
    store, draw = open_store(), random.Random(7)
    names = [f"m{number}" for number in range(60)]
    store.plan([message(name) for name in names])
    store.skipped("left-out", "no consent", campaign="spring")
    answers = [None, None, BUSY, REFUSED, LOST, Failure.of(FailureKind.INVALID_NUMBER)]
    script = [(draw.choice(names), draw.choice(answers)) for _ in range(480)]
    done, seen, errors = threading.Event(), list[tuple[int, dict[str, Any]]](), list[Exception]()

    def work(own: SQLStore, part: list[tuple[str, Failure | None]]) -> None:
        try:
            for name, answer in part:
                one_step(own, name, answer)
        except Exception as error:
            errors.append(error)

    def watch(own: SQLStore) -> None:
        while not done.is_set():
            seen.append((own.campaign_summary("spring").planned, miscounted(own)))

    watcher = threading.Thread(target=watch, args=(open_store(),))
    watcher.start()
    shared = open_store()
    together([(work, (shared if number % 2 else open_store(), script[number::8])) for number in range(8)])
    done.set()
    watcher.join()
    assert errors == []
    assert seen
    assert {planned for planned, _ in seen} == {61}
    assert [wrong for _, wrong in seen if wrong] == []
    assert store.campaign_summary("spring").doubled == 0


def one_step(store: SQLStore, name: str, answer: Failure | None) -> None:
    """Send, cancel, recover or requeue, whatever comes."""
    match zlib.crc32(f"{name} {answer}".encode()) % 8:
        case 0:
            store.cancel(name)
        case 1:
            recover(store, Queue(), grace_s=0.0)
        case 2:
            requeue(store, Queue(), campaign="spring", kind="sender_config")
        case _:
            sender = ScriptedSender([] if answer is None else [answer])
            Dispatcher(sender, journal=store).attempt(message(name))


def together(calls: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    threads = [threading.Thread(target=call, args=arguments) for call, arguments in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_claim_is_told_from_a_message_that_nobody_has(store: SQLStore) -> None:
    store.plan(message("m"))
    pass_time(store, 61)
    assert isinstance(begin(store, message("m")), Claim)
    assert store.overdue() == ()


@pytest.fixture
def touched(store: SQLStore) -> Iterator[dict[str, list[Any]]]:
    """Lend what a store locks from now on, in this order: message ids, and shards of counters."""
    seen: dict[str, list[Any]] = {"rows": [], "shards": []}

    def note(conn: Any, clauseelement: Any, multiparams: Any, params: dict[str, Any], execution_options: Any) -> None:
        del conn, clauseelement, multiparams, execution_options
        if "shard" in params:
            seen["shards"].append(params["shard"])
        if "key" in params:
            seen["rows"].append(params["key"])

    engine = store._database._ready_engine()
    sa.event.listen(engine, "before_execute", note)
    yield seen
    sa.event.remove(engine, "before_execute", note)


def test_whoever_plans_locks_rows_and_counters_in_one_order_and_so_nobody_waits_in_a_circle(
    store: SQLStore, touched: dict[str, list[Any]]
) -> None:
    known = [message(f"known-{number}") for number in range(30)]
    for one in known:
        store.skipped(one, "no consent")
    touched.update(rows=[], shards=[])
    store.plan([*known, *(message(f"new-{number}") for number in range(30))][::-1])
    assert touched["rows"] == sorted(str(one.id) for one in known)
    assert touched["shards"] == sorted(set(touched["shards"]))
    assert (len(touched["shards"]), miscounted(store)) == (16, {})


def test_whoever_sends_once_more_locks_counters_in_the_same_order(
    store: SQLStore, touched: dict[str, list[Any]]
) -> None:
    for number in range(60):
        attempt(store, message(f"m{number}"), REFUSED)
    touched.update(rows=[], shards=[])
    ids = [one.message_id for one in store.mended("spring", "sender_config")]
    assert ids == sorted(f"m{number}" for number in range(60))
    assert touched["shards"] == sorted(set(touched["shards"]))
    assert (len(touched["shards"]), miscounted(store)) == (16, {})


@pytest.mark.parametrize("run", [recover, lambda *parts: requeue(*parts, campaign="spring", kind="auth")])
def test_parts_that_cannot_queue_are_told_before_anything_is_taken(store: SQLStore, run: Any) -> None:
    store.plan(message("m"))
    pass_time(store, 3_600.0)
    with pytest.raises(ConfigurationError, match=r"store must be an SQLStore, got Queue.* The store comes first"):
        run(Queue(), store)
    for nothing in (None, "shop.send_sms", object()):
        with pytest.raises(ConfigurationError, match=f"got {type(nothing).__name__}"):
            run(store, nothing)
    assert row_of(store, "m").hand_overs == 0
    assert store.recover(Queue()).handed_over == 1


def test_what_a_queue_lacks_is_told_in_its_own_words(store: SQLStore, caplog: pytest.LogCaptureFixture) -> None:
    def queue(message_id: str, metadata: Mapping[str, Any]) -> None:
        raise ConfigurationError("TWILIO_ACCOUNT_SID is missing.")

    store.plan(message("m"))
    pass_time(store, 3_600.0)
    assert store.recover(queue).failed == 1
    assert "m could not be queued again (ConfigurationError: TWILIO_ACCOUNT_SID is missing.)" in caplog.text


def test_a_queue_that_is_awaited_is_refused_before_anything_is_counted(store: SQLStore) -> None:
    class Awaited:
        async def send(self, message: Message, /) -> None: ...

    async def queue(message_id: str, metadata: object) -> None: ...

    store.plan(message("m"))
    pass_time(store, 3_600.0)
    for one in (Awaited(), queue):
        with pytest.raises(ConfigurationError, match="awaited"):
            store.recover(one)
    assert len(store.overdue()) == 1


def test_a_queue_that_is_awaited_recovers_in_its_loop(file_url: str) -> None:
    jobs: list[dict[str, Any]] = []

    async def again(envelope: dict[str, Any], delay_s: float) -> None:
        del delay_s
        jobs.append(envelope)

    with SQLStore(file_url) as one:
        one.plan(message("m"))
        pass_time(one, 3_600.0)

        def never() -> AsyncDispatcher:
            raise NotImplementedError

        texts = AsyncGenericQueue(never, again=again, journal=one)
        assert asyncio.run(texts.recover(one)).handed_over == 1
    assert [job["message"]["id"] for job in jobs] == ["m"]
