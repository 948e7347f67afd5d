"""One attempt under a journal: what it claims, when it sends, and what it does when the journal is away."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    Accepted,
    AttemptState,
    ConfigurationError,
    Deferred,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    InvalidMessage,
    Message,
    OnUnknown,
    Receipt,
    RetryAfter,
    RetryPolicy,
)
from smsretry.core.claims import Begun, Busy, Claim, Ended, Others
from smsretry.core.events import Event
from smsretry.core.outcome import DeferReason, Outcome
from smsretry.journal import MemoryJournal
from smsretry.journaled import LONGEST_SEND_S, SLOWEST_BEGIN_S, since_boot
from smsretry.ports import CannotTell, Found, LookUp, NotSeen, check_before_writing
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender

LEASE_S = 60.0
MESSAGE = Message("+15005550006", "Your table is ready.", id="m1", campaign="spring")
OTHER = replace(MESSAGE, id="m2")
REFUSED = Failure.of(FailureKind.AUTH, http_status=401)
RATE_LIMITED = Failure.of(FailureKind.RATE_LIMITED, http_status=429)
WRONG_NUMBER = Failure.of(FailureKind.INVALID_NUMBER)


class Away(Exception):
    """The database cannot be reached."""


class Shaky(MemoryJournal):
    """Be a journal of which some verbs fail, before they write or after it, and some take long."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.fails_before: set[str] = set()
        self.fails_after: set[str] = set()
        self.slow_s = 0.0
        self.slow_renewal_s = 0.0

    def begin(self, message: Message, /, **asked: Any) -> Begun:
        begun: Begun = self._tried("begin", lambda: super(Shaky, self).begin(message, **asked))
        self.clock.advance(self.slow_s)
        return begun

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        renewed = bool(self._tried("renew", lambda: super(Shaky, self).renew(claim, lease_s=lease_s)))
        self.clock.advance(self.slow_renewal_s)
        return renewed

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        instead: Ended | Busy | None = self._tried("finish", lambda: super(Shaky, self).finish(claim, outcome, event))
        return instead

    def release(self, claim: Claim, /) -> None:
        self._tried("release", lambda: super(Shaky, self).release(claim))

    def others(self, claim: Claim, /, *, since: datetime) -> Others:
        others: Others = self._tried("others", lambda: super(Shaky, self).others(claim, since=since))
        return others

    def hold(self, account: str, failure: Failure, /) -> None:
        self._tried("hold", lambda: super(Shaky, self).hold(account, failure))

    def reopen(self, account: str, /) -> None:
        self._tried("reopen", lambda: super(Shaky, self).reopen(account))

    def _tried(self, verb: str, call: Callable[[], Any]) -> Any:
        if verb in self.fails_before:
            raise Away
        done = call()
        if verb in self.fails_after:
            raise Away
        return done


class Line(ScriptedSender):
    """Be a sender during which something happens: before the request leaves, or before the answer comes."""

    timeout_s = 10.0

    def __init__(
        self, *script: Receipt | Exception | Failure, clock: FakeClock, finds: tuple[LookUp, ...] = ()
    ) -> None:
        super().__init__(script, finds=finds, clock=clock)
        self.on_the_way: Callable[[], object] = lambda: None
        self.before_the_answer: Callable[[], object] = lambda: None
        self.listed: LookUp | None = None
        self.excluded: list[frozenset[str]] = []

    def send(self, message: Message, /) -> Receipt:
        self.on_the_way()
        check_before_writing()
        self.before_the_answer()
        return super().send(message)

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        self.excluded.append(frozenset(exclude))
        return self.listed or super().find(message, since=since)


class Desk:
    """Hold a journal, a sender and a dispatcher, and what the sink was told."""

    def __init__(self, *script: Receipt | Exception | Failure, finds: tuple[LookUp, ...] = (), **policy: Any) -> None:
        self.clock = FakeClock()
        self.journal = Shaky(self.clock)
        self.sender = Line(*script, clock=self.clock, finds=finds)
        self.sink = RecordingSink()
        self.policy = RetryPolicy(**{"settle_after_s": 40.0, **policy})
        self.dispatcher = self.worker()

    def worker(self, *, offset_s: float = 0.0) -> Dispatcher:
        """Return the dispatcher of one more worker, whose clock is off."""
        return Dispatcher(
            self.sender,
            policy=self.policy,
            clock=lambda: self.clock() + timedelta(seconds=offset_s),
            draw=lambda: 0.0,
            sink=self.sink,
            journal=self.journal,
            lease_s=LEASE_S,
            elapsed=lambda: self.clock().timestamp(),
        )

    def attempt(self, message: Message = MESSAGE, after: Outcome | None = None) -> Outcome:
        """Make an attempt with what the last outcome carried along."""
        state = after.state if isinstance(after, RetryAfter | Deferred) else AttemptState()
        return self.dispatcher.attempt(message, state)

    def until_ended(self, message: Message = MESSAGE) -> Accepted | GaveUp:
        """Make attempts when they are due until the message ends."""
        outcome: Outcome | None = None
        for _ in range(50):
            outcome = self.attempt(message, outcome)
            if isinstance(outcome, Accepted | GaveUp):
                return outcome
            self.clock.advance(outcome.delay_s)
        raise AssertionError(outcome)


def put_off(outcome: Outcome, reason: DeferReason) -> Deferred:
    """Return a deferral that must be one for this reason."""
    assert isinstance(outcome, Deferred)
    assert outcome.reason is reason
    return outcome


# What it takes ---------------------------------------------------------------------------------------------------


def test_with_a_journal_a_message_without_an_id_is_refused_and_told_what_to_do() -> None:
    desk = Desk()
    with pytest.raises(InvalidMessage, match="needs an id that is the same when it is sent again"):
        desk.attempt(replace(MESSAGE, id=None))
    assert desk.sender.sent == []


@pytest.mark.parametrize("lease_s", [0.0, -1.0, 12.0, float("inf"), float("nan")])
def test_a_lease_that_a_send_may_outlast_is_refused(lease_s: float) -> None:
    clock = FakeClock()
    with pytest.raises(ConfigurationError, match=r"lease_s must outlast a send .*Use 30 or more"):
        Dispatcher(Line(clock=clock), journal=MemoryJournal(clock), lease_s=lease_s)


def test_a_sender_that_does_not_say_how_long_it_takes_is_given_half_of_the_lease_or_a_guess() -> None:
    short, long = (Dispatcher(ScriptedSender(), journal=MemoryJournal(), lease_s=lease_s) for lease_s in (8.0, 300.0))
    assert short._journaled is not None
    assert long._journaled is not None
    assert (short._journaled.longest_send_s, long._journaled.longest_send_s) == (4.0, LONGEST_SEND_S)


def test_the_clock_of_a_lease_never_goes_back() -> None:
    assert 0.0 < since_boot() <= since_boot()


# What begin answers ----------------------------------------------------------------------------------------------


def test_a_message_that_ended_is_answered_with_its_end_and_neither_sent_nor_told_again() -> None:
    desk = Desk()
    first = desk.attempt()
    assert isinstance(first, Accepted)
    assert desk.attempt() == first
    assert (len(desk.sender.sent), len(desk.sink.events)) == (1, 1)


@given(copies=st.integers(1, 8), failures=st.integers(0, 3), dice=st.randoms(use_true_random=False))
def test_a_message_that_is_delivered_many_times_is_sent_as_if_it_had_been_delivered_once(
    copies: int, failures: int, dice: Random
) -> None:
    desk = Desk(*[RATE_LIMITED] * failures)
    queue: list[Outcome | None] = [None] * copies
    for _ in range(copies * 50):
        outcome = desk.attempt(after=queue.pop(dice.randrange(len(queue))))
        if isinstance(outcome, RetryAfter | Deferred):
            queue.append(outcome)
            desk.clock.advance(max(0.5, dice.uniform(0.0, outcome.delay_s)))  # time goes on, whatever the dice say
        if not queue:
            break
    assert (queue, len(desk.sender.sent)) == ([], failures + 1)


def test_while_a_worker_sends_another_is_put_off_for_as_long_as_the_lease_lasts() -> None:
    desk = Desk()
    met: list[Outcome] = []
    desk.sender.on_the_way = lambda: met.append(desk.worker().attempt(MESSAGE))
    assert isinstance(desk.attempt(), Accepted)
    assert put_off(met[0], DeferReason.BUSY).delay_s == LEASE_S
    assert len(desk.sender.sent) == 1


def test_a_retry_that_comes_too_early_is_put_off_until_it_is_due() -> None:
    desk = Desk(RATE_LIMITED)
    outcome = desk.attempt()
    assert isinstance(outcome, RetryAfter)
    assert put_off(desk.attempt(after=outcome), DeferReason.NOT_DUE).delay_s == outcome.delay_s
    assert len(desk.sender.sent) == 1


def test_whose_clock_is_off_changes_nothing_about_when_a_retry_is_due() -> None:
    desk = Desk(RATE_LIMITED)
    outcome = desk.worker(offset_s=40.0).attempt(MESSAGE)
    assert isinstance(outcome, RetryAfter)
    desk.clock.advance(outcome.delay_s)
    assert isinstance(desk.worker(offset_s=-40.0).attempt(MESSAGE, outcome.state), Accepted)


def test_what_was_put_off_again_and_again_for_want_of_a_journal_comes_back_within_half_a_minute() -> None:
    desk, outcome, waits = Desk(), None, []
    desk.journal.fails_before = {"begin"}
    for _ in range(7):
        outcome = put_off(desk.attempt(after=outcome), DeferReason.JOURNAL_AWAY)
        waits.append(outcome.delay_s)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0]
    assert desk.sender.sent == []


def test_another_text_under_a_used_id_is_refused_and_a_rerun_sends_the_first_one() -> None:
    desk = Desk(RATE_LIMITED)
    outcome = desk.attempt()
    assert isinstance(outcome, RetryAfter)
    desk.clock.advance(outcome.delay_s)
    rendered_anew = replace(MESSAGE, body="Your table is ready now.")
    with pytest.raises(InvalidMessage, match="belongs to a message with another text") as refused:
        desk.dispatcher.attempt(rendered_anew)
    assert "table" not in str(refused.value)
    assert len(set(re.findall(r"\b[0-9a-f]{12}\b", str(refused.value)))) == 2  # the fingerprints of both
    assert isinstance(desk.dispatcher.attempt(rendered_anew, rerun=True), Accepted)
    assert [one.body for one in desk.sender.sent] == [MESSAGE.body] * 2


def test_another_text_under_the_id_of_a_message_that_has_ended_is_not_sent_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    first = desk.attempt()
    with caplog.at_level(logging.WARNING, "smsretry"):
        assert desk.dispatcher.attempt(MESSAGE, rerun=True) == first
        assert caplog.messages == []
        assert desk.dispatcher.attempt(replace(MESSAGE, body="Your order has left."), rerun=True) == first
    [told] = caplog.messages
    assert told.startswith(f"{MESSAGE.id} has ended, with another text")
    assert [one.body for one in desk.sender.sent] == [MESSAGE.body]


def test_a_message_waits_for_its_journal_no_longer_than_for_anything_else_and_ends_as_unknown() -> None:
    desk = Desk(max_deferral_s=100.0)
    desk.journal.fails_before = {"begin"}
    end = desk.until_ended()
    assert isinstance(end, GaveUp)
    assert (end.reason, end.attempts, desk.sender.sent) == (GiveUpReason.OUTCOME_UNKNOWN, 0, [])
    assert 100.0 <= (desk.clock() - FakeClock()()).total_seconds() < 140.0
    assert [type(event).__name__ for event in desk.sink.events] == ["MessageFailed"]


def test_a_message_past_its_deadline_waits_for_its_journal_for_the_time_of_a_lease() -> None:
    desk = Desk()
    urgent = replace(MESSAGE, send_before=desk.clock() + timedelta(seconds=5.0))
    desk.clock.advance(6.0)
    desk.journal.fails_before = {"begin"}
    put_off(desk.attempt(urgent), DeferReason.JOURNAL_AWAY)  # a moment without a database ends nothing
    end = desk.until_ended(urgent)
    assert isinstance(end, GaveUp)
    assert end.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert LEASE_S <= (desk.clock() - FakeClock()()).total_seconds() < LEASE_S + 40.0


def test_what_the_provider_took_is_told_even_where_the_journal_never_comes_back() -> None:
    desk = Desk(max_deferral_s=100.0)
    desk.journal.fails_before = {"finish"}
    outcome = put_off(desk.attempt(), DeferReason.JOURNAL_AWAY)
    desk.journal.fails_before = {"begin"}
    desk.clock.advance(101.0)
    end = desk.attempt(after=outcome)
    assert isinstance(end, Accepted)
    assert (end.receipt.provider_id, end.attempts) == ("S1", 1)


# Before the bytes leave ------------------------------------------------------------------------------------------


def test_a_claim_whose_answer_took_too_long_is_given_back_and_leaves_no_doubt() -> None:
    desk = Desk()
    desk.journal.slow_s = SLOWEST_BEGIN_S + 1.0
    outcome = put_off(desk.attempt(), DeferReason.BUSY)
    assert desk.sender.sent == []
    desk.journal.slow_s = 0.0
    assert isinstance(desk.attempt(after=outcome), Accepted)
    assert desk.sender.looked_up == []


def test_a_claim_that_could_not_be_given_back_is_released_by_the_next_begin() -> None:
    desk = Desk()
    desk.journal.slow_s, desk.journal.fails_before = SLOWEST_BEGIN_S + 1.0, {"release"}
    outcome = put_off(desk.attempt(), DeferReason.BUSY)
    desk.journal.slow_s = 0.0
    assert isinstance(desk.attempt(after=outcome), Accepted)
    assert desk.sender.looked_up == []


def test_a_begin_whose_answer_was_lost_is_released_by_the_next_one() -> None:
    desk = Desk()
    desk.journal.fails_after = {"begin"}
    outcome = put_off(desk.attempt(), DeferReason.JOURNAL_AWAY)
    desk.journal.fails_after = set()
    assert isinstance(desk.attempt(after=outcome), Accepted)
    assert desk.sender.looked_up == []


@pytest.mark.parametrize("frozen_s", [50.0, LEASE_S + 1.0])
def test_a_process_that_was_frozen_on_its_way_renews_its_claim_before_it_writes(frozen_s: float) -> None:
    desk = Desk()
    desk.sender.on_the_way = lambda: desk.clock.advance(frozen_s)
    assert isinstance(desk.attempt(), Accepted)
    assert len(desk.sender.sent) == 1


def test_a_process_whose_claim_was_taken_over_while_it_was_frozen_writes_nothing() -> None:
    desk = Desk()

    def freeze() -> None:
        desk.sender.on_the_way = lambda: None
        desk.clock.advance(LEASE_S + 1.0)
        assert isinstance(desk.worker().attempt(MESSAGE), RetryAfter)  # it settles the doubt that it finds

    desk.sender.on_the_way = freeze
    put_off(desk.attempt(), DeferReason.BUSY)
    assert desk.sender.sent == []


def test_a_claim_that_the_journal_cannot_renew_is_given_up_unsent() -> None:
    desk = Desk()
    desk.sender.on_the_way = lambda: desk.clock.advance(LEASE_S)
    desk.journal.fails_before = {"renew"}
    outcome = put_off(desk.attempt(), DeferReason.BUSY)
    assert desk.sender.sent == []
    desk.sender.on_the_way = lambda: None
    assert isinstance(desk.attempt(after=outcome), Accepted)


def test_a_renewal_that_took_all_of_its_lease_is_none() -> None:
    desk = Desk()
    desk.sender.on_the_way = lambda: desk.clock.advance(LEASE_S)
    desk.journal.slow_renewal_s = LEASE_S
    put_off(desk.attempt(), DeferReason.BUSY)
    assert desk.sender.sent == []


def test_no_send_begins_after_the_deadline_by_the_clock_of_the_journal() -> None:
    desk = Desk()
    urgent = replace(MESSAGE, send_before=desk.clock() + timedelta(seconds=10.0))
    desk.journal.slow_s = 11.0
    end = desk.worker(offset_s=-40.0).attempt(urgent)
    assert isinstance(end, GaveUp)
    assert (end.reason, desk.sender.sent) == (GiveUpReason.EXPIRED, [])


def test_a_renewal_that_took_until_after_the_deadline_is_followed_by_no_send() -> None:
    desk = Desk(TimeoutError())
    urgent = replace(MESSAGE, send_before=desk.clock() + timedelta(seconds=60.0))
    outcome = desk.attempt(urgent)
    assert isinstance(outcome, RetryAfter)
    desk.clock.advance(41.0)
    desk.journal.slow_renewal_s = 20.0
    desk.attempt(urgent, after=outcome)
    end = desk.until_ended(urgent)
    assert isinstance(end, GaveUp)
    assert (end.reason, len(desk.sender.sent)) == (GiveUpReason.EXPIRED, 1)


# Doubt -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_died_leaves_a_doubt_that_is_settled_before_the_text_is_sent_again() -> None:
    desk = Desk()
    desk.journal.begin(
        MESSAGE, hint=AttemptState(), nonce="n0", lease_s=LEASE_S, account="Line", most_deferred_s=3_600.0
    )
    desk.clock.advance(LEASE_S + 1.0)
    assert isinstance(desk.until_ended(), Accepted)
    assert desk.sender.looked_up
    assert len(desk.sender.sent) == 1


def test_a_text_that_may_be_that_of_a_message_that_ended_as_unknown_is_not_taken_for_another_one() -> None:
    desk = Desk(TimeoutError(), TimeoutError())
    desk.sender.listed = CannotTell("403")
    first = desk.until_ended(MESSAGE)
    desk.sender.listed = Found(Receipt("model", "SM9", desk.clock()))
    for end in (first, desk.until_ended(OTHER)):
        assert isinstance(end, GaveUp)
        assert end.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert len(desk.sender.sent) == 2


def test_a_look_up_passes_over_what_is_known_to_be_other_messages() -> None:
    desk = Desk(Receipt("model", "SM1", FakeClock()()), TimeoutError())
    assert isinstance(desk.attempt(), Accepted)
    assert isinstance(desk.until_ended(OTHER), Accepted)
    assert desk.sender.excluded[0] == {"SM1"}


def test_a_listing_that_is_older_than_a_doubt_takes_to_settle_settles_nothing() -> None:
    desk = Desk(TimeoutError(), finds=(NotSeen(FakeClock()() + timedelta(seconds=30.0)),))
    outcome = desk.attempt()
    assert isinstance(outcome, RetryAfter)
    desk.clock.advance(41.0)
    put_off(desk.attempt(after=outcome), DeferReason.IN_DOUBT)
    assert len(desk.sender.sent) == 1


# After the send --------------------------------------------------------------------------------------------------


def test_an_acceptance_that_could_not_be_written_travels_with_the_message_and_is_written_later() -> None:
    desk = Desk()
    desk.journal.fails_before = {"finish"}
    outcome = put_off(desk.attempt(), DeferReason.JOURNAL_AWAY)
    assert outcome.state.provider_id == "S1"
    assert desk.sink.events == []
    desk.journal.fails_before = set()
    end = desk.attempt(after=outcome)
    assert isinstance(end, Accepted)
    assert (end.receipt.provider_id, len(desk.sender.sent), len(desk.sink.events)) == ("S1", 1, 1)


@pytest.mark.parametrize("failure", [RATE_LIMITED, WRONG_NUMBER])
def test_a_failure_that_could_not_be_written_is_a_doubt_once_the_lease_has_ended(failure: Failure) -> None:
    desk = Desk(failure)
    desk.journal.fails_before = {"finish"}
    outcome = put_off(desk.attempt(), DeferReason.JOURNAL_AWAY)
    assert outcome.delay_s == LEASE_S
    desk.journal.fails_before = set()
    desk.clock.advance(outcome.delay_s)
    assert isinstance(desk.attempt(after=outcome), RetryAfter)
    assert len(desk.sender.sent) == 1


def test_a_finish_whose_answer_was_lost_is_found_written() -> None:
    desk = Desk()
    desk.journal.fails_after = {"finish"}
    outcome = put_off(desk.attempt(), DeferReason.JOURNAL_AWAY)
    desk.journal.fails_after = set()
    assert isinstance(desk.attempt(after=outcome), Accepted)
    assert len(desk.sender.sent) == 1


def test_what_a_frozen_worker_says_too_late_is_replaced_by_what_holds() -> None:
    desk = Desk(RATE_LIMITED)

    def freeze() -> None:
        desk.clock.advance(LEASE_S + 1.0)
        assert isinstance(desk.worker().attempt(MESSAGE), RetryAfter)

    desk.sender.before_the_answer = freeze
    put_off(desk.attempt(), DeferReason.BUSY)
    assert [type(event).__name__ for event in desk.sink.events] == ["RetryScheduled"]


def test_an_acceptance_that_comes_too_late_ends_the_message_all_the_same() -> None:
    desk = Desk()

    def freeze() -> None:
        desk.clock.advance(LEASE_S + 1.0)
        assert isinstance(desk.worker().attempt(MESSAGE), RetryAfter)

    desk.sender.before_the_answer = freeze
    end = desk.attempt()
    assert isinstance(end, Accepted)
    assert desk.attempt() == end
    assert len(desk.sender.sent) == 1


# Accounts --------------------------------------------------------------------------------------------------------


def test_many_messages_behind_a_refused_account_cost_a_request_a_minute_and_none_is_lost() -> None:
    desk = Desk(REFUSED, REFUSED, REFUSED)
    messages = [replace(MESSAGE, id=f"m{number}", body=f"text {number}") for number in range(30)]
    for _ in range(3):
        for message in messages:
            assert put_off(desk.attempt(message), DeferReason.ON_HOLD).delay_s <= 60.0
        desk.clock.advance(60.0)
    assert len(desk.sender.sent) == 3
    assert all(isinstance(desk.attempt(message), Accepted) for message in messages)


def test_a_message_that_waited_too_long_for_its_account_ends_with_the_refusal() -> None:
    desk = Desk(REFUSED, REFUSED, max_deferral_s=100.0)
    put_off(desk.attempt(), DeferReason.ON_HOLD)
    put_off(desk.attempt(OTHER), DeferReason.ON_HOLD)
    desk.clock.advance(60.0)
    put_off(desk.attempt(), DeferReason.ON_HOLD)
    desk.clock.advance(50.0)
    end = desk.attempt(OTHER)
    assert isinstance(end, GaveUp)
    assert (end.failure.kind, end.reason) == (FailureKind.AUTH, GiveUpReason.EXPIRED)
    assert len(desk.sender.sent) == 2


def test_a_message_alone_behind_a_refused_account_ends_once_it_has_waited_long_enough() -> None:
    desk = Desk(*[REFUSED] * 50, max_deferral_s=300.0)
    end = desk.until_ended()
    assert isinstance(end, GaveUp)
    assert (end.failure, end.reason, end.attempts) == (REFUSED, GiveUpReason.EXPIRED, 1)
    assert len(desk.sender.sent) == 6  # at once, and each minute of five
    assert [type(event).__name__ for event in desk.sink.events] == ["MessageDeferred"] * 5 + ["MessageFailed"]


def test_a_message_alone_and_in_doubt_behind_a_refused_account_ends_too() -> None:
    desk = Desk(TimeoutError(), *[REFUSED] * 50, max_deferral_s=300.0)
    end = desk.until_ended()
    assert isinstance(end, GaveUp)
    assert (end.failure, end.reason) == (REFUSED, GiveUpReason.EXPIRED)
    assert len(desk.sender.sent) == 7


@pytest.mark.parametrize("lost", [ConnectionRefusedError(), TimeoutError()], ids=["never there", "no answer"])
def test_a_probe_that_nobody_answered_leaves_the_account_on_hold(lost: Exception) -> None:
    desk = Desk(REFUSED, lost)
    probing = replace(OTHER, body="another text")
    put_off(desk.attempt(), DeferReason.ON_HOLD)
    desk.clock.advance(60.0)
    assert isinstance(desk.attempt(probing), RetryAfter)
    put_off(desk.attempt(), DeferReason.ON_HOLD)
    assert len(desk.sender.sent) == 2


@pytest.mark.parametrize("answer", [RATE_LIMITED, WRONG_NUMBER], ids=["rate limited", "refused number"])
def test_a_probe_that_failed_for_another_reason_than_the_account_opens_it(answer: Failure) -> None:
    desk = Desk(REFUSED, answer)
    put_off(desk.attempt(), DeferReason.ON_HOLD)
    desk.clock.advance(60.0)
    desk.attempt(replace(OTHER, body="another text"))
    assert isinstance(desk.attempt(), Accepted)


def test_a_message_in_doubt_that_waited_too_long_for_its_account_is_asked_about_before_it_ends() -> None:
    desk = Desk(TimeoutError(), *[REFUSED] * 5, max_deferral_s=100.0)
    probing = [replace(OTHER, id=f"probe{number}", body=f"text {number}") for number in range(3)]
    assert isinstance(desk.attempt(), RetryAfter)
    put_off(desk.attempt(probing[0]), DeferReason.ON_HOLD)
    desk.clock.advance(41.0)
    put_off(desk.attempt(), DeferReason.ON_HOLD)
    for probe in probing[1:]:
        desk.clock.advance(60.0)
        put_off(desk.attempt(probe), DeferReason.ON_HOLD)
    end = desk.attempt()
    assert isinstance(end, GaveUp)
    assert (end.failure.kind, end.reason) == (FailureKind.AUTH, GiveUpReason.EXPIRED)
    assert desk.sender.looked_up == [MESSAGE]


@pytest.mark.parametrize(
    ("listed", "opened"), [(NotSeen(FakeClock()() + timedelta(seconds=200.0)), True), (CannotTell("401"), False)]
)
def test_a_look_up_that_the_provider_answers_opens_the_account(listed: LookUp, *, opened: bool) -> None:
    desk = Desk(TimeoutError(), REFUSED, max_retries=0)
    desk.sender.listed = listed
    in_doubt = desk.attempt()
    put_off(desk.attempt(replace(OTHER, body="another text")), DeferReason.ON_HOLD)
    desk.clock.advance(61.0)
    assert isinstance(desk.attempt(after=in_doubt), GaveUp if opened else Deferred)
    assert isinstance(desk.attempt(replace(OTHER, id="m3", body="one more")), Accepted if opened else Deferred)


@pytest.mark.parametrize("verb", ["hold", "reopen"])
def test_a_hold_that_could_not_be_written_loses_nothing(verb: str, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(REFUSED)
    desk.journal.fails_before = {verb}
    with caplog.at_level(logging.WARNING, "smsretry"):
        outcome = put_off(desk.attempt(), DeferReason.ON_HOLD)
        desk.clock.advance(outcome.delay_s)
        assert isinstance(desk.attempt(after=outcome), Accepted)
    assert f"could not {verb} the account (Away)" in caplog.text


# The journal in memory -------------------------------------------------------------------------------------------


def test_a_message_that_is_taken_back_is_not_sent() -> None:
    desk = Desk(RATE_LIMITED)
    outcome = desk.attempt()
    assert isinstance(outcome, RetryAfter)
    assert (desk.journal.cancel("m1"), desk.journal.cancel("m1"), desk.journal.cancel("unknown")) == (
        True,
        False,
        False,
    )
    desk.clock.advance(outcome.delay_s)
    end = desk.attempt(after=outcome)
    assert isinstance(end, GaveUp)
    assert (end.reason, len(desk.sender.sent)) == (GiveUpReason.CANCELED, 1)


def test_a_message_in_doubt_that_is_taken_back_is_asked_about_and_not_sent_again() -> None:
    desk = Desk(TimeoutError())
    outcome = desk.attempt()
    assert isinstance(outcome, RetryAfter)
    assert desk.journal.cancel("m1")
    end = desk.until_ended()
    assert isinstance(end, GaveUp)
    assert (end.reason, len(desk.sender.sent)) == (GiveUpReason.CANCELED, 1)
    assert desk.sender.looked_up


def test_two_texts_of_one_message_are_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(TimeoutError(), on_unknown=OnUnknown.RESEND)
    outcome = desk.attempt()
    assert isinstance(outcome, RetryAfter)
    desk.clock.advance(outcome.delay_s)
    end = desk.attempt(after=outcome)
    assert isinstance(end, Accepted)
    with caplog.at_level(logging.ERROR, "smsretry"):
        desk.dispatcher.attempt(MESSAGE, AttemptState(provider_id="SM-first"))
    assert "m1 was taken by the provider more than once: S2, SM-first" in caplog.text


def test_a_journal_in_memory_tells_the_time_itself() -> None:
    sender = ScriptedSender()
    assert isinstance(Dispatcher(sender, journal=MemoryJournal()).attempt(MESSAGE), Accepted)
