"""Run a campaign with threads: the plain dispatcher blocks where it sends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, cast

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
from smsretry.campaign.tasks import CONCURRENCY as IN_A_LOOP
from smsretry.campaign.tasks import AnyLimiter, run_campaign_async
from smsretry.core.message import Message
from smsretry.dispatcher import AsyncDispatcher, Dispatcher
from smsretry.errors import InvalidMessage
from smsretry.ports import RateLimiter

CONCURRENCY: Final = 10


def run_campaign(
    messages: Iterable[Message],
    dispatcher: Dispatcher | AsyncDispatcher,
    *,
    concurrency: int | None = None,
    limiter: AnyLimiter | None = None,
    on_progress: OnProgress | None = None,
    progress_every_s: float = 0.5,
) -> Progress:
    """Send ``messages`` through ``dispatcher``, ``concurrency`` at once, until each has ended; return how they ended.

    ``messages`` is read as places become free, so a generator over a file or a query serves, however long. A message
    that waits for its retry holds no place. No failure of a message stops the others; a `smsretry.InvalidMessage` is
    counted as refused. Where the provider refuses the account itself, the campaign is on hold: nothing is sent but one
    message a minute, which finds out whether it is served again.

    With a journal, run it again with the same messages after it was stopped or killed: it goes on where it was, and
    sends nothing twice. Ctrl-C lets what is in flight come back, which takes as long as the sender's timeout at most,
    and raises KeyboardInterrupt. Where ``messages`` raises, what was read of it is sent first.

    ``limiter`` (a `smsretry.limits.MemoryLimiter`, or one in Redis for all processes) takes the place of the
    dispatcher's; a message whose turn has not come waits as for a retry. ``on_progress`` is called with a `Progress`
    every ``progress_every_s`` seconds and at the end. ``concurrency`` is the number of threads (10), or of sends of an
    async dispatcher (100): see `run_campaign_async`, which this runs in a loop of its own for one. A
    `smsretry.senders.twilio.TwilioSender` wants ``max_connections`` of the same number.

    Raises `smsretry.ConfigurationError` for a concurrency below 1, and for what is no dispatcher.
    """
    if isinstance(dispatcher, AsyncDispatcher):
        campaign = run_campaign_async(
            messages,
            dispatcher,
            concurrency=IN_A_LOOP if concurrency is None else concurrency,
            limiter=limiter,
            on_progress=on_progress,
            progress_every_s=progress_every_s,
        )
        return asyncio.run(_then_closed(campaign, dispatcher))
    check_dispatcher(dispatcher, Dispatcher, AsyncDispatcher)
    concurrency = CONCURRENCY if concurrency is None else concurrency
    check_options(concurrency, progress_every_s)
    holding = dispatcher.that_holds(cast("RateLimiter | None", limiter))
    run = _Run(holding, Agenda(concurrency, now_s()), Reporter(on_progress, progress_every_s))
    return run.through(messages, concurrency)


async def _then_closed(campaign: Coroutine[Any, Any, Progress], dispatcher: AsyncDispatcher) -> Progress:
    try:
        return await campaign
    finally:
        await dispatcher.close()


class _Run:
    """Hold one run: this thread reads and tells, the others send."""

    def __init__(self, dispatcher: Dispatcher, agenda: Agenda, reporter: Reporter) -> None:
        self._dispatcher = dispatcher
        self._agenda = agenda
        self._reporter = reporter
        self._lock = threading.Lock()  # guards the agenda
        self._turn = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._fault: BaseException | None = None

    def through(self, messages: Iterable[Message], concurrency: int) -> Progress:
        threads = [threading.Thread(target=self._work, name=f"smsretry-{n}") for n in range(concurrency)]
        for thread in threads:
            thread.start()
        try:
            self._read(messages)
            self._wait_until(lambda: self._agenda.is_over)
        finally:
            self._stop()  # where it is not over: Ctrl-C
            for thread in threads:
                thread.join()
            progress = self._told()
        if self._fault is not None:
            raise self._fault
        return progress

    def _read(self, messages: Iterable[Message]) -> None:
        """Put each message on the agenda when there is room; what the source raises is raised at the end."""
        try:
            for message in messages:
                self._wait_until(lambda: self._agenda.has_room or self._agenda.is_stopped)
                self._put(message)
        except Exception as error:  # noqa: BLE001  # the application's own source
            self._fault = error
        with self._lock:
            self._agenda.close()
            self._turn.notify_all()

    def _put(self, message: Message) -> None:
        known = is_message(message)
        with self._lock:
            if known:
                self._agenda.put(message)
            else:
                self._agenda.refuse()
            self._turn.notify()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition()``, which is asked under the lock; tell how it goes meanwhile."""
        while True:
            if self._reporter.due_in_s() <= 0.0:
                self._told()
            with self._lock:
                if condition():
                    return
                self._room.wait(self._reporter.due_in_s())

    def _told(self) -> Progress:
        with self._lock:
            progress = self._agenda.progress(now_s())
        self._reporter.tell(progress)
        return progress

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._attempt(job)

    def _next(self) -> Job | None:
        """Return whose turn it is, waiting for it; None where nobody's comes any more."""
        with self._lock:
            while not (self._agenda.is_over or self._agenda.is_stopped):
                job = self._agenda.take(now_s())
                if job is not None:
                    if self._agenda.has_turn(now_s()):
                        self._turn.notify()
                    if self._agenda.wants_more:
                        self._room.notify()
                    return job
                self._turn.wait(self._agenda.wait_s(now_s()))
            self._turn.notify_all()
            self._room.notify()
            return None

    def _attempt(self, job: Job) -> None:
        try:
            outcome = self._dispatcher.attempt(job.message, job.state)
        except InvalidMessage as error:
            log_refused(job.message, error)
            with self._lock:
                self._agenda.refuse(job)
        except BaseException as error:  # noqa: BLE001  # no failure of a message: raised where the end is waited for
            with self._lock:
                self._agenda.put_back(job)
                self._fault = self._fault or error
            self._stop()
        else:
            with self._lock:
                self._agenda.settle(job, outcome, now_s())

    def _stop(self) -> None:
        with self._lock:
            if not self._agenda.is_over:
                self._agenda.stop()
            self._turn.notify_all()
            self._room.notify()
