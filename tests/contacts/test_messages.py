"""A row becomes a message whose id holds, or it is told what is wrong with it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from smsretry import ConfigurationError, InvalidMessage
from smsretry.contacts import Bad, Contacts, Fault, Item, Numbers, Ready, Repeated, Table, Template

ANN, BOB, CID = "+14155550101", "+14155550102", "+14155550103"
ROWS = [f"{ANN},Ann", f"{BOB},Bob", f"{CID},Cid"]


def contacts(folder: Path, rows: list[str], template: str = "Hi {name}", **options: str) -> Contacts:
    path = folder / "contacts.csv"
    path.write_bytes("\n".join(["phone,name", *rows]).encode(errors="surrogateescape"))
    campaign = options.pop("campaign", "spring")
    return Contacts(
        table=Table(path), template=Template.of(template), campaign=campaign, numbers=Numbers("US"), **options
    )


def items(folder: Path, rows: list[str], template: str = "Hi {name}", **options: str) -> list[Item]:
    return list(contacts(folder, rows, template, **options).items())


def ids(folder: Path, rows: list[str], template: str = "Hi {name}", **options: str) -> dict[tuple[str, str], str]:
    """Return the id of each message under its number and text."""
    made = [item.message for item in items(folder, rows, template, **options) if isinstance(item, Ready)]
    assert len({message.id for message in made}) == len(made)
    return {(message.to, message.body): str(message.id) for message in made}


def test_a_row_becomes_a_message_of_the_campaign(tmp_path: Path) -> None:
    (ready,) = items(tmp_path, ["(415) 555-0101,Ann"])
    assert isinstance(ready, Ready)
    assert (ready.line, ready.message.to, ready.message.body) == (2, ANN, "Hi Ann")
    assert ready.message.campaign == "spring"


def test_the_ids_are_the_same_when_the_file_is_read_again_sorted_otherwise_or_longer(tmp_path: Path) -> None:
    known = ids(tmp_path, ROWS)
    rows = [*ROWS, "+14155550199,Dan"]
    for _ in range(5):
        random.Random(7).shuffle(rows)
        assert known.items() <= ids(tmp_path, rows).items()


def test_the_ids_are_the_same_when_the_template_is_reworded(tmp_path: Path) -> None:
    assert list(ids(tmp_path, ROWS).values()) == list(ids(tmp_path, ROWS, "Hello {name}").values())


def test_the_ids_do_not_change_with_the_version_of_the_library(tmp_path: Path) -> None:
    assert ids(tmp_path, ROWS[:1]) == {(ANN, "Hi Ann"): "cb3043da-fb12-5308-ab7f-9782030a0dc0"}


def test_the_ids_of_another_campaign_are_others(tmp_path: Path) -> None:
    assert not {*ids(tmp_path, ROWS).values()} & {*ids(tmp_path, ROWS, campaign="summer").values()}


def test_an_id_does_not_show_the_number(tmp_path: Path) -> None:
    assert all(number[2:] not in message_id for (number, _), message_id in ids(tmp_path, ROWS).items())


def test_a_number_with_another_text_is_a_second_message(tmp_path: Path) -> None:
    both = ids(tmp_path, [f"{ANN},Ann", f"{ANN},Anna"])
    assert len(both) == 2
    assert both.items() >= ids(tmp_path, [f"{ANN},Ann"]).items()


def test_a_row_with_the_number_and_text_of_an_earlier_one_is_sent_once(tmp_path: Path) -> None:
    once, again, third = items(tmp_path, [f"{ANN},Ann", "415-555-0101, Ann", f"{BOB},Ann"])
    assert isinstance(once, Ready)
    assert again == Repeated(line=3)
    assert isinstance(third, Ready)


@pytest.mark.parametrize(
    ("row", "fault", "detail"),
    [
        (",Ann", Fault.MISSING_NUMBER, ""),
        ("12,Ann", Fault.UNREADABLE_NUMBER, "digits"),
        (f"{ANN}", Fault.CELL_COUNT, "has 1, and the header 2"),
        (f"{ANN},Ann,x", Fault.CELL_COUNT, "has 3, and the header 2"),
        (f"{ANN},", Fault.EMPTY_TEXT, ""),
        (f"{ANN},{'x' * 1_601}", Fault.LONG_TEXT, "1,601 characters"),
        (f"{ANN},Ren\udce9", Fault.NOT_UTF8, "UTF-8"),
        (f"{ANN},A\0n", Fault.UNSENDABLE, "NUL"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_without_its_number(
    tmp_path: Path, row: str, fault: Fault, detail: str
) -> None:
    good, bad = items(tmp_path, [f"{BOB},Bob", row], "{name}")
    assert isinstance(good, Ready)
    assert isinstance(bad, Bad)
    assert (bad.line, bad.fault) == (3, fault)
    assert detail in bad.detail
    assert ANN[2:] not in bad.detail


def test_a_text_of_1600_characters_is_sent(tmp_path: Path) -> None:
    assert isinstance(items(tmp_path, [f"{ANN},{'x' * 1_600}"], "{name}")[0], Ready)


def test_what_is_wrong_in_a_cell_that_nobody_uses_does_not_matter(tmp_path: Path) -> None:
    assert isinstance(items(tmp_path, [f"{ANN},Ren\udce9"], "Hi")[0], Ready)


def test_a_bad_row_has_the_same_id_wherever_it_stands(tmp_path: Path) -> None:
    first, _ = items(tmp_path, ["12,Ann", f"{BOB},Bob"])
    _, second, other = items(tmp_path, [f"{BOB},Bob", "12,Ann", "12,Bob"])
    assert isinstance(first, Bad)
    assert isinstance(second, Bad)
    assert isinstance(other, Bad)
    assert first.id == second.id != other.id


def test_the_columns_that_are_empty_are_told(tmp_path: Path) -> None:
    (ready,) = items(tmp_path, [f"{ANN},"], "Hi {name} {phone}")
    assert isinstance(ready, Ready)
    assert ready.empty == ("name",)


def test_a_column_that_is_not_there_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no column 'nme'. It has: phone, name"):
        contacts(tmp_path, ROWS, "Hi {nme}")
    with pytest.raises(ConfigurationError, match="no column 'mobile'"):
        contacts(tmp_path, ROWS, number_column="mobile")


def test_a_campaign_that_no_message_takes_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidMessage, match="campaign"):
        contacts(tmp_path, ROWS, campaign="")
