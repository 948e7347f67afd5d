"""Keep processes in groups, look into a group, and end one without leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Describe a process of this machine."""

    pid: int
    parent: int
    group: int
    is_dead: bool


class Group:
    """Lead a process group by ``leader``, a command that starts a worker for each line that it is told.

    The leader is never signalled, so that the group's number stays its own until `end`.
    """

    def __init__(self, leader: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._log = log
        with log.open("ab") as written:
            self._leader = subprocess.Popen(
                leader,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, **environment},
                text=True,
            )
        self.worker = 0

    def start(self) -> None:
        """Start a worker, and hold its pid in ``worker``."""
        assert self._leader.stdin is not None
        assert self._leader.stdout is not None
        self._leader.stdin.write("start\n")
        self._leader.stdin.flush()
        answer = self._leader.stdout.readline()
        if not answer:
            raise RuntimeError(f"The leader of the workers has ended. Read what it logged: {self._log.read_text()}")
        self.worker = int(answer)

    def members(self) -> list[Process]:
        """List the living processes of the group, without its leader."""
        own = (one for one in all_processes() if one.group == self._leader.pid)
        return [one for one in own if not one.is_dead and one.pid != self._leader.pid]

    def pool(self) -> list[int]:
        """List the children of the worker."""
        return [one.pid for one in self.members() if one.parent == self.worker]

    def is_working(self) -> bool:
        """Say whether the worker runs."""
        worker = process_of(self.worker)
        return worker is not None and worker.group == self._leader.pid and not worker.is_dead

    def signal(self, number: signal.Signals, pids: Sequence[int]) -> list[int]:
        """Send a signal to those of ``pids`` that belong to the group still, in this order, and return them."""
        members = {one.pid for one in self.members()}
        present = [pid for pid in pids if pid in members]
        for pid in present:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return present

    def end(self) -> None:
        """Kill the whole group. Safe to call twice."""
        for pipe in (self._leader.stdin, self._leader.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._leader.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._leader.pid, signal.SIGKILL)
            self._leader.wait()


def all_processes() -> list[Process]:
    """List the processes of this machine."""
    return list(_from_proc() if (_PROC / "self" / "stat").exists() else _from_ps())


def process_of(pid: int) -> Process | None:
    """Return the process with this pid; None where there is none."""
    if (_PROC / "self" / "stat").exists():
        return _read(pid)
    return next((one for one in _from_ps() if one.pid == pid), None)


def _from_proc() -> Iterator[Process]:
    pids = (int(folder.name) for folder in _PROC.glob("[0-9]*"))
    return (one for one in map(_read, pids) if one is not None)


def _read(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:  # it has ended
        return None
    return _process(pid, *stat.rpartition(")")[2].split()[:3])


def _from_ps() -> Iterator[Process]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,state=,ppid=,pgid="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, *rest = line.split()
        yield _process(int(pid), *rest)


def _process(pid: int, state: str, parent: str, group: str) -> Process:
    return Process(pid=pid, parent=int(parent), group=int(group), is_dead=state[0] in "ZX")
