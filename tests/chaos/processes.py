"""Start processes in groups of their own, look into a group, and end one without leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LEAD: Final = '"$@" >&2 & echo $!; read _; kill -KILL 0'
"""Lead a group: start a command in it, name its pid, and end the whole group when our standard input closes.

So the group ends with us, however we end. As long as its leader lives, its number cannot be given to others.
"""
_PROC: Final = Path("/proc")
_LEADER_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Describe one process of a group; ``parent`` is the pid of its parent."""

    pid: int
    parent: int
    group: int
    is_dead: bool


class Group:
    """Run ``command`` in a process group of its own, until `end` or until this process ends.

    ``main`` is the pid of the command, whose children stay in the group when it dies.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path) -> None:
        with log.open("ab") as written:
            self._leader = subprocess.Popen(
                ["sh", "-c", _LEAD, "chaos-worker", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, **environment},
            )
        assert self._leader.stdout is not None
        self.main = int(self._leader.stdout.readline())
        self._has_ended = False

    def members(self) -> list[Member]:
        """List the living processes of the group, without its leader."""
        if self._has_ended:
            return []
        own = (one for one in all_processes() if one.group == self._leader.pid)
        return [one for one in own if not one.is_dead and one.pid != self._leader.pid]

    def children(self) -> list[int]:
        """List the living children of the command."""
        return [one.pid for one in self.members() if one.parent == self.main]

    def main_lives(self) -> bool:
        """Say whether the command still runs."""
        return any(one.pid == self.main for one in self.members())

    def signal(self, number: signal.Signals, *pids: int) -> int:
        """Send a signal to those of ``pids`` that still belong to the group; return to how many."""
        members = {one.pid for one in self.members()}
        sent = 0
        for pid in members.intersection(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                sent += 1
        return sent

    def end(self) -> None:
        """Kill all that is left of the group. Safe to call twice."""
        self._has_ended = True
        for pipe in (self._leader.stdin, self._leader.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._leader.wait(_LEADER_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._leader.pid, signal.SIGKILL)
            self._leader.wait()


def all_processes() -> list[Member]:
    """List the processes of this machine."""
    return list(_from_proc() if (_PROC / "self" / "stat").exists() else _from_ps())


def _from_proc() -> Iterator[Member]:
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                yield _member(int(folder.name), *(folder / "stat").read_text().rpartition(")")[2].split()[:3])


def _from_ps() -> Iterator[Member]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,state=,ppid=,pgid="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, *rest = line.split()
        yield _member(int(pid), *rest)


def _member(pid: int, state: str, parent: str, group: str) -> Member:
    return Member(pid=pid, parent=int(parent), group=int(group), is_dead=state[0] in "ZX")
