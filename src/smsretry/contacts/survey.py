"""Count what a list of contacts becomes before any of it is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, assert_never

from smsretry.contacts.messages import Bad, Contacts, Fault, Ready, Repeated
from smsretry.contacts.occurrences import Occurrences
from smsretry.core.segments import Encoding, encoding_of, segments

_T = TypeVar("_T")

MOST_SHOWN: Final = 50
"""So many lines of each sort are named; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Hold the figures of a list: `rows` is the sum of ``messages``, ``repeated`` and the bad rows."""

    messages: int
    """Those that will be sent."""
    repeated: int
    """Rows with the number and the text of an earlier one."""
    faults: Mapping[Fault, int]
    """How many rows are bad, by what is wrong with them."""
    by_segments: Mapping[int, int]
    """How many messages have 1, 2, 3, … segments, the fewest first."""
    ucs2: int
    """Messages that GSM-7 does not hold, which makes their segments less than half as long."""
    beyond_gsm_7: Mapping[str, int]
    """In how many messages each character is for whose sake they are UCS-2, the most frequent first."""
    empty: Mapping[str, int]
    """In how many messages a column of the template is empty."""
    bad_rows: tuple[Bad, ...]
    repeated_lines: tuple[int, ...]
    empty_lines: Mapping[str, tuple[int, ...]]
    with_several: frozenset[int]
    """The numbers that get more than one text, as `smsretry.contacts.occurrences.place_of` hashes them."""

    @property
    def bad(self) -> int:
        """Return how many rows become no message."""
        return sum(self.faults.values())

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return self.messages + self.repeated + self.bad

    @property
    def segments(self) -> int:
        """Return how many segments all messages have together, which is what a provider counts and charges."""
        return sum(each * count for each, count in self.by_segments.items())


def surveyed(contacts: Contacts) -> Survey:
    """Read ``contacts`` once and count what its rows become, holding none of them but the first few bad ones.

    Raises `smsretry.ConfigurationError` as `Contacts.items` does.
    """
    counts, occurrences = _Counts(), Occurrences()
    for item in contacts.items(occurrences):
        match item:
            case Ready():
                counts.add(item)
            case Repeated(line=line):
                counts.repeated += 1
                _note(counts.repeated_lines, line)
            case Bad(fault=fault):
                counts.faults[fault] += 1
                _note(counts.bad_rows, item)
            case _ as unreachable:
                assert_never(unreachable)
    return counts.survey(occurrences.with_several)


@dataclass(slots=True)
class _Counts:
    repeated: int = 0
    ucs2: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    by_segments: Counter[int] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    bad_rows: list[Bad] = field(default_factory=list)
    repeated_lines: list[int] = field(default_factory=list)
    empty_lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, ready: Ready) -> None:
        body = ready.message.body
        self.by_segments[segments(body)] += 1
        if encoding_of(body) is Encoding.UCS_2:
            self.ucs2 += 1
            self.beyond.update(each for each in set(body) if encoding_of(each) is Encoding.UCS_2)
        for column in set(ready.empty):
            self.empty[column] += 1
            _note(self.empty_lines.setdefault(column, []), ready.line)

    def survey(self, with_several: frozenset[int]) -> Survey:
        return Survey(
            with_several=with_several,
            messages=self.by_segments.total(),
            repeated=self.repeated,
            faults=dict(self.faults.most_common()),
            by_segments=dict(sorted(self.by_segments.items())),
            ucs2=self.ucs2,
            beyond_gsm_7=dict(self.beyond.most_common()),
            empty=dict(self.empty.most_common()),
            bad_rows=tuple(self.bad_rows),
            repeated_lines=tuple(self.repeated_lines),
            empty_lines={column: tuple(lines) for column, lines in self.empty_lines.items()},
        )


def _note(noted: list[_T], one: _T) -> None:
    if len(noted) < MOST_SHOWN:
        noted.append(one)
