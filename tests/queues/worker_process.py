"""Start, stop and kill the real worker of a queue, for the harness of an adapter."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from tests import servers

ROOT = Path(__file__).parents[2]


class WorkerProcess:
    """Run ``command`` in the root of the project until it is stopped or killed; what it writes is in `log`.

    ``is_ready`` is asked with everything that it has written. It ends with the test run, however that ends.
    """

    def __init__(
        self,
        folder: Path,
        *command: str,
        is_ready: Callable[[str], bool],
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._folder = folder
        self._command = command
        self._is_ready = is_ready
        self._variables = {"PYTHONPATH": str(ROOT), **(environment or {})}
        self._stop_signal = stop_signal
        self._running = contextlib.ExitStack()
        self.pid = 0

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        log_file = self._folder / f"worker-{uuid.uuid4().hex}.log"
        command = [
            *("sh", "-c", 'exec "$@" >"$0" 2>&1', str(log_file)),  # the folder of the guard goes with the worker
            *("env", *(f"{name}={value}" for name, value in self._variables.items()), *self._command),
        ]

        def answers(_: int) -> bool:
            return log_file.exists() and self._is_ready(log_file.read_text())

        guarded = self._running.enter_context(servers.own_folder("worker"))
        try:
            running = servers.guarded(lambda _: command, answers, guarded, self._stop_signal)
            _, self.pid = self._running.enter_context(running)
        except servers.ServerFailed as failed:
            self.stop()
            raise servers.ServerFailed(log_file.read_text()) from failed

    def stop(self) -> None:
        """Ask it to stop, and wait for its end."""
        self._running.close()

    def kill(self) -> None:
        """End it and all that it started with SIGKILL; its guard is of the same group."""
        os.killpg(os.getpgid(self.pid), signal.SIGKILL)
        self._running.close()

    def log(self) -> str:
        """Return everything that was written, by all that were started."""
        return "".join(file.read_text() for file in sorted(self._folder.glob("worker-*.log")))


def python(module: str, *options: str) -> tuple[str, ...]:
    """Return the command that runs a module."""
    return (sys.executable, "-m", module, *options)
