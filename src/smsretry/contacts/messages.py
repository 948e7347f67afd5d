"""Make a message of each row, or say what is wrong with it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from smsretry.contacts.occurrences import Occurrences
from smsretry.contacts.phone import Numbers, UnreadableNumber
from smsretry.contacts.table import Row, Table, is_utf8
from smsretry.contacts.template import Template
from smsretry.core.message import Message
from smsretry.errors import InvalidMessage

LONGEST_TEXT: Final = 1_600
"""Characters; Twilio refuses a longer text with 21617."""
NUMBER_COLUMN: Final = "phone"

_IDS: Final = uuid.UUID("6c1f6f0e-6c55-5d0a-9b0e-5b7c6a3f2d18")
_PLACEHOLDER: Final = "+15005550006"


@unique
class Fault(StrEnum):
    """Say why a row becomes no message; the words are kept as the reason of what is left out."""

    CELL_COUNT = "wrong count of cells"
    """It has more cells than the header, or fewer: what stands where, nobody can say."""
    NOT_UTF8 = "not UTF-8"
    """A cell that is used was written in another encoding."""
    MISSING_NUMBER = "missing number"
    """The cell of the number is empty."""
    UNREADABLE_NUMBER = "unreadable number"
    """The cell of the number holds none that can be texted."""
    EMPTY_TEXT = "empty text"
    """Nothing but spaces is left of the text."""
    LONG_TEXT = "text too long"
    """The text has more than 1,600 characters."""
    UNSENDABLE = "unsendable text"
    """The text holds a character that no provider takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Hold a message, and the columns of its template that are empty in its row."""

    line: int
    message: Message
    empty: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """Stand for a row with the number and the text of an earlier one: it is sent once."""

    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """Say what is wrong with a row; ``id`` is the same for the same cells, and ``detail`` repeats none of them."""

    line: int
    fault: Fault
    detail: str
    id: str


Item = Ready | Repeated | Bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Contacts:
    """Make the messages of ``campaign`` from the rows of ``table``.

    The id of a message is a UUID made from the campaign, the number and which of the number's texts it is. It is
    therefore the same when the file is read again, sorted otherwise or with rows added, and when the template was
    reworded. Only a number with several texts depends on their order; `smsretry.store.SQLStore.compare` tells where
    that has changed. Who knows the campaign can find out the number by trying all of them: an id hides it from a
    reader and not from an attacker.

    Raises `smsretry.ConfigurationError` for a column that is not there, and `smsretry.InvalidMessage` for a campaign's
    name that no message takes.
    """

    table: Table
    template: Template
    campaign: str
    numbers: Numbers
    number_column: str = NUMBER_COLUMN

    def __post_init__(self) -> None:
        Message(_PLACEHOLDER, "-", campaign=self.campaign)
        for column in (self.number_column, *self.template.columns):
            self.table.index_of(column)

    def items(self, occurrences: Occurrences | None = None) -> Iterator[Item]:
        """Yield what each row becomes, in the file's order; ``occurrences`` are new ones unless they are given.

        Raises `smsretry.ConfigurationError` as `Table.rows` does.
        """
        occurrences = Occurrences() if occurrences is None else occurrences
        ids = name_space_of(self.campaign)
        to, gaps = self.table.index_of(self.number_column), [self.table.index_of(one) for one in self.template.columns]
        for row in self.table.rows():
            try:
                yield self._item(row, to, gaps, ids, occurrences)
            except _Unfit as unfit:
                fault, detail = unfit.args
                yield Bad(line=row.line, fault=fault, detail=detail, id=_row_id(ids, row))

    def messages(self, occurrences: Occurrences | None = None) -> Iterator[Message]:
        """Yield the messages alone, one by one: what `smsretry.campaign.run_campaign` takes."""
        return (item.message for item in self.items(occurrences) if isinstance(item, Ready))

    def message_id(self, number: str, occurrence: int) -> str:
        """Return the id of the ``occurrence``-th text to ``number`` (E.164); the first is 1."""
        return message_id_of(name_space_of(self.campaign), number, occurrence)

    def _item(self, row: Row, to: int, gaps: list[int], ids: uuid.UUID, occurrences: Occurrences) -> Item:
        if len(row.cells) != len(self.table.columns):
            raise _Unfit(Fault.CELL_COUNT, f"has {len(row.cells)}, and the header {len(self.table.columns)}")
        values = [row.cells[gap] for gap in gaps]
        number, text = self._read(row.cells[to]), _checked(self.template.render(values))
        occurrence = occurrences.number_of(number, text)
        if not occurrence:
            return Repeated(line=row.line)
        message_id = message_id_of(ids, number, occurrence)
        try:
            message = Message(number, text, id=message_id, campaign=self.campaign)
        except InvalidMessage as error:
            raise _Unfit(Fault.UNSENDABLE, str(error)) from None
        empty = tuple(name for name, value in zip(self.template.columns, values, strict=True) if not value)
        return Ready(line=row.line, message=message, empty=empty)

    def _read(self, cell: str) -> str:
        if not cell:
            raise _Unfit(Fault.MISSING_NUMBER, "")
        try:
            return self.numbers.read(cell)
        except UnreadableNumber as error:
            raise _Unfit(Fault.UNREADABLE_NUMBER, str(error)) from None


class _Unfit(Exception):
    """Say which `Fault` a row has, and a detail."""


def message_id_of(ids: uuid.UUID, number: str, occurrence: int) -> str:
    """Return the id of the ``occurrence``-th text to ``number``; ``ids`` is the campaign's name space."""
    return str(uuid.uuid5(ids, f"{number}/{occurrence}"))


def name_space_of(campaign: str) -> uuid.UUID:
    """Return what tells the ids of ``campaign`` from those of others."""
    return uuid.uuid5(_IDS, campaign)


def _checked(text: str) -> str:
    if not text.strip():
        raise _Unfit(Fault.EMPTY_TEXT, "")
    if not is_utf8(text):
        raise _Unfit(Fault.NOT_UTF8, "save the file as UTF-8")
    if len(text) > LONGEST_TEXT:
        raise _Unfit(Fault.LONG_TEXT, f"has {len(text):,} characters, and {LONGEST_TEXT:,} are the most")
    return text


def _row_id(ids: uuid.UUID, row: Row) -> str:
    cells = "\x1f".join(row.cells).encode(errors="surrogateescape")
    return str(uuid.uuid5(ids, f"row/{hashlib.sha256(cells).hexdigest()}"))
