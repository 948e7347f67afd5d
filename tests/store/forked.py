"""Fork a process that has used its store: ``python -m tests.store.forked url=URL engine=URL …``."""

from __future__ import annotations

import os
import sys

import sqlalchemy as sa
from tests.store.told import accepted

from smsretry import ConfigurationError
from smsretry.store import SQLStore


def record(store: SQLStore, name: str, count: int) -> None:
    for number in range(count):
        store.record(accepted(f"{name}-{number}"))


def main(handed_in: str, url: str) -> None:
    """Let parent and child use one store by turns and at once, and let the child outlive the parent's connections."""
    engine = sa.create_engine(url)
    store = SQLStore(engine if handed_in == "engine" else url, table_prefix=f"{handed_in}_")
    record(store, "before", 1)
    child_has_begun, begin = os.pipe()
    parent_has_closed, close = os.pipe()
    child = os.fork()
    if not child:
        record(store, "child", 1)
        os.write(begin, b"x")
        os.read(parent_has_closed, 1)
        record(store, "child", 21)
        store.close()
        os._exit(0)
    record(store, "parent", 19)
    os.read(child_has_begun, 1)
    store.close()
    os.write(close, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    record(store, "after", 2)
    store.close()
    engine.dispose()


def main_in_memory() -> None:
    """Let a child use a store whose database only its parent has."""
    store = SQLStore("sqlite://")
    record(store, "before", 1)
    child = os.fork()
    if not child:
        os._exit(refused(store))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    record(store, "after", 1)
    assert store.campaign_summary("spring").sent == 2
    store.close()


def refused(store: SQLStore) -> int:
    try:
        record(store, "lost", 1)
    except ConfigurationError as error:
        return 0 if "lives in one process" in str(error) else 1
    return 2


if __name__ == "__main__":
    for scenario in sys.argv[1:]:
        way, _, place = scenario.partition("=")
        main_in_memory() if place == "sqlite://" else main(way, place)
