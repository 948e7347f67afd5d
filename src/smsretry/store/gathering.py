"""Let the works of many messages share their statements: read what all need at once, and write what all wrote at once.

A `Gathered` is a connection to what runs in it. It knows the few statements that every attempt takes: a read of a
message that nobody of the group has touched is answered from what was read for all, and a write waits until somebody
has to see it. Everything else goes to the database as it is. So the rules, and the statements, are written once.

On SQLite alone, where the transaction holds the only write lock: what was read stays true until it is written.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from smsretry.store.claiming import Claims, look_at_all_statement, read_columns
from smsretry.store.moves import COUNTERS
from smsretry.store.schema import DatabaseNow, Schema, UtcDateTime, sqlite_text
from smsretry.store.writing import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Name what one work reads: the row of its message, where it begins also that of its account, and its event."""

    message_id: str
    text: str | None = None
    """The fingerprint of the text that it begins."""
    account: str = ""
    event_id: str | None = None


_Waiting = dict[tuple[str, ...], list[list[Any]]]
"""Rows that are to be written, by their columns."""


@dataclass(slots=True)
class _Read:
    """Answer a read with the row that was there."""

    row: Any

    def one(self) -> Any:
        return self.row

    def one_or_none(self) -> Any:
        return self.row


@dataclass(frozen=True, slots=True)
class _Written:
    """Answer an insert."""

    rowcount: int


_TABLES: Final = Schema.named("")
_TIMES: Final = frozenset(
    column.name
    for table in _TABLES.metadata.tables.values()
    for column in table.c
    if isinstance(column.type, UtcDateTime)
)
"""The columns that hold times; no other of the same name holds anything else."""
_NOT_READ: Final = object()
_ONE: Final = _Written(1)


class Gathered:
    """Be the connection of one group of works; `flush` writes what is left."""

    def __init__(self, connection: sa.Connection, statements: Statements) -> None:
        self._connection = connection
        self._statements = statements
        self._looks: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        self._unknown_events: set[str] = set()
        self._touched: set[str] = set()
        self._answered: dict[str, Any] = {}
        """The row that each message was answered with, while it holds."""
        self._added_messages: _Waiting = {}
        self._added_attempts: _Waiting = {}
        self._changes: _Waiting = {}
        self._counts: Counter[tuple[str, int, str]] = Counter()

    def read_ahead(self, needs: Iterable[Needs]) -> None:
        """Read what works are about to ask for."""
        needs = list(needs)
        begins = [need for need in needs if need.text is not None]
        self._looks = self._looked(begins)
        self._rows = self._locked([need.message_id for need in needs if need.text is None])
        events = [need.event_id for need in needs if need.event_id is not None]
        self._unknown_events = set(events) - self._known(events)

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """Execute ``statement`` now, or answer it from what is known and write it later."""
        handle = self._statements.ours.get(id(statement))
        answer = None if handle is None or not isinstance(parameters, Mapping) else handle(self, parameters)
        if answer is not None:
            return answer
        self.flush()
        return self._connection.execute(statement, parameters, **options)

    def scalars(self, statement: Any, parameters: Any = None) -> Any:
        """Execute ``statement`` now."""
        self.flush()
        return self._connection.scalars(statement, parameters)

    def scalar(self, statement: Any, parameters: Any = None) -> Any:
        """Execute ``statement`` now."""
        self.flush()
        return self._connection.scalar(statement, parameters)

    def flush(self) -> None:
        """Write what waits, in the order in which rows are locked: messages, attempts, counters."""
        run = self._statements
        for write, waiting in (
            (run.add_messages, self._added_messages),
            (run.add_attempts, self._added_attempts),
            (run.change_messages, self._changes),
        ):
            for columns, rows in waiting.items():
                self._connection.execute(write(columns), {"rows": json.dumps(rows, ensure_ascii=False)})
            waiting.clear()
        self._flush_counts()

    def _flush_counts(self) -> None:
        shards: dict[tuple[str, int], dict[str, int]] = {}
        for (campaign, shard, name), added in self._counts.items():
            shards.setdefault((campaign, shard), dict.fromkeys(COUNTERS, 0))[name] += added
        rows = [{"campaign": campaign, "shard": shard, **added} for (campaign, shard), added in sorted(shards.items())]
        if rows:
            self._connection.execute(self._statements.count, rows)
        self._counts = Counter()

    def _looked(self, begins: Sequence[Needs]) -> dict[str, Any]:
        """Return what a begin reads, by message; nothing of those that have to see what another of them has begun."""
        accounts = {need.account for need in begins}
        if len(accounts) != 1:
            return {}
        asked = {"asked": json.dumps([[need.message_id, need.text] for need in begins]), "account": accounts.pop()}
        rows = list(self._read(self._statements.look_at_all, asked))
        # What is sent is the text asked for, or that of the first begin.
        texts = [{row.asked_text, row.fingerprint} - {None} for row in rows]
        often = Counter(itertools.chain.from_iterable(texts))
        return {
            row.asked_id: row for row, own in zip(rows, texts, strict=True) if all(often[text] == 1 for text in own)
        }

    def _locked(self, ids: Sequence[str]) -> dict[str, Any]:
        return {row.id: row for row in self._read(self._statements.lock_all, {"names": json.dumps(ids)})} if ids else {}

    def _known(self, events: Sequence[str]) -> set[str]:
        if not events:
            return set()
        return set(self._connection.scalars(self._statements.known_events, {"names": json.dumps(events)}))

    def _read(self, reading: Reading, parameters: Mapping[str, Any]) -> Iterator[Any]:
        text: str = self._connection.execute(reading.statement, parameters).scalar_one()
        return map(reading.row, json.loads(text))

    def look(self, keys: Mapping[str, Any]) -> _Read | None:
        """Answer what a begin reads."""
        return self._untouched(self._looks.pop(keys["key"], None), keys["key"])

    def lock(self, keys: Mapping[str, Any]) -> _Read | None:
        """Answer with the row of a message."""
        return self._untouched(self._rows.pop(keys["key"], None), keys["key"])

    def _untouched(self, row: Any, message_id: str) -> _Read | None:
        if row is None or message_id in self._touched:
            return None
        self._answered[message_id] = row
        return _Read(row)

    def add_message(self, row: Mapping[str, Any]) -> _Written:
        """Add a message that a look has shown not to be there."""
        self._touched.add(row["id"])
        _add(self._added_messages, {name: value for name, value in row.items() if value is not None})
        return _ONE

    def add_attempt(self, row: Mapping[str, Any]) -> _Written | None:
        """Add an attempt where its event is known not to be there."""
        if row["event_id"] not in self._unknown_events:
            return None
        self._unknown_events.discard(row["event_id"])
        _add(self._added_attempts, {name: value for name, value in row.items() if value is not None})
        return _ONE

    def change_message(self, columns: Mapping[str, Any]) -> _Written:
        """Change columns of a message."""
        message_id = columns["message_id"]
        self._touched.add(message_id)
        before = self._answered.pop(message_id, None)
        _add(self._changes, columns if before is None else _changed(before, columns))
        return _ONE

    def count(self, added: Mapping[str, Any]) -> _Written:
        """Add to counters."""
        campaign, shard = added["campaign"], added["shard"]
        for name in COUNTERS:
            if added[name]:
                self._counts[campaign, shard, name] += added[name]
        return _ONE


@dataclass(frozen=True, slots=True)
class Reading:
    """Read all rows of ``columns`` as one JSON array, and build them again.

    sqlite3 lets go of Python's lock, and waits for it, at every row that it steps to: a loop that is busy in another
    thread would make each of them late.
    """

    statement: sa.Select[Any]
    build: Callable[[Iterable[Any]], Any]
    times: tuple[int, ...]

    @classmethod
    def of(cls, rows: sa.Select[Any]) -> Reading:
        """Return what reads ``rows``."""
        columns = rows.subquery().c
        names = [column.name for column in columns]
        all_rows = sa.select(sa.func.json_group_array(sa.func.json_array(*columns)))
        times = tuple(n for n, column in enumerate(columns) if isinstance(column.type, UtcDateTime))
        make: Any = collections.namedtuple("Row", names)  # type: ignore[misc]  # noqa: PYI024  # the tables' own names
        return cls(all_rows, make._make, times)

    def row(self, values: list[Any]) -> Any:
        """Return one row."""
        for place in self.times:
            text = values[place]
            if text is not None:
                values[place] = datetime.fromisoformat(f"{text}+00:00")
        return self.build(values)


Handle = Callable[[Gathered, Mapping[str, Any]], _Read | _Written | None]
"""Answer a statement with these parameters; None leaves it to the database."""


class Statements:
    """Hold the statements that are gathered, and those that stand for many."""

    def __init__(self, schema: Schema, claims: Claims, writer: Writer) -> None:
        self.count = writer.count_statement
        self.ours: dict[int, Handle] = {
            id(claims.look): Gathered.look,
            id(claims.lock): Gathered.lock,
            id(claims.insert): Gathered.add_message,
            id(writer.add_attempt): Gathered.add_attempt,
            id(writer.change_message): Gathered.change_message,
            id(writer.count_statement): Gathered.count,
        }
        messages, attempts = schema.messages, schema.attempts
        self.look_at_all = Reading.of(look_at_all_statement(schema))
        here = sa.select(*read_columns(schema), DatabaseNow().label("now")).where(messages.c.id.in_(_names()))
        self.lock_all = Reading.of(here)
        self.known_events = sa.select(attempts.c.event_id).where(attempts.c.event_id.in_(_names()))
        self.add_messages = functools.cache(functools.partial(_insert, messages))
        self.add_attempts = functools.cache(functools.partial(_insert, attempts))
        self.change_messages = functools.cache(functools.partial(_update, messages))


def _insert(table: sa.Table, columns: tuple[str, ...]) -> sa.Insert:
    """Return what adds the rows in ``rows``, which have ``columns``."""
    rows, values = _rows(len(columns))
    return sa.insert(table).from_select(list(columns), sa.select(*values).select_from(rows), include_defaults=False)


def _update(table: sa.Table, columns: tuple[str, ...]) -> sa.Update:
    """Return what changes the rows in ``rows``, which have ``columns``; the first of these is the key."""
    _, values = _rows(len(columns))
    changed: dict[str, Any] = dict(zip(columns[1:], values[1:], strict=True))
    return sa.update(table).values({**changed, "changed_at": DatabaseNow()}).where(table.c.id == values[0])


def _rows(count: int) -> tuple[Any, list[Any]]:
    """Return the JSON array ``rows``, of arrays, and the values of each."""
    rows = sa.func.json_each(sa.bindparam("rows")).table_valued("value", name="row")
    return rows, [sa.func.json_extract(rows.c.value, f"$[{place}]") for place in range(count)]


def _names() -> Any:
    """Return the strings in the JSON array ``names``: one parameter, however many they are."""
    return sa.select(sa.func.json_each(sa.bindparam("names")).table_valued("value").c.value)


@functools.cache
def _times_in(columns: tuple[str, ...]) -> tuple[int, ...]:
    """Return the places of the columns that hold times, in any of the tables."""
    return tuple(place for place, name in enumerate(columns) if name in _TIMES)


def _changed(before: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key, and those of ``columns`` that differ from what is there."""
    return {name: value for name, value in columns.items() if getattr(before, name, _NOT_READ) != value}


def _add(waiting: _Waiting, row: Mapping[str, Any]) -> None:
    columns, values = tuple(row), list(row.values())
    for place in _times_in(columns):
        values[place] = sqlite_text(values[place])
    waiting.setdefault(columns, []).append(values)
