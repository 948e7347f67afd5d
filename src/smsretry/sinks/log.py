"""Write every event as one log line with structured fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled

_LEVELS: Final[Mapping[type[Event], int]] = {
    MessageAccepted: logging.INFO,
    RetryScheduled: logging.WARNING,
    MessageDeferred: logging.INFO,
    MessageFailed: logging.ERROR,
}


class LogSink:
    """Log events to ``logger`` (by default ``smsretry.events``); the whole event is in ``extra["smsretry"]``."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("smsretry.events")

    def record(self, event: Event, /) -> None:
        """Log ``event`` on the level that fits what happened."""
        level = _LEVELS.get(type(event), logging.INFO)
        if not self._logger.isEnabledFor(level):
            return
        self._logger.log(level, "%s: %s", event.message_id, _told(event), extra={"smsretry": event.to_dict()})


def _told(event: Event) -> str:
    match event:
        case MessageAccepted():
            return f"accepted as {event.receipt.provider_id} at attempt {event.attempt}"
        case RetryScheduled():
            return f"attempt {event.attempt} failed ({event.failure.kind}), next in {event.delay_s:g} s"
        case MessageDeferred():
            return f"put off for {event.delay_s:g} s ({event.reason})"
        case MessageFailed():
            return f"failed for good after {event.attempt} attempt(s): {event.reason}, {event.failure.kind}"
        case _:
            return event.type
