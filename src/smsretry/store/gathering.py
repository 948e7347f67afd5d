"""Let the works of many messages share their statements: read what all need at once, and write what all wrote at once.

A `Gathered` is a connection to what runs in it. It knows the few statements that every attempt takes: a read of a
message that nobody of the group has touched is answered from what was read for all, and a write waits until somebody
has to see it. Everything else goes to the database as it is. So the rules, and the statements, are written once.

On SQLite alone, where the transaction holds the only write lock: what was read stays true until it is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from smsretry.store.claiming import Claims, look_at_all_statement, read_columns
from smsretry.store.moves import COUNTERS
from smsretry.store.schema import DatabaseNow, Schema
from smsretry.store.writing import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Name what one work reads: the row of its message, where it begins also that of its account, and its event."""

    message_id: str
    text: str | None = None
    """The fingerprint of the text that it begins."""
    account: str = ""
    event_id: str | None = None


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
        self._added_messages: list[dict[str, Any]] = []
        self._added_attempts: list[dict[str, Any]] = []
        self._changes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self._counts: Counter[tuple[str, int, str]] = Counter()

    def read_ahead(self, needs: Iterable[Needs]) -> None:
        """Read what works are about to ask for."""
        needs = list(needs)
        begins = [need for need in needs if need.text is not None]
        self._looks = self._looked(begins)
        self._rows = self._locked([need.message_id for need in needs if need.text is None])
        events = [need.event_id for need in needs if need.event_id is not None]
        known = self._connection.scalars(self._statements.known_events, {"names": json.dumps(events)}) if events else ()
        self._unknown_events = set(events) - set(known)

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
        if self._added_messages:
            self._connection.execute(run.add_message, self._added_messages)
            self._added_messages = []
        if self._added_attempts:
            self._connection.execute(run.add_attempt, self._added_attempts)
            self._added_attempts = []
        for rows in self._changes.values():
            self._connection.execute(run.change_message, rows)
        self._changes = {}
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
        """Return what a begin reads, by message; nothing of messages with a text that comes twice."""
        texts = Counter(need.text for need in begins)
        accounts = {need.account for need in begins}
        alone = [[need.message_id, need.text] for need in begins if texts[need.text] == 1]
        if not alone or len(accounts) != 1:
            return {}
        asked = {"asked": json.dumps(alone), "account": accounts.pop()}
        return {row.asked_id: row for row in self._connection.execute(self._statements.look_all, asked)}

    def _locked(self, ids: Sequence[str]) -> dict[str, Any]:
        if not ids:
            return {}
        found = self._connection.execute(self._statements.lock_all, {"names": json.dumps(ids)})
        return {row.id: row for row in found}

    def look(self, keys: Mapping[str, Any]) -> _Read | None:
        """Answer what a begin reads."""
        return self._untouched(self._looks.pop(keys["key"], None), keys["key"])

    def lock(self, keys: Mapping[str, Any]) -> _Read | None:
        """Answer with the row of a message."""
        return self._untouched(self._rows.pop(keys["key"], None), keys["key"])

    def _untouched(self, row: Any, message_id: str) -> _Read | None:
        return None if row is None or message_id in self._touched else _Read(row)

    def add_message(self, row: Mapping[str, Any]) -> _Written:
        """Add a message that a look has shown not to be there."""
        self._touched.add(row["id"])
        self._added_messages.append(dict(row))
        return _ONE

    def add_attempt(self, row: Mapping[str, Any]) -> _Written | None:
        """Add an attempt where its event is known not to be there."""
        if row["event_id"] not in self._unknown_events:
            return None
        self._unknown_events.discard(row["event_id"])
        self._added_attempts.append(dict(row))
        return _ONE

    def change_message(self, columns: Mapping[str, Any]) -> _Written:
        """Change columns of a message."""
        self._touched.add(columns["message_id"])
        self._changes.setdefault(tuple(columns), []).append(dict(columns))
        return _ONE

    def count(self, added: Mapping[str, Any]) -> _Written:
        """Add to counters."""
        campaign, shard = added["campaign"], added["shard"]
        for name in COUNTERS:
            if added[name]:
                self._counts[campaign, shard, name] += added[name]
        return _ONE


Handle = Callable[[Gathered, Mapping[str, Any]], _Read | _Written | None]
"""Answer a statement with these parameters; None leaves it to the database."""


@dataclass(slots=True)
class Statements:
    """Hold the statements that are gathered, and those that stand for many."""

    schema: Schema
    claims: Claims
    writer: Writer
    ours: dict[int, Handle] = field(init=False)
    look_all: Any = field(init=False)
    lock_all: Any = field(init=False)
    known_events: Any = field(init=False)
    add_message: Any = field(init=False)
    add_attempt: Any = field(init=False)
    change_message: Any = field(init=False)
    count: Any = field(init=False)

    def __post_init__(self) -> None:
        claims, writer = self.claims, self.writer
        self.add_message, self.add_attempt = claims.insert, writer.add_attempt
        self.change_message, self.count = writer.change_message, writer.count_statement
        self.ours = {
            id(claims.look): Gathered.look,
            id(claims.lock): Gathered.lock,
            id(claims.insert): Gathered.add_message,
            id(writer.add_attempt): Gathered.add_attempt,
            id(writer.change_message): Gathered.change_message,
            id(writer.count_statement): Gathered.count,
        }
        messages, attempts = self.schema.messages, self.schema.attempts
        self.look_all = look_at_all_statement(self.schema)
        self.lock_all = sa.select(*read_columns(self.schema), DatabaseNow().label("now")).where(
            messages.c.id.in_(_names())
        )
        self.known_events = sa.select(attempts.c.event_id).where(attempts.c.event_id.in_(_names()))


def _names() -> Any:
    """Return the strings in the JSON array ``names``: one parameter, however many they are."""
    return sa.select(sa.func.json_each(sa.bindparam("names")).table_valued("value").c.value)
