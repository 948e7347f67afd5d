"""Let a signal to end a command unwind as Ctrl-C does."""

from __future__ import annotations

import signal
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

    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for each in ending:
        signal.signal(each, end)
