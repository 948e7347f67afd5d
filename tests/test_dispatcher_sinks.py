"""Analytics hear of everything and change nothing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    Accepted,
    AttemptState,
    Deferred,
    Dispatcher,
    Event,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    MessageAccepted,
    MessageDeferred,
    MessageFailed,
    OnUnknown,
    Outcome,
    RetryAfter,
    RetryPolicy,
    RetryScheduled,
)
from smsretry.ports import AnalyticsSink, CannotTell
from smsretry.store import SQLStore
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender
from tests.shells import SHELLS, AnyShell
from tests.strategies import failures, policies

MESSAGE = Message("+15005550006", "Your table is ready.", id="spring:4711", campaign="spring", metadata={"customer": 1})
BUSY = Failure.of(FailureKind.RATE_LIMITED)
LOST = Failure.of(FailureKind.LOST_ANSWER)
STATED = Failure.of(FailureKind.TEMPORARY, maybe_sent=True)


class Failing:
    """A sink whose database is away."""

    def __init__(self) -> None:
        self.told = 0

    def record(self, event: Event, /) -> None:
        self.told += 1
        raise OSError(f"{event.message_id} +15005550006")


class Slow:
    """A sink that takes its time."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def record(self, event: Event, /) -> None:
        self._clock.advance(self._seconds)


class Reentrant:
    """A sink that sends a message of its own about each event, through the same dispatcher."""

    def __init__(self) -> None:
        self.dispatcher: Dispatcher | None = None

    def record(self, event: Event, /) -> None:
        if self.dispatcher is not None and event.message_id == MESSAGE.id:
            self.dispatcher.attempt(replace(MESSAGE, id=f"about {event.event_id}"))


def run(
    script: Iterable[Failure], policy: RetryPolicy, sinks: Callable[[FakeClock], list[AnalyticsSink]]
) -> tuple[list[Outcome], list[Message], list[float], RecordingSink]:
    clock, heard = FakeClock(), RecordingSink()
    sender = ScriptedSender(script, clock=clock, repeat=True)
    made = sinks(clock)
    dispatcher = Dispatcher(sender, policy=policy, sink=[*made, heard], clock=clock, draw=lambda: 0.5)
    for sink in made:
        if isinstance(sink, Reentrant):
            sink.dispatcher = dispatcher
    outcomes: list[Outcome] = [dispatcher.attempt(MESSAGE)]
    while isinstance(following := outcomes[-1], (RetryAfter, Deferred)):
        clock.sleep(following.delay_s)
        outcomes.append(dispatcher.attempt(MESSAGE, following.state))
    own = [message for message in sender.sent if message.id == MESSAGE.id]
    return outcomes, own, clock.sleeps, heard


@given(policies(), failures())
def test_a_sink_that_fails_changes_neither_outcome_nor_schedule(policy: RetryPolicy, failure: Failure) -> None:
    logging.disable()
    try:
        with_it = run([failure], policy, lambda clock: [Failing()])
    finally:
        logging.disable(logging.NOTSET)
    without = run([failure], policy, lambda clock: [])
    assert with_it[:3] == without[:3]
    assert with_it[3].events == without[3].events


@given(policies(), failures())
def test_a_sink_that_sends_causes_no_second_text_and_no_other_schedule(policy: RetryPolicy, failure: Failure) -> None:
    with_it = run([failure], policy, lambda clock: [Reentrant()])
    without = run([failure], policy, lambda clock: [])
    assert with_it[:3] == without[:3]


def test_a_slow_sink_changes_no_delay() -> None:
    _, sent, waits, _ = run([BUSY], RetryPolicy(), lambda clock: [Slow(clock, 30.0)])
    assert waits == [2.0, 4.0, 8.0]
    assert len(sent) == 4


def test_a_sink_that_fails_does_not_starve_the_others(caplog: pytest.LogCaptureFixture) -> None:
    failing, heard = Failing(), RecordingSink()
    Dispatcher(ScriptedSender(), sink=[failing, heard, failing]).attempt(MESSAGE)
    assert failing.told == 2
    assert len(heard.events) == 1
    assert caplog.messages == ["Failing lost event spring:4711/1/1/accepted: OSError"] * 2
    assert "5005550006" not in caplog.text


def test_a_store_that_can_never_work_says_why(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    Dispatcher(ScriptedSender(), sink=SQLStore(f"sqlite:///{tmp_path}/none/sms.db")).attempt(MESSAGE)
    assert "SQLStore lost event spring:4711/1/1/accepted: ConfigurationError: The folder of the database" in caplog.text


def test_what_is_no_error_of_a_sink_is_never_caught() -> None:
    class Interrupted:
        def record(self, event: Event, /) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Dispatcher(ScriptedSender(), sink=Interrupted()).attempt(MESSAGE)


@given(policies(), st.lists(failures(), min_size=1, max_size=5))
def test_the_events_of_a_message_are_retries_and_deferrals_and_then_one_end(
    policy: RetryPolicy, script: list[Failure]
) -> None:
    outcomes, _, _, heard = run(script, policy, lambda clock: [])
    told = {Accepted: MessageAccepted, RetryAfter: RetryScheduled, Deferred: MessageDeferred, GaveUp: MessageFailed}
    assert [type(event) for event in heard.events] == [told[type(outcome)] for outcome in outcomes]
    assert all(isinstance(event, (RetryScheduled, MessageDeferred)) for event in heard.events[:-1])
    assert isinstance(heard.events[-1], (MessageAccepted, MessageFailed))


@given(policies(), st.lists(failures(), min_size=1, max_size=5))
def test_every_event_of_a_message_has_an_id_of_its_own(policy: RetryPolicy, script: list[Failure]) -> None:
    _, _, _, heard = run(script, policy, lambda clock: [])
    assert len({event.event_id for event in heard.events}) == len(heard.events)


@given(policies(), st.lists(failures(), min_size=1, max_size=5))
def test_attempts_and_times_of_the_events_never_run_backwards(policy: RetryPolicy, script: list[Failure]) -> None:
    _, sent, _, heard = run(script, policy, lambda clock: [])
    assert all(one.attempt <= other.attempt for one, other in itertools.pairwise(heard.events))
    assert all(one.at <= other.started_at for one, other in itertools.pairwise(heard.events))
    assert all(event.started_at <= event.at for event in heard.events)
    assert heard.events[-1].attempt == len(sent)


@given(policies(), st.lists(failures(), min_size=1, max_size=5))
def test_every_send_that_failed_is_told_once(policy: RetryPolicy, script: list[Failure]) -> None:
    _, sent, _, heard = run(script, policy, lambda clock: [])
    told = [event.attempt for event in heard.events if isinstance(event, RetryScheduled)]
    last = [event.attempt for event in heard.events if isinstance(event, MessageDeferred) and event.failure is not None]
    assert told == sorted(set(told))
    assert set(told) | set(last) | {heard.events[-1].attempt} == set(range(1, len(sent) + 1))
    assert set(last).isdisjoint(told)


def test_an_event_says_what_happened_to_whom_and_why() -> None:
    clock, heard = FakeClock(), RecordingSink()
    began = clock.now()
    Dispatcher(ScriptedSender([BUSY], clock=clock), sink=heard, clock=clock).attempt(MESSAGE, AttemptState(round=2))
    event = heard.events[0]
    assert event == RetryScheduled(
        message_id="spring:4711",
        campaign="spring",
        metadata={"customer": 1},
        round=2,
        started_at=began,
        at=began,
        attempt=1,
        failure=BUSY,
        delay_s=2.0,
        due=began + timedelta(seconds=2),
    )
    assert event.event_id == "spring:4711/2/1/retry_scheduled"


def test_no_event_holds_number_or_text() -> None:
    _, _, _, heard = run([LOST], RetryPolicy(), lambda clock: [])
    for event in heard.events:
        assert "5005550006" not in repr(event) + str(event.to_dict())
        assert "table" not in repr(event) + str(event.to_dict())


def test_the_last_attempt_is_told_with_its_failure_where_the_end_has_to_wait() -> None:
    _, _, _, heard = run([LOST], RetryPolicy(max_retries=0), lambda clock: [])
    first, *others = heard.events
    assert isinstance(first, MessageDeferred)
    assert (first.attempt, first.failure) == (1, LOST)
    assert [event.failure for event in others if isinstance(event, MessageDeferred)] == [None] * (len(others) - 1)


def test_the_last_attempt_is_told_with_its_failure_also_after_a_look_up_at_once() -> None:
    clock, heard = FakeClock(), RecordingSink()
    sender = ScriptedSender([STATED], finds=[CannotTell("503")], clock=clock)
    outcome = Dispatcher(sender, policy=RetryPolicy(max_retries=0), sink=heard, clock=clock).attempt(MESSAGE)
    assert isinstance(outcome, Deferred)
    assert outcome.state.looks == 1
    event = heard.events[0]
    assert isinstance(event, MessageDeferred)
    assert event.failure == STATED


def test_a_deadline_that_passes_in_doubt_is_no_failed_attempt() -> None:
    clock, heard = FakeClock(), RecordingSink()
    message = replace(MESSAGE, send_before=clock.now() + timedelta(seconds=3))
    dispatcher = Dispatcher(ScriptedSender([LOST], clock=clock), sink=heard, clock=clock)
    first = dispatcher.attempt(message)
    assert isinstance(first, RetryAfter)
    clock.advance(4)
    late = dispatcher.attempt(message, first.state)
    assert isinstance(late, Deferred)
    assert late.state.ending is not None
    assert late.state.ending.reason is GiveUpReason.EXPIRED
    event = heard.events[-1]
    assert isinstance(event, MessageDeferred)
    assert (event.attempt, event.failure) == (1, None)


def test_an_accepted_text_is_told_with_its_receipt() -> None:
    outcomes, _, _, heard = run([], RetryPolicy(on_unknown=OnUnknown.GIVE_UP), lambda clock: [])
    assert isinstance(outcomes[0], Accepted)
    assert isinstance(heard.events[0], MessageAccepted)
    assert heard.events[0].receipt is outcomes[0].receipt
    assert not heard.events[0].looked_up


@pytest.mark.parametrize("shell", SHELLS)
def test_a_sink_that_changes_the_metadata_changes_no_message_and_no_later_event(shell: AnyShell) -> None:
    class Scribbling:
        def record(self, event: Event, /) -> None:
            metadata: Any = event.metadata
            metadata["order"]["lines"].append(object())
            metadata["sink"] = object()

    clock, later = FakeClock(), RecordingSink()
    metadata = {"order": {"lines": [1, None]}}
    message = replace(MESSAGE, metadata=metadata)
    dispatcher = shell(ScriptedSender([BUSY, BUSY], clock=clock), sink=Scribbling(), clock=clock)
    first = dispatcher.attempt(message)
    assert isinstance(first, RetryAfter)
    shell(ScriptedSender(clock=clock), sink=later, clock=clock).attempt(message, first.state)
    assert message.to_dict()["metadata"] == metadata
    assert later.events[0].metadata == metadata
    assert type(later.events[0].metadata) is dict
