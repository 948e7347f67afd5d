"""SAQ's own worker, one job at a time: what each end of a run means for the job, what is refused, and what is told."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Self

import pytest
from saq import Job, Queue, Worker
from saq.job import Status
from saq.web.common import job_dict
from tests.adapters.texts import BUSY, INVALID, TimedSender
from tests.shells import Awaited, AwaitedAsking

from smsretry import (
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Dispatcher,
    InvalidMessage,
    Message,
    Receipt,
    SendFailed,
)
from smsretry.adapters.saq import SMSTask, deliver, end_of, recover_elsewhere, recover_job, sms_task
from smsretry.core.lookup import Found, LookUp
from smsretry.dispatcher import utc_now
from smsretry.journal import MemoryJournal
from smsretry.testing import FakeClock, ScriptedSender

MESSAGE = Message("+14155550101", "Your table is ready.", id="booking-1")
NOWHERE = "redis://127.0.0.1:9/0"


class Hanging(ScriptedSender):
    """Take the first text and never answer, as a look-up finds out."""

    def __init__(self) -> None:
        self.taken = Receipt("scripted", "S1", utc_now())
        super().__init__(finds=[Found(self.taken)])
        self.hangs = asyncio.Event()

    async def send(self, message: Message, /) -> Receipt:  # type: ignore[override]
        receipt = super().send(message)
        self.hangs.set()
        await asyncio.sleep(60)
        return receipt

    async def find(self, message: Message, /, **asked: Any) -> LookUp:  # type: ignore[override]
        return super().find(message, **asked)


class Saq:
    """A queue and a worker of its own, in the loop that runs."""

    def __init__(self, url: str, **options: Any) -> None:
        self.queue: Any = Queue.from_url(url, name=f"test-{uuid.uuid4().hex}")
        self.clock = FakeClock(utc_now())
        self.options = {"shutdown_grace_period_s": 60, **options}
        recover_elsewhere(self.queue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.queue.disconnect()

    def task(self, sender: Any, journal: Any = None, **options: Any) -> SMSTask:
        task = sms_task(self.queue, self.dispatcher(sender, journal), name="send_sms", **options)
        self.works(task.function)
        return task

    def dispatcher(self, sender: Any, journal: Any = None) -> AsyncDispatcher:
        return dispatcher_of(sender, journal, clock=self.clock)

    def works(self, *functions: Any, **options: Any) -> None:
        self.worker = Worker(self.queue, functions=functions, dequeue_timeout=0.1, **(self.options | options))

    async def run(self, key: str = "booking-1") -> Job:
        """Let the worker handle one job, and return what SAQ keeps of that with this key."""
        assert await self.worker.process()
        return await self.job(key)

    async def again(self, key: str = "booking-1") -> Job:
        """Let the worker handle a job that waits, without waiting."""
        self.clock.advance((await self.job(key)).retry_delay)
        await self.queue.redis.zadd(self.queue._incomplete, {self.queue.job_id(key): 1})
        await self.queue.redis.delete(self.queue._schedule)
        assert await self.queue.schedule()
        return await self.run(key)

    async def job(self, key: str) -> Job:
        job = await self.queue.job(key)
        assert job is not None
        return job

    async def waits_s(self, key: str = "booking-1") -> float:
        due: float = await self.queue.redis.zscore(self.queue._incomplete, self.queue.job_id(key))
        return due - time.time()


def dispatcher_of(sender: Any, journal: Any = None, **parts: Any) -> AsyncDispatcher:
    is_async = isinstance(sender, Hanging | Awaited)
    return AsyncDispatcher(sender if is_async else AwaitedAsking(sender), journal=journal, **parts)


@pytest.fixture
def on_redis(redis_url: str) -> Callable[[Callable[[Saq], Awaitable[None]]], None]:
    """Run a test's body with a `Saq`."""

    def run(body: Callable[[Saq], Awaitable[None]], **options: Any) -> None:
        async def main() -> None:
            async with Saq(redis_url, **options) as saq:
                await body(saq)

        asyncio.run(main())

    return run


# --- what each end of a run means for the job ---


def test_an_accepted_text_completes_its_job(on_redis):
    async def body(saq: Saq) -> None:
        queued = await saq.task(ScriptedSender()).send(MESSAGE)
        job = await saq.run()
        assert queued.key == MESSAGE.id
        assert (job.status, Receipt.from_dict(job.result).provider_id, end_of(job)) == (Status.COMPLETE, "S1", None)

    on_redis(body)


def test_a_job_whose_function_the_worker_lacks_waits_before_it_is_tried_again(on_redis):
    async def body(saq: Saq) -> None:
        await saq.task(ScriptedSender()).send(MESSAGE)
        saq.works(("another", print))
        job = await saq.run()
        assert job.status is Status.QUEUED
        assert await saq.waits_s() > 0.0

    on_redis(body)


def test_a_retry_moves_the_job_with_its_state_and_its_delay(on_redis):
    async def body(saq: Saq) -> None:
        sender = ScriptedSender([BUSY, BUSY])
        await saq.task(sender).send(MESSAGE)
        job = await saq.run()
        assert (job.status, job.retry_delay, end_of(job)) == (Status.QUEUED, 2.0, None)
        assert 1.0 < await saq.waits_s() <= 2.0
        assert AttemptState.from_dict(json.loads(job.meta["smsretry_state"])).retries == 1
        assert "Retry: Again in 2 s: rate_limited 20429" in str(job.error)
        assert (await saq.again()).retry_delay == 4.0
        assert (await saq.again()).status is Status.COMPLETE
        assert [sent.to_dict() for sent in sender.sent] == [MESSAGE.to_dict()] * 3

    on_redis(body)


def test_a_refused_number_fails_for_good_and_its_end_comes_back_whole(on_redis):
    async def body(saq: Saq) -> None:
        await saq.task(ScriptedSender([INVALID])).send(MESSAGE)
        job = await saq.run()
        assert (job.status, job.attempts) == (Status.FAILED, 1)
        failed = end_of(job)
        assert isinstance(failed, SendFailed)
        assert failed.args == ("booking-1", "permanent", 1, INVALID.to_dict())
        assert await saq.queue.count("incomplete") == 0

    on_redis(body)


def test_what_is_no_message_fails_for_good(on_redis):
    async def body(saq: Saq) -> None:
        task = saq.task(ScriptedSender())
        await saq.queue.enqueue(task.name, key="a", message="+14155550101", retries=5)
        await task.send(Message("+14155550101", "Your table is ready.", id="b"))
        await saq.queue.update(await saq.job("b"), meta={"smsretry_state": "{"})
        for key, why in (("a", "holds no packed message"), ("b", "smsretry_state is no JSON text")):
            job = await saq.run(key)
            assert (job.status, why in str(job.error)) == (Status.FAILED, True)

    on_redis(body)


def test_a_dispatcher_that_cannot_be_made_fails_the_job_and_does_not_spin(on_redis):
    async def body(saq: Saq) -> None:
        def no_account() -> AsyncDispatcher:
            raise ConfigurationError("No account.")

        task = sms_task(saq.queue, no_account, name="send_sms")
        saq.works(task.function)
        await task.send(MESSAGE)
        job = await saq.run()
        assert (job.status, job.attempts, end_of(job)) == (Status.FAILED, 1, None)

    on_redis(body)


def test_a_send_that_the_timeout_of_its_job_cuts_off_is_looked_up(on_redis):
    async def body(saq: Saq) -> None:
        sender = Hanging()
        await saq.task(sender, timeout=1).send(MESSAGE)
        assert (await saq.run()).status is Status.QUEUED
        job = await saq.again()
        assert (job.status, Receipt.from_dict(job.result), len(sender.sent)) == (Status.COMPLETE, sender.taken, 1)

    on_redis(body)


def test_a_send_that_the_end_of_its_worker_cuts_off_is_looked_up(on_redis):
    async def body(saq: Saq) -> None:
        sender = Hanging()
        await saq.task(sender).send(MESSAGE)
        working = asyncio.create_task(saq.worker.process())
        await sender.hangs.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert (await saq.job("booking-1")).status is Status.QUEUED
        job = await saq.again()
        assert (job.status, Receipt.from_dict(job.result), len(sender.sent)) == (Status.COMPLETE, sender.taken, 1)

    on_redis(body)


# --- queueing ---


def test_a_message_that_goes_on_is_not_queued_twice(on_redis):
    async def body(saq: Saq) -> None:
        task = saq.task(ScriptedSender())
        assert await task.send(MESSAGE) is not None
        assert await task.send(MESSAGE) is None
        assert await saq.queue.count("queued") == 1

    on_redis(body)


def test_with_a_journal_it_is_queued_again_since_its_worker_may_be_dead_and_sent_once(on_redis, store):
    async def body(saq: Saq) -> None:
        sender = ScriptedSender()
        task = saq.task(sender, store)
        await task.send(MESSAGE)
        assert await saq.queue.dequeue() is not None  # by a worker that dies of it
        other = await task.send(MESSAGE)
        job = await saq.run(other.key)
        assert (job.status, store.message("booking-1").state, len(sender.sent)) == (Status.COMPLETE, "accepted", 1)

    on_redis(body)


def test_a_delay_is_waited_for_in_the_queue_in_whole_seconds(on_redis):
    async def body(saq: Saq) -> None:
        await saq.task(ScriptedSender()).send(MESSAGE, delay_s=60.2)
        assert 60.0 < await saq.waits_s() <= 61.3
        assert await saq.queue.count("queued") == 0

    on_redis(body)


def test_the_state_of_a_message_that_began_elsewhere_goes_on(on_redis):
    async def body(saq: Saq) -> None:
        await saq.task(ScriptedSender([BUSY])).send(MESSAGE, state=AttemptState(retries=2))
        assert (await saq.run()).retry_delay == 8.0

    on_redis(body)


def test_with_a_journal_a_message_needs_an_id_and_nothing_is_queued_without(on_redis, store):
    async def body(saq: Saq) -> None:
        with pytest.raises(InvalidMessage, match="needs an id"):
            await saq.task(ScriptedSender(), store).send(Message("+14155550101", "Your table is ready."))
        assert await saq.queue.count("incomplete") == 0

    on_redis(body)


def test_a_message_without_an_id_gets_the_key_of_its_job(on_redis):
    async def body(saq: Saq) -> None:
        sender = ScriptedSender([BUSY])
        queued = await saq.task(sender).send(Message("+14155550101", "Your table is ready."))
        await saq.run(queued.key)
        await saq.again(queued.key)
        assert [sent.id for sent in sender.sent] == [queued.key] * 2

    on_redis(body)


def test_neither_the_page_nor_the_log_shows_number_or_text(on_redis, caplog):
    caplog.set_level(logging.DEBUG)

    async def body(saq: Saq) -> None:
        await saq.task(ScriptedSender([BUSY, INVALID])).send(MESSAGE)
        shown = [job_dict(await saq.job("booking-1")), job_dict(await saq.run()), job_dict(await saq.again())]
        assert "booking-1" in caplog.text
        assert all(secret not in f"{shown}{caplog.text}" for secret in ("4155550101", "Your table"))

    on_redis(body)


# --- in a task of the application's own ---


def test_an_own_task_keeps_its_arguments_and_its_count_of_runs(on_redis):
    async def body(saq: Saq) -> None:
        sender = ScriptedSender([BUSY, BUSY, INVALID])
        dispatcher = saq.dispatcher(sender)

        async def notify(ctx: dict[str, Any], *, customer: int) -> None:
            await deliver(ctx, lambda: dispatcher, Message("+14155550101", f"You are {customer}."))

        saq.works(("notify", notify))
        key = (await saq.queue.enqueue("notify", customer=7, retries=3, timeout=30)).key
        job = await saq.run(key)
        assert (job.retries - job.attempts, job.kwargs) == (3, {"customer": 7})
        assert (await saq.again(key)).status is Status.QUEUED
        assert (await saq.again(key)).status is Status.FAILED
        assert [(sent.id, sent.body) for sent in sender.sent] == [(key, "You are 7.")] * 3

    on_redis(body)


def test_a_body_that_fails_after_its_text_was_accepted_sends_no_second_one(on_redis):
    async def body(saq: Saq) -> None:
        sender, receipts = ScriptedSender(), []
        dispatcher = dispatcher_of(sender)

        async def notify(ctx: dict[str, Any]) -> None:
            receipts.append(await deliver(ctx, dispatcher, MESSAGE))
            if len(receipts) == 1:
                raise OSError("The database is away.")

        saq.works(("notify", notify))
        key = (await saq.queue.enqueue("notify", retries=2)).key
        assert (await saq.run(key)).status is Status.QUEUED
        assert (await saq.run(key)).status is Status.COMPLETE
        assert (len(sender.sent), receipts[0]) == (1, receipts[1])

    on_redis(body)


def test_a_body_of_two_sends_is_refused(on_redis):
    async def body(saq: Saq) -> None:
        sender = ScriptedSender()
        dispatcher = dispatcher_of(sender)

        async def both(ctx: dict[str, Any]) -> None:
            await deliver(ctx, dispatcher, MESSAGE)
            await deliver(ctx, dispatcher, MESSAGE)

        saq.works(("both", both))
        job = await saq.run((await saq.queue.enqueue("both")).key)
        assert "both called deliver twice in one run" in str(job.error)
        assert len(sender.sent) == 1

    on_redis(body)


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"queue": NOWHERE}, "queue must be a saq.Queue, got str"),
        ({"dispatcher": Dispatcher(ScriptedSender())}, "dispatcher must be an AsyncDispatcher or a function"),
        ({"name": ""}, "name must be a str"),
        ({"retry_delay": 3}, "retry_delay is no option of a ready task"),
        ({"journal": MemoryJournal()}, "journal must have a method plan"),
    ],
)
def test_what_would_break_a_promise_is_refused(change, why):
    given = {"queue": Queue.from_url(NOWHERE), "dispatcher": dispatcher_of(ScriptedSender()), "name": "send_sms"}
    given |= change
    with pytest.raises(ConfigurationError, match=why):
        sms_task(given.pop("queue"), given.pop("dispatcher"), **given)


@pytest.mark.parametrize("ctx", [None, {}, {"job": "booking-1"}])
def test_deliver_outside_of_a_job_is_refused_before_anything_is_sent(ctx):
    sender = ScriptedSender()
    with pytest.raises(ConfigurationError, match="needs the context of a running job"):
        asyncio.run(deliver(ctx, dispatcher_of(sender), MESSAGE))
    assert sender.sent == []


# --- what is told ---


def told(on_redis: Any, caplog: Any, journal: Any = None, worker: Any = None, recovers: Any = True, **options) -> str:
    async def body(saq: Saq) -> None:
        if not recovers:
            del saq.queue._smsretry_recovers
        task = saq.task(AwaitedAsking(TimedSender([BUSY])), journal, **options)
        saq.works(task.function, **(worker or {}))
        await task.send(MESSAGE)
        await saq.run()
        await saq.again()

    on_redis(body)
    return "\n".join(record.getMessage() for record in caplog.records if record.name == "smsretry")


def test_good_settings_are_told_nothing(on_redis, caplog, store):
    assert told(on_redis, caplog, store) == ""


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"timeout": 10}, "Set timeout to 25 or more."),
        ({"heartbeat": 5}, "Set heartbeat to 25 or more."),
        ({"worker": {"shutdown_grace_period_s": None}}, "Set shutdown_grace_period_s to 25 or more."),
        ({"timeout": 0}, "timeout is 0, so the job of a killed worker is never run again. Set timeout, in seconds."),
        ({"retries": 1}, "retries is 1, so the job of a killed worker is aborted. Set retries to 2 or more."),
        ({"journal": MemoryJournal()}, "Use smsretry.store.SQLStore."),
    ],
)
def test_a_setting_that_would_break_a_promise_is_told_once_with_its_remedy(on_redis, caplog, given, remedy):
    said = told(on_redis, caplog, **given)
    assert remedy in said
    assert len(said.splitlines()) == 1


def test_a_journal_without_recover_is_told(on_redis, caplog, store):
    assert "Call recover_job(store, texts) for the worker's cron_jobs." in told(on_redis, caplog, store, recovers=False)


def test_retries_of_one_are_enough_where_a_journal_is_recovered(on_redis, caplog, store):
    async def queue(message_id: str, metadata: Any) -> None:
        raise NotImplementedError

    worker = {"cron_jobs": [recover_job(store, queue)]}
    assert told(on_redis, caplog, store, worker, recovers=False, retries=1) == ""


def test_a_journal_that_the_ready_task_does_not_know_is_told(on_redis, caplog, store):
    async def body(saq: Saq) -> None:
        task = sms_task(saq.queue, lambda: dispatcher_of(ScriptedSender(), store), name="send_sms")
        saq.works(task.function)
        await task.send(MESSAGE)
        await saq.run()

    on_redis(body)
    assert "Pass it where the task is made, beside make_dispatcher: journal=store." in caplog.text


# --- recover ---


def test_recover_runs_as_a_job_of_the_worker_and_queues_what_was_lost(on_redis, store):
    async def body(saq: Saq) -> None:
        task = saq.task(ScriptedSender(), store)
        await asyncio.to_thread(store.plan, MESSAGE)
        await asyncio.sleep(0.01)
        cron = recover_job(store, task, cron="* * * * * *", grace_s=0.001)
        saq.works(task.function, cron_jobs=[cron])
        key = "cron:send_sms.recover"
        await saq.worker.schedule()
        assert (await saq.again(key)).status is Status.COMPLETE
        await saq.run()
        assert await asyncio.to_thread(lambda: store.message("booking-1").state) == "accepted"

    on_redis(body)


def test_recover_asks_an_applications_own_function_with_id_and_metadata(store):
    asked = []

    async def queue(message_id: str, metadata: Any) -> None:
        asked.append((message_id, metadata))

    async def main() -> None:
        await asyncio.to_thread(store.plan, Message("+14155550101", "Hello.", id="a", metadata={"customer": 7}))
        await asyncio.sleep(0.01)
        await recover_job(store, queue, grace_s=0.001).function(None)

    asyncio.run(main())
    assert asked == [("a", {"customer": 7})]


def test_recover_with_what_cannot_be_recovered_is_refused(store):
    with pytest.raises(ConfigurationError, match="store must have a method recover"):
        recover_job(None, sms_task)
    with pytest.raises(ConfigurationError, match="grace_s must be more than 0 seconds"):
        recover_job(store, sms_task, grace_s=0)
