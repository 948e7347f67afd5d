"""Keep a few Celery workers running: whichever dies is started anew, as a supervisor would do it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos.processes import Group

ROOT: Final = Path(__file__).parents[2]


@unique
class Pool(StrEnum):
    """Name the kinds of Celery's pools that are used here."""

    PREFORK = "prefork"
    """Processes: a dead one is replaced by its worker."""
    THREADS = "threads"
    """Threads: the worker is one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Say how many workers there are, and how many texts each sends at once, in which kind of pool."""

    workers: int
    pool: Pool
    concurrency: int

    def options(self, number: int) -> list[str]:
        """Return the options of worker ``number``."""
        options = ["--hostname", f"chaos{number}@%h", "--pool", self.pool, "--concurrency", str(self.concurrency)]
        return [*options, "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]


class Workers:
    """Run workers of the Celery application in ``module``, each in a process group, until the block ends."""

    def __init__(self, module: str, shape: Shape, *, environment: Mapping[str, str], folder: Path) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        # kombu's broker of files moves what it reads through the temporary directory.
        self._environment = {**environment, "PYTHONPATH": path, "TMPDIR": str(folder)}
        self._module = module
        self.shape = shape
        self._folder = folder
        self._stack = ExitStack()
        self.groups: tuple[Group, ...] = ()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            groups = [self._led(number) for number in range(self.shape.workers)]
            for group in groups:
                stack.callback(group.end)
            self.groups = tuple(groups)
            self.supervise()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def supervise(self) -> None:
        """Start a worker wherever none runs; the children that one left behind may finish what they hold."""
        for group in self.groups:
            if not group.is_working():
                group.start()

    def _led(self, number: int) -> Group:
        leader = [sys.executable, "-m", "tests.chaos.template", self._module, *self.shape.options(number)]
        log = self._folder / f"worker-{number}.log"
        return Group(leader, environment=self._environment, folder=ROOT, log=log)
