"""Number the texts of each recipient, and tell a text that comes twice, in little memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from typing import Final

Place = tuple[int, int]
"""Names a text of a number: the hashes of both."""

_FREE: Final = 0
_FULL: Final = 0.6
"""Up to this share of the places is filled: a full table is a slow one."""


def place_of(number: str, text: str) -> Place:
    """Return what stands for ``text`` to ``number``."""
    return _hash_of(number), _hash_of(text)


class Occurrences:
    """Say which text of its number a text is: 1, 2, 3, in the order in which they come; 0 where it came before.

    It holds two hashes of 64 bits for each number: 32 MiB for a million of them, 64 MiB for two. ``known`` holds the
    places of texts whose number is settled already.
    """

    def __init__(self, known: Mapping[Place, int] | None = None) -> None:
        self._known = known or {}
        self._firsts = HashTable()
        self._more: dict[int, list[int]] = {}

    def number_of(self, number: str, text: str) -> int:
        """Return the number of ``text`` among those to ``number``; 0 where it is there already."""
        to, said = place = place_of(number, text)
        count = self._counted(to, said)
        return self._known.get(place, count) if count else 0

    @property
    def with_several(self) -> frozenset[int]:
        """Return the hashes of the numbers that have more than one text so far."""
        return frozenset(self._more)

    def _counted(self, to: int, said: int) -> int:
        first = self._firsts.put(to, said)
        if first is None:
            return 1
        more = self._more.get(to, ())
        if said == first or said in more:
            return 0
        self._more.setdefault(to, []).append(said)
        return len(self._more[to]) + 1


class HashTable:
    """Keep a value for each key, both whole numbers of 64 bits and not 0, in a third of what a dict takes."""

    def __init__(self) -> None:
        self._count, self._mask = 0, 0xFF
        self._keys, self._values = _zeros(0x100), _zeros(0x100)

    def put(self, key: int, value: int) -> int | None:
        """Keep ``value`` under ``key``, and return None; where there is a value already, return that one instead."""
        place = self._place_of(key)
        if self._keys[place] == key:
            return self._values[place]
        self._keys[place], self._values[place] = key, value
        self._count += 1
        if self._count > _FULL * self._mask:
            self._grow()
        return None

    def _place_of(self, key: int) -> int:
        keys, mask = self._keys, self._mask
        place = key & mask
        while keys[place] not in {_FREE, key}:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        before = zip(self._keys, self._values, strict=True)
        self._mask = 2 * self._mask + 1
        self._keys, self._values = _zeros(self._mask + 1), _zeros(self._mask + 1)
        for key, value in before:
            if key != _FREE:
                place = self._place_of(key)
                self._keys[place], self._values[place] = key, value


def _zeros(count: int) -> array[int]:
    return array("Q", bytes(8 * count))


def _hash_of(text: str) -> int:
    """Return the same for the same text in every process, and never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1
