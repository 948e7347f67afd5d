"""The page of the queues says what the contract kit found, of every adapter."""

from __future__ import annotations

from pathlib import Path

import smsretry.adapters
from tests.queues.table import BEGIN, PAGE, PROMISES, Result, with_table, written


def adapters() -> set[str]:
    """Name the adapters for queues."""
    folder = Path(smsretry.adapters.__path__[0])
    names = {path.stem for path in folder.iterdir() if not path.name.startswith("_")}
    return names - {"callables"}


def test_every_adapter_and_every_promise_is_on_the_page():
    table = PAGE.read_text("utf-8").partition(BEGIN)[2]
    assert [name for name in sorted(adapters()) if f"| {name}" not in table] == []
    assert [name for name in PROMISES if f"**{name.replace('_', ' ')}.**" not in table] == []
    assert "broken" not in table


def test_what_broke_and_what_was_not_offered_is_told_with_its_reason():
    first, second, *_ = PROMISES
    checks = {first: "broken: waited in vain", second: "skipped: the queue keeps no results"}
    table = written([Result(name="toy", versions={"toy": "1.2", "redis": "7.0"}, checks=checks)])
    assert "| toy | **broken** | – |" in table
    assert table.count("toy 1.2, redis 7.0 |") == 1
    assert "- toy, 1: broken: waited in vain" in table
    assert "- toy, 2: skipped: the queue keeps no results" in table


def test_writing_the_page_twice_changes_nothing():
    page = with_table(f"# Words\n\n{BEGIN}\nold", "| a |")
    assert page == f"# Words\n\n{BEGIN}\n\n| a |\n"
    assert with_table(page, "| a |") == page
