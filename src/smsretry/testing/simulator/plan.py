"""Decide which fault a request meets: by script first, then by a standing order, then by seeded chance."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from enum import StrEnum, unique
from typing import Final, TypeAlias

from smsretry.testing.simulator.chance import Chance, chosen
from smsretry.testing.simulator.faults import Fault, Normal, fault_named

Rates: TypeAlias = tuple[tuple[Fault, float], ...]

NORMAL: Final = Normal()


@unique
class Call(StrEnum):
    """Say which requests a fault is for."""

    CREATE = "create"
    """Sending a message."""
    LOOK_UP = "look_up"
    """Fetching a message, or listing messages."""


class FaultPlan:
    """Hold what is to go wrong, for creates or for look-ups.

    ``rates`` gives each fault its share of the requests, 0 to 1, together at most 1; the rest is served as usual.
    Which request meets which fault follows from ``seed``, from what identifies the request (recipient, text, sender)
    and from how many like it came before, never from the order in which different requests arrive: a run repeats,
    whatever its concurrency.
    """

    def __init__(self, *, seed: int, rates: Rates) -> None:
        self._chance = Chance(seed)
        self._rates = rates
        self._lock = threading.Lock()
        self._scripts: defaultdict[str | None, deque[Fault]] = defaultdict(deque)
        self._standing: dict[str | None, Fault] = {}

    @property
    def unplayed(self) -> int:
        """Count the scripted faults that no request has met yet."""
        with self._lock:
            return sum(len(script) for script in self._scripts.values())

    def script(self, faults: Iterable[Fault], *, to: str | None) -> None:
        """Add ``faults`` to what the next requests meet, one each; with ``to``, those for this number alone."""
        with self._lock:
            self._scripts[to].extend(faults)

    def always(self, fault: Fault | None, *, to: str | None) -> None:
        """Let every request without a script meet ``fault`` from now on; None ends that."""
        with self._lock:
            if fault is None:
                self._standing.pop(to, None)
            else:
                self._standing[to] = fault

    def next_fault(self, *, to: str | None, identity: bytes) -> Fault:
        """Return what this request meets, and count it."""
        with self._lock:
            for script in (self._scripts.get(to), self._scripts.get(None)):
                if script:
                    return script.popleft()
            standing = self._standing.get(to) or self._standing.get(None)
            return standing or (self._drawn(identity) if self._rates else NORMAL)

    def _drawn(self, identity: bytes) -> Fault:
        return chosen(self._rates, self._chance.draw(identity).share()) or NORMAL


def checked_fault(fault: object) -> Fault:
    """Return ``fault``, or the one that `FAULTS` has under this name; raise ValueError for anything else."""
    if isinstance(fault, str):
        return fault_named(fault)
    if not isinstance(fault, Fault):
        raise ValueError(f"A fault must be one such as RateLimited() or a name of FAULTS, got {fault!r}.")  # noqa: TRY004
    return fault


def checked_rates(rates: Mapping[str | Fault, float]) -> Rates:
    """Return ``rates`` with every name resolved; raise ValueError for a bad name, share or sum."""
    resolved = tuple((checked_fault(key), rate) for key, rate in rates.items())
    for key, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"The rate of {key} must be a share from 0 to 1, got {rate}. Write 0.1 for 10 %.")
    if (total := sum(rate for _, rate in resolved)) > 1 + 1e-9:
        raise ValueError(f"Rates must add up to 1 at most, got {total}. What is left of 1 is served as usual.")
    return resolved
