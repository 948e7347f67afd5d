"""The list of who must not be texted, in the store."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smsretry import InvalidMessage
from smsretry.core.suppression import Suppression, SuppressionReason
from smsretry.store import SQLStore

TO = "+14155550123"
THEN = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_entry_holds_for_its_sender_or_for_all(store: SQLStore) -> None:
    assert store.suppressed(TO, "MG1") is None
    store.suppress(Suppression(to=TO, sender="MG1", code="21610", since=THEN))
    assert store.suppressed(TO, "MG1") == Suppression(to=TO, sender="MG1", code="21610", since=THEN)
    assert store.suppressed(TO, "MG2") is None
    store.suppress(Suppression(to=TO, reason=SuppressionReason.IMPORTED))
    found = store.suppressed(TO, "MG1")
    assert found is not None
    assert (found.sender, found.reason) == ("", SuppressionReason.IMPORTED)
    assert found.since is not None


def test_where_nobody_says_who_sends_an_entry_for_any_sender_holds(store: SQLStore) -> None:
    store.suppress(Suppression(to=TO, sender="MG1", since=THEN))
    assert store.suppressed(TO, "") == Suppression(to=TO, sender="MG1", since=THEN)
    assert store.suppressed("+14155550199", "") is None


def test_a_code_that_is_too_long_is_cut(store: SQLStore) -> None:
    store.suppress(Suppression(to=TO, code="2" * 99))
    found = store.suppressed(TO, "")
    assert found is not None
    assert found.code == "2" * 64


def test_the_first_entry_stays_and_is_lifted_once(store: SQLStore) -> None:
    store.suppress(Suppression(to=TO, sender="MG1", code="21610", since=THEN))
    store.suppress(Suppression(to=TO, sender="MG1", reason=SuppressionReason.REFUSED))
    found = store.suppressed(TO, "MG1")
    assert found is not None
    assert found.since == THEN
    assert [store.lift(TO, "MG1"), store.lift(TO, "MG1"), store.suppressed(TO, "MG1")] == [True, False, None]


def test_the_list_is_read_by_number_and_sender(store: SQLStore) -> None:
    entries = [Suppression(to=TO), Suppression(to=TO, sender="MG1"), Suppression(to="+14155550199")]
    for entry in reversed(entries):
        store.suppress(entry)
    assert [(one.to, one.sender) for one in store.suppressions()] == [(one.to, one.sender) for one in entries]
    assert len(list(store.suppressions(TO))) == 2
    assert list(store.suppressions("+14155550100")) == []


def test_what_is_exported_can_be_imported_again(store: SQLStore, tmp_path: Path) -> None:
    entries = [Suppression(to=TO, sender="MG1", code="21610", since=THEN), Suppression(to="+14155550199", since=THEN)]
    for entry in entries:
        store.suppress(entry)
    file = tmp_path / "list.csv"
    assert store.export_suppressions(file) == 2
    assert store.lift(TO, "MG1")
    counted = store.import_suppressions(file)
    assert (counted.added, counted.known) == (1, 1)
    again = io.StringIO()
    store.export_suppressions(again)
    assert again.getvalue().encode() == file.read_bytes()


def test_a_list_of_numbers_alone_is_enough(store: SQLStore) -> None:
    numbers = "".join(f"+1415555{number:04}\n" for number in range(1_200))
    counted = store.import_suppressions(io.StringIO(f"to\n{numbers}"))
    assert (counted.added, counted.known) == (1_200, 0)
    found = store.suppressed("+14155550007", "anything")
    assert found is not None
    assert found.reason is SuppressionReason.IMPORTED


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "got nothing"),
        ("number\n1\n", "got number"),
        ("to,colour\n1,red\n", "got to, colour"),
        ("+14155550123\n+14155550124\n", r"got \*\*\*23"),
        ("to\n\n ,\n", "Line 3"),
        ("to,reason\n+14155550123,because\n", "Line 2 .*because"),
        ("to,since\n+14155550123,yesterday\n", "Line 2 .*yesterday"),
        ("to,since\n+14155550123,2026-01-01T00:00:00\n", "Line 2 .*time zone"),
        ("to\n+14155550123\n4155550108\n", r"Line 3 .*Add \+ and the country"),
        ("to\n(415) 555-0107\n", r"Line 2 .*Add \+ and the country"),
        ("to,sender\n+14155550123,15005550006\n", r"Line 2 .*sender .*Add \+ and the country"),
    ],
)
def test_a_file_that_is_no_list_is_refused_with_the_line(store: SQLStore, text: str, named: str) -> None:
    with pytest.raises(InvalidMessage, match=named):
        store.import_suppressions(io.StringIO(text))
    assert store.export_suppressions(io.StringIO()) == 0


@pytest.mark.parametrize("entry", [TO, None, (TO, "MG1")])
def test_what_is_no_entry_is_not_put_on_the_list(store: SQLStore, entry: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"must be a Suppression, got .* Use Suppression\(to=…\)") as refused:
        store.suppress(entry)
    assert TO not in str(refused.value)
    assert list(store.suppressions()) == []


def test_several_entries_are_put_on_the_list_together_or_not_at_all(store: SQLStore) -> None:
    both = [Suppression(to=TO), Suppression(to=TO, sender="MG1")]
    with pytest.raises(InvalidMessage, match="must be a Suppression, got str"):
        store.suppress_all([*both, "MG2"])  # type: ignore[list-item]
    assert list(store.suppressions()) == []
    store.suppress_all(both)
    assert [entry.sender for entry in store.suppressions()] == ["", "MG1"]


@pytest.mark.parametrize("number", ["(415) 555-0101", "4155550101", "", "+1 415 555 0101"])
def test_a_number_that_no_entry_can_hold_is_refused_and_not_called_free(store: SQLStore, number: str) -> None:
    asked: tuple[Callable[[], object], ...] = (
        lambda: store.suppressed(number, ""),
        lambda: store.lift(number, ""),
        lambda: list(store.suppressions(number)),
    )
    for ask in asked:
        with pytest.raises(InvalidMessage, match=r"to must be a number in E\.164"):
            ask()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("to,since\n+14155550123,2026-01-01\n", "since needs a time zone, such as 2026-01-01T00:00:00Z"),
        ("to,since\n+14155550123,1.2.2026\n", "since must be in ISO 8601, such as 2026-01-01T00:00:00Z"),
        ("to,reason\n+14155550123,angry\n", "reason must be one of opted_out, refused, imported, or empty"),
        ("to;sender\n+14155550123;\n", "Its columns are parted by ';': save it with commas"),
    ],
)
def test_a_file_that_is_nearly_a_list_is_told_what_to_write(store: SQLStore, text: str, why: str) -> None:
    with pytest.raises(InvalidMessage, match=re.escape(why)) as refused:
        store.import_suppressions(io.StringIO(text))
    assert TO not in str(refused.value)
