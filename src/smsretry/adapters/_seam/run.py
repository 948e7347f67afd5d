"""Make one attempt in one run of a job, and say what the queue has to do next."""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Self, TypeVar, assert_never

from smsretry.adapters._seam.envelope import NEW, Envelope, check_message, seconds_until
from smsretry.adapters._seam.steps import Steps, awaited, called
from smsretry.core.claims import EARLY_S
from smsretry.core.failure import Failure
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, DeferReason, Deferred, GaveUp, Outcome, RetryAfter
from smsretry.dispatcher import AsyncDispatcher, Dispatcher, new_id
from smsretry.errors import NotAccepted, SMSRetryError, not_accepted

DispatcherT = TypeVar("DispatcherT", bound=Dispatcher | AsyncDispatcher)

_LEAST_WAIT_S: Final = 1.0
"""A copy of a message that another worker holds comes back no sooner, so that it does not spin."""
_LONGEST_PAUSE_S: Final = 10.0
"""A run that goes back to the broker keeps its worker no longer: the broker hands it out again at once, as it was."""
_GUESSED: Final = frozenset({DeferReason.BUSY, DeferReason.ON_HOLD, DeferReason.JOURNAL_AWAY})
"""Deferrals whose end is a guess; a doubt and a due time are exact."""

_log: Final = logging.getLogger("smsretry")


@dataclass(frozen=True, slots=True)
class Done:
    """The text was accepted: end the job with ``receipt.to_dict()``."""

    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Run the job (again) in ``delay_s`` seconds, with ``state``; the policy counts, and not the queue.

    A first run comes as one, too: see `Source.send`.
    """

    delay_s: float
    message: Message
    """The message with its id."""
    state: AttemptState
    why: str = ""
    """Why, in words; empty where a ``failure`` says it."""
    failure: Failure | None = None
    counted: bool = False
    """True where an attempt failed, and a retry is used up."""
    unpublished: BaseException | None = None
    """What kept it from being published, where a journal has the message and `recover` will queue it."""

    def envelope(self) -> dict[str, Any]:
        """Return what the next run needs, where the queue has no metadata that the state could ride in."""
        return Envelope(self.message, self.state).to_dict()


@dataclass(frozen=True, slots=True)
class Failed:
    """The message has ended, or is lost to the queue: fail the job for good with ``error``, which has its cause."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """The next run could not be published: let the broker hand this one out again, after ``pause_s`` seconds."""

    pause_s: float
    why: str
    error: BaseException


Plan = Done | Again | Failed
"""What a queue has to do after one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[DispatcherT]):
    """Hold what one run of a job brings; make it with `of`."""

    dispatcher: DispatcherT
    message: Message
    state: AttemptState
    rerun: bool
    interrupts: tuple[type[BaseException], ...]

    @classmethod
    def of(
        cls,
        dispatcher: DispatcherT,
        message: Message,
        state: AttemptState = NEW,
        *,
        job_id: str | None = None,
        rerun: bool = False,
        interrupts: tuple[type[BaseException], ...] = (),
    ) -> Self:
        """Return the run of a job that carried ``message`` and ``state``.

        ``job_id`` is the queue's id of the job, where its retries share it: the id of a message that has none.
        ``rerun`` says that a body rendered the text, and may have rendered it anew. ``interrupts`` are what the queue
        raises in a job that takes too long. Raises `smsretry.InvalidMessage` where ``message`` is none.
        """
        check_message(message, "Give deliver a smsretry.Message")
        message = message if job_id is None else message.with_id(job_id)
        if message.id is None and dispatcher.journal is None:
            state = replace(state, message_id=state.message_id or new_id())  # so that its next run has the same
            message = message.with_id(str(state.message_id))
        return cls(dispatcher=dispatcher, message=message, state=state, rerun=rerun, interrupts=interrupts)

    @property
    def is_journaled(self) -> bool:
        """Say whether a journal knows the message, so that what came with it is a hint."""
        return self.dispatcher.journal is not None

    def early(self) -> Again | None:
        """Return the rest of a wait that was cut into hops, or that the queue cut short; None where it is due."""
        early_s = seconds_until(self.state.due, self.dispatcher.clock())
        return self.again(early_s, self.state, why="not due yet") if early_s > EARLY_S else None

    def following(self, outcome: Outcome) -> Plan:
        """Return what ``outcome`` means for the queue."""
        match outcome:
            case Accepted(receipt):
                return Done(receipt)
            case RetryAfter(delay_s, failure, state):
                return self.again(delay_s, state, failure=failure, counted=True)
            case Deferred(delay_s, reason, state):
                wait_s = max(delay_s, _LEAST_WAIT_S) if reason in _GUESSED else delay_s
                return self.again(wait_s, state, why=f"put off ({reason})")
            case GaveUp():
                return Failed(self._end(outcome))
            case _ as unreachable:
                assert_never(unreachable)

    def again(self, delay_s: float, state: AttemptState, **said: Any) -> Again:
        """Return the next run; what a journal knows may be due by another clock than this worker's."""
        if self.is_journaled:
            state = replace(state, due=self.dispatcher.clock() + timedelta(seconds=delay_s))
        return Again(delay_s=delay_s, message=self.message, state=state, **said)

    def cut_short(self) -> Again:
        """Return the run after one that was interrupted, with a journal: its claim is open until its lease ends."""
        now, lease_s = self.dispatcher.clock(), self.dispatcher.lease_s
        state = self.state.with_deferral(now, now + timedelta(seconds=lease_s))
        return self.again(lease_s, state, why="cut short by the queue's limit of time")

    def attempts(self, state: AttemptState) -> Callable[[], Any]:
        """Return the call that makes an attempt with ``state``."""
        return lambda: self.dispatcher.attempt(self.message, state, rerun=self.rerun)

    def interrupted(self, began: datetime, error: BaseException) -> Callable[[], Any]:
        """Return the call that says what follows an attempt that ``error`` cut short, without a journal."""
        return lambda: self.dispatcher.interrupted(self.message, self.state, began, error)

    def unknown(self, state: AttemptState, why: str) -> Steps[NotAccepted]:
        """End a message in doubt that can wait for no look-up."""
        return self._end((yield lambda: self.dispatcher.abandon(self.message, state, why)))

    def _end(self, outcome: GaveUp) -> NotAccepted:
        return _caused(not_accepted(str(self.message.id), outcome), outcome.cause)


def attempt(run: Run[Dispatcher]) -> Plan:
    """Make one attempt, unless the message is not due; never sleeps."""
    return called(_attempting(run))


async def attempt_async(run: Run[AsyncDispatcher]) -> Plan:
    """Make one attempt as `attempt` does, in a running loop."""
    return await awaited(_attempting(run))


def deliver(run: Run[Dispatcher], publish: Callable[[Again], object], *, hands_back: bool = False) -> Plan | HandBack:
    """Make one attempt, and let ``publish`` queue the next run where there is one.

    `Again` then says what was published. ``hands_back`` says that the broker hands a run out again that was not
    finished; only then `HandBack` is returned.
    """
    return called(_delivering(run, publish, hands_back=hands_back))


async def deliver_async(
    run: Run[AsyncDispatcher], publish: Callable[[Again], object], *, hands_back: bool = False
) -> Plan | HandBack:
    """Make one attempt as `deliver` does, in a running loop; what ``publish`` returns is awaited where it can be."""
    return await awaited(_delivering(run, publish, hands_back=hands_back))


def at_once(run: Run[Dispatcher]) -> Plan:
    """Make all attempts without waiting, for a queue in eager mode; `Again` is what cannot go on without a wait.

    With a journal that stays there; without one a message in doubt ends as unknown.
    """
    return called(_at_once(run))


def ended(plan: Done | Failed) -> Receipt:
    """Return the receipt of a message that was accepted; raise the end of one that was not."""
    if isinstance(plan, Failed):
        raise plan.error
    return plan.receipt


def told(plan: Plan | HandBack) -> Receipt | None:
    """Return the receipt of a message that was accepted, and None where its next run was queued; raise what else came.

    That is the end of a message that was not accepted, and what kept the next run from being queued.
    """
    match plan:
        case Done() | Failed():
            return ended(plan)
        case Again():
            if plan.unpublished is not None:
                raise plan.unpublished
            return None
        case HandBack(error=error):
            raise error
        case _ as unreachable:
            assert_never(unreachable)


def _caused(end: NotAccepted, cause: BaseException | None) -> NotAccepted:
    """Return ``end`` with what a queue may keep of its ``cause``, which others read: not its words.

    Clients tell number and text. Of one of ours all is kept, of any other its type and where it came from.
    """
    end.__cause__ = copy.copy(cause) if isinstance(cause, SMSRetryError) else None  # a copy has no cause of its own
    if cause is not None and end.__cause__ is None:
        frames = "".join(traceback.format_tb(cause.__traceback__))
        end.add_note(f"It was a {type(cause).__qualname__}, whose words are not kept:\n{frames}".rstrip())
    return end


def _attempting(run: Run[Any]) -> Steps[Plan]:
    early = run.early()
    if early is not None:
        return early
    began = run.dispatcher.clock()
    try:
        outcome = yield run.attempts(run.state)
    except run.interrupts as error:  # between the send and its outcome: nobody knows how far it came
        if run.is_journaled:
            return run.cut_short()
        outcome = yield run.interrupted(began, error)
    return run.following(outcome)


def _delivering(run: Run[Any], publish: Callable[[Again], object], *, hands_back: bool) -> Steps[Plan | HandBack]:
    try:
        plan = yield from _attempting(run)
        if isinstance(plan, Again):
            return (yield from _publishing(run, plan, publish, hands_back=hands_back))
    except run.interrupts:
        if not run.is_journaled:
            raise
        return (yield from _publishing(run, run.cut_short(), publish, hands_back=hands_back))
    return plan


def _publishing(
    run: Run[Any], again: Again, publish: Callable[[Again], object], *, hands_back: bool
) -> Steps[Plan | HandBack]:
    lost: tuple[type[BaseException], ...] = (Exception, *run.interrupts)
    try:
        yield lambda: publish(again)
    except lost as error:  # a transport raises what it likes, and the text must not be lost
        return (yield from _unpublished(run, again, error, hands_back=hands_back))
    return again


def _unpublished(run: Run[Any], again: Again, error: BaseException, *, hands_back: bool) -> Steps[Plan | HandBack]:
    why = f"The next run of message {run.message.id} could not be published ({type(error).__name__})"
    if not run.is_journaled and again.state.settles_at != run.state.settles_at:
        # This run left a doubt, and the broker knows an older state.
        _log.error("%s, and its answer was lost: it ends as unknown.", why)
        return Failed(_caused((yield from run.unknown(again.state, "its retry could not be published")), error))
    if hands_back:
        _log.error("%s: this run goes back to the broker.", why)
        pause_s = 0.0 if isinstance(error, run.interrupts) else min(again.delay_s, _LONGEST_PAUSE_S)
        return HandBack(pause_s=pause_s, why=why, error=error)
    if run.is_journaled:
        _log.error("%s and its task is acknowledged: the journal has it, and recover queues it again.", why)
        return replace(again, unpublished=error)
    _log.critical(
        "%s and its task is acknowledged: send it anew with state %s, or acknowledge tasks late.",
        why,
        again.state.to_dict(),
    )
    return Failed(error)


def _at_once(run: Run[Any]) -> Steps[Plan]:
    state = run.state
    while True:
        outcome: Outcome = yield run.attempts(state)
        match outcome:
            case RetryAfter(delay_s) if not run.is_journaled or delay_s <= EARLY_S:
                state = outcome.state
            case RetryAfter() | Deferred() if run.is_journaled:
                return run.again(outcome.delay_s, outcome.state, why="eager mode does not wait, the journal has it")
            case Deferred(delay_s, reason, AttemptState(doubt_since=None)):
                why = f"{reason}, eager mode does not wait, and it was not taken"
                return run.again(delay_s, outcome.state, why=why)
            case Deferred():
                return Failed((yield from run.unknown(outcome.state, "eager mode does not wait for a look-up")))
            case _:
                return run.following(outcome)
