"""The contract of adapters, kept by `generic` on a queue that exists nowhere else, with a real worker process."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.toy_queue import ToyQueue
from tests.queues.toy_worker import ToyTexts
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


class ToyHarness(WorkerHarness):
    name = "generic"
    options: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        command = python("tests.queues.toy_worker", str(folder), *self.options)
        self.worker = WorkerProcess(folder, *command, is_ready=lambda log: log.startswith("ready"))
        self.jobs = ToyQueue(folder)
        self.plain = ToyTexts(self.jobs, "plain", only_the_worker_sends)
        self.journaled = ToyTexts(self.jobs, "journaled", only_the_worker_sends, journal=Site(folder).store())

    @property
    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version()}

    def send_own(self, message: Message) -> Any:
        return self.jobs.put("own", {"order": message.to_dict()}, 0.0)

    def result(self, job: str) -> object:
        return self.jobs.result(job)

    def left(self) -> int:
        return self.jobs.left()

    def visible(self) -> str:
        return self.jobs.shown() + self.worker.log()


@pytest.mark.integration
class TestGenericQueue(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(ToyHarness(tmp_path_factory.mktemp("toy"))) as cls.trial:
            yield


def test_an_adapter_for_a_queue_that_nobody_knew_is_short():
    assert len(inspect.getsource(ToyTexts).splitlines()) < 30
