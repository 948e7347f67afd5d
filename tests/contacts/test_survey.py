"""A list is counted before any of it is sent."""

from __future__ import annotations

from pathlib import Path

from smsretry.contacts import Contacts, Fault, Numbers, Survey, Table, Template, surveyed
from smsretry.contacts.survey import MOST_SHOWN


def survey(folder: Path, *rows: str, template: str = "{text}") -> Survey:
    path = folder / "contacts.csv"
    path.write_text("\n".join(["phone,text", *rows]), "utf-8")
    table = Table(path)
    return surveyed(Contacts(table=table, template=Template.of(template), campaign="spring", numbers=Numbers("US")))


def number(last: int) -> str:
    return f"+1415555{last:04d}"


def test_the_rows_add_up(tmp_path: Path) -> None:
    found = survey(tmp_path, f"{number(1)},a", f"{number(1)},a", f"{number(1)},b", ",a", "1,a", f"{number(2)},")
    assert (found.messages, found.repeated, found.bad, found.rows) == (2, 1, 3, 6)
    assert found.faults == {Fault.MISSING_NUMBER: 1, Fault.UNREADABLE_NUMBER: 1, Fault.EMPTY_TEXT: 1}
    assert [bad.line for bad in found.bad_rows] == [5, 6, 7]
    assert found.repeated_lines == (3,)
    assert len(found.with_several) == 1


def test_the_segments_are_counted_and_what_makes_them_short_is_named(tmp_path: Path) -> None:
    found = survey(tmp_path, f"{number(1)},{'x' * 160}", f"{number(2)},{'x' * 161}", f"{number(3)},’😀’ {'x' * 70}")
    assert found.by_segments == {1: 1, 2: 2}
    assert found.segments == 5
    assert found.ucs2 == 1
    assert found.beyond_gsm_7 == {"’": 1, "😀": 1}


def test_the_messages_with_an_empty_gap_are_counted_with_their_lines(tmp_path: Path) -> None:
    found = survey(tmp_path, f"{number(1)},a", f"{number(2)},", template="Hi {text}, {text}")
    assert found.empty == {"text": 1}
    assert found.empty_lines == {"text": (3,)}


def test_of_very_many_bad_rows_all_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    found = survey(tmp_path, *["x,a"] * (MOST_SHOWN + 20))
    assert found.bad == MOST_SHOWN + 20
    assert len(found.bad_rows) == MOST_SHOWN


def test_a_list_of_nobody_has_no_segments(tmp_path: Path) -> None:
    found = survey(tmp_path)
    assert (found.rows, found.segments, found.ucs2) == (0, 0, 0)
