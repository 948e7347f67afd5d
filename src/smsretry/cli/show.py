"""Tell the history of one message from the database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from smsretry.errors import ConfigurationError
from smsretry.store import SQLStore


def history_of(url: str, message_id: str) -> list[dict[str, Any]]:
    """Return what happened to a message as JSON objects, the first event first; change nothing in the database.

    Raise `click.ClickException` where the database cannot be read, and where it does not know the message.
    """
    with opened(url) as store:
        rows = store.history(message_id)
        if not rows:
            raise no_message(store, message_id)
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(row).items()}
        for row in rows
    ]


def history_table(message_id: str, attempts: list[dict[str, Any]]) -> Table:
    """Return what happened to a message, a row for each event."""
    table = Table(Column("at (UTC)", no_wrap=True), title=Text(message_id), title_justify="left")
    for heading in ("attempt", "what happened", "why", "next"):
        table.add_column(heading)
    for attempt in attempts:
        why = " ".join(str(attempt[name]) for name in ("kind", "code", "reason", "detail") if attempt.get(name))
        wait = f"in {attempt['delay_s']:g} s" if attempt.get("delay_s") is not None else "–"
        cells = (attempt["at"][:19], str(attempt["attempt"]), str(attempt["outcome"]), why or "–", wait)
        table.add_row(*map(Text, cells))
    return table


@contextlib.contextmanager
def opened(url: str) -> Iterator[SQLStore]:
    """Open the database of ``url`` as it is; raise `click.ClickException` where it cannot be used, or is none."""
    try:
        with SQLStore(url, create=False) as store, _told_plainly(store):
            yield store
    except ConfigurationError as error:
        raise click.ClickException(f"{error} Check the --store.") from None


@contextlib.contextmanager
def _told_plainly(store: SQLStore) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, TypeError, ValueError, OSError) as error:  # drivers refuse options as they like
        raise click.ClickException(f"{store.name} cannot be used: {_first_line(error)}. Check the --store.") from None


def no_message(store: SQLStore, message_id: str) -> click.ClickException:
    """Return what is raised where ``store`` does not know the message."""
    return click.ClickException(f"There is no message {message_id!r} in {store.name}. Check the id and the --store.")


def _first_line(error: Exception) -> str:
    words = str(error.orig if isinstance(error, DBAPIError) else error)
    return (words.splitlines() or [type(error).__name__])[0]
