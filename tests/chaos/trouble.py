"""Kill and freeze workers at random, by a seed."""

from __future__ import annotations

import heapq
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum, unique
from random import Random
from types import MappingProxyType, TracebackType
from typing import Final, Self, assert_never

from tests.chaos.processes import Group
from tests.chaos.workers import Pool, Workers

DEEDS_PER_S: Final = 3.0
TICK_S: Final = 0.1
LONGEST_FREEZE_S: Final = 5.0


@unique
class Deed(StrEnum):
    """Name what may be done to a worker."""

    KILL_CHILD = "kill_child"
    """SIGKILL to one process of the pool."""
    FREEZE_CHILD = "freeze_child"
    """SIGSTOP to one process of the pool, for up to three seconds."""
    KILL_WORKER = "kill_worker"
    """SIGKILL to the main process alone: its children finish what they hold."""
    KILL_ALL = "kill_all"
    """SIGKILL to the main process and the pool at once."""
    FREEZE_ALL = "freeze_all"
    """SIGSTOP to the main process and the pool at once, for up to five seconds."""


WEIGHTS: Final[Mapping[Pool, Mapping[Deed, float]]] = MappingProxyType(
    {
        Pool.PREFORK: {
            Deed.KILL_CHILD: 50,
            Deed.FREEZE_CHILD: 36,
            Deed.KILL_WORKER: 3,
            Deed.KILL_ALL: 5,
            Deed.FREEZE_ALL: 6,
        },
        Pool.THREADS: {Deed.KILL_ALL: 60, Deed.FREEZE_ALL: 40},
    }
)
"""How often each is done."""
_SHORTEST_FREEZE_S: Final = 0.2
_LONGEST_CHILD_FREEZE_S: Final = 3.0


class Trouble:
    """Trouble ``workers`` from `begin` to `calm`, in a thread that keeps them running until the block ends."""

    def __init__(self, workers: Workers, *, seed: int) -> None:
        self.kills = 0
        self.freezes = 0
        self._workers = workers
        self._weights = WEIGHTS[workers.shape.pool]
        self._chance = Random(f"trouble {seed}")
        self._begun, self._ended = threading.Event(), threading.Event()
        self._thaws: list[tuple[float, int, Callable[[], object]]] = []
        self._frozen: set[int] = set()
        self._thread = ThreadPoolExecutor(1, "trouble")

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.shutdown()

    def check(self) -> None:
        """Raise what has ended the thread."""
        if self._running.done():
            self._running.result()

    def begin(self) -> None:
        """Kill and freeze from now on."""
        self._begun.set()

    def calm(self) -> None:
        """Do no more harm; what is frozen thaws in its time."""
        self._begun.clear()

    @property
    def is_over(self) -> bool:
        """Say whether nothing is frozen any more."""
        return not self._begun.is_set() and not self._frozen

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._ended.wait(TICK_S):
            self._workers.supervise()
            self._thaw()
            while self._begun.is_set() and next_s <= time.monotonic():
                next_s = max(next_s, time.monotonic() - TICK_S) + self._chance.expovariate(DEEDS_PER_S)
                self._do(*self._chance.choices(list(self._weights), list(self._weights.values())))

    def _do(self, deed: Deed) -> None:
        group = self._chance.choice(self._workers.groups)
        match deed:
            case Deed.KILL_CHILD:
                self._kill(group, self._one_of(group.pool()))
            case Deed.FREEZE_CHILD:
                self._freeze(group, self._one_of(group.pool()), longest_s=_LONGEST_CHILD_FREEZE_S)
            case Deed.KILL_WORKER:
                self._kill(group, [group.worker])
            case Deed.KILL_ALL:
                self._kill(group, [group.worker, *group.pool()])
            case Deed.FREEZE_ALL:
                self._freeze(group, [group.worker, *group.pool()], longest_s=LONGEST_FREEZE_S)
            case _:
                assert_never(deed)

    def _one_of(self, pids: list[int]) -> list[int]:
        return [self._chance.choice(sorted(pids))] if pids else []

    def _kill(self, group: Group, pids: list[int]) -> None:
        self.kills += bool(group.signal(signal.SIGKILL, pids))

    def _freeze(self, group: Group, pids: list[int], *, longest_s: float) -> None:
        """Stop processes; none that is stopped already, lest two freezes become a long one."""
        until_s = time.monotonic() + self._chance.uniform(_SHORTEST_FREEZE_S, longest_s)
        frozen = group.signal(signal.SIGSTOP, [pid for pid in pids if pid not in self._frozen])
        self.freezes += bool(frozen)
        self._frozen.update(frozen)

        def thaw() -> None:
            group.signal(signal.SIGCONT, frozen)
            self._frozen.difference_update(frozen)

        heapq.heappush(self._thaws, (until_s, self.freezes, thaw))

    def _thaw(self) -> None:
        while self._thaws and self._thaws[0][0] <= time.monotonic():
            heapq.heappop(self._thaws)[2]()
