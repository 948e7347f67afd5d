"""Tell of a database that calls a commit done before the disk has it: a forgotten claim is a text sent twice."""

from __future__ import annotations

import logging
from typing import Final

import sqlalchemy as sa

_SWITCHES: Final = {
    "synchronous_commit": "Set synchronous_commit to on for the user of the journal.",
    "fsync": "Set fsync to on in postgresql.conf.",
}
_WAITS: Final = 2
"""SQLite's ``synchronous``: 2 is FULL, 3 is EXTRA; 0 is OFF and 1 is NORMAL."""

_log: Final = logging.getLogger("smsretry.store")


def warn_unless_durable(connection: sa.Connection, name: str) -> None:
    """Log a warning with the remedy where the database ``name`` may forget what it has committed."""
    is_sqlite = connection.dialect.name == "sqlite"
    found, remedy = _found_in_sqlite(connection) if is_sqlite else _found_in_postgresql(connection)
    if found:
        _log.warning(
            "%s does not wait for the disk (%s): after a power cut it may forget a claim, and a text goes twice. %s",
            name,
            found,
            remedy,
        )


def _found_in_sqlite(connection: sa.Connection) -> tuple[str, str]:
    level = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    found = "" if level >= _WAITS else f"synchronous={('OFF', 'NORMAL')[level]}"
    return found, "Set PRAGMA synchronous=FULL on each connection of the engine, or give SQLStore a URL."


def _found_in_postgresql(connection: sa.Connection) -> tuple[str, str]:
    off = [name for name in _SWITCHES if connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "off"]
    return ", ".join(f"{name}=off" for name in off), " ".join(_SWITCHES[name] for name in off)
