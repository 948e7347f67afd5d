"""Draw by seed and by what a request is about, so that a run repeats whatever its concurrency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw:
    """Hold the chance of one request; it gives as many independent shares as are asked of it, always the same."""

    key: bytes = field(repr=False)

    def share(self, of: str = "") -> float:
        """Return a share from 0 up to, not including, 1: another one for each word."""
        key = self.key + b"\0" + of.encode() if of else self.key
        return int.from_bytes(blake2b(key, digest_size=8).digest()) / 2**64

    def within(self, span: tuple[float, float], of: str) -> float:
        """Return a number from the first of ``span`` to the second."""
        low, high = span
        return low + (high - low) * self.share(of)


class Chance:
    """Draw from ``seed``, from what identifies a request, and from how many like it came before."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seen: Counter[bytes] = Counter()

    def draw(self, identity: bytes) -> Draw:
        """Return the chance of the next request with this identity, and count it."""
        who = blake2b(identity, digest_size=16).digest()
        self._seen[who] += 1
        return Draw(b"%d\0%s\0%d" % (self._seed, who, self._seen[who]))


def chosen(shares: Iterable[tuple[T, float]], share: float) -> T | None:
    """Return the one of ``shares`` in which ``share`` (0 to 1) falls, None beyond their sum."""
    for value, width in shares:
        share -= width
        if share < 0:
            return value
    return None
