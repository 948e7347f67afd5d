"""Say what a rate limiter answers, and what holds where it cannot be reached."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique


@dataclass(frozen=True, slots=True)
class Turn:
    """Answer whoever asks for a turn: go now where ``wait_s`` is 0, else come back in so many seconds with ``slot``.

    ``slot`` is the limiter's own note of the place that it keeps; whoever brings it back asks for that place and for no
    new one.
    """

    wait_s: float
    slot: str | None = None


@unique
class OnUnreachable(StrEnum):
    """Choose what becomes of messages while the rate limiter cannot be reached."""

    HOLD = "hold"
    """Put them off for some seconds, without costing a retry, until it answers or their time is over."""
    GO_ON = "go_on"
    """Send them without a limit: the provider slows down whoever is too fast, and its refusals cost retries."""
