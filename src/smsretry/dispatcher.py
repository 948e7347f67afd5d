"""Make one attempt to send one message, and say what follows: the only place where a sender is called."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from smsretry.core.classify import classify_error
from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.lookup import CannotTell, Found, LookUp, NotSeen
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import (
    Accepted,
    AttemptState,
    Deferred,
    GaveUp,
    GiveUpReason,
    Outcome,
    RetryAfter,
)
from smsretry.core.policy import OnUnknown, RetryPolicy
from smsretry.ports import AnalyticsSink, CanLookUp, Classifier, Clock, SMSSender

_log: Final = logging.getLogger("smsretry")
_NEW: Final = AttemptState()
_CLOCKS_APART: Final = timedelta(seconds=300)
"""How far before the doubtful send a look-up begins: worker and provider clocks differ."""


def utc_now() -> datetime:
    """Return the present moment as an aware UTC datetime: the default `Clock`."""
    return datetime.now(UTC)


class Dispatcher:
    """Send messages through ``sender``, one attempt a call, as ``policy`` says.

    ``classify`` says what an exception means; the default is the sender's own ``classify`` where it has one. ``sink``
    is one analytics sink or several; one that fails is logged and starves no other. ``clock`` and ``draw`` (a random
    number from 0 up to, not including, 1) are arguments so that tests need neither time nor chance.

    Constructing it opens nothing, and it holds no state of its own: one may stand at module level and serve every
    thread and forked process.
    """

    def __init__(
        self,
        sender: SMSSender,
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008  # a frozen value
        classify: Classifier | None = None,
        sink: AnalyticsSink | Iterable[AnalyticsSink] = (),
        clock: Clock = utc_now,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.clock = clock
        self._sender = sender
        self._asks = sender if isinstance(sender, CanLookUp) else None
        self._classify = classify or getattr(sender, "classify", classify_error)
        self._sinks = tuple(sink) if isinstance(sink, Iterable) else (sink,)
        self._draw = draw

    def attempt(self, message: Message, state: AttemptState = _NEW) -> Outcome:
        """Make the next attempt of ``message``, where ``state`` is what the last outcome carried. Never sleeps.

        A message whose outcome is in doubt is looked up first. `RetryAfter` and `Deferred` ask for another call with
        their state after their delay; `Accepted` and `GaveUp` are the end.
        """
        began = self.clock()
        if message.id is None:
            state = state if state.message_id is not None else replace(state, message_id=uuid.uuid4().hex)
            message = message.with_id(str(state.message_id))
        outcome = self._next(message, state, began)
        if self._sinks:
            self._record(message, state, outcome, began)
        return outcome

    def _next(self, message: Message, state: AttemptState, now: datetime) -> Outcome:
        if state.provider_id is not None:
            return Accepted(Receipt("", state.provider_id, now), max(1, state.retries), looked_up=True)
        if message.send_before is not None and now > message.send_before and state.ending is None:
            return self._expire(message, state, now)
        if state.ending is not None or (state.doubt_since is not None and self._asks_before_sending):
            settled = self._settle(message, state, now)
            if settled is not None:
                return settled
        return self._send(message, state, now)

    @property
    def _asks_before_sending(self) -> bool:
        return self.policy.on_unknown is not OnUnknown.RESEND

    def _expire(self, message: Message, state: AttemptState, now: datetime) -> Outcome:
        failure = Failure.of(FailureKind.EXPIRED, detail="send_before has passed")
        ended = self.policy.end(GaveUp(failure, GiveUpReason.EXPIRED, state.retries), state, now=now)
        return self._concluded(message, ended, now)

    def _send(self, message: Message, state: AttemptState, began: datetime) -> Outcome:
        answer = self._call(message)
        if isinstance(answer, Receipt):
            return Accepted(answer, state.retries + 1)
        failure, error = answer
        now = self.clock()
        decision = self.policy.decide(
            failure, state, now=now, send_before=message.send_before, draw=self._draw(), began=began
        )
        if isinstance(decision, RetryAfter) and self._cannot_settle(decision.state):
            decision = GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, state.retries + 1)
        outcome = self._concluded(message, decision, now)
        return replace(outcome, cause=error) if isinstance(outcome, GaveUp) else outcome

    def _cannot_settle(self, state: AttemptState) -> bool:
        """Say whether waiting is vain: the outcome is in doubt, nobody can be asked, and nothing may be resent."""
        resends = self.policy.on_unknown in (OnUnknown.RESEND, OnUnknown.LOOK_UP_OR_RESEND)
        return state.doubt_since is not None and self._asks is None and not resends

    def _call(self, message: Message) -> Receipt | tuple[Failure, Exception]:
        try:
            receipt = self._sender.send(message)
        except Exception as error:  # noqa: BLE001  # the border: everything else is the classifier's
            return self._classified(error), error
        if isinstance(receipt, Receipt):
            return receipt
        error = TypeError(f"send() must return a Receipt, got {type(receipt).__name__}.")
        return Failure.of(FailureKind.LOST_ANSWER, detail=str(error)), error

    def _classified(self, error: Exception) -> Failure:
        try:
            failure = self._classify(error)
        except Exception as broken:  # noqa: BLE001  # a classifier's fault must not lose the message
            _log.error("The classifier raised %s; the default one judges instead.", type(broken).__qualname__)
            failure = None
        return failure if failure is not None else classify_error(error)

    def _concluded(self, message: Message, decision: RetryAfter | Deferred | GaveUp, now: datetime) -> Outcome:
        """Ask at once where the end waits for nothing but a look-up."""
        if isinstance(decision, Deferred) and decision.delay_s == 0.0:
            return self._settle(message, decision.state, now) or decision
        return decision

    def _settle(self, message: Message, state: AttemptState, now: datetime) -> Outcome | None:
        """Ask the provider about a message in doubt; None where it may be sent again."""
        answer = self._ask(message, state)
        looked = replace(state, looks=state.looks + 1)
        settled = state.settles_at is None or state.settles_at <= now
        match answer:
            case Found(receipt):
                return Accepted(receipt, max(1, _attempts(state)), looked_up=True)
            case NotSeen(as_of) if settled and (state.settles_at is None or state.settles_at <= as_of):
                return self._not_taken(state)
            case NotSeen() | CannotTell() if self._may_look_again(looked, now, settled=settled):
                return self.policy.look_again(looked, now=now)
            case NotSeen():
                return self._cannot_tell(state, "the listing is too old to settle it")
            case CannotTell(why):
                return self._cannot_tell(state, why)
            case _ as unreachable:
                assert_never(unreachable)

    def _ask(self, message: Message, state: AttemptState) -> LookUp:
        if self._asks is None or state.doubt_since is None:
            return CannotTell("the sender cannot be asked")
        try:
            return self._asks.find(message, since=state.doubt_since - _CLOCKS_APART)
        except Exception as error:  # noqa: BLE001  # a look-up that fails settles nothing
            return CannotTell(type(error).__qualname__)

    def _may_look_again(self, looked: AttemptState, now: datetime, *, settled: bool) -> bool:
        if self._asks is None:
            return False
        first = looked.deferred_since or now
        in_time = (now - first).total_seconds() < self.policy.max_deferral_s
        return in_time and (not settled or looked.looks < self.policy.max_looks)

    def _not_taken(self, state: AttemptState) -> GaveUp | None:
        if self.policy.on_unknown is OnUnknown.NEVER_RESEND:
            return self._unknown(state, "the provider does not list it")
        return state.ending

    def _cannot_tell(self, state: AttemptState, why: str) -> GaveUp | None:
        resends = self.policy.on_unknown is OnUnknown.LOOK_UP_OR_RESEND
        return None if resends and state.ending is None else self._unknown(state, why)

    def _unknown(self, state: AttemptState, why: str) -> GaveUp:
        lost = Failure.of(FailureKind.LOST_ANSWER, detail=why)
        failure = lost if state.ending is None else state.ending.failure
        return GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, _attempts(state))

    def _record(self, message: Message, state: AttemptState, outcome: Outcome, began: datetime) -> None:
        event = _event(message, state.round, outcome, began, self.clock())
        for sink in self._sinks:
            try:
                sink.record(event)
            except Exception as error:  # noqa: BLE001  # analytics never change an outcome
                _log.error("%s lost event %s: %s", type(sink).__qualname__, event.event_id, type(error).__qualname__)


def _attempts(state: AttemptState) -> int:
    """Return how many sends were made before a call with ``state``."""
    return state.retries if state.ending is None else state.ending.attempts


def _event(message: Message, round_: int, outcome: Outcome, began: datetime, now: datetime) -> Event:
    about = (str(message.id), message.campaign, message.metadata, round_, began, now)
    match outcome:
        case Accepted():
            return MessageAccepted(*about, outcome.attempts, outcome.receipt, outcome.looked_up)
        case RetryAfter(delay_s, failure, state):
            due = now + timedelta(seconds=delay_s) if state.due is None else state.due
            return RetryScheduled(*about, state.retries, failure, delay_s, due)
        case Deferred(delay_s, reason, state):
            due = now + timedelta(seconds=delay_s) if state.due is None else state.due
            lost = state.ending.failure if state.ending is not None and state.looks == 0 else None
            return MessageDeferred(*about, _attempts(state), reason, delay_s, due, state.deferrals, lost)
        case GaveUp(failure, reason, attempts):
            return MessageFailed(*about, attempts, failure, reason)
        case _ as unreachable:
            assert_never(unreachable)
