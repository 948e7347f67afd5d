"""Let time pass for a store: its clock is the database's, so every moment that it has stored moves back instead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from smsretry.store import SQLStore
from smsretry.store.schema import UtcDateTime


def pass_time(store: SQLStore, seconds: float) -> None:
    """Move every time in the tables of ``store`` back by ``seconds``."""

    def move(connection: sa.Connection) -> None:
        for table in store.metadata.sorted_tables:
            move_in(connection, table, timedelta(seconds=seconds))

    store._database.write(move)


def move_in(connection: sa.Connection, table: sa.Table, back: timedelta) -> None:
    times = [column for column in table.c if isinstance(column.type, UtcDateTime)]
    keys = list(table.primary_key.columns)
    for row in connection.execute(sa.select(*keys, *times)).all() if times else ():
        moved: dict[str, Any] = {
            column.name: moment - back for column in times if (moment := getattr(row, column.name)) is not None
        }
        here = [key == getattr(row, key.name) for key in keys]
        connection.execute(sa.update(table).where(*here).values(**moved))
