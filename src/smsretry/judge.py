"""Decide what one attempt leads to: whether to ask, whether to send, and what follows. Nothing here calls a sender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

from smsretry.core.claims import PROBE_EVERY_S, is_late
from smsretry.core.classify import classify_error
from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.lookup import CannotTell, Found, LookUp, NotSeen
from smsretry.core.message import Message, Receipt, json_copied
from smsretry.core.outcome import (
    Accepted,
    AttemptState,
    DeferReason,
    Deferred,
    GaveUp,
    GiveUpReason,
    Outcome,
    RetryAfter,
)
from smsretry.core.policy import OnUnknown, RetryPolicy
from smsretry.errors import ProviderError
from smsretry.ports import Classifier, Clock
from smsretry.steps import Find, Steps

if TYPE_CHECKING:
    from smsretry.limiting import Limiting
    from smsretry.suppressing import Suppressing

_CLOCKS_APART: Final = timedelta(seconds=300)
"""How far before the doubtful send a look-up begins: worker and provider clocks differ."""
_RESENDING: Final = frozenset({OnUnknown.RESEND, OnUnknown.LOOK_UP_OR_RESEND})
_REFUSED_ACCOUNTS: Final = frozenset({FailureKind.AUTH, FailureKind.ACCOUNT})
_NO_ANSWERS: Final = frozenset({FailureKind.TEMPORARY, FailureKind.LOST_ANSWER})
_NOT_ASKED: Final = "the sender cannot be asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Decide by ``policy``; ``classify`` says what an exception means, and ``asks`` whether the provider can be asked.

    ``limiting`` asks the rate limiter before every send. Times are those of the ``clock`` that comes with a question.
    Where it ``holds``, a message whose account is refused is put off and does not end: for whoever keeps the other
    messages of the account back meanwhile.
    """

    policy: RetryPolicy
    classify: Classifier
    asks: bool
    draw: Callable[[], float]
    holds: bool = False
    limiting: Limiting | None = None
    suppressing: Suppressing | None = None

    def attempt(  # noqa: PLR0911  # one way out for each answer; a generator more would cost every attempt
        self, message: Message, state: AttemptState, began: datetime, clock: Clock
    ) -> Steps[Outcome]:
        """Make the next attempt, which began at ``began``."""
        if state.provider_id is not None:
            return Accepted(Receipt("", state.provider_id, began), max(1, _sends(state)), looked_up=True)
        if state.doubt_since is not None:
            resolved = yield from self._resolve(message, state, began)
            if resolved is None and is_late(message, now := clock()):  # the look-up took its time
                resolved = yield from self._resolve(message, state, now)
            if resolved is not None:
                return resolved
        elif is_late(message, began):
            return _expired(state)
        if self.limiting is not None or self.suppressing is not None:
            instead = yield from self._kept_back(message, state, clock)
            if instead is not None:
                return instead
            state = state if state.slot is None else state.with_slot(None)
        try:
            receipt = yield message
        except Exception as error:  # noqa: BLE001  # the border: everything else is the classifier's
            return (yield from self._failed(message, state, began, clock, self._classified(error), error))
        if isinstance(receipt, Receipt):
            return Accepted(receipt, state.retries + 1)
        wrong = TypeError(f"send() must return a Receipt, got {type(receipt).__name__}.")
        lost = Failure.of(FailureKind.LOST_ANSWER, detail=str(wrong))
        return (yield from self._failed(message, state, began, clock, lost, wrong))

    def lost(self, message: Message, state: AttemptState, began: datetime, clock: Clock) -> Steps[Outcome]:
        """Decide what follows a send that began at ``began`` and of which nobody knows how it ended."""
        gone = Failure.of(FailureKind.LOST_ANSWER, detail="its worker ended before it said how it went")
        return self._failed(message, state, began, clock, gone, None)

    def interrupted(
        self, message: Message, state: AttemptState, began: datetime, now: datetime, error: BaseException
    ) -> Outcome:
        """Decide what follows an attempt that ``error`` cut short, of which nobody knows whether it sent."""
        if state.ending is not None:
            return self.policy.look_again(state, now=now)
        cut = Failure.of(FailureKind.LOST_ANSWER, detail=type(error).__name__)
        state = state if state.slot is None else state.with_slot(None)  # the turn may have been taken
        decided = self.policy.decide(cut, state, now=now, send_before=message.send_before, began=began)
        return replace(decided, cause=error) if isinstance(decided, GaveUp) else decided

    def _failed(  # noqa: PLR0917  # one failure and when it happened
        self,
        message: Message,
        state: AttemptState,
        began: datetime,
        clock: Clock,
        failure: Failure,
        error: Exception | None,
    ) -> Steps[Outcome]:
        """Decide what follows a send that failed; what needs nothing but a look-up is asked at once."""
        if self.limiting is not None and failure.kind is FailureKind.RATE_LIMITED:
            yield from self.limiting.slow_down(message, failure, self.policy.max_hint_s)
        if self.suppressing is not None and failure.kind is FailureKind.OPTED_OUT:
            yield from self.suppressing.note(message, failure)
        now = clock()
        decided = self.policy.decide(
            failure, state, now=now, send_before=message.send_before, draw=self.draw(), began=began
        )
        decision: Outcome = decided
        if not isinstance(decided, GaveUp) and self._is_hopeless(decided.state):
            decision = GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, state.retries + 1)
        elif isinstance(decided, Deferred) and decided.delay_s == 0.0:
            decision = (yield from self._settle(message, decided.state, now)) or decided
        refused = refused_account(decision) if self.holds else None
        if refused is not None and self.may_wait(state, now):
            return on_hold(state, refused, now)
        return replace(decision, cause=error) if isinstance(decision, GaveUp) else decision

    def may_wait(self, state: AttemptState, now: datetime) -> bool:
        """Say whether a message has not yet been put off for as long as it may be."""
        return now - (state.deferred_since or now) < timedelta(seconds=self.policy.max_deferral_s)

    def _kept_back(self, message: Message, state: AttemptState, clock: Clock) -> Steps[Outcome | None]:
        """Ask whether the recipient may be texted, and whether its turn has come; None where it is to be sent."""
        instead: Outcome | None = None
        if self.suppressing is not None:
            instead = yield from self._suppressed(self.suppressing, message, state, clock)
        if instead is None and self.limiting is not None:
            instead = yield from self._limited(self.limiting, message, state, clock)
        return instead

    def _limited(
        self, limiting: Limiting, message: Message, state: AttemptState, clock: Clock
    ) -> Steps[Outcome | None]:
        """Ask the rate limiter for a turn; None where it has come, and the message is to be sent."""
        now = clock()
        longest_s = self._longest_wait_s(message, state, now)
        reason, turn = yield from limiting.turn(message, state, longest_s)
        if turn.wait_s <= 0.0 and not is_late(message, clock()):  # the answer may have taken its time
            return None
        if 0.0 < turn.wait_s <= longest_s:
            waiting = state.with_deferral(now, now + timedelta(seconds=turn.wait_s))
            return Deferred(turn.wait_s, reason, waiting.with_slot(turn.slot))
        ending = _expired(state, "its turn under the rate limit would come too late")
        if state.doubt_since is None:
            return ending
        return (yield from self._settle(message, replace(state, ending=ending), now))

    def _suppressed(
        self, suppressing: Suppressing, message: Message, state: AttemptState, clock: Clock
    ) -> Steps[Outcome | None]:
        """End a message whose recipient must not be texted, put one off whose list is away; None for any other."""
        ending, now = (yield from suppressing.ending(message, state)), clock()
        if ending is None and not is_late(message, now):  # the answer may have taken its time
            return None
        if isinstance(ending, float) and ending <= self._longest_wait_s(message, state, now):
            return Deferred(ending, DeferReason.LIST_AWAY, state.with_deferral(now, now + timedelta(seconds=ending)))
        end = ending if isinstance(ending, GaveUp) else _expired(state, "the list of who must not be texted is away")
        if state.doubt_since is None:
            return end
        return (yield from self._settle(message, replace(state, ending=end), now))

    def _longest_wait_s(self, message: Message, state: AttemptState, now: datetime) -> float:
        """Return for how many seconds a message may be put off: until its deadline, else as the policy says."""
        if message.send_before is not None:
            return (message.send_before - now).total_seconds()
        return self.policy.max_deferral_s - (now - (state.deferred_since or now)).total_seconds()

    def _classified(self, error: Exception) -> Failure:
        if issubclass(type(error), ProviderError):  # isinstance would ask the exception, which may raise
            return classify_error(error)
        try:
            failure = self.classify(error)
        except Exception as broken:  # noqa: BLE001  # a classifier's fault must not lose the message
            complain("The classifier raised %s; the default one judges instead.", type(broken).__qualname__)
            return classify_error(error)
        return failure if isinstance(failure, Failure) else classify_error(error)

    def _is_hopeless(self, state: AttemptState) -> bool:
        """Say whether waiting is vain: the outcome is in doubt, nobody can be asked, and nothing more may be sent."""
        if state.doubt_since is None or self.asks:
            return False
        return state.ending is not None or self.policy.on_unknown not in _RESENDING

    def _resolve(self, message: Message, state: AttemptState, now: datetime) -> Steps[Outcome | None]:
        """Say what a message in doubt leads to; None where it may be sent again."""
        if self.policy.on_unknown is OnUnknown.GIVE_UP:
            return unknown(state, "the policy asks nobody")
        if state.ending is None and is_late(message, now):
            state = replace(state, ending=_expired(state))
        if state.ending is None and self.policy.on_unknown is OnUnknown.RESEND:
            return None
        return (yield from self._settle(message, state, now))

    def _settle(self, message: Message, state: AttemptState, now: datetime) -> Steps[Outcome | None]:
        """Ask the provider about a message in doubt; None where it may be sent again."""
        answer, policy = (yield from self._ask(message, state)), self.policy
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

    def _ask(self, message: Message, state: AttemptState) -> Steps[LookUp]:
        if not self.asks or state.doubt_since is None:
            return CannotTell(_NOT_ASKED)
        try:
            answer = yield Find(message, state.doubt_since - _CLOCKS_APART)
        except Exception as error:  # noqa: BLE001  # a look-up that fails settles nothing
            return CannotTell(type(error).__qualname__)
        return answer if isinstance(answer, LookUp) else CannotTell(f"find() returned a {type(answer).__name__}")

    def _not_taken(self, state: AttemptState) -> GaveUp | None:
        if self.policy.on_unknown is OnUnknown.NEVER_RESEND:
            return unknown(state, "the provider does not list it")
        return state.ending

    def _not_settled(self, state: AttemptState, now: datetime, why: str) -> Deferred | GaveUp | None:
        looked = replace(state, looks=state.looks + 1)
        if self.asks and self.policy.may_look_again(looked, now=now):
            return self.policy.look_again(looked, now=now)
        resends = self.policy.on_unknown in _RESENDING
        return None if resends and state.ending is None else unknown(state, why)


def refused_account(outcome: Outcome) -> Failure | None:
    """Return the failure where the provider refuses the account itself."""
    failure = _failure_in(outcome)
    return failure if failure is not None and failure.kind in _REFUSED_ACCOUNTS else None


def was_answered(outcome: Outcome) -> bool:
    """Say whether a send that led to ``outcome`` reached the provider and was answered."""
    failure = _failure_in(outcome)
    return failure is None or failure.kind not in _NO_ANSWERS


def _failure_in(outcome: Outcome) -> Failure | None:
    match outcome:
        case RetryAfter(failure=failure) | GaveUp(failure) | Deferred(state=AttemptState(ending=GaveUp(failure))):
            return failure
        case _:
            return None


def on_hold(state: AttemptState, refused: Failure, now: datetime) -> Deferred:
    """Put off a message that was to be sent with ``state`` until its account is asked for again."""
    due = now + timedelta(seconds=PROBE_EVERY_S)
    return Deferred(PROBE_EVERY_S, DeferReason.ON_HOLD, state.with_deferral(now, due), refused)


def waited_too_long(outcome: Outcome) -> Outcome:
    """End a message that its account's refusal led to ``outcome`` once it has waited for the account long enough."""
    match outcome:
        case GaveUp():
            return replace(outcome, reason=GiveUpReason.EXPIRED)
        case Deferred(state=AttemptState(ending=GaveUp() as ending)):  # in doubt: it is asked about first
            ending = replace(ending, reason=GiveUpReason.EXPIRED)
            return replace(outcome, state=replace(outcome.state, ending=ending))
        case _:
            return outcome


def complain(text: str, *values: object) -> None:
    """Log an error of something that must not change an outcome."""
    import logging  # a tenth of what the front door would cost

    logging.getLogger("smsretry").error(text, *values)


def unknown(state: AttemptState, why: str) -> GaveUp:
    """Return the end of a message in doubt that nobody can settle."""
    failure = Failure.of(FailureKind.LOST_ANSWER, detail=why) if state.ending is None else state.ending.failure
    return GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, _sends(state))


def event_of(outcome: Outcome, message: Message, state: AttemptState, began: datetime, now: datetime) -> Event:
    """Return what the sinks are told of an attempt that was made with ``state`` and ended at ``now``."""
    fields: dict[str, Any] = {
        "message_id": message.id,
        "campaign": message.campaign,
        "metadata": json_copied(message.metadata) if message.metadata else {},
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


def _expired(state: AttemptState, why: str = "send_before has passed") -> GaveUp:
    failure = Failure.of(FailureKind.EXPIRED, detail=why)
    return GaveUp(failure, GiveUpReason.EXPIRED, _sends(state))


def _sends(state: AttemptState) -> int:
    """Return how many sends were made before a call with ``state``."""
    return state.retries if state.ending is None else state.ending.attempts
