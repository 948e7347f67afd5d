"""The contract of adapters, kept by Huey with a real consumer on a real Redis."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import huey as queues
import pytest
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.adapters.huey import end_of, sms_task
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


def own(order: str) -> str:
    raise NotImplementedError


own.__module__ = "tests.queues.huey_tasks"  # Huey names a task by its module


class HueyHarness(WorkerHarness):
    name = "huey"
    slack_s = 2.0
    """Huey looks once a second for what is due."""
    worker_type = "thread"

    def __init__(self, folder: Path, kind: str, **options: Any) -> None:
        super().__init__(folder)
        settings = json.dumps({"folder": str(folder), "kind": kind, "options": options})
        consumer = ("tests.queues.huey_tasks.huey", "--workers=4", f"--worker-type={self.worker_type}")
        self.worker = WorkerProcess(
            folder,
            *python("huey.bin.huey_consumer", *consumer, "--max-delay=0.2"),
            is_ready=lambda log: "Huey consumer started" in log,
            environment={"SMSRETRY_TEST_HUEY": settings},
            stop_signal=signal.SIGINT,
        )
        self.huey = getattr(queues, kind)(**options)
        self.plain = sms_task(self.huey, only_the_worker_sends, name="contract.plain")
        self.journaled = sms_task(
            self.huey, only_the_worker_sends, name="contract.journaled", journal=Site(folder).store()
        )
        self.own = self.huey.task()(own)

    @property
    def versions(self) -> dict[str, str]:
        return {"huey": version("huey"), "redis": self.huey.storage.conn.info("server")["redis_version"]}

    def send_own(self, message: Message) -> Any:
        return self.own(self.ordered(message))

    def result(self, job: Any) -> object:
        try:
            return job.get()
        except queues.exceptions.TaskException as error:
            return end_of(error)

    def left(self) -> int:
        return len(self.huey.pending()) + len(self.huey.scheduled())

    def visible(self) -> str:
        jobs = [*self.huey.pending(), *self.huey.scheduled()]
        shown = [repr((job, job.args, job.kwargs, job.data)) for job in jobs]
        return "\n".join([self.worker.log(), *shown])


@pytest.mark.integration
class TestHuey(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[None]:
        folder = tmp_path_factory.mktemp("huey")
        with Trial(HueyHarness(folder, "RedisHuey", name=folder.name, url=redis_url)) as cls.trial:
            yield
