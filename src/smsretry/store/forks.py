"""Keep transactions and forks of one process apart."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class ForkGate:
    """Let the transactions of all threads run side by side, and a fork only while none of another thread runs.

    A child inherits SQLite's notes of the locks that are held, but not the locks: it would take a lock that a thread of
    its parent held for its own, for ever, and go on writing to a log that its parent has deleted meanwhile.
    """

    def __init__(self) -> None:
        self.renew()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Wait for a fork that is under way, and keep others away until the end of the block."""
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._forks or thread in self._inside)  # one inside may go deeper
            self._inside[thread] += 1
        try:
            yield
        finally:
            with self._changed:  # another one, in a child that was forked in here
                self._leave(thread)
                self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Let no new transaction begin, and wait for those of other threads, ``timeout_s`` seconds at most."""
        thread = threading.get_ident()
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: self._inside.keys() <= {thread}, timeout_s)

    def open(self) -> None:
        """Let transactions begin again: the fork is over, and this is the parent."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def renew(self) -> None:
        """Begin anew in a child, which has one thread and may have inherited a lock that nobody will open."""
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._forks = 0

    def _leave(self, thread: int) -> None:
        self._inside[thread] -= 1
        if self._inside[thread] <= 0:
            del self._inside[thread]
