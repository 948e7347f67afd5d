"""The contract of adapters, kept by Dramatiq with a real worker on Redis."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from dramatiq.results import ResultFailure, ResultMissing
from tests.queues import dramatiq_tasks
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.adapters.dramatiq import end_of
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


class DramatiqHarness(WorkerHarness):
    name = "dramatiq-redis"

    def __init__(self, folder: Path, url: str, results: str) -> None:
        super().__init__(folder)
        settings = {"folder": str(folder), "name": f"smsretry-{uuid.uuid4().hex}", "url": url, "results": results}
        self.worker = WorkerProcess(
            folder,
            *python("dramatiq", "tests.queues.dramatiq_tasks", "--processes", "1", "--threads", "4", "-v"),
            is_ready=lambda log: "Worker process is ready for action." in log,
            environment={
                dramatiq_tasks.VARIABLE: json.dumps(settings),
                "dramatiq_worker_timeout": "100",  # how often what waits is looked at, in milliseconds
            },
        )
        self.broker = dramatiq_tasks.broker_of(settings)
        self.queue: str = settings["name"]
        self.results = self.broker.get_results_backend()
        self.plain = dramatiq_tasks.ready(self.broker, settings, "plain", only_the_worker_sends)
        store = Site(folder).store()
        self.journaled = dramatiq_tasks.ready(self.broker, settings, "journaled", only_the_worker_sends, journal=store)
        self.own = dramatiq_tasks.declared_own(self.broker, settings)
        self.looked = 0

    @property
    def versions(self) -> dict[str, str]:
        return {"dramatiq": version("dramatiq"), "redis": self.results.client.info()["redis_version"]}

    def stop(self) -> None:
        super().stop()
        self.broker.close()

    def send_own(self, message: Message) -> Any:
        return self.own.send(self.ordered(message))

    def result(self, job: Any) -> object:
        try:
            return self.results.get_result(job)
        except ResultMissing:
            return None
        except ResultFailure as failure:
            return end_of(failure) or failure

    def left(self) -> int:
        """Count what Redis holds, with what workers hold of it, but for what `visible` has queued."""
        return int(self.broker.do_qsize(self.queue)) - self.looked

    def visible(self) -> str:
        """Return the worker's log at level DEBUG, and how Dramatiq writes a message that it queues."""
        self.looked += 1
        queued = self.plain.send(Message("+15550199999", "not for your eyes only"), delay_s=3600.0)
        return "\n".join([self.worker.log(), str(queued), repr(queued)])


@pytest.mark.integration
class TestDramatiqOnRedis(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[None]:
        with Trial(DramatiqHarness(tmp_path_factory.mktemp("dramatiq"), redis_url, redis_url)) as cls.trial:
            yield
