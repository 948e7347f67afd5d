"""Let the threads of a process write together: one transaction, and one wait for the disk, for all that wait.

SQLite has one writer at a time, and every commit waits for the disk. Threads that come meanwhile queue up, and the next
whose turn it is writes for all of them. Each returns only after the commit that holds its own work; where a common
transaction fails, each work gets one of its own, so that nobody suffers for another's mistake.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

T = TypeVar("T")
Work = Callable[[sa.Connection], T]
Write = Callable[[Work[Any]], Any]
"""Run some work in one transaction, and commit."""

_MOST: Final = 32
"""So many works share a transaction at the most: other processes wait meanwhile."""


@dataclass(slots=True, eq=False)
class _Job:
    work: Work[Any]
    result: Any = None
    error: Exception | None = None
    done: bool = False


@dataclass(slots=True)
class Turns:
    """Hold the works that wait, and whose turn it is; for one process, and not beyond a fork."""

    _turn: threading.Lock = field(default_factory=threading.Lock)
    _waiting: deque[_Job] = field(default_factory=deque)

    def write(self, work: Work[T], write: Write) -> T:
        """Run ``work`` through ``write``, with the works of other threads where some wait, and return its result."""
        job = _Job(work)
        self._waiting.append(job)
        try:
            with self._turn:
                if not job.done:
                    self._write_with(job, write)
        except BaseException:  # such as a time limit: what has not begun must not be written for nobody
            job.done = True
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
            raise
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _write_with(self, job: _Job, write: Write) -> None:
        """Write ``job``, wherever it has got to, and what waits beside it."""
        jobs = [job]
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        try:
            with contextlib.suppress(IndexError):
                while len(jobs) < _MOST:
                    jobs.append(self._waiting.popleft())
            _write_together(jobs, write)
        finally:
            self._waiting.extendleft(one for one in reversed(jobs[1:]) if not one.done)


def _write_together(jobs: Sequence[_Job], write: Write) -> None:
    try:
        results = write(lambda connection: [job.work(connection) for job in jobs])
    except Exception as error:  # it is raised in the thread whose work it is
        if len(jobs) == 1:
            jobs[0].error, jobs[0].done = error, True
            return
        for job in jobs:
            _write_together([job], write)
        if not isinstance(error, exc.SQLAlchemyError) and all(type(job.error) is not type(error) for job in jobs):
            raise  # none of the works did: it is this thread's own, such as Celery's soft time limit
    else:
        for job, result in zip(jobs, results, strict=True):
            job.result, job.done = result, True
