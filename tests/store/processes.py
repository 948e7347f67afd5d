"""Tell stores from several processes: ``python -m tests.store.processes PREFIX SCENARIO=URL …``.

Each scenario has tables of its own, named after the prefix and the scenario. They run in one process that forks, since
importing SQLAlchemy takes longer than all of them.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest
import sqlalchemy as sa
from tests.store.told import accepted, failed, retry, unknown

from smsretry import ConfigurationError, Event
from smsretry.store import SQLStore

WORKERS = 8
OWN_MESSAGES = 20
COMMON_MESSAGES = 20
FORKS = 20


def eight_workers(url: str, prefix: str) -> None:
    """Let eight processes meet a database without tables at once; the store was made before them, and never used."""
    store = SQLStore(url, table_prefix=prefix)
    children = [in_child(partial(tell, store, events_of(number))) for number in range(WORKERS)]
    for child in children:
        wait_for(child)


def events_of(number: int) -> Iterator[Event]:
    """Yield 80 events of a worker's own messages, and 20 that every worker tells."""
    for message in range(OWN_MESSAGES):
        name = f"{number}-{message}"
        yield retry(name, 1)
        yield retry(name, 2)
        yield unknown(name, 3) if message % 2 else failed(name, 3)
        yield accepted(name, 3) if message % 4 == 1 else retry(name, 1)
        yield accepted(f"common-{message}")


def fork_after_use(url: str, prefix: str) -> None:
    """Fork a process that has used its store."""
    store = SQLStore(url, table_prefix=prefix)
    outlive(store)
    store.close()


def fork_after_use_of_an_engine(url: str, prefix: str) -> None:
    """Fork a process that has used its store on an engine of its own."""
    engine = sa.create_engine(url)
    outlive(SQLStore(engine, table_prefix=prefix))
    engine.dispose()


def fork_beside_writers(url: str, prefix: str) -> None:
    """Fork again and again while other threads write; every child and every thread writes on."""
    store = SQLStore(url, table_prefix=prefix, busy_timeout_s=10.0)
    ended = threading.Event()
    threads = [threading.Thread(target=tell_until, args=(ended, store, name)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for number in range(FORKS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 dislikes a fork beside threads
            child = in_child(partial(tell, store, [accepted(f"child-{number}")]))
        wait_for(child)
    ended.set()
    for thread in threads:
        thread.join()
    tell(store, [accepted("after")])
    store.close()


def tell_until(ended: threading.Event, store: SQLStore, name: str) -> None:
    for number in itertools.count():
        if ended.is_set():
            return
        store.record(retry(f"{name}-{number}"))


def outlive(store: SQLStore) -> None:
    """Let parent and child use one store by turns and at once, and let the child outlive the parent's connections."""
    tell(store, [accepted("before")])
    child_has_begun, begin = os.pipe()
    parent_has_closed, close = os.pipe()

    def be_child() -> None:
        tell(store, [accepted("child-0")])
        os.write(begin, b"x")
        os.read(parent_has_closed, 1)
        tell(store, [accepted(f"child-{number}") for number in range(21)])

    child = in_child(be_child)
    tell(store, [accepted(f"parent-{number}") for number in range(20)])
    os.read(child_has_begun, 1)
    store.close()
    os.write(close, b"x")
    wait_for(child)
    tell(store, [accepted("after")])


def fork_in_memory(url: str, prefix: str) -> None:
    """Fork a process that has used a store in memory: the child is refused, since what it told would be lost."""
    store = SQLStore(url, table_prefix=prefix)
    tell(store, [accepted("before")])
    wait_for(in_child(partial(be_refused, store)))
    tell(store, [accepted("after")])
    assert store.campaign_summary("spring").sent == 2
    store.close()


def be_refused(store: SQLStore) -> None:
    with pytest.raises(ConfigurationError, match="lives in one process"):
        tell(store, [accepted("lost")])


def tell(store: SQLStore, events: Iterable[Event]) -> None:
    for event in events:
        store.record(event)


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a process of its own, and return its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def wait_for(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SCENARIOS = {
    "eight": eight_workers,
    "url": fork_after_use,
    "engine": fork_after_use_of_an_engine,
    "beside": fork_beside_writers,
    "memory": fork_in_memory,
}

if __name__ == "__main__":
    for told in sys.argv[2:]:
        scenario, _, place = told.partition("=")
        SCENARIOS[scenario](place, f"{sys.argv[1]}{scenario}_")
