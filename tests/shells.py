"""An async dispatcher that is called like a plain one: whatever tests the one then tests the other."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar

from smsretry import AsyncDispatcher, AttemptState, Dispatcher, GaveUp, Message, Outcome, Receipt
from smsretry.ports import LAST_CHECK, AnalyticsSink, Journal, LookUp, SMSSender, check_before_writing_async

T = TypeVar("T")
_NEW = AttemptState()


def driven(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never really waits, without a loop."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()
    raise AssertionError("it waits, and nobody is there to go on with it")


class Awaited:
    """Be an async sender that does what a plain one does, with the plain one's check on the way."""

    def __init__(self, sender: SMSSender) -> None:
        self._sender = sender
        for name in ("classify", "timeout_s", "account_key", "rate_key"):
            if hasattr(sender, name):
                setattr(self, name, getattr(sender, name))

    async def send(self, message: Message, /) -> Receipt:
        token = LAST_CHECK.set(lambda: driven(check_before_writing_async()))
        try:
            return self._sender.send(message)
        finally:
            LAST_CHECK.reset(token)


class AwaitedAsking(Awaited):
    """Be one that can be asked."""

    async def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        sender: Any = self._sender
        found: LookUp = sender.find(message, since=since, exclude=exclude)
        return found


class AwaitedJournal:
    """Be an async journal that does what a plain one does."""

    def __init__(self, journal: Journal) -> None:
        for name in ("begin", "renew", "finish", "release", "others", "hold", "reopen"):
            setattr(self, name, _awaited(getattr(journal, name)))


class AwaitedSink:
    """Be an async sink that does what a plain one does."""

    def __init__(self, sink: AnalyticsSink) -> None:
        self.record = _awaited(sink.record)


class DrivenDispatcher:
    """Be an `AsyncDispatcher` with the constructor and the methods of a `Dispatcher`; all parts are awaited."""

    def __init__(
        self,
        sender: SMSSender,
        *,
        sink: AnalyticsSink | Iterable[AnalyticsSink] = (),
        journal: Journal | None = None,
        **options: Any,
    ) -> None:
        kind = AwaitedAsking if hasattr(sender, "find") else Awaited
        sinks = [sink] if hasattr(sink, "record") else sink
        awaited: Any = {
            "sink": [AwaitedSink(one) for one in sinks],  # type: ignore[union-attr]
            "journal": None if journal is None else AwaitedJournal(journal),
        }
        self._inner = AsyncDispatcher(kind(sender), **awaited, **options)

    def that_holds(self) -> DrivenDispatcher:
        held = copy.copy(self)
        held._inner = self._inner.that_holds()
        return held

    def attempt(self, message: Message, state: AttemptState = _NEW, *, rerun: bool = False) -> Outcome:
        return driven(self._inner.attempt(message, state, rerun=rerun))

    def abandon(self, message: Message, state: AttemptState, why: str) -> GaveUp:
        return driven(self._inner.abandon(message, state, why))


AnyShell = type[Dispatcher] | type[DrivenDispatcher]
SHELLS: tuple[AnyShell, ...] = (Dispatcher, DrivenDispatcher)


def _awaited(verb: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    assert not inspect.iscoroutinefunction(verb)

    async def awaited(*values: Any, **options: Any) -> T:
        return verb(*values, **options)

    return awaited
