"""Make one attempt to send one message, and say what follows: the only place where a sender is called."""

from __future__ import annotations

import copy
import functools
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar, assert_never, cast

from smsretry.core.classify import classify_error
from smsretry.core.delivery import Mark
from smsretry.core.events import Event
from smsretry.core.limit import OnUnreachable
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState, GaveUp, Outcome
from smsretry.core.policy import RetryPolicy
from smsretry.errors import reason_of
from smsretry.judge import Judge, complain, event_of, unknown
from smsretry.ports import (
    LAST_CHECK,
    LAST_CHECK_ASYNC,
    MARK,
    AnalyticsSink,
    AsyncAnalyticsSink,
    AsyncCanLookUp,
    AsyncFairLimiter,
    AsyncJournal,
    AsyncRateLimiter,
    AsyncSMSSender,
    CanLookUp,
    Classifier,
    Clock,
    FairLimiter,
    Journal,
    RateLimiter,
    SMSSender,
    SuppressionList,
)
from smsretry.steps import Ask, AskLimiter, AskList, Find, Question, SendChecked, Steps
from smsretry.wiring import (
    check_arguments,
    check_callable,
    check_clock,
    check_journal,
    check_limiter,
    check_policy,
    check_sender,
    check_suppression,
    checked_sinks,
    runs_in_loop,
)

if TYPE_CHECKING:
    from smsretry.journaled import Attempted, Journaled
    from smsretry.limiting import Limiting
    from smsretry.suppressing import Suppressing

T = TypeVar("T")
SenderT = TypeVar("SenderT")
SinkT = TypeVar("SinkT")
JournalT = TypeVar("JournalT")
LimiterT = TypeVar("LimiterT")

_NEW: Final = AttemptState()
_QUESTIONS: Final = (SendChecked, Find, Ask, AskLimiter, AskList)
"""Any step but a message: `smsretry.adapters.callables.retrying` puts calls of its own in the place of messages."""
LEASE_S: Final = 60.0
"""How long a claim in a journal holds without being renewed, unless told otherwise."""


utc_now: Final[Clock] = functools.partial(datetime.now, UTC)
"""Return the present moment as an aware UTC datetime: the default `Clock`."""


def new_id() -> str:
    """Return a random message id, for messages that came without one."""
    return os.urandom(16).hex()


class _Shell(Generic[SenderT, SinkT, JournalT, LimiterT]):
    """Hold the parts of a dispatcher, plain or async; what is decided is the judge's, and the same for both."""

    _is_async: ClassVar[bool] = False

    def __init__(
        self,
        sender: SenderT,
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008  # a frozen value
        classify: Classifier | None = None,
        sink: SinkT | Iterable[SinkT] = (),
        clock: Clock = utc_now,
        draw: Callable[[], float] = random.random,
        journal: JournalT | None = None,
        lease_s: float = LEASE_S,
        elapsed: Callable[[], float] | None = None,
        limiter: LimiterT | None = None,
        limiter_away: OnUnreachable = OnUnreachable.HOLD,
        suppression: SuppressionList | None = None,
    ) -> None:
        check_sender(sender, is_async=self._is_async)
        check_policy(policy)
        check_clock(clock)
        check_callable("draw", draw)
        own: Classifier = getattr(sender, "classify", classify_error)
        classify = own if classify is None else classify
        check_callable("classify", classify)
        if journal is not None:
            check_journal(journal, is_async=self._is_async)
        self.policy = policy
        self.clock = clock
        self.journal = journal
        self.lease_s = lease_s
        self._sender = sender
        # A runtime check of the Protocol would cost more than an attempt.
        asks = callable(getattr(sender, "find", None))
        self._limiter: Any = limiter
        self._limiter_away = limiter_away
        self._suppression: Any = suppression
        self._judge = Judge(
            policy=policy,
            classify=classify,
            asks=asks,
            draw=draw,
            limiting=None if limiter is None else self._under_a_limit(),
            suppressing=None if suppression is None else self._by_a_list(),
        )
        self._sinks: tuple[SinkT, ...] = self._seated(checked_sinks(sink, is_async=self._is_async))
        self._journaled = None if journal is None else self._under_a_journal(elapsed)

    @property
    def timeout_s(self) -> float | None:
        """Return how many seconds one send may take; None where the sender does not say."""
        timeout_s: float | None = getattr(self._sender, "timeout_s", None)
        return timeout_s

    def that_holds(self, limiter: LimiterT | None = None) -> Self:
        """Return one that puts off, for a minute, a message whose account is refused, in place of ending it.

        For whoever keeps the other messages of the account back meanwhile; with a journal every dispatcher does so.
        ``limiter``, where there is one, takes the place of its own.
        """
        held = copy.copy(self)
        held._hold(limiter)  # noqa: SLF001  # it is of this very class
        return held

    def _hold(self, limiter: LimiterT | None) -> None:
        limiting = self._judge.limiting
        if limiter is not None:
            self._limiter = limiter
            limiting = self._under_a_limit()
        judge = replace(self._judge, limiting=limiting)
        if self._journaled is not None:  # which holds by itself, for all processes
            self._journaled = replace(self._journaled, judge=judge)
        self._judge = replace(judge, holds=True)

    def _under_a_journal(self, elapsed: Callable[[], float] | None) -> Journaled:
        from smsretry.journaled import Journaled, since_boot  # nobody pays for it without a journal

        return Journaled(
            judge=self._judge,
            sender=self._sender,
            clock=self.clock,
            new_id=new_id,
            lease_s=self.lease_s,
            elapsed=elapsed or since_boot,
        )

    def _under_a_limit(self) -> Limiting:
        from smsretry.limiting import Limiting, as_fair  # nobody pays for it without a limiter

        check_limiter(self._limiter, is_async=self._is_async)
        self._limiter = as_fair(self._limiter)
        return Limiting(sender=self._sender, clock=self.clock, on_unreachable=self._limiter_away)

    def _by_a_list(self) -> Suppressing:
        from smsretry.suppressing import Suppressing  # nobody pays for it without a list

        check_suppression(self._suppression)
        return Suppressing(sender=self._sender)

    def _seated(self, sinks: tuple[SinkT, ...]) -> tuple[SinkT, ...]:
        """Return the sinks that are told of an attempt: not the journal, which writes that itself."""
        own: object = self.journal
        return tuple(sink for sink in sinks if sink is not own)


class Dispatcher(_Shell[SMSSender, AnalyticsSink, Journal, RateLimiter | FairLimiter]):
    """Send messages through ``sender``, one attempt a call, as ``policy`` says.

    ``classify`` says what an exception means; the default is the sender's own ``classify`` where it has one. ``sink``
    is one analytics sink or several; one that fails is logged and starves no other. ``clock`` and ``draw`` (a random
    number from 0 up to, not including, 1) are arguments so that tests need neither time nor chance.

    ``journal`` (an `smsretry.store.SQLStore`, or `smsretry.journal.MemoryJournal` in one process) remembers what was
    begun, so that killed workers and repeated deliveries neither lose nor double a text. A claim in it holds for
    ``lease_s`` seconds, and must outlast a send; ``elapsed`` measures that, in seconds on a clock that never jumps and
    counts the time that the machine sleeps (the default is such a one).

    ``limiter`` (a `smsretry.limits.MemoryLimiter`, or a `smsretry.limits.redis.RedisLimiter` for all workers together)
    is asked before each send; a message whose turn has not come is deferred. ``limiter_away`` says what becomes of
    messages while it cannot be reached.

    ``suppression`` (an `smsretry.store.SQLStore`) knows who must not be texted. It is asked before each send: a message
    to such a number ends as suppressed, and nothing is sent. Whoever opted out, as the provider says, is put on it.

    Constructing it opens nothing, and it holds no state of its own: one may stand at module level and serve every
    thread and forked process. Raises `smsretry.ConfigurationError` for a sender that cannot send, a sink that
    cannot record, a policy that is none, a journal that lacks a verb and a clock without aware times.
    """

    def attempt(self, message: Message, state: AttemptState = _NEW, *, rerun: bool = False) -> Outcome:
        """Make the next attempt of ``message``, where ``state`` is what the last outcome carried. Never sleeps.

        A message whose outcome is in doubt is looked up first. `RetryAfter` and `Deferred` ask for another call with
        their state after their delay; `Accepted` and `GaveUp` are the end.

        With a journal its word counts, ``state`` is a hint, and a message that has ended is answered with its end.
        ``rerun`` says that the text may have been rendered anew: what was first begun under this id is sent.
        Raises `smsretry.InvalidMessage` where the journal knows the id with another recipient, or text.
        """
        try:
            if self._journaled is not None:
                return self._told_what_came(self._run(self._journaled.attempt(message, state, rerun=rerun)))
            began = self.clock()
            if message.id is None:
                message, state = _named(message, state)
            # No local variable here may hold the outcome: its cause holds these very frames.
            return self._told(self._run(self._judge.attempt(message, state, began, self.clock)), message, state, began)
        except (AttributeError, TypeError):
            check_arguments(message, state)  # only now: each attempt would pay for it
            raise

    def abandon(self, message: Message, state: AttemptState, why: str) -> GaveUp:
        """End a message in doubt as unknown, because it can wait for no other look-up, and tell every sink.

        For adapters: a queue that takes no retry, or does not wait. ``state`` is what the last outcome carried.
        """
        ended = unknown(state, why)
        self._told(ended, message, state, self.clock())
        return ended

    def interrupted(self, message: Message, state: AttemptState, began: datetime, error: BaseException) -> Outcome:
        """Say what follows an attempt that began at ``began`` and that ``error`` cut short, and tell every sink.

        For adapters: a queue that limits the time of a run. Nobody knows how far the attempt came, so the text may have
        been sent; nothing is asked or sent here. Not for a dispatcher with a journal, which knows how far it came.
        """
        return self._told(self._judge.interrupted(message, state, began, self.clock(), error), message, state, began)

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._answered(step) if isinstance(step, _QUESTIONS) else self._sender.send(step)
                except BaseException as error:  # noqa: BLE001  # the steps decide about it, as if they had called
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return cast("T", end.value)

    def _answered(self, step: Question) -> object:
        match step:
            case SendChecked(message, check, mark):
                return self._sent_checked(message, check, mark)
            case Find():
                asks = cast("CanLookUp", self._sender)
                return asks.find(step.message, since=step.since, exclude=step.exclude)
            case Ask(question):
                return question(cast("Journal", self.journal))
            case AskLimiter(ask):
                return ask(self._limiter)
            case AskList(ask):
                return ask(self._suppression)
            case _ as unreachable:
                assert_never(unreachable)

    def _sent_checked(self, message: Message, check: Callable[[], Steps[None]], mark: Mark) -> object:
        token, marked = LAST_CHECK.set(lambda: self._run(check())), MARK.set(mark)
        try:
            return self._sender.send(message)
        finally:
            LAST_CHECK.reset(token)
            MARK.reset(marked)

    def _told(self, outcome: Outcome, message: Message, state: AttemptState, began: datetime) -> Outcome:
        """Tell every sink what followed an attempt that was made with ``state``, and return it."""
        if self._sinks:
            self._tell(event_of(outcome, message, state, began, self.clock()), self._sinks)
        return outcome

    def _told_what_came(self, attempted: Attempted) -> Outcome:
        if attempted.event is not None:
            self._tell(attempted.event, self._sinks)
        return attempted.outcome

    def _tell(self, event: Event, sinks: Iterable[AnalyticsSink]) -> None:
        for sink in sinks:
            try:
                sink.record(event)
            except Exception as error:  # noqa: BLE001  # analytics never change an outcome
                _lost(event, sink, error)


class AsyncDispatcher(
    _Shell[
        AsyncSMSSender,
        AnalyticsSink | AsyncAnalyticsSink,
        Journal | AsyncJournal,
        RateLimiter | FairLimiter | AsyncRateLimiter | AsyncFairLimiter,
    ]
):
    """Send messages through an async ``sender``, one attempt a call: `Dispatcher` for code that runs in a loop.

    Everything is as it is there. What blocks is kept out of the loop: a sink, journal or limiter whose verbs are
    coroutine functions is awaited, one with ``blocks = False`` is called in the loop, and any other runs in a thread.
    One with a method ``in_loop()``, such as `smsretry.store.SQLStore`, is asked for its form that is awaited.

    Where the task is canceled, the attempt ends at once: what was on its way may have been sent. With a journal the
    message stays in doubt there, until its lease ends and it is looked up.
    """

    _is_async = True

    def _seated(
        self, sinks: tuple[AnalyticsSink | AsyncAnalyticsSink, ...]
    ) -> tuple[AnalyticsSink | AsyncAnalyticsSink, ...]:
        return tuple(_in_loop(sink) for sink in super()._seated(sinks))

    @functools.cached_property
    def _asked(self) -> Journal | AsyncJournal:
        return _in_loop(cast("Journal | AsyncJournal", self.journal))

    async def attempt(self, message: Message, state: AttemptState = _NEW, *, rerun: bool = False) -> Outcome:
        """Make the next attempt of ``message``: see `Dispatcher.attempt`."""
        try:
            if self._journaled is not None:
                return await self._told_what_came(await self._run(self._journaled.attempt(message, state, rerun=rerun)))
            began = self.clock()
            if message.id is None:
                message, state = _named(message, state)
            outcome = self._run(self._judge.attempt(message, state, began, self.clock))
            return await self._told(await outcome, message, state, began)
        except (AttributeError, TypeError):
            check_arguments(message, state)
            raise

    async def abandon(self, message: Message, state: AttemptState, why: str) -> GaveUp:
        """End a message in doubt as unknown: see `Dispatcher.abandon`."""
        ended = unknown(state, why)
        await self._told(ended, message, state, self.clock())
        return ended

    async def interrupted(
        self, message: Message, state: AttemptState, began: datetime, error: BaseException
    ) -> Outcome:
        """Say what follows an attempt that ``error`` cut short: see `Dispatcher.interrupted`."""
        outcome = self._judge.interrupted(message, state, began, self.clock(), error)
        return await self._told(outcome, message, state, began)

    async def close(self) -> None:
        """Close the sender's connections, where it has any: at the end of a loop."""
        close = getattr(self._sender, "close", None)
        closing = close() if callable(close) else None
        if isinstance(closing, Awaitable):
            await closing

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await (self._answered(step) if isinstance(step, _QUESTIONS) else self._sender.send(step))
                except BaseException as error:  # noqa: BLE001  # the steps decide about it, as if they had called
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return cast("T", end.value)

    async def _answered(self, step: Question) -> object:
        match step:
            case SendChecked(message, check, mark):
                return await self._sent_checked(message, check, mark)
            case Find():
                asks = cast("AsyncCanLookUp", self._sender)
                return await asks.find(step.message, since=step.since, exclude=step.exclude)
            case Ask(question):
                journal = cast("Journal", self._asked)
                return await _answer(question, journal, in_loop=runs_in_loop(journal, "begin"))
            case AskLimiter(ask):
                return await _answer(ask, self._limiter, in_loop=runs_in_loop(self._limiter, "take_turn"))
            case AskList(ask):
                return await _answer(ask, self._suppression, in_loop=runs_in_loop(self._suppression, "suppressed"))
            case _ as unreachable:
                assert_never(unreachable)

    async def _sent_checked(self, message: Message, check: Callable[[], Steps[None]], mark: Mark) -> object:
        token, marked = LAST_CHECK_ASYNC.set(lambda: self._run(check())), MARK.set(mark)
        try:
            return await self._sender.send(message)
        finally:
            LAST_CHECK_ASYNC.reset(token)
            MARK.reset(marked)

    async def _told(self, outcome: Outcome, message: Message, state: AttemptState, began: datetime) -> Outcome:
        if self._sinks:
            await self._tell(event_of(outcome, message, state, began, self.clock()), self._sinks)
        return outcome

    async def _told_what_came(self, attempted: Attempted) -> Outcome:
        if attempted.event is not None:
            await self._tell(attempted.event, self._sinks)
        return attempted.outcome

    async def _tell(self, event: Event, sinks: Iterable[AnalyticsSink | AsyncAnalyticsSink]) -> None:
        for sink in sinks:
            try:
                await _answer(sink.record, event, in_loop=runs_in_loop(sink, "record"))
            except Exception as error:  # noqa: BLE001  # analytics never change an outcome
                _lost(event, sink, error)


async def _answer(ask: Callable[[T], Any], value: T, *, in_loop: bool) -> Any:
    """Return what ``ask(value)`` answers; called here, or in a thread where it would block the loop."""
    if not in_loop:
        import asyncio  # only whoever runs a loop pays for it

        return await asyncio.to_thread(ask, value)
    answer = ask(value)
    return await answer if isinstance(answer, Awaitable) else answer


def _in_loop(part: T) -> T:
    """Return the form of ``part`` that is awaited, where it has one."""
    in_loop = getattr(part, "in_loop", None)
    return cast("T", in_loop()) if callable(in_loop) else part


def _named(message: Message, state: AttemptState) -> tuple[Message, AttemptState]:
    """Give ``message`` the id that travels in ``state``, a new one the first time."""
    state = state if state.message_id is not None else replace(state, message_id=new_id())
    return message.with_id(str(state.message_id)), state


def _lost(event: Event, sink: object, error: Exception) -> None:
    complain("%s lost event %s: %s", type(sink).__qualname__, event.event_id, reason_of(error))
