"""Make one attempt to send one message, and say what follows: the only place where a sender is called."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

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
from smsretry.errors import ProviderError
from smsretry.ports import AnalyticsSink, CanLookUp, Classifier, Clock, Journal, SMSSender
from smsretry.wiring import check_callable, check_clock, check_policy, check_sender, checked_sinks

if TYPE_CHECKING:
    from smsretry.journaled import Journaled

_NEW: Final = AttemptState()
LEASE_S: Final = 60.0
"""How long a claim in a journal holds without being renewed, unless told otherwise."""
_CLOCKS_APART: Final = timedelta(seconds=300)
"""How far before the doubtful send a look-up begins: worker and provider clocks differ."""
_RESENDING: Final = frozenset({OnUnknown.RESEND, OnUnknown.LOOK_UP_OR_RESEND})
_NOT_ASKED: Final = "the sender cannot be asked"


utc_now: Final[Clock] = functools.partial(datetime.now, UTC)
"""Return the present moment as an aware UTC datetime: the default `Clock`."""


def new_id() -> str:
    """Return a random message id, for messages that came without one."""
    return os.urandom(16).hex()


class Dispatcher:
    """Send messages through ``sender``, one attempt a call, as ``policy`` says.

    ``classify`` says what an exception means; the default is the sender's own ``classify`` where it has one. ``sink``
    is one analytics sink or several; one that fails is logged and starves no other. ``clock`` and ``draw`` (a random
    number from 0 up to, not including, 1) are arguments so that tests need neither time nor chance.

    ``journal`` (an `smsretry.store.SQLStore`, or `smsretry.journal.MemoryJournal` in one process) remembers what was
    begun, so that killed workers and repeated deliveries neither lose nor double a text. A claim in it holds for
    ``lease_s`` seconds, and must outlast a send; ``elapsed`` measures that, in seconds on a clock that never jumps and
    counts the time that the machine sleeps (the default is such a one).

    Constructing it opens nothing, and it holds no state of its own: one may stand at module level and serve every
    thread and forked process. Raises `smsretry.ConfigurationError` for a sender that cannot send, a sink that
    cannot record, a policy that is none and a clock without aware times.
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
        journal: Journal | None = None,
        lease_s: float = LEASE_S,
        elapsed: Callable[[], float] | None = None,
    ) -> None:
        check_sender(sender)
        check_policy(policy)
        check_clock(clock)
        check_callable("draw", draw)
        self.policy = policy
        self.clock = clock
        self._sender = sender
        # A runtime check of the Protocol would cost more than an attempt.
        self._asks = cast("CanLookUp", sender) if callable(getattr(sender, "find", None)) else None
        own: Classifier = getattr(sender, "classify", classify_error)
        self._classify = own if classify is None else classify
        check_callable("classify", self._classify)
        self._sinks = checked_sinks(sink)
        self._draw = draw
        self.journal = journal
        self.lease_s = lease_s
        self._journaled = None if journal is None else self._under(journal, lease_s, elapsed)

    @property
    def timeout_s(self) -> float | None:
        """Return how many seconds one send may take; None where the sender does not say."""
        timeout_s: float | None = getattr(self._sender, "timeout_s", None)
        return timeout_s

    def attempt(self, message: Message, state: AttemptState = _NEW, *, rerun: bool = False) -> Outcome:
        """Make the next attempt of ``message``, where ``state`` is what the last outcome carried. Never sleeps.

        A message whose outcome is in doubt is looked up first. `RetryAfter` and `Deferred` ask for another call with
        their state after their delay; `Accepted` and `GaveUp` are the end.

        With a journal its word counts, ``state`` is a hint, and a message that has ended is answered with its end.
        ``rerun`` says that the text may have been rendered anew: what was first begun under this id is sent.
        Raises `smsretry.InvalidMessage` where the journal knows the id with another recipient, or text.
        """
        if self._journaled is not None:
            return self._journaled.attempt(message, state, rerun=rerun)
        began = self.clock()
        if message.id is None:
            state = state if state.message_id is not None else replace(state, message_id=new_id())
            message = message.with_id(str(state.message_id))
        # No local variable here or in _send may hold the outcome: its cause holds these very frames.
        return self._told(self._next(message, state, began), message, state, began)

    def abandon(self, message: Message, state: AttemptState, why: str) -> GaveUp:
        """End a message in doubt as unknown, because it can wait for no other look-up, and tell every sink.

        For adapters: a queue that takes no retry, or does not wait. ``state`` is what the last outcome carried.
        """
        ended = _unknown(state, why)
        self._told(ended, message, state, self.clock())
        return ended

    def on_behalf(self, sender: SMSSender, clock: Clock) -> Dispatcher:
        """Return a dispatcher like this one that sends through ``sender`` by ``clock``, and tells nobody."""
        return Dispatcher(sender, policy=self.policy, classify=self._classify, clock=clock, draw=self._draw)

    def lost(self, message: Message, state: AttemptState, began: datetime) -> Outcome:
        """Decide what follows a send that began at ``began`` and of which nobody knows how it ended."""
        gone = Failure.of(FailureKind.LOST_ANSWER, detail="its worker ended before it said how it went")
        return self._failed(message, state, began, gone, None)

    def event(self, outcome: Outcome, message: Message, state: AttemptState, began: datetime, now: datetime) -> Event:
        """Return what the sinks are told of an attempt that was made with ``state`` and ended at ``now``."""
        return _event(outcome, message, state, began, now)

    def tell(self, event: Event) -> None:
        """Tell every sink but the journal, which wrote it itself."""
        own: object = self.journal
        self._tell(event, (sink for sink in self._sinks if sink is not own))

    def _under(self, journal: Journal, lease_s: float, elapsed: Callable[[], float] | None) -> Journaled:
        from smsretry.journaled import Journaled, since_boot  # nobody pays for it without a journal

        return Journaled(
            judge=self,
            sender=self._sender,
            journal=journal,
            clock=self.clock,
            new_id=new_id,
            lease_s=lease_s,
            elapsed=elapsed or since_boot,
        )

    def _next(self, message: Message, state: AttemptState, now: datetime) -> Outcome:
        if state.provider_id is not None:
            return Accepted(Receipt("", state.provider_id, now), max(1, _sends(state)), looked_up=True)
        if state.doubt_since is not None:
            return self._resolve(message, state, now) or self._send(message, state, now)
        if _is_late(message, now):
            return _expired(state)
        return self._send(message, state, now)

    def _send(self, message: Message, state: AttemptState, began: datetime) -> Outcome:
        try:
            receipt = self._sender.send(message)
        except Exception as error:  # noqa: BLE001  # the border: everything else is the classifier's
            return self._failed(message, state, began, self._classified(error), error)
        if isinstance(receipt, Receipt):
            return Accepted(receipt, state.retries + 1)
        wrong = TypeError(f"send() must return a Receipt, got {type(receipt).__name__}.")
        return self._failed(message, state, began, Failure.of(FailureKind.LOST_ANSWER, detail=str(wrong)), wrong)

    def _failed(
        self, message: Message, state: AttemptState, began: datetime, failure: Failure, error: Exception | None
    ) -> Outcome:
        """Decide what follows a send that failed; what needs nothing but a look-up is asked at once."""
        now = self.clock()
        decided = self.policy.decide(
            failure, state, now=now, send_before=message.send_before, draw=self._draw(), began=began
        )
        decision: Outcome = decided
        if not isinstance(decided, GaveUp) and self._is_hopeless(decided.state):
            decision = GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, state.retries + 1)
        elif isinstance(decided, Deferred) and decided.delay_s == 0.0:
            decision = self._settle(message, decided.state, now) or decided
        return replace(decision, cause=error) if isinstance(decision, GaveUp) else decision

    def _classified(self, error: Exception) -> Failure:
        if issubclass(type(error), ProviderError):  # isinstance would ask the exception, which may raise
            return classify_error(error)
        try:
            failure = self._classify(error)
        except Exception as broken:  # noqa: BLE001  # a classifier's fault must not lose the message
            _complain("The classifier raised %s; the default one judges instead.", type(broken).__qualname__)
            return classify_error(error)
        return failure if isinstance(failure, Failure) else classify_error(error)

    def _is_hopeless(self, state: AttemptState) -> bool:
        """Say whether waiting is vain: the outcome is in doubt, nobody can be asked, and nothing more may be sent."""
        if state.doubt_since is None or self._asks is not None:
            return False
        return state.ending is not None or self.policy.on_unknown not in _RESENDING

    def _resolve(self, message: Message, state: AttemptState, now: datetime) -> Outcome | None:
        """Say what a message in doubt leads to; None where it may be sent again."""
        if self.policy.on_unknown is OnUnknown.GIVE_UP:
            return _unknown(state, "the policy asks nobody")
        if state.ending is None and _is_late(message, now):
            state = replace(state, ending=_expired(state))
        if state.ending is None and self.policy.on_unknown is OnUnknown.RESEND:
            return None
        return self._settle(message, state, now)

    def _settle(self, message: Message, state: AttemptState, now: datetime) -> Outcome | None:
        """Ask the provider about a message in doubt; None where it may be sent again."""
        answer, policy = self._ask(message, state), self.policy
        match answer:
            case Found(receipt):
                return Accepted(receipt, max(1, _sends(state)), looked_up=True)
            case NotSeen(as_of) if policy.is_settled(state, now) and policy.is_settled(state, as_of):
                return self._not_taken(state)
            case NotSeen():
                return self._not_settled(state, now, "the listing is too old to settle it")
            case CannotTell(why):
                return self._not_settled(state, now, why)
            case _ as unreachable:
                assert_never(unreachable)

    def _ask(self, message: Message, state: AttemptState) -> LookUp:
        if self._asks is None or state.doubt_since is None:
            return CannotTell(_NOT_ASKED)
        try:
            answer = self._asks.find(message, since=state.doubt_since - _CLOCKS_APART)
        except Exception as error:  # noqa: BLE001  # a look-up that fails settles nothing
            return CannotTell(type(error).__qualname__)
        return answer if isinstance(answer, LookUp) else CannotTell(f"find() returned a {type(answer).__name__}")

    def _not_taken(self, state: AttemptState) -> GaveUp | None:
        if self.policy.on_unknown is OnUnknown.NEVER_RESEND:
            return _unknown(state, "the provider does not list it")
        return state.ending

    def _not_settled(self, state: AttemptState, now: datetime, why: str) -> Deferred | GaveUp | None:
        looked = replace(state, looks=state.looks + 1)
        if self._asks is not None and self.policy.may_look_again(looked, now=now):
            return self.policy.look_again(looked, now=now)
        resends = self.policy.on_unknown in _RESENDING
        return None if resends and state.ending is None else _unknown(state, why)

    def _told(self, outcome: Outcome, message: Message, state: AttemptState, began: datetime) -> Outcome:
        """Tell every sink what followed an attempt that was made with ``state``, and return it."""
        if self._sinks:
            self._tell(_event(outcome, message, state, began, self.clock()), self._sinks)
        return outcome

    def _tell(self, event: Event, sinks: Iterable[AnalyticsSink]) -> None:
        for sink in sinks:
            try:
                sink.record(event)
            except Exception as error:  # noqa: BLE001  # analytics never change an outcome
                lost = (type(sink).__qualname__, event.event_id, type(error).__qualname__)
                _complain("%s lost event %s: %s", *lost)


def _complain(text: str, *values: object) -> None:
    import logging  # a tenth of what the front door would cost

    logging.getLogger("smsretry").error(text, *values)


def _is_late(message: Message, now: datetime) -> bool:
    return message.send_before is not None and now > message.send_before


def _expired(state: AttemptState) -> GaveUp:
    failure = Failure.of(FailureKind.EXPIRED, detail="send_before has passed")
    return GaveUp(failure, GiveUpReason.EXPIRED, _sends(state))


def _unknown(state: AttemptState, why: str) -> GaveUp:
    failure = Failure.of(FailureKind.LOST_ANSWER, detail=why) if state.ending is None else state.ending.failure
    return GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, _sends(state))


def _sends(state: AttemptState) -> int:
    """Return how many sends were made before a call with ``state``."""
    return state.retries if state.ending is None else state.ending.attempts


def _event(outcome: Outcome, message: Message, state: AttemptState, began: datetime, now: datetime) -> Event:
    fields: dict[str, Any] = {
        "message_id": message.id,
        "campaign": message.campaign,
        "metadata": message.metadata,
        "round": state.round,
        "started_at": began,
        "at": now,
    }
    match outcome:
        case Accepted():
            fields["attempt"], fields["receipt"] = outcome.attempts, outcome.receipt
            fields["looked_up"] = outcome.looked_up
            return MessageAccepted.of(fields)
        case RetryAfter():
            fields["attempt"], fields["failure"] = outcome.state.retries, outcome.failure
            fields["delay_s"], fields["due"] = outcome.delay_s, outcome.state.due
            return RetryScheduled.of(fields)
        case Deferred():
            return MessageDeferred.of(fields | _deferral(outcome, _sends(state)))
        case GaveUp():
            fields |= {"attempt": outcome.attempts, "failure": outcome.failure, "reason": outcome.reason}
            return MessageFailed.of(fields)
        case _ as unreachable:
            assert_never(unreachable)


def _deferral(outcome: Deferred, sends_before: int) -> dict[str, Any]:
    following, ending = outcome.state, outcome.state.ending
    return {
        "attempt": _sends(following),
        "reason": outcome.reason,
        "delay_s": outcome.delay_s,
        "due": following.due,
        "deferral": following.deferrals,
        "failure": ending.failure if ending is not None and ending.attempts > sends_before else None,
    }
