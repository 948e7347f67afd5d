"""Be eight workers that tell one store: ``python -m tests.store.worker URL PREFIX``.

The store stands at module level, as in an application, and the workers are forked off before it was ever used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from tests.store.told import accepted, failed, retry, unknown

from smsretry import Event
from smsretry.store import SQLStore

WORKERS = 8
OWN_MESSAGES = 20
COMMON_MESSAGES = 20


def events_of(number: int) -> Iterator[Event]:
    """Yield 80 events of a worker's own messages, and 20 that every worker tells."""
    for message in range(OWN_MESSAGES):
        name = f"{number}-{message}"
        yield retry(name, 1)
        yield retry(name, 2)
        yield unknown(name, 3) if message % 2 else failed(name, 3)
        yield accepted(name, 3) if message % 4 == 1 else retry(name, 1)
        yield accepted(f"common-{message}")


def work(store: SQLStore, number: int) -> None:
    """Tell everything that one worker has to tell."""
    for event in events_of(number):
        store.record(event)
    store.close()


def in_child(store: SQLStore, number: int) -> int:
    """Work in a process of its own, and return its id."""
    child = os.fork()
    if child:
        return child
    try:
        work(store, number)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def main(url: str, prefix: str) -> int:
    """Let all workers meet the database at once; return how many failed."""
    store = SQLStore(url, table_prefix=prefix)
    children = [in_child(store, number) for number in range(WORKERS)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
