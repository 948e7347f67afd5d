"""The contract of adapters, kept by SAQ with a real worker and a real Redis."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from saq import Job, Queue
from saq.job import TERMINAL_STATUSES
from saq.web.common import job_dict
from tests.looped import LoopThread
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.adapters.saq import SMSTask, end_of, sms_task
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


class SaqHarness(WorkerHarness):
    name = "saq"
    slack_s = 3.0
    """SAQ looks once a second, and rounds what is queued for later up to whole seconds."""

    def __init__(self, folder: Path, url: str, loop: LoopThread) -> None:
        super().__init__(folder)
        name = f"contract-{uuid.uuid4().hex}"
        environment = {
            "SMSRETRY_TEST_SAQ_FOLDER": str(folder),
            "SMSRETRY_TEST_SAQ_URL": url,
            "SMSRETRY_TEST_SAQ_QUEUE": name,
        }
        command = python("saq", "tests.queues.saq_tasks.settings", "-vv")
        self.worker = WorkerProcess(
            folder, *command, is_ready=lambda log: "Worker starting" in log, environment=environment
        )
        self.loop, self.queue = loop, Queue.from_url(url, name=name)
        self.plain = self.task("plain")
        self.journaled = self.task("journaled", journal=Site(folder).store())

    def task(self, name: str, **options: Any) -> SMSTask:
        return sms_task(self.queue, only_the_worker_sends, name=f"contract.{name}", **options)

    @property
    def versions(self) -> dict[str, str]:
        server = ".".join(map(str, self.loop.run(self.queue.version())))  # type: ignore[attr-defined]
        return {"saq": version("saq"), "redis": server}

    def start(self) -> None:
        """Start it, and wait for its first sweep: that takes a job for stuck which was handed out in that instant."""
        self.worker.start()
        while not self.loop.run(self.queue.redis.exists(self.queue.namespace("sweep"))):  # type: ignore[attr-defined]
            time.sleep(0.02)

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Job | None:
        task = self.journaled if journaled else self.plain
        return self.loop.run(task.send(message, delay_s=delay_s))

    def redeliver(self, message: Message) -> Job | None:
        """Queue its job once more under another key: SAQ takes no second one with the key of one that goes on."""
        return self.loop.run(self.copied(message))

    async def copied(self, message: Message) -> Job | None:
        job = await self.queue.job(str(message.id))
        return await self.queue.enqueue(Job(job.function, job.kwargs, timeout=job.timeout, retries=job.retries))

    def send_own(self, message: Message) -> Job | None:
        return self.loop.run(self.queue.enqueue("contract.own", order=self.ordered(message)))

    def result(self, job: Job) -> object:
        kept = self.loop.run(self.queue.job(job.key))
        if kept is None or kept.status not in TERMINAL_STATUSES:
            return None
        return end_of(kept) or kept.result

    def left(self) -> int:
        return self.loop.run(self.queue.count("incomplete"))

    def visible(self) -> str:
        return "\n".join([self.worker.log(), *self.loop.run(self.jobs())])

    async def jobs(self) -> list[str]:
        """List what SAQ's web page shows of each job."""
        return [json.dumps(job_dict(job)) async for job in self.queue.iter_jobs()]


@pytest.mark.integration
class TestSaq(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with LoopThread() as loop:
            harness = SaqHarness(tmp_path_factory.mktemp("saq"), redis_url, loop)
            with Trial(harness) as cls.trial:
                yield
            loop.run(harness.queue.disconnect())
