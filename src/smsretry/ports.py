"""The few verbs that the library asks of a sender, an analytics sink and a clock."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Protocol, runtime_checkable

from smsretry.core.events import Event
from smsretry.core.failure import Failure
from smsretry.core.lookup import CannotTell, Found, LookUp, NotSeen
from smsretry.core.message import Message, Receipt

__all__ = [
    "AnalyticsSink",
    "CanLookUp",
    "CannotTell",
    "Classifier",
    "Clock",
    "Found",
    "LookUp",
    "NotSeen",
    "SMSSender",
]


class SMSSender(Protocol):
    """Hand one text to one provider."""

    def send(self, message: Message, /) -> Receipt:
        """Make one attempt, one request, with a total timeout and no repeats of its own.

        Return the `Receipt` only where the provider said that it took the text; raise anything else. Raise
        `smsretry.errors.ProviderError` to state the failure; any other exception goes to the classifier.
        """
        ...


@runtime_checkable
class CanLookUp(Protocol):
    """Ask a provider whether it has a text; a sender that can do it is believed when an answer was lost."""

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Say whether the provider took ``message`` at or after ``since`` (aware UTC).

        Provider ids in ``exclude`` belong to other messages and are passed over.
        `Found` needs exactly one listed message with this recipient, text and account. `NotSeen` needs a complete,
        error-free listing without any outbound message to that number in the window that could be this one. Everything
        between, and every error, is `CannotTell`. It does not raise.
        """
        ...


class AnalyticsSink(Protocol):
    """Take note of what happened to a message."""

    def record(self, event: Event, /) -> None:
        """Store ``event``; the same ``event.event_id`` may come again and must count once.

        What it raises is logged and changes no outcome.
        """
        ...


class Clock(Protocol):
    """Tell the time."""

    def __call__(self) -> datetime:
        """Return the present moment as an aware UTC datetime."""
        ...


Classifier = Callable[[Exception], Failure | None]
"""Say what an exception of a sender means, or None to leave it to the next classifier."""
