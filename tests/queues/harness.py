"""What most harnesses share: one worker process, ready tasks, and the order that an application's own task reads."""

from __future__ import annotations

import json
from typing import Any

from tests.queues.worker_process import WorkerProcess

from smsretry import Message
from smsretry.testing.adapter_contract import AdapterHarness


def only_the_worker_sends() -> Any:
    raise NotImplementedError


class WorkerHarness(AdapterHarness):
    """Run ``worker``, and send through ``plain`` and ``journaled``."""

    worker: WorkerProcess
    plain: Any
    journaled: Any

    def start(self) -> None:
        self.worker.start()

    def stop(self) -> None:
        self.worker.stop()

    def kill(self) -> None:
        self.worker.kill()

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        return (self.journaled if journaled else self.plain).send(message, delay_s=delay_s)

    def ordered(self, message: Message) -> str:
        """Write ``message`` where a task of an application's own reads it, and return the path."""
        order = self.folder / "order.json"
        order.write_text(json.dumps(message.to_dict()))
        return str(order)
