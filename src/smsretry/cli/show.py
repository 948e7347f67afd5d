"""Tell the history of one message from the database."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.table import Column, Table

from smsretry.store import SQLStore

_SQLITE: Final = "sqlite:///"


def history_of(url: str, message_id: str) -> list[dict[str, Any]]:
    """Return what happened to a message as JSON objects, the first event first; nothing where there is no database."""
    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists():
        return []
    store = SQLStore(url)
    try:
        rows = store.history(message_id)
    finally:
        store.close()
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(row).items()}
        for row in rows
    ]


def history_table(message_id: str, attempts: list[dict[str, Any]]) -> Table:
    """Return what happened to a message, a row for each event."""
    table = Table(Column("at (UTC)", no_wrap=True), title=message_id, title_justify="left")
    for heading in ("attempt", "what happened", "why", "next"):
        table.add_column(heading)
    for attempt in attempts:
        why = " ".join(str(attempt[name]) for name in ("kind", "code", "reason", "detail") if attempt.get(name))
        wait = f"in {attempt['delay_s']:g} s" if attempt.get("delay_s") is not None else "–"
        table.add_row(attempt["at"][:19], str(attempt["attempt"]), str(attempt["outcome"]), why or "–", wait)
    return table
