"""Hold the rates of several senders, and check what a limiter is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from smsretry.core.line import SECOND, Rate
from smsretry.errors import ConfigurationError

Moment = datetime | float
"""An aware datetime, or seconds on any clock that is used alone."""

_ORIGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Times are counted from here: the smaller the numbers, the more exact are fractions of them."""
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Hold the rate of each sender: its own one of ``named``, else ``usual``."""

    usual: Rate
    named: Mapping[str, Rate] = field(default_factory=dict)

    @classmethod
    def checked(cls, rate_per_s: float, burst: float, rates: Mapping[str, float | Rate]) -> Rates:
        """Return them; raise ValueError that names what is no rate."""
        named = {key: rate if isinstance(rate, Rate) else Rate(rate) for key, rate in rates.items()}
        return cls(usual=Rate(rate_per_s, burst), named=named)

    def of(self, key: str) -> Rate:
        """Return the rate of ``key``."""
        return self.named.get(key, self.usual)


def checked_cost(cost: int) -> int:
    """Return ``cost``; raise ValueError where it is no number of segments."""
    if type(cost) is not int or cost < 1:
        msg = f"cost must be a whole number of 1 or more, got {cost!r}. Give it in segments."
        raise ValueError(msg)
    return cost


def in_microseconds(now: Moment) -> float:
    """Return ``now`` in whole microseconds; raise `ConfigurationError` for a naive datetime."""
    if not isinstance(now, datetime):
        if not math.isfinite(now):
            msg = f"now must be a finite number of seconds, got {now!r}."
            raise ValueError(msg)
        return float(round(now * SECOND))
    if now.utcoffset() is None:
        raise ConfigurationError(f"now must be an aware datetime, got {now.isoformat()}. Use datetime.now(UTC).")
    return float((now - _ORIGIN) // _MICROSECOND)
