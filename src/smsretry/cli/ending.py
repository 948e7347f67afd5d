"""Let a signal to end a command unwind as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType


def end_as_by_hand() -> None:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, once, so that what was begun is put in order."""

    def end(number: int, _: FrameType | None) -> None:
        for each in ending:
            signal.signal(each, signal.SIG_IGN)  # the way out is taken once
        raise KeyboardInterrupt(signal.Signals(number).name)

    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for each in ending:
        signal.signal(each, end)
