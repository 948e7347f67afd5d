"""Tell the application how its campaign goes, and keep what it does with that from stopping the campaign."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smsretry.campaign.agenda import Progress
from smsretry.core.failure import Failure
from smsretry.core.message import Message
from smsretry.errors import ConfigurationError, InvalidMessage

OnProgress = Callable[[Progress], object]

_log: Final = logging.getLogger("smsretry")


@dataclass(slots=True)
class Reporter:
    """Call ``on_progress`` every ``every_s`` seconds, and log when the account is put on hold."""

    on_progress: OnProgress | None
    every_s: float
    _next_s: float = 0.0
    _known_hold: Failure | None = None

    def due_in_s(self) -> float:
        """Return the seconds until there is something to tell."""
        return max(0.0, self._next_s - now_s())

    def tell(self, progress: Progress) -> None:
        """Tell how it goes at this moment."""
        self._next_s = now_s() + self.every_s
        if progress.on_hold != self._known_hold:
            self._log_hold(progress.on_hold)
        if self.on_progress is None:
            return
        try:
            self.on_progress(progress)
        except Exception as error:  # noqa: BLE001  # it is told, and decides nothing
            _log.error("on_progress raised %s; the campaign goes on.", type(error).__qualname__)

    def _log_hold(self, hold: Failure | None) -> None:
        if hold is not None:
            why = f"{hold.kind} {hold.code or ''}".rstrip()
            _log.error("The campaign is on hold: the provider refuses the account (%s). It is asked every minute.", why)
        elif self._known_hold is not None:
            _log.warning("The campaign goes on: the provider serves the account again.")
        self._known_hold = hold


def now_s() -> float:
    """Return seconds on a clock that never jumps."""
    return time.monotonic()


def is_message(message: object) -> bool:
    """Say whether ``message`` is one; log it where it is not."""
    if isinstance(message, Message):
        return True
    _log.error("A campaign sends Messages, got a %s: it is left out.", type(message).__qualname__)
    return False


def log_refused(message: Message, error: InvalidMessage) -> None:
    """Log why a message is not sent."""
    _log.error("Message %s is left out: %s", message.id, error)


def check_dispatcher(dispatcher: object, *kinds: type) -> None:
    """Raise `ConfigurationError` where ``dispatcher`` is none of ``kinds``, such as a sender in its place."""
    if not isinstance(dispatcher, kinds):
        wanted = " or ".join(f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}" for kind in kinds)
        raise ConfigurationError(
            f"The second argument must be {wanted}, got {type(dispatcher).__name__}. "
            f"Pass {kinds[0].__name__}(sender), with a journal where it is to go on after a kill."
        )


def check_options(concurrency: object, every_s: object) -> None:
    """Raise `ConfigurationError` for a concurrency or an interval that cannot be."""
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise ConfigurationError(
            f"concurrency must be a whole number of 1 or more, got {concurrency!r}. It is how many are sent at once."
        )
    if not isinstance(every_s, (int, float)) or isinstance(every_s, bool) or not every_s > 0:
        raise ConfigurationError(f"progress_every_s must be more than 0, got {every_s!r}. Give it in seconds.")
