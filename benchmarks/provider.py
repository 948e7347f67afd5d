"""Run the simulator in a process of its own, as the provider of a benchmark."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from smsretry import Message

FROM_NUMBER = "+15005550006"
_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Provider:
    """Where the simulator is, and who may use it."""

    url: str
    account_sid: str
    auth_token: str

    @property
    def create_url(self) -> str:
        return f"{self.url}/2010-04-01/Accounts/{self.account_sid}/Messages.json"

    def counts(self) -> dict[str, int]:
        """Return what the simulator counted at its own socket."""
        return self._control("counts")

    def forget(self) -> None:
        """Let the simulator forget what it took: it keeps all of it in memory."""
        self._control("reset", b"{}")

    def _control(self, name: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.url}/__simulator__/{name}", data=body)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running_provider(*, latency_s: float, rates: dict[str, float] | None = None) -> Generator[Provider, None, None]:
    """Run a simulator until the block ends."""
    options = [f"--rate={name}={share}" for name, share in (rates or {}).items()]
    command = [sys.executable, "-m", "smsretry.testing.simulator", f"--latency-s={latency_s}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Provider(**json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(30)


def messages(count: int) -> Iterator[Message]:
    """Yield messages that no turn had before, each to a number of its own."""
    for number in itertools.islice(_ids, count):
        yield Message(f"+1500{number:07}", f"Your table {number} is ready.", id=f"m{number}", campaign="spring")
