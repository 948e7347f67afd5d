"""Make one attempt under a journal: claim, decide by its word and its clock, send while the lease holds, finish.

What is decided about a message is decided by the dispatcher, as without a journal. Around it, the state comes from the
journal and goes back there, and the sender is asked only while the claim is ours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, assert_never

from smsretry.core.claims import PROBE_EVERY_S, Begun, Busy, Claim, Ended, NotDue, OnHold
from smsretry.core.events import Event
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.lookup import LookUp, NotSeen
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, DeferReason, Deferred, GaveUp, GiveUpReason, Outcome
from smsretry.core.policy import RetryPolicy
from smsretry.errors import InvalidMessage, ProviderError
from smsretry.ports import LAST_CHECK, CanLookUp, Clock, Journal, SMSSender

MARGIN_S: Final = 5.0
"""What must be left of a lease, beyond the longest that the sender takes, when a send begins; a quarter of the lease
where that is less."""
LONGEST_SEND_S: Final = 30.0
"""How long a send is taken to last where the sender has no ``timeout_s``."""
_SLOWEST: Final = 5
"""A message that is put off again and again comes back after ``2**5`` times the first wait at the latest."""
_REFUSED_ACCOUNTS: Final = frozenset({FailureKind.AUTH, FailureKind.ACCOUNT})

_log: Final = logging.getLogger("smsretry")


class Judge(Protocol):
    """Be the dispatcher: decide what one attempt of a message leads to, without a journal."""

    policy: RetryPolicy

    def on_behalf(self, sender: SMSSender, clock: Clock) -> Judge:
        """Return one that sends through ``sender`` by ``clock``, and tells no sink."""
        ...

    def attempt(self, message: Message, state: AttemptState = ..., /) -> Outcome:
        """Make the attempt."""
        ...

    def lost(self, message: Message, state: AttemptState, began: datetime) -> Outcome:
        """Decide what follows a send of which nobody knows how it ended."""
        ...

    def event(self, outcome: Outcome, message: Message, state: AttemptState, began: datetime, now: datetime) -> Event:
        """Return what the sinks are told."""
        ...

    def tell(self, event: Event) -> None:
        """Tell the sinks."""
        ...


def since_boot() -> float:
    """Return seconds on a clock that never jumps and, where the system has one, counts the time asleep too."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Journaled:
    """Make attempts of messages under ``journal``, each claimed for ``lease_s`` seconds."""

    judge: Judge
    sender: SMSSender
    journal: Journal
    clock: Clock
    new_id: Callable[[], str]
    lease_s: float
    elapsed: Callable[[], float] = since_boot

    def attempt(self, message: Message, hint: AttemptState, *, rerun: bool) -> Outcome:
        """Make the next attempt of ``message`` as the journal knows it; ``hint`` is what came with it."""
        if message.id is None:
            raise InvalidMessage(
                "With a journal a message needs an id that is the same when it is sent again. "
                "Give it one, such as f'{campaign}:{customer_id}'."
            )
        nonce, account, asked_at = self.new_id(), _account_of(self.sender), self.elapsed()
        try:
            begun = self._begin(message, hint, nonce, account, rerun=rerun)
        except InvalidMessage:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a database raises: nothing was sent
            _log.warning("The journal could not begin %s (%s): it is put off.", message.id, type(error).__qualname__)
            return self._put_off(replace(hint, claim=hint.claim or nonce), DeferReason.JOURNAL_AWAY)
        return self._answered(begun, hint, asked_at)

    def _begin(self, message: Message, hint: AttemptState, nonce: str, account: str, *, rerun: bool) -> Begun:
        return self.journal.begin(
            message,
            hint=hint,
            nonce=nonce,
            lease_s=self.lease_s,
            account=account,
            most_deferred_s=self.judge.policy.max_deferral_s,
            rerun=rerun,
        )

    def _answered(self, begun: Begun, hint: AttemptState, asked_at: float) -> Outcome:
        match begun:
            case Claim():
                return self._claimed(_Turn(begun, self, asked_at), hint)
            case Ended(outcome):
                return outcome
            case Busy(left_s):
                return self._waits(hint, left_s, DeferReason.BUSY)
            case NotDue(left_s):
                return self._waits(hint, left_s, DeferReason.NOT_DUE)
            case OnHold(left_s):
                return self._waits(hint, left_s, DeferReason.ON_HOLD)
            case _ as unreachable:
                assert_never(unreachable)

    def _claimed(self, turn: _Turn, hint: AttemptState) -> Outcome:
        claim, began = turn.claim, turn.clock()
        outcome = self._held(turn, self._attempted(turn))
        if turn.lost_claim:
            return self._unsent(turn, hint)
        state = hint if claim.epoch == 0 else claim.state
        event = self.judge.event(outcome, claim.message, state, claim.dead_since or began, turn.clock())
        try:
            instead = self.journal.finish(claim, outcome, event)
        except Exception as error:  # noqa: BLE001  # whatever a database raises: the claim stays open, in doubt
            return self._unfinished(turn, outcome, error)
        if instead is not None:
            return self._answered(instead, hint, turn.asked_at)
        self.judge.tell(event)
        return outcome

    def _attempted(self, turn: _Turn) -> Outcome:
        claim = turn.claim
        if claim.refused is not None and claim.dead_since is None:
            ending = GaveUp(claim.refused, GiveUpReason.EXPIRED, claim.state.retries)
            return self.judge.policy.end(ending, claim.state, now=turn.clock())
        judge = self.judge.on_behalf(turn.sender(), turn.clock)
        if claim.dead_since is not None and claim.state.provider_id is None:
            return judge.lost(claim.message, claim.state, claim.dead_since)
        return judge.attempt(claim.message, claim.state)

    def _held(self, turn: _Turn, outcome: Outcome) -> Outcome:
        """Put the account on hold where the provider refuses it, and serve it again where it is served."""
        claim, account = turn.claim, _account_of(self.sender)
        refused = _refused_account(outcome)
        if refused is None:
            if claim.probes and turn.sent and not turn.lost_claim:
                self._note("reopen", account)
            return outcome
        if claim.refused is not None:
            return outcome
        self._note("hold", account, refused)
        if isinstance(outcome, Deferred):
            return outcome
        now = turn.clock()
        due = now + timedelta(seconds=PROBE_EVERY_S)
        return Deferred(PROBE_EVERY_S, DeferReason.ON_HOLD, claim.state.with_deferral(now, due))

    def _note(self, verb: str, *values: Any) -> None:
        try:
            getattr(self.journal, verb)(*values)
        except Exception as error:  # noqa: BLE001  # the next refusal says it again
            _log.warning("The journal could not %s the account (%s).", verb, type(error).__qualname__)

    def _unsent(self, turn: _Turn, hint: AttemptState) -> Deferred:
        """Give back a claim whose lease could not be renewed: nothing was sent under it."""
        try:
            self.journal.release(turn.claim)
        except Exception as error:  # noqa: BLE001  # its lease ends by itself
            _log.warning("The journal could not release %s (%s).", turn.claim.message.id, type(error).__qualname__)
        return self._put_off(hint, DeferReason.BUSY)

    def _unfinished(self, turn: _Turn, outcome: Outcome, error: Exception) -> Deferred:
        """Put off a message whose outcome could not be written; a provider's id goes along as evidence."""
        message_id = turn.claim.message.id
        _log.error("The journal could not finish %s (%s): it stays in doubt.", message_id, type(error).__qualname__)
        if isinstance(outcome, Accepted):
            evidence = replace(turn.claim.state, provider_id=outcome.receipt.provider_id)
            return self._put_off(evidence, DeferReason.JOURNAL_AWAY)
        following = turn.claim.state if isinstance(outcome, GaveUp) else outcome.state
        return self._put_off(following, DeferReason.JOURNAL_AWAY, least_s=turn.left_s())

    def _put_off(self, hint: AttemptState, reason: DeferReason, *, least_s: float = 0.0) -> Deferred:
        return self._waits(hint, max(least_s, 2.0 ** min(hint.deferrals, _SLOWEST)), reason)

    def _waits(self, hint: AttemptState, left_s: float, reason: DeferReason) -> Deferred:
        """Return the deferral of a copy of the message; what holds is the journal's."""
        now, delay_s = self.clock(), max(0.0, left_s)
        return Deferred(delay_s, reason, hint.with_deferral(now, now + timedelta(seconds=delay_s)))


@dataclass(slots=True)
class _Turn:
    """Hold one claim, its clock, and how long its lease holds, on a clock of this machine."""

    claim: Claim
    of: Journaled
    asked_at: float
    answered_at: float = field(init=False)
    ends_at: float = field(init=False)
    may_send: bool = field(init=False)
    sent: bool = False
    lost_claim: bool = False

    def __post_init__(self) -> None:
        self.answered_at = self.of.elapsed()
        self.ends_at = self.asked_at + self.of.lease_s
        self.may_send = self.claim.may_send

    def clock(self) -> datetime:
        """Return the present moment by the journal's clock."""
        return self.claim.now + timedelta(seconds=self.of.elapsed() - self.answered_at)

    def left_s(self) -> float:
        return max(0.0, self.ends_at - self.of.elapsed())

    def sender(self) -> SMSSender:
        """Return the sender under this claim; one that can be asked where the sender can."""
        return (_Asking if callable(getattr(self.of.sender, "find", None)) else _Guarded)(self)

    def make_sure(self) -> None:
        """Make sure that the claim is ours and lasts longer than a send; raise where it is not."""
        if not self.may_send or self.left_s() < _longest_send_s(self.of.sender) + min(MARGIN_S, self.of.lease_s / 4):
            self._renew()

    def make_sure_again(self) -> None:
        """Do so once more on the way, where connecting and the like have used up the margin."""
        if self.left_s() < _longest_send_s(self.of.sender):
            self._renew()

    def _renew(self) -> None:
        asked_at = self.of.elapsed()
        try:
            renewed = self.of.journal.renew(self.claim, lease_s=self.of.lease_s)
        except Exception as error:
            self.lost_claim = True
            raise _not_ours(f"the journal could not renew the claim ({type(error).__qualname__})") from error
        if not renewed or self.of.elapsed() - asked_at > self.of.lease_s / 2:
            self.lost_claim = True
            raise _not_ours("the claim was lost before the send")
        self.may_send, self.ends_at = True, asked_at + self.of.lease_s


class _Guarded:
    """Send only while the claim is ours."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn

    def send(self, message: Message, /) -> Receipt:
        self._turn.make_sure()
        self._turn.sent = True
        token = LAST_CHECK.set(self._turn.make_sure_again)
        try:
            return self._turn.of.sender.send(message)
        finally:
            LAST_CHECK.reset(token)


class _Asking(_Guarded):
    """Ask the provider, past what is known to be other messages, and read its answer by the journal's clock."""

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        turn = self._turn
        sender: Any = turn.of.sender
        asks: CanLookUp = sender
        others = turn.of.journal.others(turn.claim, since=since)  # where it raises, the look-up settles nothing
        answer = asks.find(message, since=since, exclude=(*exclude, *others))
        if not isinstance(answer, NotSeen):
            return answer
        age = max(timedelta(), turn.of.clock() - answer.as_of)
        return NotSeen(turn.clock() - age)


def _refused_account(outcome: Outcome) -> Failure | None:
    """Return the failure where the provider refuses the account itself."""
    match outcome:
        case GaveUp(failure) | Deferred(state=AttemptState(ending=GaveUp(failure))):
            return failure if failure.kind in _REFUSED_ACCOUNTS else None
        case _:
            return None


def _not_ours(why: str) -> ProviderError:
    return ProviderError(Failure.of(FailureKind.TEMPORARY, detail=why))


def _account_of(sender: SMSSender) -> str:
    """Return what names the account that ``sender`` sends from: its ``account_key``, else its class."""
    return str(getattr(sender, "account_key", None) or type(sender).__qualname__)


def _longest_send_s(sender: SMSSender) -> float:
    return float(getattr(sender, "timeout_s", LONGEST_SEND_S))
