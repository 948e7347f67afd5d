"""Let a signal to end a command unwind as Ctrl-C does, and say how far it was."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
"""What a shell says of a command that Ctrl-C ended."""


def end_as_by_hand() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, once, so that what was begun is put in order."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in ending:
            signal.signal(each, signal.SIG_IGN)  # the way out is taken once
        by_hand = signal.getsignal(signal.SIGINT)
        if callable(by_hand):  # a running loop has its own, which lets tasks end
            by_hand(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt(signal.Signals(number).name)

    ending = _ending()
    for each in ending:
        signal.signal(each, end)


def end_by_itself() -> None:
    """Let SIGTERM and SIGHUP end nothing any more: all is done, and what came of it is still to be said."""
    for each in _ending():
        signal.signal(each, signal.SIG_IGN)


@dataclass(slots=True)
class Course:
    """Know how far a campaign is, so that whoever stops it is told the truth, wherever that is."""

    has_begun: bool = False
    """From now on texts may be sent."""
    has_ended: bool = False
    """Every message has."""

    def where_it_stopped(self) -> str:
        """Return what is to be said to whoever stopped it here."""
        if not self.has_begun:
            return "Stopped before this run sent a text."
        again = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
        ended = " when every message had ended. To see what became of them:" if self.has_ended else ". To go on:"
        return f"Stopped{ended}\n{shlex.join(['smsretry', *again])}"


def _ending() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
