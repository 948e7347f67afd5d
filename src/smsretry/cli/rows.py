"""Tell which rows of a list failed, and which messages of its campaign are in no row of it."""

from __future__ import annotations

import csv
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from smsretry.cli.options import MENDABLE
from smsretry.contacts import Contacts, Occurrences, Ready, Row
from smsretry.contacts.occurrences import Place
from smsretry.core.outcome import GiveUpReason
from smsretry.store import MessageState, SQLStore

MARKS: Final = ("smsretry_line", "smsretry_kind", "smsretry_code", "smsretry_reason")
"""The columns that are added to a row that failed: a list may have a column ``code`` of its own."""
_MOST_TOLD: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Hold a list, and what its messages became; ``places`` as in `smsretry.cli.resuming.Known`."""

    contacts: Contacts
    places: Mapping[Place, int]
    store: SQLStore

    def write_failed(self, target: Path) -> int:
        """Write the rows that ended without a text, with `MARKS`, and return how many there were.

        The file is a list itself: it may be sent as a campaign of its own.
        """
        table, found = self.contacts.table, self._in_state(MessageState.FAILED, MessageState.EXPIRED)
        own = [place for place, name in enumerate(table.columns) if name not in MARKS]
        with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, delimiter=table.delimiter)
            writer.writerow([*(table.columns[place] for place in own), *MARKS])
            count = 0
            for row, ready in self._ready() if found else ():
                if (end := found.get(str(ready.message.id))) is not None:
                    count += 1
                    why = (end[mark.removeprefix("smsretry_")] for mark in MARKS[1:])
                    writer.writerow([*(row.cells[place] for place in own), row.line, *why])
        return count

    def left_out(self) -> tuple[str, ...]:
        """Return the ids of the messages that wait to be sent and are in no row."""
        waiting = self._in_state(MessageState.PENDING)
        for _, ready in self._ready():
            waiting.pop(str(ready.message.id), None)
        return tuple(waiting)

    def _ready(self) -> Iterator[tuple[Row, Ready]]:
        items = self.contacts.items(Occurrences(self.places))
        for row, item in zip(self.contacts.table.rows(), items, strict=True):
            if isinstance(item, Ready):
                yield row, item

    def _in_state(self, *states: MessageState) -> dict[str, dict[str, str]]:
        """Return what is known of the campaign's messages in ``states``, by their ids."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
            self.store.export_csv(file, self.contacts.campaign)
            file.seek(0)
            return {message["message_id"]: message for message in csv.DictReader(file) if message["state"] in states}


def tell_rows(console: Console, rows: Rows, *, failed: Path | None, store: str) -> None:
    """Write the rows that failed into ``failed``, and say what may be done about them and about what is in no row."""
    summary = rows.store.campaign_summary(rows.contacts.campaign)
    if failed is not None:
        _tell(console, f"{_counted(_written(rows, failed), 'row')} that failed: see {failed}.")
    elif summary.failed + summary.expired:
        _tell(console, "Which rows failed: --resume --failed failed.csv writes them, and sends nothing that has ended.")
    if kinds := _mendable(rows):
        options = " ".join(f"--retry {kind}" for kind in kinds)
        _tell(console, f"When the account is mended, this sends them once more: --resume {options}")
    if summary.pending and (left_out := rows.left_out()):
        _tell_left_out(console, rows, left_out, store)


def _written(rows: Rows, target: Path) -> int:
    try:
        return rows.write_failed(target)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}. All messages have ended.") from None


def _mendable(rows: Rows) -> list[str]:
    """Return with which kinds messages failed that may be sent once more."""
    causes = rows.store.failure_reasons(rows.contacts.campaign)
    kinds = {cause.kind for cause in causes if cause.reason != GiveUpReason.OUTCOME_UNKNOWN}
    return [kind for kind in MENDABLE if kind in kinds]


def _tell_left_out(console: Console, rows: Rows, left_out: tuple[str, ...], store: str) -> None:
    count, path = _counted(len(left_out), "message"), rows.contacts.table.path
    _tell(console, f"{count} of the campaign in no row of {path}, so not sent. Put the rows back, or take them back:")
    for message_id in left_out[:_MOST_TOLD]:
        _tell(console, shlex.join(["smsretry", "cancel", message_id, "--store", store]))
    if len(left_out) > _MOST_TOLD:
        _tell(console, f"… and {len(left_out) - _MOST_TOLD:,} more.")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _tell(console: Console, words: str) -> None:
    console.print(Text(words), soft_wrap=True)
