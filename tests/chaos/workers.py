"""Keep a few Celery workers running: whichever dies is started anew, as a supervisor would do it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos.processes import Group
from tests.chaos.programs import Program

ROOT: Final = Path(__file__).parents[2]
_QUIET: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat")


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

    def options(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the options of each worker."""
        options = ["--pool", self.pool, "--concurrency", str(self.concurrency), "--loglevel", "WARNING"]
        for number in range(self.workers):
            yield number, [*options, "--hostname", f"chaos{number}@%h", *_QUIET]


class Workers:
    """Run workers of ``program``, each in a process group, until the block ends; and what runs beside them."""

    def __init__(self, program: Program, shape: Shape, *, environment: Mapping[str, str], folder: Path) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        # kombu's broker of files moves what it reads through the temporary directory.
        self._environment = {**environment, "PYTHONPATH": path, "TMPDIR": str(folder)}
        self._program = program
        self.shape = shape
        self._folder = folder
        self._stack = ExitStack()
        self.groups: tuple[Group, ...] = ()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            groups = [self._led(f"worker-{number}", "worker", *options) for number, options in self.shape.options()]
            if self._program.beside:
                groups.append(self._led("beside", *self._program.beside))
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

    def _led(self, name: str, *command: str) -> Group:
        leader = [sys.executable, "-m", "tests.chaos.template", self._program.module, *command]
        return Group(leader, environment=self._environment, folder=ROOT, log=self._folder / f"{name}.log")
