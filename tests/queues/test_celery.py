"""The contract of adapters, kept by Celery with a real worker on a broker of files."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from tests.integration.celery_workers import on_files, only_the_worker_sends
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.adapters.celery import sms_task
from smsretry.testing.adapter_contract import AdapterContract, AdapterHarness, Site, Trial


class CeleryHarness(AdapterHarness):
    name = "celery"
    slack_s = 2.0
    """On files Celery's timer looks only once a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        conf = on_files(folder)
        settings = json.dumps({"conf": conf, "folder": str(folder)})
        app = ("-A", "tests.queues.celery_tasks", "worker", "--pool=threads", "--concurrency=4")
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
        return {"celery": version("celery"), "kombu": version("kombu"), "broker": "files"}

    def start(self) -> None:
        self.worker.start()

    def stop(self) -> None:
        self.worker.stop()
        self.app.close()

    def kill(self) -> None:
        self.worker.kill()

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        return (self.journaled if journaled else self.plain).send(message, countdown=delay_s)

    def send_own(self, message: Message) -> Any:
        order = self.folder / "order.json"
        order.write_text(json.dumps(message.to_dict()))
        return self.app.send_task("contract.own", (str(order),))

    def result(self, job: Any) -> object:
        return job.get(timeout=self.patience_s, interval=0.05, propagate=False)

    def visible(self) -> str:
        return "\n".join([self.worker.log(), *self.headers()])

    def headers(self) -> Iterator[str]:
        """List everything of the waiting messages but their bodies."""
        for file in (self.folder / "queue").glob("*.msg"):
            with contextlib.suppress(FileNotFoundError):  # the worker has taken it
                yield json.dumps({**json.loads(file.read_text()), "body": None})


@pytest.mark.integration
class TestCelery(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(CeleryHarness(tmp_path_factory.mktemp("celery"))) as cls.trial:
            yield
