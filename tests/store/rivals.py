"""Send the same messages from several processes: ``python -m tests.store.rivals SCENARIO URL PREFIX FOLDER``.

The texts that were sent stand in the file ``texts`` of the folder, one line each. All processes are forked from one,
since importing SQLAlchemy takes longer than the work.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.store.journeys import claimed, message
from tests.store.processes import in_child, wait_for

from smsretry import Dispatcher, Message, Receipt
from smsretry.core.outcome import AttemptState, Deferred
from smsretry.store import SQLStore

WORKERS = 8
MESSAGES = 500
BEGINS = 200


class TextFile:
    """Take every text, and write a line for it that no other process's line can be mixed with."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def send(self, one: Message, /) -> Receipt:
        os.write(self._file, f"{one.id}\n".encode())
        return Receipt("file", f"SM-{one.id}-{os.getpid()}", datetime.now(UTC))


def same_messages(store: SQLStore, folder: Path) -> Iterator[Callable[[], None]]:
    """Let each process be given all messages, each in an order of its own."""
    for number in range(WORKERS):
        yield partial(send_all, store, folder, number)


def send_all(store: SQLStore, folder: Path, number: int) -> None:
    dispatcher = Dispatcher(TextFile(folder / "texts"), journal=store)
    waiting = deque(message(f"m{one}", to=f"+1500555{one:04}") for one in range(MESSAGES))
    random.Random(number).shuffle(waiting)
    while waiting:
        one = waiting.popleft()
        if isinstance(dispatcher.attempt(one, AttemptState()), Deferred):
            waiting.append(one)
            time.sleep(0.005)  # another process has it, and is about to finish


def many_begins(store: SQLStore, folder: Path) -> Iterator[Callable[[], None]]:
    """Let each process begin messages of its own, as fast as it can."""
    del folder
    for number in range(WORKERS):
        yield partial(begin_all, store, number)


def begin_all(store: SQLStore, number: int) -> None:
    for one in range(BEGINS):
        claimed(store, message(f"m{number}-{one}", to=f"+15005{number}{one:05}"))


SCENARIOS = {"same": same_messages, "begins": many_begins}

if __name__ == "__main__":
    scenario, url, prefix, folder = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)  # a database for tests need not wait for the disk
    with SQLStore(url, table_prefix=prefix) as store:
        for child in [in_child(work) for work in SCENARIOS[scenario](store, Path(folder))]:
            wait_for(child)
