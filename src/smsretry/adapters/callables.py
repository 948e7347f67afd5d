"""Send from plain code: one message in a loop that sleeps, or any function that an application has already.

Each of the two comes plain and async.
"""

from __future__ import annotations

import functools
import inspect
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Never, ParamSpec, TypeVar, assert_never, cast

from smsretry.core.classify import classify_error
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, DeferReason, Deferred, GaveUp, Outcome, RetryAfter
from smsretry.core.policy import RetryPolicy
from smsretry.dispatcher import AsyncDispatcher, Dispatcher, new_id
from smsretry.errors import ConfigurationError, InvalidMessage, NotAccepted, ProviderError, not_accepted
from smsretry.ports import AnalyticsSink, AsyncAnalyticsSink, Classifier

P = ParamSpec("P")
R = TypeVar("R")

_NEW: Final = AttemptState()
_log: Final = logging.getLogger("smsretry")
_UNHEARD: Final = {
    DeferReason.BUSY: "another worker has it, or had it when it was killed, or has one with the same number and text",
    DeferReason.NOT_DUE: "the journal has it planned for later",
}
"""Why a message waits that its journal let nobody begin."""
_NOT_SENDING: Final = (inspect.isasyncgenfunction, inspect.isgeneratorfunction)


def send_with_retry(
    dispatcher: Dispatcher, message: Message, *, sleep: Callable[[float], object] = time.sleep
) -> Receipt:
    """Send ``message``, waiting between attempts with ``sleep`` (seconds), until it is accepted or has ended.

    Return the provider's `Receipt`. Raise `smsretry.SendFailed` where it was not taken and `smsretry.SendUnknown` where
    nobody can tell, both `smsretry.NotAccepted`; where an attempt ended it, the sender's exception is its
    ``__cause__``. A message without an id gets one for this call; with a journal it is refused.

    It may sleep for long: 14 seconds in all by default, but 10.6 hours where the sender's queue at the provider is full
    (Twilio's 21611). Give the message a ``send_before``, or the policy a limit for `FailureKind.QUEUE_FULL`.
    """
    if not isinstance(dispatcher, Dispatcher) or not isinstance(message, _SENDABLE):
        _refuse_parts(dispatcher, message, Dispatcher)
    message, state = _named(message, dispatcher), _NEW
    while True:
        following = _following(message, dispatcher.attempt(message, state))
        if isinstance(following, Receipt):
            return following
        state = following.state
        sleep(following.delay_s)


async def send_with_retry_async(
    dispatcher: AsyncDispatcher, message: Message, *, sleep: Callable[[float], Awaitable[object]] | None = None
) -> Receipt:
    """Send ``message`` as `send_with_retry` does, in a running loop; ``sleep`` is ``asyncio.sleep`` by default."""
    if not isinstance(dispatcher, AsyncDispatcher) or not isinstance(message, _SENDABLE):
        _refuse_parts(dispatcher, message, AsyncDispatcher)
    message, state, sleep = _named(message, dispatcher), _NEW, sleep or _loop_sleep()
    while True:
        following = _following(message, await dispatcher.attempt(message, state))
        if isinstance(following, Receipt):
            return following
        state = following.state
        await sleep(following.delay_s)


def _refuse_parts(dispatcher: object, message: object, kind: type[Dispatcher | AsyncDispatcher]) -> Never:
    """Raise before anything is sent where the two are not what they must be, or stand in each other's place."""
    if not isinstance(dispatcher, kind):
        what = "a Dispatcher" if kind is Dispatcher else "an AsyncDispatcher"
        got = type(dispatcher).__name__
        raise ConfigurationError(f"The first argument must be {what}, got {got}. Pass it, and then the message.")
    raise InvalidMessage(f"The second argument must be a smsretry.Message, got {type(message).__name__}.")


def _named(message: Message, dispatcher: Dispatcher | AsyncDispatcher) -> Message:
    """Return the message with an id; a journal refuses one without: the same call, made again, would be another one."""
    return message.with_id(new_id()) if message.id is None and dispatcher.journal is None else message


def _following(message: Message, outcome: Outcome) -> Receipt | RetryAfter | Deferred:
    """Return what ``outcome`` leads to, or raise the end.

    The loops above keep no outcome in a variable: its cause holds their frames, so that the two would never go away.
    """
    match outcome:
        case Accepted(receipt):
            return receipt
        case RetryAfter():
            return outcome
        case Deferred():
            _tell_unheard(message, outcome)
            return outcome
        case GaveUp():
            raise not_accepted(str(message.id), outcome) from outcome.cause
        case _ as unreachable:
            assert_never(unreachable)


def _tell_unheard(message: Message, deferred: Deferred) -> None:
    """Log a wait of which no sink hears, since it was no attempt: a caller that sleeps for a minute looks hung."""
    if (why := _UNHEARD.get(deferred.reason)) is not None:
        _log.warning("%s waits for %.3g s: %s.", message.id, deferred.delay_s, why)


def _loop_sleep() -> Callable[[float], Awaitable[object]]:
    import asyncio  # only whoever runs a loop pays for it

    return asyncio.sleep


def retrying(
    *bare: Never,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008  # a frozen value
    classify: Classifier = classify_error,
    sink: AnalyticsSink | AsyncAnalyticsSink | Iterable[AnalyticsSink | AsyncAnalyticsSink] = (),
    sleep: Callable[[float], Any] | None = None,
    judge: Callable[[Any], Failure | None] | None = None,
    draw: Callable[[], float] = random.random,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Wrap a function that sends one text, plain or async, so that it is called again as ``policy`` says.

    ``classify`` says what an exception of it means; by default one that nobody listed may have been sent, and a text
    that may have been sent is not sent again (`smsretry.SendUnknown`). ``judge`` serves functions that return a failure
    instead of raising it: it gets what was returned and says which `Failure` it is, or None where it was sent. Where
    it raises, the text may have been sent. ``sleep`` is ``time.sleep``, or ``asyncio.sleep`` for a coroutine function.

    The wrapped function raises `smsretry.NotAccepted` where the text has ended, with its own exception as its
    ``__cause__``; a call whose arguments do not fit it raises the TypeError of any function, and nothing was sent.
    Calls share nothing, so it may be called from many threads. Raises `smsretry.ConfigurationError`
    where what is wrapped is no function that sends, and where the parentheses are missing: write ``@retrying()``.
    """
    if bare:
        raise ConfigurationError("retrying was given a function without parentheses. Write @retrying() above it.")
    _check_functions(judge=judge, sleep=sleep)
    parts: dict[str, Any] = {"policy": policy, "classify": classify, "sink": sink, "draw": draw}
    AsyncDispatcher(_AsyncCallable(judge), **parts)  # which refuses what neither could use

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        _check_plain(function)
        if inspect.iscoroutinefunction(function):
            wrapped: Any = _wrapped_async(function, AsyncDispatcher(_AsyncCallable(judge), **parts), sleep)
        else:
            wrapped = _wrapped(function, Dispatcher(_Callable(judge), **parts), sleep or time.sleep)
        return cast("Callable[P, R]", wrapped)

    return decorate


def _wrapped(function: Callable[P, R], dispatcher: Dispatcher, sleep: Callable[[float], Any]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _Call(functools.partial(function, *args, **kwargs))
        try:
            send_with_retry(dispatcher, cast("Message", call), sleep=sleep)
        except NotAccepted as ended:
            _raise_own(ended)
            raise
        return cast("R", call.result)

    return wrapper


def _wrapped_async(
    function: Callable[P, Coroutine[Any, Any, R]], dispatcher: AsyncDispatcher, sleep: Callable[[float], Any] | None
) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _Call(functools.partial(function, *args, **kwargs))
        try:
            await send_with_retry_async(dispatcher, cast("Message", call), sleep=sleep)
        except NotAccepted as ended:
            _raise_own(ended)
            raise
        return cast("R", call.result)

    return wrapper


def _check_functions(**parts: object) -> None:
    for name, part in parts.items():
        if part is not None and not callable(part):
            got = type(part).__name__
            raise ConfigurationError(f"{name} must be a function, got {got}. Leave it out for the default.")


def _check_plain(function: object) -> None:
    if not callable(function) or any(is_of_kind(function) for is_of_kind in _NOT_SENDING):
        name = getattr(function, "__qualname__", type(function).__name__)
        msg = f"retrying wraps a function that sends one text and returns, got {name}. Wrap one that is called."
        raise ConfigurationError(msg)


@dataclass(slots=True)
class _Call:
    """Stand for a message of which only the wrapped function knows number and text, and keep what it returned."""

    run: Callable[[], Any]
    result: Any = None
    id: str = field(default_factory=new_id)
    campaign: None = None
    send_before: None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


_SENDABLE: Final = (Message, _Call)


class _Judging:
    """Be the sender of all calls of a wrapped function; each brings what it calls and keeps what came back."""

    def __init__(self, judge: Callable[[Any], Failure | None] | None) -> None:
        self._judge = judge
        self._is_blamed = False

    def _receipt(self, call: _Call, result: object) -> Receipt:
        call.result = result
        _check_done(result)
        if (failure := self._failure(call)) is not None:
            raise ProviderError(failure)
        try:
            return result if isinstance(result, Receipt) else _receipt_of(call)
        except Exception as error:
            raise _unjudged(error) from error

    def _failure(self, call: _Call) -> Failure | None:
        """Judge what was returned; whatever goes wrong here comes after the text may have left."""
        try:
            failure = None if self._judge is None else self._judge(call.result)
        except Exception as error:
            self._blame(call, f"raised {_told(error)}")
            raise _unjudged(error) from error
        if failure is not None and not isinstance(failure, Failure):
            self._blame(call, f"returned a {type(failure).__qualname__}")
            raise _lost(f"judge must return a Failure or None, got {type(failure).__qualname__}")
        return failure

    def _blame(self, call: _Call, what: str) -> None:
        """Log once that it is the judge who is at fault: what follows reads as if the provider were."""
        if self._is_blamed:
            return
        self._is_blamed = True
        name = getattr(cast("functools.partial[object]", call.run).func, "__qualname__", "a function")
        text = "The judge of %s must return a Failure, or None for sent: else nobody knows what was sent. It %s"
        _log.error(text, name, what)


class _Callable(_Judging):
    def send(self, message: Message, /) -> Receipt:
        call = cast("_Call", message)
        try:
            result = call.run()
        except TypeError as error:
            _refuse_misfit(call, error)
            raise
        return self._receipt(call, result)


class _AsyncCallable(_Judging):
    async def send(self, message: Message, /) -> Receipt:
        call = cast("_Call", message)
        try:
            result = call.run()
        except TypeError as error:
            _refuse_misfit(call, error)
            raise
        return self._receipt(call, await result)


class _Unjudged(ProviderError):
    """Say that nobody knows what a call returned, since judging it raised: its cause is what."""


class _Misfit(ProviderError):
    """Say that the arguments of a call do not fit the wrapped function, so that nothing of it ran; its cause is why."""


def _refuse_misfit(call: _Call, error: TypeError) -> None:
    """Raise `_Misfit` where ``error`` comes of the call itself and not of what the function did."""
    traceback = error.__traceback__
    if traceback is None or traceback.tb_next is not None:
        return
    run = cast("functools.partial[object]", call.run)
    try:
        signature = inspect.signature(run.func)
    except (TypeError, ValueError):  # a builtin without one: it may have run
        return
    try:
        signature.bind(*run.args, **run.keywords)
    except TypeError:
        raise _Misfit(Failure.of(FailureKind.CONTENT, detail="the arguments do not fit the function")) from error


def _raise_own(ended: NotAccepted) -> None:
    """Raise the TypeError of a call whose arguments did not fit; where judging raised, let that be the cause."""
    cause = ended.__cause__
    if isinstance(cause, _Misfit) and cause.__cause__ is not None:
        raise cause.__cause__ from None
    if isinstance(cause, _Unjudged):
        raise ended from cause.__cause__


def _check_done(result: object) -> None:
    """Raise where ``result`` only promises to send, so that nobody takes it for sent."""
    if isinstance(result, (Coroutine, Generator)):
        result.close()  # nothing of it ran
        what = type(result).__name__
        raise ConfigurationError(
            f"retrying wraps a function that sends, got one that returns a {what}: nothing was sent."
        )
    if isinstance(result, (Awaitable, Future)):
        raise _lost(f"the function returned a {type(result).__qualname__}: wrap one that waits for the answer")


def _receipt_of(call: _Call) -> Receipt:
    """Return a receipt with the ``sid`` of what was returned; where it has none, the id of the call stands for it."""
    return Receipt("callable", str(getattr(call.result, "sid", None) or call.id), datetime.now(UTC))


def _lost(detail: str) -> ProviderError:
    return ProviderError(Failure.of(FailureKind.LOST_ANSWER, detail=detail))


def _unjudged(error: Exception) -> _Unjudged:
    detail = f"judging the result raised {type(error).__qualname__}"
    return _Unjudged(Failure.of(FailureKind.LOST_ANSWER, detail=detail))


def _told(error: Exception) -> str:
    """Return the type of ``error``, and its words where they are ours: others may repeat what was returned."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_ours = len(frames) > 1 and frames[-1].startswith("smsretry.")
    return f"{type(error).__qualname__}: {error}" if is_ours else type(error).__qualname__
