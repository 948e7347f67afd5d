"""Hold an adapter to the contract with plain functions: python -m tests.testing.plain_adapter FOLDER."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.queues.toy_queue import ToyQueue
from tests.queues.toy_worker import ToyTexts

from smsretry import Dispatcher, Message
from smsretry.testing.adapter_contract import CHECKS, AdapterHarness, NotOffered, Site, Trial


def only_the_worker_sends() -> Dispatcher:
    raise NotImplementedError


class PlainHarness(AdapterHarness):
    name = "plain"
    slack_s = 5.0
    """That the checks run is what is tried here, also on a busy machine."""

    def start(self) -> None:
        self.worker = subprocess.Popen([sys.executable, "-m", "tests.queues.toy_worker", str(self.folder)])

    def stop(self) -> None:
        self.worker.terminate()
        self.worker.wait(10)

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        jobs, journal = ToyQueue(self.folder), Site(self.folder).store() if journaled else None
        texts = ToyTexts(jobs, "journaled" if journaled else "plain", only_the_worker_sends, journal=journal)
        return texts.send(message, delay_s=delay_s)


if __name__ == "__main__":
    with Trial(PlainHarness(Path(sys.argv[1]))) as trial:
        for check in CHECKS:
            try:
                trial.run(check)
            except NotOffered as missing:
                print("not offered:", missing, file=sys.stderr)
    print(json.dumps(trial.results))
