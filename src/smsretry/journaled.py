"""Make one attempt under a journal: claim, decide by its word and its clock, send while the lease holds, finish.

What is decided about a message is decided by the dispatcher, as without a journal. Around it, the state comes from the
journal and goes back there, and the sender is asked only while the claim is ours.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from smsretry.core.claims import Begun, Busy, Claim, Ended, NotDue, OnHold, Others, is_late, with_nonce
from smsretry.core.delivery import Mark
from smsretry.core.events import Event
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.lookup import CannotTell, Found, NotSeen
from smsretry.core.message import Message
from smsretry.core.outcome import Accepted, AttemptState, DeferReason, Deferred, GaveUp, GiveUpReason, Outcome
from smsretry.errors import ConfigurationError, InvalidMessage, ProviderError, reason_of
from smsretry.judge import Judge, event_of, on_hold, refused_account, unknown, waited_too_long, was_answered
from smsretry.ports import Clock, Journal
from smsretry.steps import Ask, AskLimiter, AskList, Find, SendChecked, Step, Steps

MARGIN_S: Final = 5.0
"""What must be left of a lease, beyond the longest that the sender takes, when a send begins; a quarter of the lease
where that is less."""
LONGEST_SEND_S: Final = 30.0
"""How long a send is taken to last where the sender has no ``timeout_s``; half of the lease where that is less."""
SLOWEST_BEGIN_S: Final = 30.0
"""A claim that took longer is given back: its time tells too little about the present one."""
_SLOWEST: Final = 5
"""A message that is put off again and again comes back after ``2**5`` times the first wait at the latest."""

_log: Final = logging.getLogger("smsretry")


def since_boot() -> float:
    """Return seconds on a clock that never jumps and, where the system has one, counts the time asleep too."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


@dataclass(frozen=True, slots=True)
class Attempted:
    """Hold what an attempt led to, and what the sinks are told of it: nothing where it changed nothing."""

    outcome: Outcome
    event: Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Journaled:
    """Make attempts of messages under a journal, each claimed for ``lease_s`` seconds.

    ``sender`` is asked for nothing but how long it may take (``timeout_s``) and for which account it sends.
    """

    judge: Judge
    sender: object
    clock: Clock
    new_id: Callable[[], str]
    lease_s: float
    elapsed: Callable[[], float] = since_boot

    def __post_init__(self) -> None:
        if not isinstance(self.lease_s, (int, float)) or isinstance(self.lease_s, bool):
            raise ConfigurationError(f"lease_s must be a number of seconds, got {self.lease_s!r}. Use 60.")
        if not 0.0 < self.lease_s < math.inf or self.needed_s >= self.lease_s:
            least_s = self.longest_send_s + MARGIN_S
            raise ConfigurationError(
                f"lease_s must outlast a send with a margin ({least_s:g} seconds: the sender's timeout_s and more), "
                f"got {self.lease_s!r}. Use {2 * least_s:g} or more."
            )

    @property
    def needed_s(self) -> float:
        """Return what must be left of a lease, in seconds, when a send begins."""
        return self.longest_send_s + min(MARGIN_S, self.lease_s / 4)

    @property
    def longest_send_s(self) -> float:
        """Return how long a send may take: the sender's ``timeout_s``, or a guess where it has none."""
        return float(getattr(self.sender, "timeout_s", min(LONGEST_SEND_S, self.lease_s / 2)))

    @property
    def account(self) -> str:
        """Return what names the account that the sender sends from: its ``account_key``, else its class."""
        return str(getattr(self.sender, "account_key", None) or type(self.sender).__qualname__)

    def attempt(self, message: Message, hint: AttemptState, *, rerun: bool) -> Steps[Attempted]:
        """Make the next attempt of ``message`` as the journal knows it; ``hint`` is what came with it."""
        if message.id is None:
            raise InvalidMessage(
                "With a journal a message needs an id that is the same when it is sent again. "
                "Give it one, such as f'{campaign}:{customer_id}'."
            )
        nonce, asked_at = self.new_id(), self.elapsed()
        try:
            begun: Begun = yield self._begin(message, hint, nonce, rerun=rerun)
        except (InvalidMessage, ConfigurationError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a database raises: nothing was sent
            _log.warning("The journal could not begin %s (%s): it is put off.", message.id, reason_of(error))
            return (yield from self._away(message, _lost_begin(hint, nonce)))
        if isinstance(begun, Claim):
            return (yield from self._claimed(_Turn(begun, self, nonce, asked_at), hint))
        return Attempted(self._answered(begun, hint))

    def _begin(self, message: Message, hint: AttemptState, nonce: str, *, rerun: bool) -> Ask:
        return Ask(
            lambda journal: journal.begin(
                message,
                hint=hint,
                nonce=nonce,
                lease_s=self.lease_s,
                account=self.account,
                most_deferred_s=self.judge.policy.max_deferral_s,
                rerun=rerun,
            )
        )

    def _away(self, message: Message, hint: AttemptState) -> Steps[Attempted]:
        """Put off a copy of a message whose journal is away, or end it once it has waited as long as it may.

        Another copy may have been sent, and only the journal knows: it ends as unknown, but for one with the provider's
        id.
        """
        now = self.clock()
        if self._may_wait(message, hint, now):
            return Attempted(self._put_off(hint, DeferReason.JOURNAL_AWAY))
        outcome: Outcome = unknown(hint, "the journal was away for as long as the message may wait")
        if hint.provider_id is not None:
            outcome = yield from self.judge.attempt(message, hint, now, self.clock)
        return Attempted(outcome, event_of(outcome, message, hint, now, now))

    def _may_wait(self, message: Message, hint: AttemptState, now: datetime) -> bool:
        """Say whether it may wait for the journal: for the longest deferral, past its deadline for a lease's time."""
        waited = now - (hint.deferred_since or now)
        is_over = is_late(message, now) and waited >= timedelta(seconds=self.lease_s)
        return self.judge.may_wait(hint, now) and not is_over

    def _answered(self, begun: Ended | Busy | NotDue | OnHold, hint: AttemptState) -> Outcome:
        match begun:
            case Ended(outcome):
                return outcome
            case Busy(left_s):
                return self._waits(hint, left_s, DeferReason.BUSY)
            case NotDue(left_s):
                return self._waits(hint, left_s, DeferReason.NOT_DUE)
            case OnHold(left_s, refused):
                return replace(self._waits(hint, left_s, DeferReason.ON_HOLD), failure=refused)
            case _ as unreachable:
                assert_never(unreachable)

    def _claimed(self, turn: _Turn, hint: AttemptState) -> Steps[Attempted]:
        if turn.is_slow:
            return (yield from self._unsent(turn, hint))
        claim, began = turn.claim, turn.clock()
        outcome = yield from self._attempted(turn)
        outcome = yield from self._held(turn, outcome)
        if turn.lost_claim:
            return (yield from self._unsent(turn, hint))
        event = event_of(outcome, claim.message, claim.state, claim.dead_since or began, turn.clock())
        try:
            instead: Ended | Busy | None = yield Ask(lambda journal: journal.finish(claim, outcome, event))
        except Exception as error:  # noqa: BLE001  # whatever a database raises: the claim stays open, in doubt
            return Attempted(self._unfinished(turn, outcome, error))
        if instead is not None:
            return Attempted(self._answered(instead, hint))
        return Attempted(outcome, event)

    def _attempted(self, turn: _Turn) -> Steps[Outcome]:
        claim, state, message = turn.claim, turn.claim.state, turn.claim.message
        if state.provider_id is None and claim.dead_since is not None:
            return (yield from turn.guarded(self.judge.lost(message, state, claim.dead_since, turn.clock)))
        if state.provider_id is None and claim.refused is not None:
            ending = GaveUp(claim.refused, GiveUpReason.EXPIRED, state.retries)
            if state.doubt_since is None:
                return ending
            state = replace(state, ending=state.ending or ending)
        return (yield from turn.guarded(self.judge.attempt(message, state, turn.clock(), turn.clock)))

    def _held(self, turn: _Turn, outcome: Outcome) -> Steps[Outcome]:
        """Put the account on hold where the provider has just refused it, and serve it again where it is served."""
        claim, account, refused = turn.claim, self.account, refused_account(outcome) if turn.sent else None
        if refused is None:
            if claim.probes and (was_answered(outcome) if turn.sent else turn.listed):
                yield from self._note("reopen", lambda journal: journal.reopen(account))
            return outcome
        yield from self._note("hold", lambda journal: journal.hold(account, refused))
        now = turn.clock()
        return on_hold(claim.state, refused, now) if self.judge.may_wait(claim.state, now) else waited_too_long(outcome)

    def _note(self, verb: str, question: Callable[[Journal], None]) -> Steps[None]:
        try:
            yield Ask(question)
        except Exception as error:  # noqa: BLE001  # the next refusal says it again
            _log.warning("The journal could not %s the account (%s).", verb, reason_of(error))

    def _unsent(self, turn: _Turn, hint: AttemptState) -> Steps[Attempted]:
        """Give back a claim under which nothing was sent."""
        try:
            yield Ask(lambda journal: journal.release(turn.claim))
        except Exception as error:  # noqa: BLE001  # the next begin releases it
            _log.warning("The journal could not release %s (%s).", turn.claim.message.id, reason_of(error))
            hint = _lost_begin(hint, turn.nonce)
        return Attempted(self._put_off(hint, DeferReason.BUSY))

    def _unfinished(self, turn: _Turn, outcome: Outcome, error: Exception) -> Deferred:
        """Put off a message whose outcome could not be written; a provider's id goes along as evidence."""
        message_id = turn.claim.message.id
        _log.error("The journal could not finish %s (%s): it stays in doubt.", message_id, reason_of(error))
        if isinstance(outcome, Accepted):
            evidence = replace(turn.claim.state, provider_id=outcome.receipt.provider_id)
            return self._put_off(evidence, DeferReason.JOURNAL_AWAY)
        following = turn.claim.state if isinstance(outcome, GaveUp) else outcome.state
        if isinstance(outcome, Deferred) and not turn.sent:  # the next begin releases the claim: nothing was sent
            return self._put_off(_lost_begin(following, turn.nonce), DeferReason.JOURNAL_AWAY)
        return self._put_off(following, DeferReason.JOURNAL_AWAY, least_s=turn.left_s())

    def _put_off(self, hint: AttemptState, reason: DeferReason, *, least_s: float = 0.0) -> Deferred:
        return self._waits(hint, max(least_s, 2.0 ** min(hint.deferrals, _SLOWEST)), reason)

    def _waits(self, hint: AttemptState, left_s: float, reason: DeferReason) -> Deferred:
        """Return the deferral of a copy of the message; what holds is the journal's."""
        now, delay_s = self.clock(), max(0.0, left_s)
        return Deferred(delay_s, reason, hint.with_deferral(now, now + timedelta(seconds=delay_s)))


@dataclass(slots=True)
class _Turn:
    """Hold one claim, what time it is, and how long its lease holds, on a clock of this machine.

    The journal said what time it was at some moment between question and answer.
    """

    claim: Claim
    of: Journaled
    nonce: str
    asked_at: float
    answered_at: float = field(init=False)
    ends_at: float = field(init=False)
    may_send: bool = field(init=False)
    sent: bool = False
    listed: bool = False
    """True where the provider answered a look-up with a listing."""
    lost_claim: bool = False

    def __post_init__(self) -> None:
        self.answered_at = self.of.elapsed()
        self.ends_at = self.asked_at + self.of.lease_s
        self.may_send = self.claim.may_send

    @property
    def is_slow(self) -> bool:
        return self.answered_at - self.asked_at > SLOWEST_BEGIN_S

    def clock(self) -> datetime:
        """Return the latest that it may be by the journal's clock: a doubt never settles too early by it."""
        return self.claim.now + timedelta(seconds=self.of.elapsed() - self.asked_at)

    def surely(self) -> datetime:
        """Return the earliest that it may be by the journal's clock: a listing never seems too fresh by it."""
        return self.claim.now + timedelta(seconds=self.of.elapsed() - self.answered_at)

    def left_s(self) -> float:
        return max(0.0, self.ends_at - self.of.elapsed())

    def guarded(self, steps: Steps[Outcome]) -> Steps[Outcome]:
        """Go through ``steps``, and send only while the claim is ours."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = yield from self._under_the_claim(step)
                except BaseException as error:  # noqa: BLE001  # it goes to whom it would have gone to
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def _under_the_claim(self, step: Step) -> Steps[Any]:
        match step:
            case Message():
                yield from self._make_sure()
                self.sent = True
                return (yield SendChecked(step, self._make_sure_again, self._mark()))
            case Find():
                return (yield from self._found(step))
            case SendChecked() | Ask() | AskLimiter() | AskList():
                return (yield step)
            case _ as unreachable:
                assert_never(unreachable)

    def _mark(self) -> Mark:
        state = self.claim.state
        return Mark(state.round, state.retries + 1, self.claim.epoch)

    def _found(self, asked: Find) -> Steps[object]:
        """Ask the provider, past what is known to be other messages, and read its answer by the journal's clock."""
        # Where this raises, the look-up settles nothing.
        others: Others = yield Ask(lambda journal: journal.others(self.claim, since=asked.since))
        answer = yield replace(asked, exclude=(*asked.exclude, *others.provider_ids))
        self.listed = isinstance(answer, Found | NotSeen)
        match answer:
            case Found() if others.unsure:
                return CannotTell("a message with this text ended as unknown, and what is listed may be that one")
            case NotSeen(as_of):
                age = max(timedelta(), self.clock() - as_of)
                return NotSeen(self.surely() - age)
            case _:
                return answer

    def _make_sure(self) -> Steps[None]:
        """Make sure that the claim is ours and lasts longer than a send, and that it is not too late; raise if not."""
        if not (self.may_send and self._is_long_enough()):
            yield from self._renew()
        if is_late(self.claim.message, self.clock()):
            raise ProviderError(Failure.of(FailureKind.EXPIRED, detail="send_before has passed"))

    def _make_sure_again(self) -> Steps[None]:
        """Do so once more on the way, where connecting and the like have used up the margin."""
        if self.left_s() < self.of.longest_send_s:
            yield from self._renew()

    def _renew(self) -> Steps[None]:
        asked_at = self.of.elapsed()
        try:
            renewed: bool = yield Ask(lambda journal: journal.renew(self.claim, lease_s=self.of.lease_s))
        except Exception as error:
            self.lost_claim = True
            raise _not_ours(f"the journal could not renew the claim ({type(error).__qualname__})") from error
        self.may_send, self.ends_at = renewed, asked_at + self.of.lease_s
        if not (renewed and self._is_long_enough()):
            self.lost_claim = True
            raise _not_ours("the claim was lost before the send")

    def _is_long_enough(self) -> bool:
        return self.left_s() >= self.of.needed_s


def _lost_begin(hint: AttemptState, nonce: str) -> AttemptState:
    return replace(hint, claim=with_nonce(hint.claim, nonce))


def _not_ours(why: str) -> ProviderError:
    return ProviderError(Failure.of(FailureKind.TEMPORARY, detail=why))
