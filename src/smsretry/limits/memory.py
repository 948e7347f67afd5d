"""A rate limiter in memory: for the threads and tasks of one process."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from smsretry.core import line as rules
from smsretry.core.limit import Turn
from smsretry.core.line import Line, Rate
from smsretry.limits.rates import Moment, Rates, checked_cost, in_microseconds

A = TypeVar("A")


class MemoryLimiter:
    """Let each sender carry ``rate_per_s`` segments a second, and ``burst`` at once, within this process.

    ``rates`` names senders with a rate of their own: segments a second, or a `smsretry.limits.Rate` with a burst.
    ``burst`` is a second's worth, and at least 2, unless given. It has no clock but the ``now`` of each call. A forked
    process has one of its own; where processes share a sender, use `smsretry.limits.redis.RedisLimiter`.

    Raises ValueError that names the field.
    """

    blocks = False

    def __init__(
        self, rate_per_s: float, *, burst: float = 0.0, rates: Mapping[str, float | Rate] | None = None
    ) -> None:
        self._rates = Rates.checked(rate_per_s, burst, rates or {})
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}

    def take_turn(
        self,
        key: str,
        cost: int,
        now: Moment,
        /,
        *,
        campaign: str = "",
        slot: str | None = None,
        within_s: float = math.inf,
    ) -> Turn:
        """Ask for a turn to send ``cost`` segments: see `smsretry.ports.FairLimiter`."""
        checked_cost(cost)
        return self._changed(
            key,
            now,
            lambda line, rate, at: rules.take_turn(
                line, rate, cost, at, campaign=campaign, slot=slot, within_s=within_s
            ),
        )

    def reserve(self, key: str, cost: int, now: Moment, /) -> float:
        """Reserve a slot for ``cost`` segments: see `smsretry.ports.RateLimiter`."""
        checked_cost(cost)
        return self._changed(key, now, lambda line, rate, at: rules.reserve(line, rate, cost, at))

    def slow_down(self, key: str, now: Moment, /, *, retry_after_s: float | None = None) -> None:
        """Note that the provider refused a text of ``key`` as too fast: see `smsretry.ports.FairLimiter`."""
        self._changed(
            key,
            now,
            lambda line, rate, at: (rules.slow_down(line, rate, at, retry_after_s=retry_after_s), None),
        )

    def clear(self, key: str) -> None:
        """Forget every place that was given under ``key``: for a queue that was emptied by hand."""
        with self._lock:
            self._lines.pop(key, None)

    def _changed(self, key: str, now: Moment, change: Callable[[Line, Rate, float], tuple[Line, A]]) -> A:
        rate, at = self._rates.of(key), in_microseconds(now)
        with self._lock:
            line, answer = change(self._lines.get(key) or rules.new_line(at, rate), rate, at)
            self._lines[key] = line
        return answer
