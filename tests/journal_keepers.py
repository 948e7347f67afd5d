"""The journals that the world of `tests.journal_world` runs on, each with its clock told by the world."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event

from smsretry import GaveUp, Message
from smsretry.journal import MemoryJournal
from smsretry.ports import Clock, Journal
from smsretry.store import SQLStore, recover
from smsretry.store.moves import MessageState, state_after
from tests.journal_world import Tracked, Violation, World

MakeJournal = Callable[[Clock], MemoryJournal]


@dataclass(slots=True)
class InMemory:
    """Run on a `MemoryJournal`, or on a variant of it; who planned a message queues it again."""

    make: MakeJournal = MemoryJournal

    def journal(self, world: World) -> Journal:
        return self.make(world.clock)

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
        if counted != rows or summary.doubled:
            raise Violation(f"the counters do not add up: {summary}, and there are {rows}")
        if at_end and Counter({k: v for k, v in rows.items() if v}) != Counter(map(_state_after, world.known.values())):
            raise Violation(f"the rows tell other ends than the dispatcher: {rows}")

    def _rows(self) -> dict[str, int]:
        table = self.store.metadata.tables["smsretry_messages"]
        query = sa.select(table.c.state, sa.func.count()).group_by(table.c.state)
        with self.engine.connect() as connection:
            found = dict(connection.execute(query).tuples().all())
        return {state: found.get("accepted" if state == "sent" else state, 0) for state in STATES}


STATES = ("pending", "sent", "failed", "expired", "unknown", "skipped", "canceled")


def _state_after(tracked: Tracked) -> str:
    if isinstance(tracked.end, GaveUp):
        return state_after(tracked.end.reason).value
    return "pending" if tracked.end is None else "sent"


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


def in_sqlite() -> InDatabase:
    clock = SQLiteClock()
    return InDatabase(clock.engine(), clock.set)
