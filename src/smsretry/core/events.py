"""What happened to a message, for analytics: never its number or text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Self

from smsretry.core.failure import Failure
from smsretry.core.message import Receipt
from smsretry.core.outcome import DeferReason, GiveUpReason


@dataclass(frozen=True)
class Event:
    """Hold what every event carries; the subclasses say what happened.

    ``attempt`` is 1 for the first send; ``started_at`` and ``at`` say when the call began and when this was decided
    (aware UTC). ``campaign`` is the message's own, and ``metadata`` a copy of its own.
    """

    type: ClassVar[str]

    message_id: str
    campaign: str | None
    metadata: Mapping[str, Any] = field(hash=False)
    round: int
    started_at: datetime
    at: datetime
    attempt: int

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Build an event that takes ``fields``, all of them by name, as its own: for the dispatcher.

        The constructor of a frozen dataclass sets its fields one by one; that would be a third of what an attempt
        costs. It is why events have no slots.
        """
        event = object.__new__(cls)
        object.__setattr__(event, "__dict__", fields)
        return event

    @property
    def event_id(self) -> str:
        """Name this event: the same one comes again with the same id, so that a sink can count it once."""
        return f"{self.message_id}/{self.round}/{self.attempt}/{self.type}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with ``type`` and ``event_id``."""
        return {
            "type": self.type,
            "event_id": self.event_id,
            "message_id": self.message_id,
            "campaign": self.campaign,
            "metadata": dict(self.metadata),
            "attempt": self.attempt,
            "round": self.round,
            "started_at": self.started_at.isoformat(),
            "at": self.at.isoformat(),
        }


@dataclass(frozen=True)
class MessageAccepted(Event):
    """The provider took the text at attempt ``attempt``; ``retries`` were made before."""

    type: ClassVar[str] = "accepted"

    receipt: Receipt
    looked_up: bool = False
    """True where a look-up proved it and not the create's own answer."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with ``type`` and ``event_id``."""
        return Event.to_dict(self) | {"receipt": self.receipt.to_dict(), "looked_up": self.looked_up}


@dataclass(frozen=True)
class RetryScheduled(Event):
    """Attempt ``attempt`` failed with ``failure``; retry number ``attempt`` follows after ``delay_s`` seconds."""

    type: ClassVar[str] = "retry_scheduled"

    failure: Failure
    delay_s: float
    due: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with ``type`` and ``event_id``."""
        own = {"failure": self.failure.to_dict(), "delay_s": self.delay_s, "due": self.due.isoformat()}
        return Event.to_dict(self) | own


@dataclass(frozen=True)
class MessageDeferred(Event):
    """The message was put off for ``delay_s`` seconds, for the ``deferral``-th time; no retry is used up.

    ``failure`` is set where an attempt was just made, the last one, and the provider must be asked before the end.
    """

    type: ClassVar[str] = "deferred"

    reason: DeferReason
    delay_s: float
    due: datetime
    deferral: int
    failure: Failure | None = None

    @property
    def event_id(self) -> str:
        """Name this event; one attempt may be put off several times."""
        return f"{self.message_id}/{self.round}/{self.attempt}/{self.type}/{self.deferral}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with ``type`` and ``event_id``."""
        return Event.to_dict(self) | {
            "reason": self.reason.value,
            "delay_s": self.delay_s,
            "due": self.due.isoformat(),
            "deferral": self.deferral,
            "failure": None if self.failure is None else self.failure.to_dict(),
        }


@dataclass(frozen=True)
class MessageFailed(Event):
    """The message ended without being accepted, because of ``failure``, for ``reason``."""

    type: ClassVar[str] = "failed"

    failure: Failure
    reason: GiveUpReason

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with ``type`` and ``event_id``."""
        return Event.to_dict(self) | {"failure": self.failure.to_dict(), "reason": self.reason.value}
