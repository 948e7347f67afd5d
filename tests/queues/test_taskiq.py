"""The contract of adapters, kept by taskiq with a real worker and a real scheduler on a stream of Redis."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.taskiq_tasks import broker_on, schedules_on
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.adapters.taskiq import sms_task
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


class TaskiqHarness(WorkerHarness):
    name = "taskiq"
    slack_s = 5.0
    """The scheduler looks for new schedules once a second, and queues what is due a second later."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url, self.key = url, f"contract-{uuid.uuid4().hex}"
        settings = json.dumps({"folder": str(folder), "url": url, "name": self.key})
        variables = {"SMSRETRY_TEST_TASKIQ": settings}
        module = "tests.queues.taskiq_tasks"
        worker = python("taskiq", "worker", f"{module}:broker", "--workers", "1")
        scheduler = python("taskiq", "scheduler", f"{module}:scheduler", "--update-interval", "1")
        self.worker = WorkerProcess(
            folder, *worker, is_ready=lambda log: "Listening started" in log, environment=variables
        )
        self.scheduler = WorkerProcess(
            folder, *scheduler, is_ready=lambda log: "Startup completed" in log, environment=variables
        )
        self.loop = asyncio.new_event_loop()
        self.broker, self.schedules = broker_on(url, self.key), schedules_on(url, self.key)
        store = Site(folder).store()
        self.plain = sms_task(self.broker, only_the_worker_sends, name="contract.plain", source=self.schedules)
        self.journaled = sms_task(
            self.broker, only_the_worker_sends, name="contract.journaled", source=self.schedules, journal=store
        )
        own: Any = only_the_worker_sends
        self.own = self.broker.register_task(own, "contract.own", tenant=17)

    @property
    def versions(self) -> dict[str, str]:
        told: Any = Redis.from_url(self.url).info("server")
        versions = {name: version(name) for name in ("taskiq", "taskiq-redis")}
        return {**versions, "redis": told["redis_version"]}

    def start(self) -> None:
        self.worker.start()
        self.scheduler.start()

    def stop(self) -> None:
        self.scheduler.stop()
        self.worker.kill()  # with taskiq 0.13 an idle one waits for one more message before it stops
        self.loop.run_until_complete(self.broker.shutdown())

    def kill(self) -> None:
        self.scheduler.kill()
        self.worker.kill()

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        texts = self.journaled if journaled else self.plain
        return self.loop.run_until_complete(texts.send(message, delay_s=delay_s))

    def send_own(self, message: Message) -> Any:
        return self.loop.run_until_complete(self.own.kiq(self.ordered(message)))

    def result(self, job: Any) -> object:
        if not self.loop.run_until_complete(job.is_ready()):
            return None
        result = self.loop.run_until_complete(job.get_result())
        return result.error or result.return_value

    def left(self) -> int:
        with Redis.from_url(self.url) as redis:
            groups: Any = redis.xinfo_groups(self.key)
        held = sum(group["pending"] + (group["lag"] or 0) for group in groups)
        return held + len(self.loop.run_until_complete(self.schedules.get_schedules()))

    def visible(self) -> str:
        return "\n".join([self.worker.log(), *self.metadata()])

    def metadata(self) -> Iterator[str]:
        """List everything of the queued and scheduled jobs but their arguments."""
        with Redis.from_url(self.url) as redis:
            jobs = [json.loads(fields[b"data"]) for _, fields in redis.xrange(self.key)]  # type: ignore[union-attr]
        waiting = self.loop.run_until_complete(self.schedules.get_schedules())
        for job in [*jobs, *(one.model_dump(mode="json") for one in waiting)]:
            yield json.dumps({**job, "args": None, "kwargs": None})


@pytest.mark.integration
class TestTaskiq(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[None]:
        with Trial(TaskiqHarness(tmp_path_factory.mktemp("taskiq"), redis_url)) as cls.trial:
            yield
