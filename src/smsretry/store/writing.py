"""Write one fact in one transaction: its row, the message that it moves, and the counters of that move.

Rows are locked in one order, message, attempt, counters, as wherever reports and the journal write them, and one
transaction touches one row of each: nobody waits in a circle. A message that nobody knew is made after its attempt.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from smsretry.store.database import Database
from smsretry.store.moves import (
    COUNTERS,
    DOUBLED,
    AttemptOutcome,
    Fact,
    MessageState,
    Standing,
    changes,
    counted,
    first_standing,
    moved,
    moves,
)
from smsretry.store.records import Purged
from smsretry.store.schema import LONGEST_EVENT_ID, DatabaseNow, Schema, shard_of

_log: Final = logging.getLogger("smsretry.store")
_COUNT_ROWS: Final = {"preserve_rowcount": True}
_PURGE_BATCH: Final = 500
Tally = defaultdict[tuple[str, int], Counter[str]]
"""What is to be added to counters, by campaign and shard."""


class Writer:
    """Hold the statements of one schema in the words of one database."""

    def __init__(self, schema: Schema, database: Database) -> None:
        messages, attempts = schema.messages, schema.attempts
        self._messages = messages
        self._attempts = attempts
        self._reports = schema.reports
        self.add_attempt = database.insert(attempts).on_conflict_do_nothing(index_elements=["event_id"])
        self._add_message = (
            database.insert(messages).values(changed_at=DatabaseNow()).on_conflict_do_nothing(index_elements=["id"])
        )
        standing = (messages.c.campaign, messages.c.state, messages.c.round, messages.c.attempts, messages.c.retries)
        times = (messages.c.deferrals, messages.c.started_at, messages.c.decided_at)
        delivery = (messages.c.delivery, messages.c.delivery_retries)
        self._lock_message = (
            sa.select(*standing, *times, *delivery).where(messages.c.id == sa.bindparam("message_id")).with_for_update()
        )
        self.change_message = (
            sa.update(messages).where(messages.c.id == sa.bindparam("message_id")).values(changed_at=DatabaseNow())
        )
        self.count_statement = _count_statement(schema.counters, database)

    def note(self, connection: sa.Connection, fact: Fact) -> bool:
        """Write ``fact``; False where it was written before."""
        row = connection.execute(self._lock_message, {"message_id": fact.message_id}).one_or_none()
        event_id = self._append(connection, fact)
        if event_id is None:
            return False
        campaign, added = self._move(connection, fact, row)
        added[DOUBLED] = self._texts_too_many(connection, fact, event_id)
        self.count(connection, campaign, fact.message_id, added)
        return True

    def note_locked(self, connection: sa.Connection, fact: Fact, row: Any, columns: Mapping[str, Any]) -> bool:
        """Write ``fact`` and ``columns`` of its message, whose row is locked and given; False where only these."""
        event_id = self._append(connection, fact)
        if event_id is None:
            if columns:
                self.change(connection, fact.message_id, columns)
            return False
        standing = _standing(row)
        changed = changes(standing, fact)
        self.change(connection, fact.message_id, changed | dict(columns))
        added = moves(standing, MessageState(changed.get("state", standing.state)), fact)
        if standing.state is MessageState.ACCEPTED or standing.round != fact.round:  # else there is none before it
            added[DOUBLED] = self._texts_too_many(connection, fact, event_id)
        self.count(connection, standing.campaign, fact.message_id, added)
        return True

    def append(self, connection: sa.Connection, fact: Fact) -> None:
        """Write the row of ``fact`` unless it is there, and move nothing."""
        self._added(connection, _attempt_row(fact))

    def change(self, connection: sa.Connection, message_id: str, columns: Mapping[str, Any]) -> None:
        """Change columns of a message."""
        connection.execute(self.change_message, {"message_id": message_id, **columns})

    def change_counted(self, connection: sa.Connection, row: Any, columns: Mapping[str, Any], tally: Tally) -> None:
        """Change the message of ``row``, its delivery among it, and tally how that moves the counters."""
        self.change(connection, row.id, columns)
        before = counted(MessageState(row.state), row.delivery, row.delivery_retries)
        state = MessageState(columns.get("state", row.state))
        after = counted(state, columns["delivery"], columns.get("delivery_retries", row.delivery_retries))
        tally[row.campaign, shard_of(row.id)].update(moved(before, after))

    def count(self, connection: sa.Connection, campaign: str, message_id: str, added: Mapping[str, int]) -> None:
        """Add to the counters of ``campaign`` that message ``message_id`` moves."""
        self.count_in(connection, campaign, shard_of(message_id), added)

    def count_in(self, connection: sa.Connection, campaign: str, shard: int, added: Mapping[str, int]) -> None:
        """Add to the counters of ``campaign`` in one of its shards."""
        if any(added.values()):
            every = dict.fromkeys(COUNTERS, 0) | dict(added)
            connection.execute(self.count_statement, {"campaign": campaign, "shard": shard, **every})

    def count_all(self, connection: sa.Connection, tally: Tally) -> None:
        """Add to counters, shard by shard in one order, in which nobody waits in a circle."""
        for campaign, shard in sorted(tally):
            self.count_in(connection, campaign, shard, tally[campaign, shard])

    def now(self, connection: sa.Connection) -> datetime:
        """Return the present moment by the database's clock."""
        return connection.execute(sa.select(DatabaseNow())).scalar_one()

    def purge(self, connection: sa.Connection, older_than: timedelta) -> Purged:
        """Remove some messages that ended before ``older_than`` ago, with their attempts; the counters stay."""
        messages, attempts = self._messages, self._attempts
        ended = messages.c.state != MessageState.PENDING.value
        old = messages.c.changed_at <= self.now(connection) - older_than
        some = sa.select(messages.c.id).where(ended, old).limit(_PURGE_BATCH).with_for_update(skip_locked=True)
        ids = connection.scalars(some).all()
        beneath = connection.execute(sa.delete(attempts).where(attempts.c.message_id.in_(ids)))
        connection.execute(sa.delete(messages).where(messages.c.id.in_(ids)))
        return Purged(messages=len(ids), attempts=beneath.rowcount)

    def purge_reports(self, connection: sa.Connection, older_than: timedelta) -> int:
        """Remove some reports, unchanged for ``older_than``, whose message is not there; return how many."""
        messages, told = self._messages.c, self._reports.c
        known = sa.exists().where(messages.id == told.message_id)
        taken = sa.exists().where(messages.provider_id == told.provider_id)
        old = told.changed_at <= self.now(connection) - older_than
        some = sa.select(told.provider_id).where(old, ~known, ~taken).limit(_PURGE_BATCH)
        ids = connection.scalars(some.with_for_update(skip_locked=True)).all()
        return connection.execute(sa.delete(self._reports).where(told.provider_id.in_(ids))).rowcount

    def _append(self, connection: sa.Connection, fact: Fact) -> str | None:
        """Add the row of ``fact`` and return its event id; None where it is there already."""
        row = _attempt_row(fact)
        if self._added(connection, row):
            return fact.event_id
        if fact.provider_id is None or fact.provider_id == self._provider_id_of(connection, fact.event_id):
            return None
        # The same attempt was accepted under another id: a queue ran it twice, and a second text left.
        row["event_id"] = f"{fact.event_id}/{fact.provider_id}"[:LONGEST_EVENT_ID]
        return row["event_id"] if self._added(connection, row) else None

    def _added(self, connection: sa.Connection, row: dict[str, Any]) -> bool:
        return connection.execute(self.add_attempt, row, execution_options=_COUNT_ROWS).rowcount == 1

    def _provider_id_of(self, connection: sa.Connection, event_id: str) -> str | None:
        attempts = self._attempts
        return connection.scalar(sa.select(attempts.c.provider_id).where(attempts.c.event_id == event_id))

    def _move(self, connection: sa.Connection, fact: Fact, row: Any) -> tuple[str, dict[str, int]]:
        """Move the message of ``fact``, and return its campaign and what that adds to the counters.

        ``row`` is the message's, locked; None where it was not known.
        """
        first = first_standing(fact)
        while row is None:  # once, unless others make the message, and a purge takes it away, between the statements
            added = connection.execute(
                self._add_message, {"id": fact.message_id, **first}, execution_options=_COUNT_ROWS
            )
            if added.rowcount == 1:
                return fact.campaign, moves(None, fact.state, fact)
            row = connection.execute(self._lock_message, {"message_id": fact.message_id}).one_or_none()
        return self._move_known(connection, _standing(row), fact)

    def _move_known(self, connection: sa.Connection, standing: Standing, fact: Fact) -> tuple[str, dict[str, int]]:
        changed = changes(standing, fact)
        self.change(connection, fact.message_id, changed)
        after = MessageState(changed.get("state", standing.state))
        return standing.campaign, moves(standing, after, fact)

    def _texts_too_many(self, connection: sa.Connection, fact: Fact, event_id: str) -> int:
        """Return 1 where the provider took a text that it had taken before in this round, under another id."""
        if fact.outcome is not AttemptOutcome.ACCEPTED or fact.provider_id is None:
            return 0
        taken = self._attempts.c
        others = connection.scalars(
            sa.select(taken.provider_id).where(
                taken.message_id == fact.message_id,
                taken.round == fact.round,
                taken.outcome == AttemptOutcome.ACCEPTED.value,
                taken.provider_id.is_not(None),
                taken.event_id != event_id,
            )
        ).all()
        if not others or fact.provider_id in others:
            return 0
        _log.error(
            "%s was taken by the provider more than once: %s and %s", fact.message_id, others[0], fact.provider_id
        )
        return 1


def _count_statement(counters: sa.Table, database: Database) -> Any:
    insert = database.insert(counters)
    total = {name: counters.c[name] + insert.excluded[name] for name in COUNTERS}
    return insert.on_conflict_do_update(index_elements=["campaign", "shard"], set_=total)


def _attempt_row(fact: Fact) -> dict[str, Any]:
    return {
        "event_id": fact.event_id,
        "message_id": fact.message_id,
        "round": fact.round,
        "attempt": fact.attempt,
        "outcome": fact.outcome.value,
        "reason": fact.reason,
        "kind": fact.kind,
        "code": fact.code,
        "http_status": fact.http_status,
        "detail": fact.detail,
        "provider": fact.provider,
        "provider_id": fact.provider_id,
        "delay_s": fact.delay_s,
        "due": fact.due,
        "looked_up": fact.looked_up,
        "started_at": fact.started_at,
        "at": fact.at,
    }


def _standing(row: Any) -> Standing:
    return Standing(
        campaign=row.campaign,
        state=MessageState(row.state),
        round=row.round,
        attempts=row.attempts,
        retries=row.retries,
        deferrals=row.deferrals,
        started_at=row.started_at,
        decided_at=row.decided_at,
        delivery=getattr(row, "delivery", None),  # the journal does not read it: its facts begin no new round
        delivery_retries=row.delivery_retries,
    )
