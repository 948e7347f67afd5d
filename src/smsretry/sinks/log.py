"""Write every event as one log line with structured fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar, Final

from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure
from smsretry.core.outcome import GiveUpReason

_LEVELS: Final[Mapping[type[Event], int]] = {
    MessageAccepted: logging.INFO,
    RetryScheduled: logging.WARNING,
    MessageDeferred: logging.INFO,
    MessageFailed: logging.ERROR,
}


class LogSink:
    """Log events to ``logger`` (by default ``smsretry.events``); the whole event is in ``extra["smsretry"]``."""

    blocks: ClassVar[bool] = False
    """It may be called in a running loop, as logging is."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("smsretry.events")

    def record(self, event: Event, /) -> None:
        """Log ``event`` on the level that fits what happened."""
        level = logging.INFO if _is_suppressed(event) else _LEVELS.get(type(event), logging.INFO)
        if not self._logger.isEnabledFor(level):
            return
        self._logger.log(level, "%s: %s", event.message_id, _told(event), extra={"smsretry": event.to_dict()})


def _is_suppressed(event: Event) -> bool:
    return isinstance(event, MessageFailed) and event.reason is GiveUpReason.SUPPRESSED


def _told(event: Event) -> str:
    match event:
        case MessageAccepted():
            how = ", as a look-up showed" if event.looked_up else ""
            return f"accepted as {event.receipt.provider_id} at attempt {event.attempt}{how}"
        case RetryScheduled():
            return f"attempt {event.attempt} failed ({_why(event.failure)}), next in {event.delay_s:g} s"
        case MessageDeferred(failure=None):
            return f"put off for {event.delay_s:g} s ({event.reason})"
        case MessageDeferred(failure=Failure() as failure):
            why = f"after attempt {event.attempt} failed ({_why(failure)})"
            return f"put off for {event.delay_s:g} s ({event.reason}) {why}"
        case MessageFailed():
            return _ended(event)
        case _:
            return event.type


def _ended(event: MessageFailed) -> str:
    if _is_suppressed(event):
        return f"not sent: {event.reason} ({_why(event.failure)})"
    return f"failed for good after {event.attempt} attempt(s): {event.reason}, {_why(event.failure)}"


def _why(failure: Failure) -> str:
    return failure.kind if failure.code is None else f"{failure.kind} {failure.code}"
