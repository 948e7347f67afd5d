"""Tell the history of one message from the database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import click
import sqlalchemy as sa
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from smsretry.core.outcome import GiveUpReason
from smsretry.errors import ConfigurationError
from smsretry.store import AttemptOutcome, MessageRecord, MessageState, SQLStore

_ATTEMPT: Final = ("kind", "code", "reason", "detail")
_REPORT: Final = ("reason", "kind", "code")
"""What is told of each, in this order."""


def history_of(url: str, message_id: str) -> tuple[MessageRecord, list[dict[str, Any]]]:
    """Return where a message stands, and what happened to it as JSON objects, the first event first.

    Change nothing in the database. Raise `click.ClickException` where it cannot be read, and where it does not know the
    message.
    """
    with opened(url) as store:
        record, rows = store.message(message_id), store.history(message_id)
        if record is None:
            raise no_message(store, message_id)
    return record, [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(row).items()}
        for row in rows
    ]


def history_table(attempts: list[dict[str, Any]]) -> Table:
    """Return what happened to a message, a row for each event; with its round where there was more than one."""
    rounds = {attempt["round"] for attempt in attempts}
    headings = ("round", "attempt") if rounds != {1} else ("attempt",)
    table = Table(Column("at (UTC)", no_wrap=True), *headings, "what happened", "why", "next")
    for attempt in attempts:
        outcome, why = _told(attempt)
        wait = f"in {attempt['delay_s']:g} s" if attempt.get("delay_s") is not None else "–"
        counts = (str(attempt[heading]) for heading in headings)
        table.add_row(*map(Text, (attempt["at"][:19], *counts, outcome, why or "–", wait)))
    return table


def _told(attempt: dict[str, Any]) -> tuple[str, str]:
    """Say what happened, and why."""
    outcome = str(attempt["outcome"])
    names = _REPORT if outcome == AttemptOutcome.REPORTED else _ATTEMPT
    words = [str(attempt[name]) for name in names if attempt.get(name)]
    if outcome == AttemptOutcome.ACCEPTED and attempt["looked_up"]:
        words.append("by a look-up")
    is_suppressed = outcome == AttemptOutcome.FAILED and attempt["reason"] == GiveUpReason.SUPPRESSED
    return "not sent" if is_suppressed else outcome, " ".join(words)


def standing_of(record: MessageRecord) -> str:
    """Say in a sentence where a message stands."""
    if record.state is not MessageState.PENDING:
        return f"It is {record.state}, since {_time(record.decided_at)}."
    if record.claimed_until is not None:
        return (
            f"It is pending: claimed by a worker until {_time(record.claimed_until)}. "
            "If that worker was lost, recover queues it after that, where it runs."
        )
    if record.started_at is None:
        return f"It is pending: planned for {_time(record.due or record.decided_at)}, and no attempt has ended."
    return f"It is pending: due at {_time(record.due or record.decided_at)}."


def delivery_of(record: MessageRecord) -> str:
    """Say in a sentence or two what was reported of a message's text; '' where there is nothing to say."""
    told: list[str] = []
    if record.state is MessageState.ACCEPTED:
        told.append(_reported(record))
    if record.delivery_retries:
        told.append(f"Retries after a delivery failure: {record.delivery_retries}.")
    return " ".join(told)


def _reported(record: MessageRecord) -> str:
    if record.delivery is None or record.delivery_at is None:
        return "Nothing was reported of it yet."
    if record.delivery == "no_report":
        return "The provider's last word never came."
    why = " ".join(filter(None, (record.delivery_kind, record.delivery_code)))
    return f"It was reported as {record.delivery}{f' ({why})' if why else ''}, at {_time(record.delivery_at)}."


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


@contextlib.contextmanager
def opened(
    name: str, *, create: bool = False, remedy: str = "Check the --store.", **options: Any
) -> Iterator[SQLStore]:
    """Open a database as it is, or ``create`` it; raise `click.ClickException` with ``remedy`` where that fails.

    ``name`` is its URL, or a SQLite file.
    """
    try:
        with SQLStore(database_of(name), create=create, **options) as store, _told_plainly(store):
            yield store
    except ConfigurationError as error:
        raise click.ClickException(f"{error} {remedy}") from None


def database_of(name: str) -> str | sa.URL:
    """Return the URL that ``name`` is, or that of the SQLite file of this name."""
    is_file = ":" not in os.path.splitdrive(name)[1]
    return sa.URL.create("sqlite", database=name) if is_file else name


@contextlib.contextmanager
def _told_plainly(store: SQLStore) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, TypeError, ValueError, OSError) as error:  # drivers refuse options as they like
        raise click.ClickException(f"{fault_of(store, error)} Check the --store.") from None


def fault_of(store: SQLStore, error: Exception) -> str:
    """Say in a sentence why ``store`` cannot be used."""
    if isinstance(error, ConfigurationError):
        return str(error)
    return f"{store.name} cannot be used: {first_line(error)}."


def no_message(store: SQLStore, message_id: str) -> click.ClickException:
    """Return what is raised where ``store`` does not know the message."""
    return click.ClickException(f"There is no message {message_id!r} in {store.name}. Check the id and the --store.")


def first_line(error: Exception) -> str:
    """Return what a database says is wrong, without the statement that it is about."""
    words = str(error.orig if isinstance(error, DBAPIError) else error)
    return (words.splitlines() or [type(error).__name__])[0]
