"""The journal in a database: the contract of every journal, and what only tables can show."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from tests.store.clock import pass_time
from tests.store.conftest import emptied
from tests.store.held import REFUSED, WORKERS, campaign_of
from tests.store.journeys import attempt, begin, claimed, everything_in, message, miscounted, row_of
from tests.store.told import BUSY, NO_NUMBER, accepted, failed, retry

from smsretry import Accepted, Failure, FailureKind, GaveUp, GiveUpReason, InvalidMessage, Receipt, RetryAfter
from smsretry.core.claims import Busy, Claim, Ended, OnHold, Others
from smsretry.core.outcome import AttemptState
from smsretry.store import SQLStore
from smsretry.testing.journal_contract import JournalContract


class TestSQLStore(JournalContract):
    @pytest.fixture(autouse=True)
    def lend(self, store: SQLStore) -> None:
        self.store = store

    def make_journal(self) -> SQLStore:
        return self.store

    def pass_time(self, seconds: float) -> None:
        pass_time(self.store, seconds)


def late_acceptance(store: SQLStore, claim: Claim, sid: str) -> None:
    receipt = Receipt("twilio", sid, claim.now, 1, "queued")
    store.finish(claim, Accepted(receipt), accepted(str(claim.message.id), sid=sid))


def test_a_refusal_shows_both_fingerprints_and_changes_no_row(store: SQLStore) -> None:
    claimed(store, message("m"))
    before = row_of(store, "m")
    with pytest.raises(InvalidMessage, match=r"another text: its fingerprint is [0-9a-f]{12}, .* [0-9a-f]{12}\. Use"):
        begin(store, message("m", "another"))
    with pytest.raises(InvalidMessage, match=r"another recipient: its fingerprint is [0-9a-f]{12}"):
        begin(store, message("m", to="+15005550009"))
    assert row_of(store, "m") == before
    assert store.campaign_summary("spring").planned == 1


def test_messages_are_compared_with_what_is_known_of_their_ids(store: SQLStore) -> None:
    store.plan([message("m"), message("n")])
    claimed(store, message("o"))
    store.skipped("p", "no consent", campaign="spring")
    before = everything_in(store)
    other = [message("n", "another"), message("o", to="+15005550009")]
    assert store.compare([message("m"), *other, message("p"), message("q")]) == {"m": True, "n": False, "o": False}
    assert store.compare([]) == {}
    assert everything_in(store) == before


def test_media_are_a_part_of_the_text(store: SQLStore) -> None:
    claimed(store, message("m", media_urls=("https://example.org/a.png",)))
    with pytest.raises(InvalidMessage, match="another text"):
        begin(store, message("m", media_urls=("https://example.org/b.png",)))


def test_the_very_receipt_is_replayed(store: SQLStore) -> None:
    receipt = Receipt("twilio", "SM1", datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC), 3, "queued")
    assert attempt(store, message("m"), receipt) == attempt(store, message("m")) == Accepted(receipt)


def test_an_end_is_replayed_with_its_failure(store: SQLStore) -> None:
    first = attempt(store, message("m"), NO_NUMBER)
    assert first == attempt(store, message("m")) == GaveUp(NO_NUMBER, GiveUpReason.PERMANENT, 1)
    assert store.campaign_summary("spring").failed == 1


def test_replays_and_refusals_count_nothing(store: SQLStore) -> None:
    for _ in range(3):
        attempt(store, message("m"))
    summary = store.campaign_summary("spring")
    assert (summary.planned, summary.sent, summary.deferred, len(store.history("m"))) == (1, 1, 0, 1)


def test_a_message_that_analytics_alone_knew_goes_on_where_it_stood(store: SQLStore) -> None:
    store.record(retry("m", 1))
    claim = claimed(store, message("m"))
    assert claim.state.retries == 1
    assert isinstance(begin(store, message("m2", claim.message.body)), Busy)
    assert (store.campaign_summary("spring").pending, miscounted(store)) == (2, {})


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (accepted("m"), Accepted),
        (failed("m"), GaveUp),
        (failed("m", reason=GiveUpReason.EXPIRED, failure=BUSY), GaveUp),
    ],
)
def test_what_analytics_alone_saw_ending_has_ended(store: SQLStore, event: object, end: type) -> None:
    store.record(event)
    answer = begin(store, message("m"))
    assert isinstance(answer, Ended)
    assert isinstance(answer.outcome, end)
    assert row_of(store, "m").body is None


def test_a_message_that_was_left_out_and_is_begun_is_pending(store: SQLStore) -> None:
    store.skipped(message("m"), "no consent")
    claimed(store, message("m"))
    summary = store.campaign_summary("spring")
    assert (summary.planned, summary.pending, summary.skipped, miscounted(store)) == (1, 1, 0, {})


def test_a_second_id_of_the_provider_is_a_doubled_text(store: SQLStore) -> None:
    frozen = claimed(store, message("m"))
    pass_time(store, 61)
    over = claimed(store, message("m"))
    late_acceptance(store, over, "SM-over")
    late_acceptance(store, frozen, "SM-frozen")
    late_acceptance(store, frozen, "SM-frozen")
    summary = store.campaign_summary("spring")
    assert (summary.sent, summary.doubled, miscounted(store)) == (1, 1, {})
    assert {one.provider_id for one in store.history("m")} == {"SM-over", "SM-frozen"}


def test_unknown_and_then_taken_is_one_move(store: SQLStore) -> None:
    frozen = claimed(store, message("m"))
    pass_time(store, 61)
    over = claimed(store, message("m"))
    lost = Failure.of(FailureKind.LOST_ANSWER)
    ended = failed("m", reason=GiveUpReason.OUTCOME_UNKNOWN, failure=lost)
    store.finish(over, GaveUp(lost, GiveUpReason.OUTCOME_UNKNOWN, 1), ended)
    assert store.campaign_summary("spring").unknown == 1
    late_acceptance(store, frozen, "SM1")
    summary = store.campaign_summary("spring")
    assert (summary.sent, summary.unknown, summary.doubled, miscounted(store)) == (1, 0, 0, {})


def test_a_stale_finish_is_no_event(store: SQLStore) -> None:
    frozen = claimed(store, message("m"))
    pass_time(store, 61)
    claimed(store, message("m"))
    outcome = RetryAfter(2.0, BUSY, frozen.state.with_retry(frozen.now))
    assert isinstance(store.finish(frozen, outcome, retry("m")), Busy)
    assert (store.history("m"), store.campaign_summary("spring").retried) == ((), 0)


def test_a_text_is_kept_until_its_message_has_ended(store: SQLStore) -> None:
    attempt(store, message("m"), BUSY)
    assert "A secret for m." in everything_in(store)
    pass_time(store, 10)
    attempt(store, message("m"))
    assert "A secret" not in everything_in(store)
    assert "5005550006" not in everything_in(store)


def test_a_text_that_may_be_sent_when_the_account_is_mended_is_kept(store: SQLStore) -> None:
    attempt(store, message("m"), Failure.of(FailureKind.SENDER_CONFIG, provider="twilio"))
    assert store.campaign_summary("spring").failed == 1
    assert row_of(store, "m").body is not None


def test_without_bodies_neither_number_nor_text_is_ever_stored(file_url: str) -> None:
    with SQLStore(file_url, keep_bodies=False) as store:
        store.plan(message("planned"))
        attempt(store, message("m"), BUSY)
        assert "A secret" not in everything_in(store)
        assert "5005550006" not in everything_in(store)
        pass_time(store, 10)
        assert isinstance(attempt(store, message("m")), Accepted)


def test_a_planned_message_is_canceled(store: SQLStore) -> None:
    store.plan(message("m"))
    assert store.cancel("m")
    assert not store.cancel("m")
    outcome = attempt(store, message("m"))
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is GiveUpReason.CANCELED
    summary = store.campaign_summary("spring")
    assert (summary.canceled, summary.pending, miscounted(store)) == (1, 0, {})
    assert "A secret" not in everything_in(store)


def test_what_has_ended_or_is_not_known_is_not_canceled(store: SQLStore) -> None:
    attempt(store, message("ended"))
    assert [store.cancel(name) for name in ("ended", "unheard-of")] == [False, False]


def test_what_is_taken_back_while_it_is_being_sent_ends_in_place_of_its_retry(store: SQLStore) -> None:
    claim = claimed(store, message("m"))
    assert store.cancel("m")
    assert (store.campaign_summary("spring").pending, miscounted(store)) == (1, {})
    outcome = RetryAfter(2.0, BUSY, claim.state.with_retry(claim.now + timedelta(seconds=2)))
    for _ in range(2):
        told = store.finish(claim, outcome, retry("m"))
        assert isinstance(told, Ended)
        assert isinstance(told.outcome, GaveUp)
        assert told.outcome.reason is GiveUpReason.CANCELED
    summary = store.campaign_summary("spring")
    assert (summary.canceled, summary.retried, summary.pending, miscounted(store)) == (1, 1, 0, {})
    assert "A secret" not in everything_in(store)


def test_what_is_taken_back_and_turns_out_unsent_ends_when_somebody_comes(store: SQLStore) -> None:
    claim = claimed(store, message("m"))
    assert store.cancel("m")
    store.release(claim)
    assert isinstance(begin(store, message("m")), Ended)
    assert (store.campaign_summary("spring").canceled, miscounted(store)) == (1, {})


def test_a_canceled_message_in_doubt_is_asked_about_and_not_sent_again(store: SQLStore) -> None:
    attempt(store, message("m"), Failure.of(FailureKind.LOST_ANSWER))
    assert store.cancel("m")
    assert store.campaign_summary("spring").pending == 1
    pass_time(store, 10)
    claim = claimed(store, message("m"))
    assert claim.state.ending is not None
    assert claim.state.ending.reason is GiveUpReason.CANCELED


def test_a_message_that_is_purged_under_a_claim_is_still_counted(store: SQLStore) -> None:
    claim = claimed(store, message("m"))
    with store._database._ready_engine().begin() as connection:
        connection.execute(store._schema.messages.delete())
        connection.execute(store._schema.counters.delete())
    assert store.finish(claim, Accepted(Receipt("twilio", "SM1", claim.now)), accepted("m")) is None
    assert (store.campaign_summary("spring").sent, store.renew(claim, lease_s=60)) == (1, False)
    store.release(claim)


def test_other_rounds_of_a_message_are_other_messages(store: SQLStore) -> None:
    attempt(store, message("m"), Failure.of(FailureKind.SENDER_CONFIG))
    assert len(store.mended("spring", FailureKind.SENDER_CONFIG)) == 1
    store.record(replace(accepted("m", sid="SM-first-round"), at=datetime.now(UTC)))
    claim = claimed(store, message("m"))
    of_first_round = Others(provider_ids=frozenset({"SM-first-round"}))
    assert (claim.state.round, store.others(claim, since=claim.now)) == (2, of_first_round)


def test_an_answer_that_comes_a_round_too_late_is_kept_as_the_id_of_another_text(store: SQLStore) -> None:
    frozen = claimed(store, message("m"))
    pass_time(store, 61)
    holder = claimed(store, message("m"))
    refused = Failure.of(FailureKind.AUTH, code=20003)
    store.finish(holder, GaveUp(refused, GiveUpReason.PERMANENT, 1), failed("m", failure=refused))
    assert len(store.mended("spring", FailureKind.AUTH)) == 1
    receipt = Receipt("twilio", "SM-first-round", frozen.now)
    late = replace(accepted("m", sid="SM-first-round"), at=frozen.now)
    assert isinstance(store.finish(frozen, Accepted(receipt), late), Busy)
    claim = claimed(store, message("m"))
    of_first_round = Others(provider_ids=frozenset({"SM-first-round"}))
    assert (claim.state.round, store.others(claim, since=claim.now)) == (2, of_first_round)
    assert miscounted(store) == {}


def test_one_of_many_threads_asks_whether_an_account_is_served_again(store: SQLStore) -> None:
    store.hold("a", REFUSED)
    pass_time(store, 61)
    gate, answers = threading.Barrier(8), []

    def work(number: int) -> None:
        gate.wait()
        answers.append(begin(store, message(f"m{number}", to=f"+1500555001{number}")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.probes for answer in answers if isinstance(answer, Claim)] == [True]
    assert [0 < answer.left_s <= 60 for answer in answers if isinstance(answer, OnHold)] == [True] * 7


@pytest.mark.integration
def test_whoever_finds_another_one_asking_at_that_moment_waits_for_a_minute(postgres_store: SQLStore) -> None:
    store = emptied(postgres_store)
    store.hold("a", REFUSED)
    pass_time(store, 61)
    holds = store._schema.holds
    with ThreadPoolExecutor(1) as pool:
        with store._database._ready_engine().begin() as other:
            other.execute(sa.update(holds).values(next_probe=datetime.now(UTC) + timedelta(seconds=60)))
            second = pool.submit(begin, store, message("m"))
            while not other.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                wait([second], timeout=0.01)
        answer = second.result()
    assert isinstance(answer, OnHold)
    assert 59 < answer.left_s <= 60


def test_evidence_is_not_held_up_by_a_refused_account(store: SQLStore) -> None:
    store.hold("a", REFUSED)
    assert claimed(store, message("m"), AttemptState(provider_id="SM1")).refused is None


def test_a_held_message_keeps_what_came_with_it(store: SQLStore) -> None:
    store.hold("a", REFUSED)
    assert isinstance(begin(store, message("m"), AttemptState(retries=2)), OnHold)
    store.reopen("a")
    pass_time(store, 61)
    assert claimed(store, message("m")).state.retries == 2


def test_a_campaign_behind_an_expired_token_costs_a_request_a_minute_and_loses_nothing(store: SQLStore) -> None:
    campaign = campaign_of(store, 60)
    campaign.run(minutes=3)
    assert 1 <= len(campaign.account.refused) <= WORKERS + 2
    assert Counter(campaign.account.texts) == Counter({f"m{number}": 1 for number in range(60)})
    summary = store.campaign_summary("spring")
    assert (summary.failed, summary.expired, summary.unknown, summary.doubled) == (0, 0, 0, 0)


def test_what_has_waited_for_its_account_as_long_as_it_may_ends_and_is_sent_once_more(store: SQLStore) -> None:
    store.hold("a", REFUSED)
    begin(store, message("m"))
    pass_time(store, 61)
    store.hold("a", REFUSED)
    claim = claimed(store, message("m"), most_deferred_s=60.0)
    assert claim.refused == REFUSED
    outcome = GaveUp(REFUSED, GiveUpReason.EXPIRED, 0)
    store.finish(claim, outcome, failed("m", reason=GiveUpReason.EXPIRED, failure=REFUSED))
    assert (store.campaign_summary("spring").expired, miscounted(store)) == (1, {})
    assert [one.message_id for one in store.mended("spring", FailureKind.AUTH)] == ["m"]
    assert (store.campaign_summary("spring").pending, miscounted(store)) == (1, {})
