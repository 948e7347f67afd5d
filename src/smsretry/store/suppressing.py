"""Keep who must not be texted: one row for each number and sender."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TextIO

import sqlalchemy as sa

from smsretry.core.delivery import LONGEST_WORD
from smsretry.core.mask import mask_numbers_in, shown
from smsretry.core.suppression import Suppression, SuppressionReason
from smsretry.errors import InvalidMessage
from smsretry.store.database import Database
from smsretry.store.schema import Schema
from smsretry.store.writing import Writer

COLUMNS: Final = ("to", "sender", "reason", "code", "since")
"""The columns of a file; only the first is needed in one that is imported."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Count what an import read."""

    added: int
    known: int
    """Entries that were on the list already, and stay as they were."""


class Suppressions:
    """Hold the statements of the list."""

    def __init__(self, schema: Schema, database: Database, writer: Writer) -> None:
        self._table = schema.suppressed
        self._writer = writer
        keys = ["recipient", "sender"]
        self._insert = database.insert(self._table).on_conflict_do_nothing(index_elements=keys)
        row = self._table.c
        key = sa.bindparam("key", type_=sa.String())
        mine = sa.or_(row.sender == "", row.sender == key, key == "")
        self._find = sa.select(self._table).where(row.recipient == sa.bindparam("to"), mine).order_by(row.sender)

    def find(self, connection: sa.Connection, to: str, sender: str) -> Suppression | None:
        """Return the entry by which ``sender``, or whoever it is where it is '', must not text ``to``.

        That for every sender goes first.
        """
        row = connection.execute(self._find, {"to": to, "key": sender}).first()
        return None if row is None else _entry(row)

    def add(self, connection: sa.Connection, entries: Iterable[Suppression]) -> int:
        """Put ``entries`` on the list and return how many are new; those that are there stay as they are."""
        now = self._writer.now(connection)
        rows = [_row(entry, now) for entry in sorted(entries, key=lambda entry: (entry.to, entry.sender))]
        options = {"preserve_rowcount": True}
        return sum(connection.execute(self._insert, row, execution_options=options).rowcount for row in rows)

    def remove(self, connection: sa.Connection, to: str, sender: str) -> bool:
        """Take the entry of this number and sender off the list."""
        row = self._table.c
        gone = connection.execute(sa.delete(self._table).where(row.recipient == to, row.sender == sender))
        return gone.rowcount > 0

    def all(self, connection: sa.Connection, to: str | None = None) -> Iterator[Suppression]:
        """Yield every entry, or those of one number, by number and sender, without holding them all in memory."""
        kept = self._table.c
        rows = sa.select(self._table).order_by(kept.recipient, kept.sender)
        if to is not None:
            rows = rows.where(kept.recipient == to)
        for row in connection.execute(rows, execution_options={"yield_per": _BATCH}):
            yield _entry(row)


def read_csv(file: TextIO) -> Iterator[list[Suppression]]:
    """Yield the entries in ``file`` by the hundred; raise `smsretry.InvalidMessage` that names a line that is none."""
    reader = csv.DictReader(file)
    unknown = set(reader.fieldnames or ()) - set(COLUMNS)
    if "to" not in (reader.fieldnames or ()) or unknown:
        got = mask_numbers_in(", ".join(reader.fieldnames or ()))[:80] or "nothing"
        names = ", ".join(COLUMNS)
        why = " Its columns are parted by ';': save it with commas." if ";" in got else ""
        raise InvalidMessage(f"The first line must name columns ({names}, of which only to is needed), got {got}.{why}")
    batch: list[Suppression] = []
    for line in reader:
        try:
            batch.append(_entry_in(line))
        except (TypeError, ValueError) as error:
            raise InvalidMessage(f"Line {reader.line_num} is no entry: {error}") from None
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def write_csv(file: TextIO, entries: Iterable[Suppression]) -> int:
    """Write ``entries`` under a header, and return how many there were."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = 0
    for count, entry in enumerate(entries, start=1):  # noqa: B007  # it is the answer
        since = "" if entry.since is None else entry.since.isoformat()
        writer.writerow([entry.to, entry.sender, entry.reason.value, entry.code or "", since])
    return count


def _entry_in(line: dict[str, Any]) -> Suppression:
    told = {name: (line.get(name) or "").strip() for name in COLUMNS}
    since, reason = _since_in(told["since"]), _reason_in(told["reason"])
    own: dict[str, Any] = {"code": told["code"] or None, "since": since, "reason": reason}
    return Suppression(to=told["to"].removeprefix("'"), sender=told["sender"], **own)


def _since_in(text: str) -> datetime | None:
    if not text:
        return None
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        msg = f"since must be in ISO 8601, such as 2026-01-01T00:00:00Z, got {shown(text)}."
        raise ValueError(msg) from None
    if since.utcoffset() is None:
        msg = f"since needs a time zone, such as 2026-01-01T00:00:00Z, got {text!r}."
        raise ValueError(msg)
    return since


def _reason_in(text: str) -> SuppressionReason:
    if text in {"", *SuppressionReason}:
        return SuppressionReason(text or SuppressionReason.IMPORTED)
    msg = f"reason must be one of {', '.join(SuppressionReason)}, or empty, got {shown(text)}."
    raise ValueError(msg)


def _row(entry: Suppression, now: datetime) -> dict[str, Any]:
    return {
        "recipient": entry.to,
        "sender": entry.sender,
        "reason": entry.reason.value,
        "code": entry.code and entry.code[:LONGEST_WORD],
        "since": entry.since or now,
    }


def _entry(row: Any) -> Suppression:
    reason = SuppressionReason(row.reason)
    return Suppression(to=row.recipient, sender=row.sender, reason=reason, code=row.code, since=row.since)
