"""The journals that the world of `tests.journal_world` runs on, each with its clock told by the world."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy import event

from smsretry import FailureKind, GaveUp, Message
from smsretry.journal import MemoryJournal
from smsretry.ports import Clock, Journal
from smsretry.store import SQLStore, recover, requeue
from smsretry.store.moves import MessageState, state_after
from tests.journal_world import BLINDLY, Tracked, World

MakeJournal = Callable[[Clock], MemoryJournal]


@dataclass(slots=True)
class InMemory:
    """Run on a `MemoryJournal`, or on a variant of it; who planned a message queues it again."""

    make: MakeJournal = MemoryJournal
    _journal: MemoryJournal = field(init=False)

    def journal(self, world: World) -> Journal:
        self._journal = self.make(world.clock)
        return self._journal

    def plan(self, message: Message) -> None:
        pass

    def recover(self, world: World) -> None:
        there = {one.message_id for one in world.queue} | {
            one.delivery.message_id for one in world.workers if one.delivery is not None
        }
        for key, tracked in world.known.items():
            if tracked.end is None and key not in there:
                world.send(tracked.message)

    def has_ended(self, message_id: str) -> bool:
        return False  # recover queues it again until somebody is told

    def cancel(self, message_id: str) -> bool:
        return self._journal.cancel(message_id)

    def mend(self, world: World) -> None:
        pass

    def check(self, world: World, *, at_end: bool) -> None:
        pass


@dataclass(slots=True)
class InDatabase:
    """Run on a `SQLStore` in ``engine``, whose clock ``tell`` sets."""

    engine: sa.Engine
    tell: Callable[[datetime], None]
    store: SQLStore = field(init=False)
    _world: World | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.store = SQLStore(self.engine)

    def journal(self, world: World) -> Journal:
        self._world = world
        return cast("Journal", Timed(self))

    def plan(self, message: Message) -> None:
        self.timed().plan(message)

    def recover(self, world: World) -> None:
        recover(self.timed(), world, grace_s=30.0)

    def has_ended(self, message_id: str) -> bool:
        found = self.timed().message(message_id)
        return found is not None and found.state is not MessageState.PENDING

    def cancel(self, message_id: str) -> bool:
        return self.timed().cancel(message_id)

    def mend(self, world: World) -> None:
        requeue(self.timed(), Anew(world), campaign="spring", kind=FailureKind.AUTH)

    def timed(self) -> SQLStore:
        """Return the store after telling its database the time."""
        assert self._world is not None
        self.tell(self._world.clock())
        return self.store

    def check(self, world: World, *, at_end: bool) -> None:
        """Compare the counters with the rows, and at the end the rows with the ends that were told."""
        if not at_end and world.steps % 8:
            return
        summary = self.timed().campaign_summary("spring")
        counted = {state: getattr(summary, state) for state in STATES}
        rows = self._rows()
        if counted != rows or (summary.doubled and world.setting.choice not in BLINDLY):
            world.violated(f"the counters do not add up: {summary}, and there are {rows}")
        if at_end and Counter({k: v for k, v in rows.items() if v}) != Counter(map(_state_after, world.known.values())):
            world.violated(f"the rows tell other ends than the dispatcher: {rows}")

    def _rows(self) -> dict[str, int]:
        table = self.store.metadata.tables["smsretry_messages"]
        query = sa.select(table.c.state, sa.func.count()).group_by(table.c.state)
        with self.engine.connect() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get("accepted" if state == "sent" else state, 0) for state in STATES}


STATES = ("pending", "sent", "failed", "expired", "unknown", "skipped", "canceled")


def _state_after(tracked: Tracked) -> str:
    if isinstance(tracked.end, GaveUp):
        return state_after(tracked.end.reason).value
    return "pending" if tracked.end is None else "sent"


@dataclass(frozen=True, slots=True)
class Anew:
    """Queue what begins a new round."""

    world: World

    def send(self, message: Message, /) -> None:
        self.world.begin_anew(message)


class Timed:
    """Be a store whose database knows the time at each call."""

    def __init__(self, keeper: InDatabase) -> None:
        self._keeper = keeper

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, name)

    def _call(self, name: str, *values: Any, **named: Any) -> Any:
        return getattr(self._keeper.timed(), name)(*values, **named)


class SQLiteClock:
    """Tell SQLite what time it is: its ``strftime`` is a function of ours on every connection of an engine."""

    def __init__(self) -> None:
        self._now = "2026-01-01 00:00:00.000000"

    def set(self, now: datetime) -> None:
        self._now = now.strftime("%Y-%m-%d %H:%M:%S.%f")

    def engine(self) -> sa.Engine:
        engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", self._connected)
        return engine

    def _connected(self, connection: Any, _: object) -> None:
        connection.create_function("strftime", 2, lambda _format, _moment: self._now)


@contextlib.contextmanager
def sqlite_worlds() -> Generator[Callable[[], InDatabase], None, None]:
    """Lend a function that makes a keeper on SQLite in memory, of which one is used at a time."""
    clock = SQLiteClock()
    engine = clock.engine()
    try:
        yield lambda: emptied(InDatabase(engine, clock.set))
    finally:
        engine.dispose()


_TOLD_CLOCK: Final = """
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('model.now')::timestamptz $$
"""


class PostgreSQLClock:
    """Tell PostgreSQL what time it is: in a schema of our own a function shadows its ``clock_timestamp``."""

    def __init__(self, url: str, schema: str) -> None:
        self._now = "2026-01-01 00:00:00+00"
        self.engine = sa.create_engine(url, connect_args={"options": f"-c search_path={schema},pg_catalog"})
        event.listen(self.engine, "checkout", self._checked_out)

    def set(self, now: datetime) -> None:
        self._now = now.isoformat()

    def install(self) -> None:
        """Make the function, in the schema that the engine writes to."""
        body = "SELECT current_setting('model.now')::timestamptz"
        with self.engine.begin() as connection:
            connection.execute(
                sa.text(f"CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $${body}$$")
            )

    def _checked_out(self, connection: Any, _: object, __: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('model.now', %s, false)", (self._now,))
        connection.commit()


@contextlib.contextmanager
def postgresql_worlds(url: str) -> Generator[Callable[[], InDatabase], None, None]:
    """Lend a function that makes a keeper on PostgreSQL, of which one is used at a time, in a schema for this alone."""
    schema = f"world_{uuid.uuid4().hex[:12]}"
    clock, outside = PostgreSQLClock(url, schema), sa.create_engine(url)
    with outside.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    try:
        clock.install()
        yield lambda: emptied(InDatabase(clock.engine, clock.set))
    finally:
        clock.engine.dispose()
        with outside.begin() as connection:
            connection.execute(sa.schema.DropSchema(schema, cascade=True))
        outside.dispose()


def emptied(keeper: InDatabase) -> InDatabase:
    """Remove what another world left in the tables."""
    keeper.store.create_tables()
    with keeper.engine.begin() as connection:
        for table in keeper.store.metadata.sorted_tables:
            if not table.name.endswith("meta"):
                connection.execute(sa.delete(table))
    return keeper
