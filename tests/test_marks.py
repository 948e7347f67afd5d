"""A sender can name the send that is going on, so that a report can prove it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from smsretry import Dispatcher, Message, Receipt
from smsretry.core.delivery import Mark
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import AsyncDispatcher
from smsretry.errors import ProviderError
from smsretry.journal import MemoryJournal
from smsretry.ports import mark_of_send
from smsretry.testing import FakeClock

MESSAGE = Message("+14155550101", "Hello.", id="m")


class Marked:
    """Refuse the first send, and keep the mark of each."""

    def __init__(self) -> None:
        self.marks: list[Mark | None] = []

    def send(self, message, /):
        self.marks.append(mark_of_send())
        if len(self.marks) == 1:
            raise ProviderError(Failure.of(FailureKind.RATE_LIMITED))
        return Receipt("test", "SM1", datetime.now(UTC))


class AsyncMarked:
    """Do the same, awaited."""

    def __init__(self) -> None:
        self._marked = Marked()
        self.marks = self._marked.marks

    async def send(self, message, /):
        return self._marked.send(message)


def test_with_a_journal_each_send_has_a_mark_of_its_own():
    sender, clock = Marked(), FakeClock()
    dispatcher = Dispatcher(sender, journal=MemoryJournal(clock=clock), clock=clock)
    dispatcher.attempt(MESSAGE)
    clock.advance(2.0)
    dispatcher.attempt(MESSAGE)
    assert sender.marks == [Mark(1, 1, 1), Mark(1, 2, 2)]
    assert mark_of_send() is None


def test_in_a_loop_too():
    sender, clock = AsyncMarked(), FakeClock()
    dispatcher = AsyncDispatcher(sender, journal=MemoryJournal(clock=clock), clock=clock)
    asyncio.run(dispatcher.attempt(MESSAGE))
    assert sender.marks == [Mark(1, 1, 1)]
    assert mark_of_send() is None


def test_without_a_journal_there_is_none():
    sender = Marked()
    Dispatcher(sender).attempt(MESSAGE, AttemptState())
    assert sender.marks == [None]
