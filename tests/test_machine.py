"""Policy and dispatcher against a model of a provider, in every order that Hypothesis can think of.

The provider takes texts and loses answers, states errors after it took a text, lists late, cannot tell, and breaks.
While its list lags no longer than the policy waits for it, the model knows for each message what must hold.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from random import Random
from typing import assert_never

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from smsretry import (
    Accepted,
    AttemptState,
    Deferred,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    OnUnknown,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
)
from smsretry.errors import ProviderError
from smsretry.ports import CannotTell, Found, LookUp, NotSeen
from smsretry.testing import FakeClock, RecordingSink

BLINDLY = {OnUnknown.RESEND, OnUnknown.LOOK_UP_OR_RESEND}
MOST_CALLS = 300
"""Calls of one message until it has ended: 13 sends at most, each with up to 20 look-ups."""


class Answer(Enum):
    """What a send meets; a text is taken where the name says so."""

    TAKEN = auto()
    BUSY = auto()
    QUEUE_FULL = auto()
    REFUSED_CONNECTION = auto()
    WRONG_NUMBER = auto()
    LOST = auto()
    LOST_BUT_TAKEN = auto()
    STATED_ERROR = auto()
    STATED_ERROR_BUT_TAKEN = auto()
    FINAL_ERROR_BUT_TAKEN = auto()
    NO_RECEIPT_BUT_TAKEN = auto()


class Listing(Enum):
    """What a look-up meets."""

    COMPLETE = auto()
    STALE = auto()
    REFUSED = auto()
    BROKEN = auto()


OPENS_DOUBT = {one for one in Answer if one.name.startswith("LOST") or one.name.endswith(("BUT_TAKEN", "STATED_ERROR"))}


@dataclass(frozen=True, slots=True)
class Move:
    """What the next call of a message meets."""

    answer: Answer
    listing: Listing
    lag: float
    """How late a text is listed that was taken although its answer was lost: a share of the time that is waited."""
    duration_s: float
    """How long a send takes."""
    look_s: float
    """How long a look-up takes."""
    punctual: bool
    """False where the queue comes too early."""


moves = st.builds(
    Move,
    answer=st.sampled_from(Answer),
    listing=st.sampled_from([Listing.COMPLETE, Listing.COMPLETE, *Listing]),
    lag=st.sampled_from([0.0, 0.5, 1.0]),
    duration_s=st.sampled_from([0.0, 10.0]),
    look_s=st.sampled_from([0.0, 0.0, 5.0]),
    punctual=st.sampled_from([True, True, False]),
)


deadlines = st.sampled_from([None, None, 60.0, 60.0, 4_000.0, 5.0, 0.0, -1.0])
"""Seconds until a message is of no use any more."""


@dataclass(slots=True)
class Tracked:
    """Everything that the model knows about one message."""

    message: Message
    state: AttemptState = field(default_factory=AttemptState)
    due: datetime | None = None
    end: Accepted | GaveUp | None = None
    calls: int = 0
    sends: int = 0
    taken: list[tuple[datetime, datetime]] = field(default_factory=list)
    """For each text that the provider took, when it was created and from when on it is listed."""
    settles_at: datetime | None = None
    """From when on a complete listing proves that it was not taken; None while nothing is in doubt."""


class Provider:
    """Take texts, answer as told, and list what was taken, late."""

    def __init__(self, clock: FakeClock, policy: RetryPolicy) -> None:
        self._clock, self._policy = clock, policy
        self.known: dict[str, Tracked] = {}
        self.move = Move(Answer.TAKEN, Listing.COMPLETE, lag=0.0, duration_s=0.0, look_s=0.0, punctual=True)
        self.proof: datetime | None = None
        """The moment of the complete listing without the text that was read in the present call."""
        self.asked = False

    def send(self, message: Message, /) -> Receipt:
        tracked = self.known[str(message.id)]
        self._check(tracked)
        tracked.sends += 1
        began = self._clock.now()
        self._clock.advance(self.move.duration_s)
        if self.move.answer in OPENS_DOUBT:
            self._open_doubt(tracked, began)
        elif self.move.answer is Answer.TAKEN:
            tracked.taken.append((began, self._clock.now()))
        return self._answered(message)

    def _check(self, tracked: Tracked) -> None:
        """No send after the deadline, and no blind repeat unless it was chosen by name."""
        now, choice = self._clock.now(), self._policy.on_unknown
        assert tracked.message.send_before is None or now <= tracked.message.send_before
        if tracked.settles_at is not None and choice not in BLINDLY:
            assert choice is OnUnknown.LOOK_UP
            assert self.proof is not None
            assert self.proof >= tracked.settles_at
        if tracked.settles_at is not None and choice in BLINDLY:
            assert self.asked is (choice is OnUnknown.LOOK_UP_OR_RESEND and self.can_be_asked)

    @property
    def can_be_asked(self) -> bool:
        return hasattr(self, "find")

    def _open_doubt(self, tracked: Tracked, began: datetime) -> None:
        lost = self.move.answer in {Answer.LOST, Answer.LOST_BUT_TAKEN, Answer.NO_RECEIPT_BUT_TAKEN}
        settle_s = self._policy.settle_after_s if lost else self._policy.settle_after_error_s
        settles_at = self._clock.now() + timedelta(seconds=settle_s)
        tracked.settles_at = max(settles_at, tracked.settles_at or settles_at)
        if self.move.answer.name.endswith("BUT_TAKEN"):
            tracked.taken.append((began, self._clock.now() + timedelta(seconds=settle_s * self.move.lag)))

    def _answered(self, message: Message) -> Receipt:
        match self.move.answer:
            case Answer.TAKEN:
                return Receipt("model", f"SM-{message.id}", self._clock.now())
            case Answer.BUSY:
                raise ProviderError(Failure.of(FailureKind.RATE_LIMITED, retry_after_s=7.0))
            case Answer.QUEUE_FULL:
                raise ProviderError(Failure.of(FailureKind.QUEUE_FULL))
            case Answer.REFUSED_CONNECTION:
                raise ConnectionRefusedError
            case Answer.WRONG_NUMBER:
                raise ProviderError(Failure.of(FailureKind.INVALID_NUMBER))
            case Answer.LOST | Answer.LOST_BUT_TAKEN:
                raise TimeoutError
            case Answer.STATED_ERROR | Answer.STATED_ERROR_BUT_TAKEN:
                raise ProviderError(Failure.of(FailureKind.TEMPORARY, maybe_sent=True, http_status=500))
            case Answer.FINAL_ERROR_BUT_TAKEN:
                raise ProviderError(Failure.of(FailureKind.OTHER, maybe_sent=True))
            case Answer.NO_RECEIPT_BUT_TAKEN:
                return None  # type: ignore[return-value]
            case _ as unreachable:
                assert_never(unreachable)


class AskableProvider(Provider):
    """A provider that lists what it took."""

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        self.asked = True
        now, tracked = self._clock.now(), self.known[str(message.id)]
        self._clock.advance(self.move.look_s)
        match self.move.listing:
            case Listing.COMPLETE:
                return self._listed(tracked, since, now)
            case Listing.STALE:
                return self._listed(tracked, since, now - timedelta(days=2))
            case Listing.REFUSED:
                return CannotTell("403")
            case Listing.BROKEN:
                raise ConnectionResetError
            case _ as unreachable:
                assert_never(unreachable)

    def _listed(self, tracked: Tracked, since: datetime, as_of: datetime) -> LookUp:
        """Say what a complete listing of this moment shows."""
        listed = [created for created, listed_from in tracked.taken if listed_from <= as_of]
        if any(since <= created <= as_of for created in listed):
            return Found(Receipt("model", f"SM-{tracked.message.id}", as_of))
        self.proof = as_of
        return NotSeen(as_of)


class Sending(RuleBasedStateMachine):
    """Send messages through one dispatcher, one step of one message at a time."""

    messages: Bundle[Tracked] = Bundle("messages")

    @initialize(
        target=messages,
        left_s=deadlines,
        choice=st.sampled_from([OnUnknown.LOOK_UP, *OnUnknown]),
        askable=st.sampled_from([True, True, False]),
        retries=st.sampled_from([0, 1, 3, 12]),
        settle_s=st.sampled_from([0.0, 30.0, 120.0]),
        settle_error_s=st.sampled_from([0.0, 5.0]),
        longest_s=st.sampled_from([60.0, 86_400.0]),
        looks=st.sampled_from([1, 8]),
        at_last=st.sampled_from(Listing),
    )
    def open(
        self,
        *,
        left_s: float | None,
        choice: OnUnknown,
        askable: bool,
        retries: int,
        settle_s: float,
        settle_error_s: float,
        longest_s: float,
        looks: int,
        at_last: Listing,
    ) -> Tracked:
        self.clock, self.sink, self.at_last = FakeClock(), RecordingSink(), at_last
        self.policy = RetryPolicy(
            max_retries=retries,
            on_unknown=choice,
            settle_after_s=settle_s,
            settle_after_error_s=settle_error_s,
            max_deferral_s=longest_s,
            max_looks=looks,
        )
        self.provider = (AskableProvider if askable else Provider)(self.clock, self.policy)
        self.dispatcher = Dispatcher(self.provider, policy=self.policy, sink=self.sink, clock=self.clock)
        return self.submitted(left_s)

    @precondition(lambda self: len(self.provider.known) < 4)
    @rule(target=messages, left_s=deadlines)
    def submit(self, left_s: float | None) -> Tracked:
        return self.submitted(left_s)

    def submitted(self, left_s: float | None) -> Tracked:
        deadline = None if left_s is None else self.clock.now() + timedelta(seconds=left_s)
        name = f"m{len(self.provider.known)}"
        tracked = Tracked(Message("+15005550006", "Your table is ready.", id=name, send_before=deadline))
        self.provider.known[name] = tracked
        return tracked

    @rule(seconds=st.sampled_from([0.001, 1.0, 30.0, 119.0, 3_600.0, 90_000.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(tracked=messages, plan=st.lists(moves, min_size=2, max_size=8))
    def go_on(self, tracked: Tracked, plan: list[Move]) -> None:
        for move in plan:
            self.provider.move = move
            if tracked.end is None:
                self.attempt(tracked, punctual=move.punctual)

    def attempt(self, tracked: Tracked, *, punctual: bool = True) -> None:
        if punctual and tracked.due is not None and tracked.due > self.clock.now():
            self.clock.advance((tracked.due - self.clock.now()).total_seconds())
        self.provider.proof, self.provider.asked = None, False
        sends = tracked.sends
        message = Message.from_dict(json.loads(json.dumps(tracked.message.to_dict())))
        outcome = self.dispatcher.attempt(message, tracked.state)
        tracked.calls += 1
        assert tracked.sends - sends in {0, 1}, "one attempt is at most one send"
        assert tracked.calls <= MOST_CALLS, "every message ends"
        self.note(tracked, outcome)

    def note(self, tracked: Tracked, outcome: Outcome) -> None:
        match outcome:
            case RetryAfter() | Deferred():
                tracked.state = AttemptState.from_dict(json.loads(json.dumps(outcome.state.to_dict())))
                tracked.due = outcome.state.due
                assert tracked.state == outcome.state
            case Accepted() | GaveUp():
                tracked.end = outcome
                self.check_end(tracked, outcome)
            case _ as unreachable:
                assert_never(unreachable)
        self.check_counts(tracked, outcome)

    def check_counts(self, tracked: Tracked, outcome: Outcome) -> None:
        most = max(self.policy.max_retries, len(self.policy.schedule(FailureKind.QUEUE_FULL)))
        assert tracked.sends <= most + 1
        assert len(tracked.taken) <= 1 or self.policy.on_unknown in BLINDLY, "at most one text"
        if isinstance(outcome, (Accepted, GaveUp)):
            assert outcome.attempts == tracked.sends
        assert self.sink.events[-1].attempt == tracked.sends

    def check_end(self, tracked: Tracked, end: Accepted | GaveUp) -> None:
        has_it = bool(tracked.taken)
        match end:
            case Accepted():
                assert has_it
            case GaveUp(reason=GiveUpReason.OUTCOME_UNKNOWN):
                assert tracked.settles_at is not None, "nothing is unknown without a doubt"
            case GaveUp():
                assert not has_it
                if tracked.settles_at is not None:
                    assert self.provider.proof is not None, "a doubt is asked before the message ends as failed"
                    assert self.provider.proof >= tracked.settles_at
            case _ as unreachable:
                assert_never(unreachable)

    def teardown(self) -> None:
        """Let every message end."""
        if not hasattr(self, "provider"):
            return
        self.provider.move = Move(Answer.LOST, self.at_last, lag=0.0, duration_s=0.0, look_s=0.0, punctual=True)
        for tracked in self.provider.known.values():
            while tracked.end is None:
                self.attempt(tracked)


def test_messages_keep_what_is_promised_in_every_order() -> None:
    run_state_machine_as_test(Sending, settings=settings(max_examples=200, stateful_step_count=12))


@pytest.mark.parametrize("choice", OnUnknown)
def test_messages_keep_what_is_promised_on_random_walks(choice: OnUnknown) -> None:
    """Hypothesis looks for the simplest fault; dice go everywhere."""
    for seed in range(400):
        walk(Random(f"{choice}{seed}"), choice)


def walk(dice: Random, choice: OnUnknown) -> None:
    sending = Sending()
    message = sending.open(
        left_s=dice.choice([None, None, 5.0, 60.0, 4_000.0]),
        choice=choice,
        askable=dice.random() < 0.8,
        retries=dice.choice([1, 3, 12]),
        settle_s=dice.choice([0.0, 30.0, 120.0]),
        settle_error_s=dice.choice([0.0, 5.0]),
        longest_s=dice.choice([60.0, 86_400.0]),
        looks=dice.choice([1, 8]),
        at_last=dice.choice(list(Listing)),
    )
    for _ in range(12):
        listing = dice.choice([Listing.COMPLETE, Listing.COMPLETE, *Listing])
        move = Move(
            dice.choice(list(Answer)),
            listing,
            lag=dice.choice([0.0, 0.5, 1.0]),
            duration_s=dice.choice([0.0, 10.0]),
            look_s=dice.choice([0.0, 0.0, 5.0]),
            punctual=dice.random() < 0.8,
        )
        sending.go_on(message, [move])
        if dice.random() < 0.2:
            sending.let_time_pass(dice.choice([1.0, 30.0, 119.0, 3_600.0]))
    sending.teardown()
