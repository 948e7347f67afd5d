"""Run a campaign in a running loop: as many tasks as may send at once, and one that reads ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

from smsretry.campaign.agenda import Agenda, Job, Progress
from smsretry.campaign.reporting import (
    OnProgress,
    Reporter,
    check_dispatcher,
    check_options,
    is_message,
    log_refused,
    now_s,
)
from smsretry.core.message import Message
from smsretry.dispatcher import AsyncDispatcher
from smsretry.errors import InvalidMessage
from smsretry.ports import AsyncFairLimiter, AsyncRateLimiter, FairLimiter, RateLimiter

AnyLimiter = RateLimiter | FairLimiter | AsyncRateLimiter | AsyncFairLimiter
CONCURRENCY: Final = 100


async def run_campaign_async(
    messages: Iterable[Message] | AsyncIterable[Message],
    dispatcher: AsyncDispatcher,
    *,
    concurrency: int = CONCURRENCY,
    limiter: AnyLimiter | None = None,
    on_progress: OnProgress | None = None,
    progress_every_s: float = 0.5,
) -> Progress:
    """Send ``messages``, which may be an async iterable too, as `smsretry.campaign.run_campaign` does; never blocks.

    ``concurrency`` is how many are sent at once; a `smsretry.senders.twilio.AsyncTwilioSender` wants
    ``max_connections`` of the same number. An iterable that is not async is read in the loop.

    Where the task is canceled, what is in flight may come back first, which takes as long as the sender's timeout at
    most; canceled a second time, it ends at once, and what was in flight may have been sent.
    Raises `smsretry.ConfigurationError` for a concurrency below 1, and for what is no async dispatcher.
    """
    check_dispatcher(dispatcher, AsyncDispatcher)
    check_options(concurrency, progress_every_s)
    run = _Run(dispatcher.that_holds(limiter), Agenda(concurrency, now_s()), Reporter(on_progress, progress_every_s))
    return await run.through(messages, concurrency)


class _Run:
    """Hold one run: who works, who has nothing to do at present, and who reads."""

    def __init__(self, dispatcher: AsyncDispatcher, agenda: Agenda, reporter: Reporter) -> None:
        self._dispatcher = dispatcher
        self._agenda = agenda
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._fault: BaseException | None = None

    async def through(self, messages: Iterable[Message] | AsyncIterable[Message], concurrency: int) -> Progress:
        reading = self._begin(self._read(messages))
        telling = self._begin(self._tell())
        working = [self._begin(self._work()) for _ in range(concurrency)]
        try:
            await _all_of(working)
        except asyncio.CancelledError:
            self._stop()
            await _all_of(working)
            raise
        finally:
            await _end([reading, telling, *working])
            if self._alarm is not None:
                self._alarm.cancel()
            progress = self._told()
        if self._fault is not None:
            raise self._fault
        return progress

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._loop.create_task(work)

    async def _read(self, messages: Iterable[Message] | AsyncIterable[Message]) -> None:
        """Put each message on the agenda when there is room; what the source raises is raised at the end."""
        try:
            async for message in _each(messages):
                while not self._agenda.has_room:
                    self._room.clear()
                    await self._room.wait()
                if is_message(message):
                    self._agenda.put(message)
                    self._wake(1)
                else:
                    self._agenda.refuse()
        except Exception as error:  # noqa: BLE001  # it is raised at the end
            self._fault = error
        finally:
            self._agenda.close()
            self._wake_if_over()

    async def _tell(self) -> None:
        while True:
            self._told()
            await asyncio.sleep(self._reporter.every_s)

    def _told(self) -> Progress:
        progress = self._agenda.progress(now_s())
        self._reporter.tell(progress)
        return progress

    async def _work(self) -> None:
        agenda = self._agenda
        try:
            while not (agenda.is_over or agenda.is_stopped):
                job = agenda.take(now_s())
                if job is None:
                    await self._change()
                    continue
                if agenda.wants_more:
                    self._room.set()
                if self._idle:
                    self._wake_for_more()
                await self._attempt(job)
        finally:
            self._wake_if_over()

    async def _attempt(self, job: Job) -> None:
        try:
            outcome = await self._dispatcher.attempt(job.message, job.state)
        except InvalidMessage as error:
            log_refused(job.message, error)
            self._agenda.refuse(job)
        except BaseException as error:  # no failure of a message: it is raised at the end
            self._agenda.put_back(job)
            self._stop(error)
            raise
        else:
            self._agenda.settle(job, outcome, now_s())

    async def _change(self) -> None:
        """Wait until there may be something to do."""
        self._set_alarm()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._idle.append(waiter)
        try:
            await waiter
        finally:
            with suppress(ValueError):
                self._idle.remove(waiter)

    def _set_alarm(self) -> None:
        """Wake somebody when the next message is due."""
        wait_s = self._agenda.wait_s(now_s())
        if wait_s is None:
            return
        due_s = self._loop.time() + wait_s
        if self._alarm is not None and self._alarm.when() > due_s:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._alarm = self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wake(1)

    def _wake(self, count: int) -> None:
        while count and self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _wake_for_more(self) -> None:
        """Let somebody else look too, where more is to be done now or later."""
        if self._agenda.has_turn(now_s()):
            self._wake(1)
        else:
            self._set_alarm()

    def _wake_if_over(self) -> None:
        if self._agenda.is_over or self._agenda.is_stopped:
            self._wake(len(self._idle))

    def _stop(self, fault: BaseException | None = None) -> None:
        self._fault = self._fault or fault
        self._agenda.stop()
        self._wake(len(self._idle))


async def _each(messages: Iterable[Message] | AsyncIterable[Message]) -> AsyncIterator[Message]:
    if isinstance(messages, AsyncIterable):
        async for message in messages:
            yield message
        return
    for message in messages:
        yield message


async def _all_of(tasks: list[asyncio.Task[None]]) -> None:
    """Wait until all have ended; where this is canceled they go on."""
    await asyncio.wait(tasks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """End those that still run."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
