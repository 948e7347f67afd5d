"""Hold Celery to the contract of adapters on any broker: its worker process, and what both sides are set to."""

from __future__ import annotations

import contextlib
import json
import signal
from abc import abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from celery import Celery
from tests.integration.celery_workers import only_the_worker_sends
from tests.queues.harness import WorkerHarness
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.adapters.celery import sms_task
from smsretry.testing.adapter_contract import NotOffered, Site


class CeleryHarness(WorkerHarness):
    """Run a worker with ``conf``; each broker says how its waiting messages are looked at."""

    pool: ClassVar[str]

    def __init__(self, folder: Path, conf: dict[str, Any]) -> None:
        super().__init__(folder)
        settings = json.dumps({"conf": conf, "folder": str(folder)})
        app = ("-A", "tests.queues.celery_tasks", "worker", f"--pool={self.pool}", "--concurrency=4")
        self.worker = WorkerProcess(
            folder,
            *python("celery", *app, "--loglevel=INFO", "--without-gossip", "--without-mingle"),
            is_ready=lambda log: " ready." in log,
            environment={"SMSRETRY_TEST_CELERY": settings},
            stop_signal=signal.SIGQUIT,
        )
        self.app = Celery("contract", set_as_current=False)
        self.app.conf.update(conf)
        self.plain = sms_task(self.app, only_the_worker_sends, name="contract.plain")
        store = Site(folder).store()
        self.journaled = sms_task(self.app, only_the_worker_sends, name="contract.journaled", journal=store)

    @property
    def versions(self) -> dict[str, str]:
        return {"celery": version("celery"), "kombu": version("kombu"), "pool": self.pool, **self.broker()}

    def stop(self) -> None:
        super().stop()
        self.app.close()

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        return (self.journaled if journaled else self.plain).send(message, countdown=delay_s)

    def send_own(self, message: Message) -> Any:
        return self.app.send_task("contract.own", (self.ordered(message),))

    def result(self, job: Any) -> object:
        return job.get(timeout=self.patience_s, interval=0.05, propagate=False)

    def left(self) -> int:
        raise NotOffered("this broker does not count what a worker holds back until it is due")

    def visible(self) -> str:
        return "\n".join([self.worker.log(), *self.headers()])

    @abstractmethod
    def broker(self) -> dict[str, str]:
        """Name the broker, and its version where it has one."""

    @abstractmethod
    def headers(self) -> Iterator[str]:
        """List everything of the messages in the broker but their bodies."""


def without_body(message: dict[str, Any]) -> str:
    """Return what kombu writes of a message where it emulates a broker, but its body."""
    return json.dumps({**message, "body": None})


def inspected(app: Celery) -> Iterator[str]:
    """List what ``celery inspect`` shows of the tasks that a worker holds."""
    inspect = app.control.inspect(timeout=2.0, limit=1)
    for held in (inspect.active, inspect.reserved, inspect.scheduled):
        with contextlib.suppress(ConnectionError):
            yield json.dumps(held(), default=str)
