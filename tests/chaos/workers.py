"""Keep a few Celery workers running: whichever dies is started anew, as a supervisor would do it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos.processes import Group

ROOT: Final = Path(__file__).parents[2]
WORKERS: Final = 2
CHILDREN: Final = 4


class Workers:
    """Run the Celery application in ``module`` under a few workers, each a process group, until the block ends."""

    def __init__(self, module: str, *, environment: Mapping[str, str], folder: Path) -> None:
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        # kombu's broker of files moves what it reads through the temporary directory.
        self._environment = {**environment, "PYTHONPATH": path, "TMPDIR": str(folder)}
        self._module = module
        self._folder = folder
        self._running: list[Group] = []
        self._leaving: list[Group] = []

    def __enter__(self) -> Self:
        self._running = [self._started(number) for number in range(WORKERS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in (*self._running, *self._leaving):
            group.end()

    @property
    def running(self) -> tuple[Group, ...]:
        """Return the workers of the moment."""
        return tuple(self._running)

    def supervise(self) -> None:
        """Start anew whichever worker has died; the children that it left behind may finish what they hold."""
        for number, group in enumerate(self._running):
            if not group.main_lives():
                self._leaving.append(group)
                self._running[number] = self._started(number)
        for group in [one for one in self._leaving if not one.members()]:
            group.end()
            self._leaving.remove(group)

    def _started(self, number: int) -> Group:
        command = [sys.executable, "-m", "celery", "-A", self._module, "worker", "--hostname", f"chaos{number}@%h"]
        command += ["--pool", "prefork", "--concurrency", str(CHILDREN), "--loglevel", "WARNING"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        log = self._folder / f"worker-{number}.log"
        return Group(command, environment=self._environment, folder=ROOT, log=log)
