"""The contract of adapters, kept by RQ with real workers and a real Redis."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.results import Result
from tests.queues.harness import WorkerHarness
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Dispatcher, Message
from smsretry.adapters.rq import end_of, sms_task
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


def only_the_workers_send() -> Dispatcher:
    raise NotImplementedError


class RQHarness(WorkerHarness):
    name = "rq"
    slack_s = 3.0
    """RQ waits whole seconds, and its scheduler looks once a second."""
    redis_url: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.queue = Queue(f"texts-{uuid.uuid4().hex}", connection=Redis.from_url(self.redis_url))
        settings = json.dumps({"folder": str(folder), "queue": self.queue.name, "redis": self.redis_url})
        options = ("worker", self.queue.name, "--url", self.redis_url, "--config", "tests.queues.rq_tasks")
        self.workers = [
            WorkerProcess(
                folder,
                *python("rq.cli", *options, *more),
                is_ready=lambda log: "Listening on" in log,
                environment={"SMSRETRY_TEST_RQ": settings},
            )
            for more in [("--with-scheduler",), ()]  # a worker does one job at a time
        ]
        self.sent: list[str] = []
        store = Site(folder).store()
        self.plain = sms_task(self.queue, only_the_workers_send, name="tests.queues.rq_tasks.plain")
        self.journaled = sms_task(
            self.queue, only_the_workers_send, name="tests.queues.rq_tasks.journaled", journal=store
        )

    @property
    def versions(self) -> dict[str, str]:
        server: Any = self.queue.connection.info("server")
        return {"rq": version("rq"), "redis": server["redis_version"]}

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(WorkerProcess.start, self.workers))

    def stop(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(WorkerProcess.stop, self.workers))
        self.queue.connection.close()

    def kill(self) -> None:
        horses = [pid for worker in self.workers for pid in children(worker.pid)]
        for worker in self.workers:
            worker.kill()
        for pid in horses:  # each leads a group of its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        job = (self.journaled if journaled else self.plain).send(message, delay_s=delay_s)
        self.sent.append(job.id)
        return job

    def send_own(self, message: Message) -> Any:
        return self.queue.enqueue("tests.queues.rq_tasks.own", self.ordered(message))

    def result(self, job: Job) -> object:
        last = job.latest_result()
        if last is None or last.type is Result.Type.RETRIED:
            return None
        return last.return_value if last.type is Result.Type.SUCCESSFUL else end_of(job)

    def left(self) -> int:
        return len(self.queue) + len(self.queue.scheduled_job_registry) + len(self.queue.started_job_registry)

    def visible(self) -> str:
        """Return the log, and all that Redis holds of the jobs, with their arguments taken apart."""
        jobs = Job.fetch_many(self.sent, connection=self.queue.connection)
        shown = [repr((job.to_dict(), job.args, job.kwargs, job.meta, str(job))) for job in jobs if job is not None]
        return "\n".join([*(worker.log() for worker in self.workers), *shown])


def children(pid: int) -> list[int]:
    told = subprocess.run(["ps", "-o", "pid=,ppid=", "-A"], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in map(str.split, told.splitlines()) if int(parent) == pid]


@pytest.mark.integration
class TestRQ(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        RQHarness.redis_url = redis_url
        with Trial(RQHarness(tmp_path_factory.mktemp("rq"))) as cls.trial:
            yield
