"""What a provider can answer when it is asked whether it took a text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from smsretry.core.message import Receipt


@dataclass(frozen=True, slots=True)
class Found:
    """Say that the provider has it: exactly one listed message can be this one."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class NotSeen:
    """Say that a complete, error-free listing of that number's messages holds none that could be this one.

    It is no proof until some time after the send: ``as_of`` is when the listing was asked for (aware UTC).
    """

    as_of: datetime

    def __post_init__(self) -> None:
        if self.as_of.utcoffset() is None:
            msg = f"as_of must be an aware datetime, got {self.as_of!r}. Use datetime.now(UTC)."
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class CannotTell:
    """Say that the listing settles nothing (refused, rate limited, failed, ambiguous); ``why`` is for people."""

    why: str


LookUp = Found | NotSeen | CannotTell
"""The answers of ``find``."""
