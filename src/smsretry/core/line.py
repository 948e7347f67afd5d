"""Decide whose turn it is under a rate: what a limiter keeps of one sender, and how it changes; values in, values out.

Whoever may not go yet is told when to come back, and nothing is kept of him but a place on the clock of the line. Two
questions are kept apart.

*Whose turn is it?* The line has a clock of its own. While nobody waits it shows the time. Each campaign that waits gets
an equal share of the rate (fluid fair queueing: Parekh and Gallager, "A generalized processor sharing approach to flow
control", 1993): with two of them the clock of the line runs at half speed, after a 429 it runs slower too. A message
gets the stretch of that clock that follows the one of its campaign's last message, and its turn comes when the clock
gets there. So a place once given never has to be moved, and who comes later can only make it come later: whoever
returns when he was told is at worst too early, and is told the rest.

*May anything go now?* Only where tokens are left of a bucket (the GCRA of ITU-T I.371) that is filled at the rate and
from which only those take who really go. So in no window more than rate × window + burst goes, whoever comes late or
twice, whatever the line says.

Every limiter runs these functions under its own lock, with its own clock. Times are whole microseconds, in which sums
are exact; `smsretry.limits.redis` does the same arithmetic on a server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from smsretry.core.limit import Turn

SECOND: Final = 1_000_000.0
FRAC = 0.75
NEXT: Final = "next"
"""The slot of one whose turn has come, and who had to wait only until a token is there."""
SLOWEST: Final = 1 / 16
"""After refusals a sender is slowed down to this part of its rate at most."""
CUT_EVERY: Final = 2 * SECOND
"""Refusals of sends that were on their way together cut the rate once."""
RECOVERY: Final = 60 * SECOND
"""How long it takes, from a standstill, until the whole rate is used again."""
MOST_CAMPAIGNS: Final = 256
"""So many campaigns wait apart; each further one shares the place of the one that is done first."""
_SET_BACK: Final = SECOND
"""A clock that shows an earlier time by more than this was set; by less, somebody was overtaken."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Hold how much one sender may carry: ``per_s`` segments a second, and ``burst`` segments at once.

    ``burst`` is one second's worth, and at least 2, unless given: whoever comes a second after his time, as a queue may
    let him, then still finds his token. A text of more segments than ``burst`` goes when the bucket is full. Raises
    ValueError that names the field.
    """

    per_s: float
    burst: float = 0.0

    def __post_init__(self) -> None:
        if not _is_number(self.per_s) or not 0.0 < self.per_s <= 100_000.0:
            msg = f"per_s must be more than 0 and at most 100000 segments a second, got {self.per_s!r}."
            raise ValueError(msg)
        if not (_is_number(self.burst) and (self.burst == 0.0 or 1.0 <= self.burst <= 1_000_000.0)):
            msg = f"burst must be from 1 to 1000000 segments, got {self.burst!r}. Leave it out for a second's worth."
            raise ValueError(msg)
        if not self.burst:
            object.__setattr__(self, "burst", max(2.0, self.per_s))

    @property
    def depth(self) -> float:
        """Return how long it takes until the bucket is full, rounded down."""
        return math.floor(self.burst * SECOND / self.per_s)

    def work(self, cost: int) -> float:
        """Return how long ``cost`` segments take at this rate, rounded up."""
        return math.ceil(cost * SECOND / self.per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Hold what a limiter keeps of one sender."""

    at: float
    """When this was last brought up to date."""
    clock: float
    """What the clock of the line shows."""
    ends: Mapping[str, float] = field(default_factory=dict)
    """For each campaign that waits: where on the clock of the line its last slot ends."""
    credit: float
    """What may go ahead of the line's clock, because nobody waited."""
    tokens: float
    """What is in the bucket; less than nothing where it is taken in advance."""
    promised: float
    """Until when, from now on, the tokens to come are promised to those whose turn it is."""
    pace: float = 1.0
    """The part of the rate that is used."""
    cut_at: float = -math.inf
    """When the rate was last cut."""
    held_until: float = 0.0
    """Before this nothing goes: the provider said so."""


def new_line(now: float, rate: Rate) -> Line:
    """Return the line of a sender of which nothing is known: nobody waits, and the bucket is full."""
    return Line(at=now, clock=now, credit=rate.depth, tokens=rate.depth, promised=-rate.depth)


def take_turn(
    line: Line,
    rate: Rate,
    cost: int,
    now: float,
    *,
    campaign: str,
    slot: str | None = None,
    within_s: float = math.inf,
) -> tuple[Line, Turn]:
    """Return the line after somebody asked to send ``cost`` segments at ``now``, and the answer.

    ``slot`` is what he was told before, None the first time. A wait of more than ``within_s`` seconds is told, and no
    place kept.
    """
    line, work = advance(line, rate, now), rate.work(cost)
    need, held = min(work, rate.depth), _start_of(slot)
    start = _free(line, campaign) if held is None else held
    kept = _placed(line, campaign, start + work) if held is None else line
    ahead, next_token = _ahead(line, start), max(line.promised, -line.tokens)
    if ahead >= 1.0:
        wait_s, place = _real_s(line, ahead + need, now), repr(start)
    elif line.held_until <= now and (-line.tokens if slot == NEXT else next_token) + need <= 0.0:
        return replace(kept, tokens=line.tokens - work), Turn(0.0)
    else:
        lacking = need - line.tokens
        # Who comes a moment too early for the token that he was promised waits for it; else another one is promised.
        told = lacking if slot == NEXT and lacking <= need / 2 else next_token + need
        wait_s, place = _real_s(line, told, now), NEXT
        kept = replace(kept, promised=max(line.promised, told - need + work))
    return (line, Turn(wait_s, slot)) if wait_s > within_s else (kept, Turn(wait_s, place))


def reserve(line: Line, rate: Rate, cost: int, now: float) -> tuple[Line, float]:
    """Return the line after ``cost`` segments were taken out of the bucket in advance, and after how many seconds."""
    line, work = advance(line, rate, now), rate.work(cost)
    lacking = min(work, rate.depth) - line.tokens
    wait_s = 0.0 if lacking <= 0.0 and line.held_until <= now else _real_s(line, lacking, now)
    return replace(line, tokens=line.tokens - work), wait_s


def slow_down(line: Line, rate: Rate, now: float, *, retry_after_s: float | None = None) -> Line:
    """Return the line after the provider refused a text as too fast: half the pace, and no burst."""
    line = advance(line, rate, now)
    held_until = max(line.held_until, now + (retry_after_s or 0.0) * SECOND)
    if now - line.cut_at < CUT_EVERY:
        return replace(line, held_until=held_until)
    return replace(
        line,
        held_until=held_until,
        cut_at=now,
        pace=max(SLOWEST, line.pace / 2),
        tokens=min(line.tokens, 0.0),
        credit=0.0,
    )


def advance(line: Line, rate: Rate, now: float) -> Line:
    """Return the line as it is at ``now``."""
    if now <= line.at:
        return replace(line, at=now) if line.at - now > _SET_BACK else line
    passed = max(0.0, now - max(line.at, line.held_until))
    paced, pace = _paced(line.pace, passed)
    clock, ends, left = _served(line, paced)
    return replace(
        line,
        at=now,
        clock=clock if ends else max(clock, now),
        ends=ends,
        credit=0.0 if ends else min(rate.depth, line.credit + left),
        tokens=min(rate.depth, line.tokens + paced),
        promised=max(-rate.depth, line.promised - paced),
        pace=pace,
    )


def _served(line: Line, paced: float) -> tuple[float, Mapping[str, float], float]:
    """Share ``paced`` among the campaigns that wait; return the clock, who waits still, and what nobody needed."""
    clock, ends = line.clock, line.ends
    while ends:
        first = min(ends.values())
        needed = (first - clock) * len(ends)
        if paced < needed:
            return clock + paced / len(ends), ends, 0.0
        clock, paced = first, paced - needed
        ends = {campaign: end for campaign, end in ends.items() if end > first}
    return clock, ends, paced


def _free(line: Line, campaign: str) -> float:
    """Return where the next slot of ``campaign`` begins."""
    return line.ends.get(_shared(line, campaign), line.clock - line.credit)


def _placed(line: Line, campaign: str, end: float) -> Line:
    """Return the line after ``campaign`` got a slot that ends at ``end``; out of the credit where that is enough."""
    if end <= line.clock:
        return replace(line, credit=line.clock - end)
    return replace(line, ends={**line.ends, _shared(line, campaign): end}, credit=0.0)


def _shared(line: Line, campaign: str) -> str:
    """Return the name under which ``campaign`` waits: where too many do, that of the one which is done first."""
    if campaign in line.ends or len(line.ends) < MOST_CAMPAIGNS:
        return campaign
    return min(line.ends, key=lambda name: (line.ends[name], name))


def _ahead(line: Line, start: float) -> float:
    """Return how long the line takes, at its whole rate, until its clock shows ``start``."""
    served = sum(max(0.0, min(end, start) - line.clock) for end in line.ends.values())
    return served + max(0.0, start - max(line.ends.values(), default=line.clock))


def _paced(pace: float, passed: float) -> tuple[float, float]:
    """Return what ``passed`` is worth while the pace recovers, and the pace after it."""
    recovering = min(passed, (1.0 - pace) * RECOVERY)
    paced = pace * recovering + recovering * recovering / (2 * RECOVERY) + (passed - recovering)
    return paced, 1.0 if passed > recovering else min(1.0, pace + recovering / RECOVERY)


def _real_s(line: Line, paced: float, now: float) -> float:
    """Return how many seconds it takes until ``paced`` has passed, or a moment more where that is not exact."""
    pace = line.pace
    whole = (1.0 - pace) * RECOVERY
    recovered = pace * whole + whole * whole / (2 * RECOVERY)
    if paced >= recovered:
        passed = whole + (paced - recovered)
    else:
        passed = RECOVERY * (math.sqrt(pace * pace + 2 * max(0.0, paced) / RECOVERY) - pace)
    passed += max(0.0, line.held_until - now)
    exact = pace == 1.0 and passed.is_integer()
    return max(1.0, passed if exact else math.floor(passed) + 2.0) / SECOND


def _start_of(slot: str | None) -> float | None:
    """Return where a slot begins; None where there is none, or one of another kind of limiter."""
    if slot == NEXT:
        return -math.inf
    try:
        return None if slot is None else float(slot)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
