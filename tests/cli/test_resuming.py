"""Before a campaign goes on, the list is compared with what the journal knows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsretry import Message
from smsretry.cli.resuming import MOST_MOVED, Known, known_before, known_of
from smsretry.cli.sending import opened
from smsretry.contacts import Contacts, Numbers, Occurrences, Table, Template
from smsretry.store import SQLStore

Rows = list[tuple[str, str]]
ANN, BOB = "+14155550101", "+14155550102"


def contacts(folder: Path, rows: Rows, template: str = "{text}") -> Contacts:
    path = folder / f"{uuid.uuid4()}.csv"
    path.write_text("\n".join(["phone,text", *(f"{number},{text}" for number, text in rows)]))
    return Contacts(table=Table(path), template=Template.of(template), campaign="spring", numbers=Numbers())


OPENED: list[SQLStore] = []


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    """Close every store of a test: where one is forgotten, sqlite3 warns of it in another test."""
    yield
    while OPENED:
        OPENED.pop().close()


def new_store() -> SQLStore:
    OPENED.append(SQLStore("sqlite://"))
    return OPENED[-1]


def begun(folder: Path, rows: Rows) -> SQLStore:
    """Return a store in which a campaign with ``rows`` is known."""
    store = new_store()
    store.plan(contacts(folder, rows).messages())
    return store


def ids(folder: Path, rows: Rows, known: Known) -> dict[tuple[str, str], str]:
    made = [
        (message.to, message.body, str(message.id))
        for message in contacts(folder, rows).messages(Occurrences(known.places))
    ]
    assert len({message_id for *_, message_id in made}) == len(made)
    return {(number, text): message_id for number, text, message_id in made}


def test_the_same_list_is_known_as_it_is(tmp_path: Path) -> None:
    rows = [(ANN, "a"), (ANN, "b"), (BOB, "a")]
    known = known_of(contacts(tmp_path, rows), begun(tmp_path, rows))
    assert known == Known(messages=3)


def test_a_row_that_was_added_is_new(tmp_path: Path) -> None:
    known = known_of(contacts(tmp_path, [(BOB, "b"), (ANN, "a")]), begun(tmp_path, [(ANN, "a")]))
    assert known == Known(messages=1)


def test_a_reworded_text_is_told_with_its_line(tmp_path: Path) -> None:
    known = known_of(contacts(tmp_path, [(ANN, "a"), (BOB, "c")]), begun(tmp_path, [(ANN, "a"), (BOB, "b")]))
    assert known.changed_lines == (3,)


def test_of_a_number_with_several_texts_the_changed_one_is_told(tmp_path: Path) -> None:
    before = begun(tmp_path, [(ANN, "a"), (ANN, "b")])
    assert known_of(contacts(tmp_path, [(ANN, "c"), (ANN, "a")]), before).changed_lines == (2,)


def test_of_several_texts_one_may_be_left_out(tmp_path: Path) -> None:
    before = begun(tmp_path, [(ANN, "a"), (ANN, "b")])
    rows = [(ANN, "b")]
    known = known_of(contacts(tmp_path, rows), before)
    assert known.changed_lines == ()
    assert all(before.compare(contacts(tmp_path, rows).messages(Occurrences(known.places))).values())


def test_a_template_that_was_reworded_for_very_many_is_told_with_all_lines(tmp_path: Path) -> None:
    rows = [(f"+1415{number:07d}", "a") for number in range(MOST_MOVED + 5)]
    known = known_of(contacts(tmp_path, rows, "Dear {text}"), begun(tmp_path, rows))
    assert len(known.changed_lines) == MOST_MOVED + 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.data())
def test_a_list_that_was_sorted_otherwise_and_made_longer_gives_every_known_message_its_id(
    tmp_path: Path, data: st.DataObject
) -> None:
    row = st.tuples(st.sampled_from([ANN, BOB]), st.sampled_from("abcdef"))
    before = data.draw(st.lists(row, unique=True))
    after = data.draw(st.permutations([*before, *data.draw(st.lists(row))]))
    first = ids(tmp_path, before, Known(messages=0))
    known = known_of(contacts(tmp_path, list(after)), begun(tmp_path, before))
    assert known.changed_lines == ()
    assert first.items() <= ids(tmp_path, list(after), known).items()


def test_a_campaign_that_is_there_is_not_begun_again(tmp_path: Path) -> None:
    rows = [(ANN, "a")]
    with pytest.raises(click.ClickException, match=r"already: 1 messages.*--resume"):
        known_before(contacts(tmp_path, rows), begun(tmp_path, rows), resume=False)


def test_a_campaign_that_is_not_there_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"no campaign 'spring'.*without --resume"):
        known_before(contacts(tmp_path, [(ANN, "a")]), new_store(), resume=True)


def test_a_changed_list_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"another text than when.*line 2"):
        known_before(contacts(tmp_path, [(ANN, "b")]), begun(tmp_path, [(ANN, "a")]), resume=True)


def test_a_store_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database at all, " * 100)
    told = pytest.raises(click.ClickException, match=r"cannot be used: file is not a database")
    with told, opened(str(tmp_path / "notes.txt"), create=True) as store:
        known_before(contacts(tmp_path, [(ANN, "a")]), store, resume=False)


def test_what_is_left_out_is_not_known_as_a_message(tmp_path: Path) -> None:
    store = new_store()
    store.skipped("spring:1", "no consent", campaign="spring")
    assert store.compare([Message(ANN, "a", id="spring:1")]) == {}
