"""One attempt, and what follows it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
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
    Jitter,
    Message,
    MessageAccepted,
    OnUnknown,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
    RetryScheduled,
)
from smsretry.errors import ProviderError
from smsretry.journal import MemoryJournal
from smsretry.ports import CannotTell, Found, LookUp, NotSeen
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender
from tests.shells import SHELLS, AnyShell
from tests.strategies import failures, permanent_failures, policies, retryable_failures

MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")
BUSY = Failure.of(FailureKind.RATE_LIMITED)
LOST = Failure.of(FailureKind.LOST_ANSWER)
STATED = Failure.of(FailureKind.TEMPORARY, maybe_sent=True, http_status=500)
WRONG_NUMBER = Failure.of(FailureKind.INVALID_NUMBER)
BLINDLY = (OnUnknown.RESEND, OnUnknown.LOOK_UP_OR_RESEND)


class Deaf:
    """A sender that cannot be asked what became of a text."""

    def __init__(self, *script: Receipt | Exception | Failure, clock: FakeClock) -> None:
        self._inner = ScriptedSender(script, clock=clock, repeat=True)
        self.sent = self._inner.sent

    def send(self, message: Message, /) -> Receipt:
        return self._inner.send(message)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one message went through."""

    outcomes: list[Outcome]
    sender: ScriptedSender
    sink: RecordingSink
    clock: FakeClock
    seconds: float

    @property
    def end(self) -> Outcome:
        return self.outcomes[-1]

    @property
    def waits(self) -> list[float]:
        return self.clock.sleeps


def attempts(dispatcher: Dispatcher, message: Message, clock: FakeClock, *, most: int = 2_000) -> Iterator[Outcome]:
    """Go on as an adapter does, with the state going through JSON between the attempts."""
    state = AttemptState()
    for _ in range(most):
        outcome = dispatcher.attempt(message, state)
        yield outcome
        if isinstance(outcome, (Accepted, GaveUp)):
            return
        state = AttemptState.from_dict(json.loads(json.dumps(outcome.state.to_dict())))
        clock.sleep(outcome.delay_s)
    pytest.fail("the message does not end")


def run(
    *script: Receipt | Exception | Failure,
    finds: Collection[LookUp] = (),
    policy: RetryPolicy | None = None,
    message: Message = MESSAGE,
    draw: float = 0.0,
    repeat: bool = True,
) -> Run:
    clock, sink = FakeClock(), RecordingSink()
    began = clock.now()
    sender = ScriptedSender(script, finds=finds, repeat=repeat, clock=clock)
    dispatcher = Dispatcher(sender, policy=policy or RetryPolicy(), sink=sink, clock=clock, draw=lambda: draw)
    outcomes = list(attempts(dispatcher, message, clock))
    return Run(outcomes, sender, sink, clock, (clock.now() - began).total_seconds())


def receipt(provider_id: str = "SM1") -> Receipt:
    return Receipt("scripted", provider_id, datetime(2026, 1, 1, tzinfo=UTC))


# Accepted, refused, tried again


def test_an_accepted_text_is_sent_once() -> None:
    answer = receipt()
    done = run(answer)
    assert done.end == Accepted(answer, 1)
    assert len(done.sender.sent) == 1
    assert done.end.receipt is answer


def test_a_busy_provider_is_tried_again_after_two_four_and_eight_seconds() -> None:
    done = run(BUSY)
    assert done.waits == [2.0, 4.0, 8.0]
    assert done.end == GaveUp(BUSY, GiveUpReason.RETRIES_EXHAUSTED, 4)
    assert len(done.sender.sent) == 4


def test_a_retry_that_succeeds_ends_the_message() -> None:
    done = run(BUSY, BUSY, receipt())
    assert done.end == Accepted(receipt(), 3)


@given(policies(), permanent_failures, st.floats(0, 0.99))
def test_a_permanent_failure_means_exactly_one_send(policy: RetryPolicy, failure: Failure, draw: float) -> None:
    assert len(run(failure, policy=policy, draw=draw).sender.sent) == 1


@given(policies(), failures(), st.floats(0, 0.99))
def test_an_endless_failure_is_cut_after_the_last_retry_of_the_policy(
    policy: RetryPolicy, failure: Failure, draw: float
) -> None:
    done = run(failure, policy=policy, draw=draw)
    most = sum(policy.should_retry(failure, retries) for retries in range(100))
    assert 1 <= len(done.sender.sent) <= most + 1
    if not failure.maybe_sent:
        assert len(done.sender.sent) == most + 1


@given(policies(), retryable_failures.filter(lambda failure: not failure.maybe_sent), st.floats(0, 0.99))
def test_every_wait_is_before_a_send_and_none_after_the_last(
    policy: RetryPolicy, failure: Failure, draw: float
) -> None:
    done = run(failure, policy=policy, draw=draw)
    assert len(done.waits) == len(done.sender.sent) - 1
    assert isinstance(done.end, GaveUp)
    assert done.end.attempts == len(done.sender.sent)


def test_no_retries_mean_one_send_and_never_none() -> None:
    done = run(BUSY, policy=RetryPolicy(max_retries=0))
    assert len(done.sender.sent) == 1
    assert done.waits == []


# The deadline


@example(RetryPolicy(), STATED, 4.0, 5.0, 0.0)
@given(policies(), failures(), st.floats(0.0, 100_000.0), st.sampled_from([0.0, 5.0]), st.floats(0, 0.99))
def test_no_send_begins_after_the_deadline(
    policy: RetryPolicy, failure: Failure, left_s: float, look_s: float, draw: float
) -> None:
    clock, times = FakeClock(), []

    class Watched(ScriptedSender):
        def send(self, message: Message, /) -> Receipt:
            times.append(clock.now())
            return super().send(message)

        def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
            clock.advance(look_s)
            return super().find(message, since=since, exclude=exclude)

    deadline = clock.now() + timedelta(seconds=left_s)
    sender = Watched([failure], repeat=True, clock=clock)
    message = replace(MESSAGE, send_before=deadline)
    list(attempts(Dispatcher(sender, policy=policy, clock=clock, draw=lambda: draw), message, clock))
    assert times
    assert max(times) <= deadline


def test_a_message_that_is_too_late_is_not_sent_at_all() -> None:
    done = run(message=replace(MESSAGE, send_before=FakeClock().now() - timedelta(seconds=1)))
    assert done.sender.sent == []
    assert isinstance(done.end, GaveUp)
    assert (done.end.reason, done.end.attempts) == (GiveUpReason.EXPIRED, 0)
    assert done.end.failure.kind is FailureKind.EXPIRED


def test_a_message_may_be_sent_at_the_very_moment_of_its_deadline() -> None:
    assert isinstance(run(message=replace(MESSAGE, send_before=FakeClock().now())).end, Accepted)


def test_a_worker_that_comes_too_late_sends_nothing() -> None:
    clock = FakeClock()
    message = replace(MESSAGE, send_before=clock.now() + timedelta(seconds=60))
    sender = ScriptedSender([BUSY], clock=clock)
    dispatcher = Dispatcher(sender, clock=clock)
    first = dispatcher.attempt(message)
    assert isinstance(first, RetryAfter)
    clock.advance(61)
    late = dispatcher.attempt(message, first.state)
    assert isinstance(late, GaveUp)
    assert (late.reason, late.attempts) == (GiveUpReason.EXPIRED, 1)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_look_up_that_outlasts_the_deadline_ends_the_message_without_a_send(shell: AnyShell) -> None:
    class Slow(ScriptedSender):
        def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
            clock.advance(5)
            return super().find(message, since=since, exclude=exclude)

    clock = FakeClock()
    message = replace(MESSAGE, send_before=clock.now() + timedelta(seconds=4))
    sender = Slow([STATED], clock=clock)
    dispatcher = shell(sender, clock=clock)
    first = dispatcher.attempt(message)
    assert isinstance(first, RetryAfter)
    clock.advance(2)
    late = dispatcher.attempt(message, first.state)
    assert isinstance(late, GaveUp)
    assert (late.reason, late.attempts) == (GiveUpReason.EXPIRED, 1)
    assert len(sender.sent) == 1


def test_a_message_in_doubt_is_looked_up_beyond_its_deadline_before_it_has_expired() -> None:
    message = replace(MESSAGE, send_before=FakeClock().now() + timedelta(seconds=10))
    done = run(LOST, message=message)
    assert len(done.sender.sent) == 1
    assert done.seconds == 120.0
    assert isinstance(done.end, GaveUp)
    assert (done.end.reason, done.end.attempts) == (GiveUpReason.EXPIRED, 1)


def test_a_text_found_beyond_its_deadline_is_accepted() -> None:
    message = replace(MESSAGE, send_before=FakeClock().now() + timedelta(seconds=3))
    nothing = NotSeen(FakeClock().now())
    done = run(LOST, message=message, finds=[nothing, nothing, Found(receipt("SM7"))])
    assert done.end == Accepted(receipt("SM7"), 1, looked_up=True)


# Doubt


def test_a_lost_answer_is_looked_up_before_it_is_sent_again() -> None:
    done = run(LOST, receipt("SM2"), repeat=False)
    assert [type(outcome) for outcome in done.outcomes[:2]] == [RetryAfter, Deferred]
    assert done.waits == [2.0, 2.0, 4.0, 8.0, 16.0, 32.0, 56.0]
    assert done.seconds == 120.0
    assert len(done.sender.sent) == 2
    assert done.end == Accepted(receipt("SM2"), 2)


def test_a_text_that_the_provider_has_is_not_sent_again() -> None:
    done = run(LOST, finds=[Found(receipt("SM7"))])
    assert done.end == Accepted(receipt("SM7"), 1, looked_up=True)
    assert len(done.sender.sent) == 1


def test_a_stated_error_keeps_the_ordinary_schedule_with_a_look_up_before_each_repeat() -> None:
    done = run(STATED)
    assert done.waits == [2.0, 4.0, 8.0]
    assert len(done.sender.sent) == 4
    assert len(done.sender.looked_up) == 4  # before each repeat, and before the end
    assert done.end == GaveUp(STATED, GiveUpReason.RETRIES_EXHAUSTED, 4)


def test_a_doubt_is_asked_again_before_every_later_send_and_before_the_end() -> None:
    done = run(STATED, BUSY, BUSY, BUSY)
    assert len(done.sender.sent) == 4
    assert len(done.sender.looked_up) == 4
    assert done.end == GaveUp(BUSY, GiveUpReason.RETRIES_EXHAUSTED, 4)


def test_a_text_that_shows_up_late_is_not_sent_a_third_time() -> None:
    now = FakeClock().now()
    done = run(STATED, BUSY, BUSY, finds=[NotSeen(now + timedelta(seconds=2)), Found(receipt("SM7"))])
    assert len(done.sender.sent) == 2
    assert done.end == Accepted(receipt("SM7"), 2, looked_up=True)


def test_a_refusal_for_good_does_not_end_a_message_that_was_taken_before() -> None:
    opted_out = Failure.of(FailureKind.OPTED_OUT)
    found: list[LookUp] = [NotSeen(FakeClock().now() + timedelta(seconds=2)), Found(receipt("SM7"))]
    done = run(STATED, opted_out, finds=found)
    assert done.end == Accepted(receipt("SM7"), 2, looked_up=True)


def test_a_listing_from_before_the_doubt_settled_proves_nothing() -> None:
    old = [NotSeen(FakeClock().now())] * 20
    done = run(LOST, finds=old)
    assert len(done.sender.sent) == 1
    assert isinstance(done.end, GaveUp)
    assert done.end.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert done.end.failure.detail == "the listing is too old to settle it"


def test_a_listing_from_a_clock_that_runs_ahead_settles_nothing_early() -> None:
    ahead = [NotSeen(FakeClock().now() + timedelta(days=1))] * 20
    done = run(LOST, receipt(), finds=ahead, repeat=False)
    assert done.seconds == 120.0
    assert len(done.sender.sent) == 2


def test_a_provider_that_cannot_tell_leaves_the_outcome_unknown() -> None:
    done = run(LOST, finds=[CannotTell("403")] * 20)
    assert len(done.sender.sent) == 1
    assert len(done.sender.looked_up) == 8
    assert done.end == GaveUp(replace(LOST, detail="403"), GiveUpReason.OUTCOME_UNKNOWN, 1)


def test_an_end_in_doubt_that_cannot_be_settled_keeps_the_last_failure() -> None:
    finds: list[LookUp] = [NotSeen(FakeClock().now() + timedelta(seconds=2)), *[CannotTell("")] * 9]
    done = run(STATED, WRONG_NUMBER, finds=finds)
    assert done.end == GaveUp(WRONG_NUMBER, GiveUpReason.OUTCOME_UNKNOWN, 2)


def test_who_never_resends_ends_as_unknown_where_the_provider_does_not_list_it() -> None:
    done = run(LOST, policy=RetryPolicy(on_unknown=OnUnknown.NEVER_RESEND))
    assert len(done.sender.sent) == 1
    assert isinstance(done.end, GaveUp)
    assert done.end.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert done.end.failure.detail == "the provider does not list it"


def test_who_resends_asks_nobody_and_keeps_the_schedule() -> None:
    done = run(LOST, LOST, receipt(), policy=RetryPolicy(on_unknown=OnUnknown.RESEND))
    assert done.waits == [2.0, 4.0]
    assert done.sender.looked_up == []
    assert done.end == Accepted(receipt(), 3)


def test_who_resends_still_asks_before_the_message_may_end_as_failed() -> None:
    done = run(LOST, policy=RetryPolicy(on_unknown=OnUnknown.RESEND))
    assert len(done.sender.sent) == 4
    assert done.sender.looked_up
    assert done.end == GaveUp(LOST, GiveUpReason.RETRIES_EXHAUSTED, 4)


def test_who_resends_where_nothing_can_be_told_sends_again_after_the_last_look() -> None:
    finds = [CannotTell("")] * 8
    done = run(LOST, receipt(), finds=finds, policy=RetryPolicy(on_unknown=OnUnknown.LOOK_UP_OR_RESEND))
    assert len(done.sender.looked_up) == 8
    assert done.end == Accepted(receipt(), 2)


def test_who_gives_up_asks_nobody() -> None:
    done = run(LOST, policy=RetryPolicy(on_unknown=OnUnknown.GIVE_UP))
    assert done.sender.looked_up == []
    assert done.waits == []
    assert done.end == GaveUp(LOST, GiveUpReason.OUTCOME_UNKNOWN, 1)


def test_a_doubt_from_before_the_choice_changed_is_given_up_too() -> None:
    clock = FakeClock()
    sender = ScriptedSender([LOST], clock=clock)
    first = Dispatcher(sender, clock=clock).attempt(MESSAGE)
    assert isinstance(first, RetryAfter)
    stricter = Dispatcher(sender, policy=RetryPolicy(on_unknown=OnUnknown.GIVE_UP), clock=clock)
    second = stricter.attempt(MESSAGE, first.state)
    assert isinstance(second, GaveUp)
    assert second.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert len(sender.sent) == 1


@given(failures(maybe_sent=st.just(True)), policies(choices=st.sampled_from(sorted(set(OnUnknown) - set(BLINDLY)))))
def test_a_text_that_may_have_been_sent_is_never_sent_again_blindly(failure: Failure, policy: RetryPolicy) -> None:
    asked_at_send: list[int] = []

    class Watched(ScriptedSender):
        def send(self, message: Message, /) -> Receipt:
            asked_at_send.append(len(self.looked_up))
            return super().send(message)

    clock = FakeClock()
    sender = Watched([failure], repeat=True, clock=clock)
    list(attempts(Dispatcher(sender, policy=policy, clock=clock), MESSAGE, clock))
    assert len(set(asked_at_send)) == len(asked_at_send), "a look-up stands between any two sends"
    if policy.on_unknown in {OnUnknown.NEVER_RESEND, OnUnknown.GIVE_UP}:
        assert len(asked_at_send) == 1


@given(failures(maybe_sent=st.just(True)), policies(choices=st.sampled_from(OnUnknown)))
def test_without_a_look_up_a_doubt_ends_at_once_or_is_resent_by_choice(failure: Failure, policy: RetryPolicy) -> None:
    clock = FakeClock()
    sender = Deaf(failure, clock=clock)
    outcomes = list(attempts(Dispatcher(sender, policy=policy, clock=clock), MESSAGE, clock))
    assert isinstance(outcomes[-1], GaveUp)
    assert outcomes[-1].reason is GiveUpReason.OUTCOME_UNKNOWN
    assert not any(isinstance(outcome, Deferred) for outcome in outcomes)
    assert len(sender.sent) == 1 or policy.on_unknown in BLINDLY


def test_a_sender_without_find_resends_one_time_passwords_on_the_schedule() -> None:
    clock = FakeClock()
    sender = Deaf(LOST, clock=clock)
    policy = RetryPolicy(on_unknown=OnUnknown.LOOK_UP_OR_RESEND)
    list(attempts(Dispatcher(sender, policy=policy, clock=clock), MESSAGE, clock))
    assert len(sender.sent) == 4
    assert clock.sleeps == [2.0, 4.0, 8.0]


class Broken(ScriptedSender):
    """Its look-up raises or answers nonsense."""

    def __init__(self, answer: Any, clock: FakeClock) -> None:
        super().__init__([LOST], clock=clock)
        self.answer = answer

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "why"),
    [(OSError("+15005550006"), "OSError"), (None, "find() returned a NoneType"), (True, "find() returned a bool")],
)
def test_a_look_up_that_fails_settles_nothing(answer: Any, why: str) -> None:
    clock = FakeClock()
    sender = Broken(answer, clock)
    *_, end = attempts(Dispatcher(sender, clock=clock), MESSAGE, clock)
    assert isinstance(end, GaveUp)
    assert (end.reason, end.failure.detail) == (GiveUpReason.OUTCOME_UNKNOWN, why)
    assert len(sender.sent) == 1


def test_a_look_up_begins_five_minutes_before_the_doubtful_send() -> None:
    asked: list[datetime] = []

    class Watched(ScriptedSender):
        def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
            asked.append(since)
            return super().find(message, since=since, exclude=exclude)

    clock = FakeClock()
    began = clock.now()
    list(attempts(Dispatcher(Watched([LOST], clock=clock), clock=clock), MESSAGE, clock))
    assert set(asked) == {began - timedelta(seconds=300)}


@given(policies(choices=st.sampled_from([OnUnknown.LOOK_UP, OnUnknown.NEVER_RESEND])))
def test_a_message_in_doubt_ends_even_where_nobody_waits(policy: RetryPolicy) -> None:
    """A test of an application replaces the sleep by nothing, and its clock may stand still."""
    clock, steps = FakeClock(), 0
    dispatcher = Dispatcher(ScriptedSender([LOST], clock=clock), policy=policy, clock=clock)
    outcome = dispatcher.attempt(MESSAGE)
    while isinstance(outcome, (RetryAfter, Deferred)):
        outcome, steps = dispatcher.attempt(MESSAGE, outcome.state), steps + 1
    assert steps < 60


def test_look_ups_go_on_for_a_day_at_most() -> None:
    settle_s = 10 * 86_400.0
    done = run(LOST, policy=RetryPolicy(settle_after_s=settle_s))
    assert isinstance(done.end, GaveUp)
    assert done.end.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert 86_400 <= done.seconds < 86_400 + 600


# What a state carries


def test_a_doubt_of_which_only_the_beginning_is_known_is_waited_for() -> None:
    clock = FakeClock()
    sender = ScriptedSender(clock=clock)
    dispatcher = Dispatcher(sender, clock=clock)
    state = AttemptState(retries=1, doubt_since=clock.now())
    first = dispatcher.attempt(MESSAGE, state)
    assert isinstance(first, Deferred)
    clock.advance(120)
    assert isinstance(dispatcher.attempt(MESSAGE, first.state), Accepted)
    assert len(sender.sent) == 1


def test_a_known_provider_id_is_never_dropped() -> None:
    done = Dispatcher(sender := ScriptedSender()).attempt(MESSAGE, AttemptState(retries=2, provider_id="SM9"))
    assert isinstance(done, Accepted)
    assert (done.receipt.provider_id, done.attempts, done.looked_up) == ("SM9", 2, True)
    assert sender.sent == []


def test_a_known_provider_id_means_one_attempt_at_least() -> None:
    done = Dispatcher(ScriptedSender()).attempt(MESSAGE, AttemptState(provider_id="SM9"))
    assert isinstance(done, Accepted)
    assert done.attempts == 1


def test_a_message_without_an_id_keeps_the_one_that_it_gets() -> None:
    clock, sink = FakeClock(), RecordingSink()
    sender = ScriptedSender([BUSY, LOST, BUSY], clock=clock)
    list(attempts(Dispatcher(sender, sink=sink, clock=clock), replace(MESSAGE, id=None), clock))
    assert len({event.message_id for event in sink.events}) == 1
    assert {sent.id for sent in sender.sent} == {sink.events[0].message_id}


def test_two_messages_without_ids_get_two() -> None:
    sender = ScriptedSender()
    for _ in range(2):
        Dispatcher(sender).attempt(replace(MESSAGE, id=None))
    assert sender.sent[0].id != sender.sent[1].id


def test_the_dispatcher_draws_for_the_jitter() -> None:
    clock = FakeClock()
    policy = RetryPolicy(jitter=Jitter.FULL)
    dispatcher = Dispatcher(ScriptedSender([BUSY], clock=clock), policy=policy, clock=clock, draw=lambda: 0.25)
    outcome = dispatcher.attempt(MESSAGE)
    assert isinstance(outcome, RetryAfter)
    assert outcome.delay_s == 0.5


# What a sender may do wrong


@pytest.mark.parametrize("answer", [None, "SM1", {"sid": "SM1"}, True])
def test_a_send_that_returns_no_receipt_is_an_unknown_outcome(answer: Any) -> None:
    class Sloppy:
        def send(self, message: Message, /) -> Receipt:
            return answer  # type: ignore[no-any-return]

    outcome = Dispatcher(Sloppy()).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert f"got {type(answer).__name__}" in outcome.failure.detail
    assert isinstance(outcome.cause, TypeError)


@pytest.mark.parametrize("provider_id", [None, "", 17])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_receipt_without_a_proper_id_is_a_lost_answer(shell: AnyShell, provider_id: Any) -> None:
    class Sloppy:
        def send(self, message: Message, /) -> Receipt:
            return Receipt("acme", provider_id, datetime.now(UTC))

    outcome = shell(Sloppy(), journal=MemoryJournal()).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.failure.kind) == (GiveUpReason.OUTCOME_UNKNOWN, FailureKind.LOST_ANSWER)
    assert "provider_id of a receipt" in str(outcome.cause)


def test_the_exception_of_the_last_attempt_comes_with_the_end() -> None:
    error = ProviderError(WRONG_NUMBER)
    outcome = Dispatcher(ScriptedSender([error])).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert outcome.cause is error


# Resuming


@given(policies(), st.lists(failures(), min_size=1, max_size=6), st.integers(0, 20), st.floats(0, 0.99))
def test_a_run_that_is_cut_and_resumed_from_json_goes_on_as_if_it_had_not_been(
    policy: RetryPolicy, script: list[Failure], cut: int, draw: float
) -> None:
    whole = run(*script, policy=policy, draw=draw, repeat=False)
    clock = FakeClock()
    sender = ScriptedSender(script, clock=clock)
    state, outcomes = AttemptState(), []
    for step in range(len(whole.outcomes)):
        if step == cut:  # another process: nothing is left but the message, the policy and the state, as JSON
            policy = RetryPolicy.from_dict(json.loads(json.dumps(policy.to_dict())))
            state = AttemptState.from_dict(json.loads(json.dumps(state.to_dict())))
        dispatcher = Dispatcher(sender, policy=policy, clock=clock, draw=lambda: draw)
        outcomes.append(dispatcher.attempt(Message.from_dict(json.loads(json.dumps(MESSAGE.to_dict()))), state))
        if isinstance(outcomes[-1], (RetryAfter, Deferred)):
            state = outcomes[-1].state
            clock.sleep(outcomes[-1].delay_s)
    assert outcomes == whole.outcomes


# Construction


def test_constructing_a_dispatcher_asks_nothing_of_the_sender() -> None:
    class Untouchable:
        def send(self, message: Message, /) -> Receipt:
            raise AssertionError

        def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
            raise AssertionError

    Dispatcher(Untouchable())


@pytest.mark.parametrize("sink", ["a path", [object()], [RecordingSink(), None], {"sink": RecordingSink()}])
def test_a_sink_that_cannot_record_is_refused(sink: Any) -> None:
    with pytest.raises(ConfigurationError, match="sink must have a method record"):
        Dispatcher(ScriptedSender(), sink=sink)


@pytest.mark.parametrize("sink", [None, 7, object()])
def test_what_is_no_sink_is_refused(sink: Any) -> None:
    with pytest.raises(ConfigurationError, match="sink must have a method record"):
        Dispatcher(ScriptedSender(), sink=sink)


def test_a_sink_that_can_be_iterated_is_one_sink() -> None:
    class Listing(RecordingSink):
        def __iter__(self) -> Iterator[object]:
            return iter(self.events)

    sink = Listing()
    Dispatcher(ScriptedSender([BUSY]), sink=sink).attempt(MESSAGE)
    assert [type(event) for event in sink.events] == [RetryScheduled]


def test_several_sinks_are_told_in_order() -> None:
    sinks = [RecordingSink(), RecordingSink()]
    Dispatcher(ScriptedSender(), sink=iter(sinks)).attempt(MESSAGE)
    assert [type(sink.events[0]) for sink in sinks] == [MessageAccepted, MessageAccepted]
