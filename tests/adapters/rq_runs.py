"""The module of an application, in which RQ finds what its jobs call, and RQ's own worker in this process."""

from __future__ import annotations

import signal
import uuid
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker, get_current_job
from rq.job import Job
from rq.scheduler import RQScheduler
from tests.adapters.texts import NUMBER, TEXT, TimedSender

from smsretry import Dispatcher, Message
from smsretry.adapters.rq import SMSTask, deliver, sms_task

HERE = "tests.adapters.rq_runs"


class DeafWorker(SimpleWorker):
    """Listen to no commands, which takes a thread."""

    def subscribe(self) -> None: ...


class Shop:
    """An application with one queue; the newest one is what the jobs below belong to."""

    newest: Shop

    def __init__(self, redis: Redis, *script: Any, serializer: Any = None, is_async: bool = True, **parts: Any) -> None:
        self.sender = TimedSender(script)
        self.dispatcher = Dispatcher(self.sender, **parts)
        self.queue = Queue(f"texts-{uuid.uuid4().hex}", connection=redis, serializer=serializer, is_async=is_async)
        self.in_body: Any = deliver
        Shop.newest = self

    def task(self, dispatcher: Any = None, **options: Any) -> SMSTask:
        global send_sms  # noqa: PLW0603  # as an application's module has it
        send_sms = sms_task(self.queue, dispatcher or self.dispatcher, name=f"{HERE}.send_sms", **options)
        return send_sms

    def own(self, **options: Any) -> Job:
        return self.queue.enqueue(remind, "customer 7", description="a reminder", **options)

    def work(self) -> None:
        """Run what is queued."""
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
        worker = DeafWorker([self.queue], connection=self.queue.connection, serializer=self.queue.serializer)
        worker.work(burst=True)
        for number, handler in usual.items():
            signal.signal(number, handler)

    def work_early(self, job: Job) -> None:
        """Run a job that waits without waiting for it."""
        self.queue.scheduled_job_registry.remove(job)
        self.queue.enqueue_job(self.fetched(job))
        self.work()

    def fetched(self, job: Job) -> Job:
        return Job.fetch(job.id, connection=self.queue.connection, serializer=self.queue.serializer)

    def traceback(self, job: Job) -> str:
        result = job.latest_result()
        return (result.exc_string if result is not None else None) or ""

    def due_in_s(self, job: Job, now_s: float) -> float:
        return self.queue.scheduled_job_registry.get_scheduled_time(job).timestamp() - now_s

    def schedule(self) -> None:
        """Be a scheduler that works on the queue."""
        RQScheduler([self.queue], connection=self.queue.connection).acquire_locks()


send_sms: SMSTask
recover_texts: Any


def remind(customer: str) -> Any:
    return Shop.newest.in_body(get_current_job(), Shop.newest.dispatcher, Message(NUMBER, f"{TEXT}, {customer}"))
