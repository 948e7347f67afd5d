"""The tables: one row per message with its state, its attempts beneath it, and the counters of its campaign.

=========== ===================================================================================
table       holds
=========== ===================================================================================
meta        the version of the schema
messages    one row per message id: where it stands, and what a journal must know of it
attempts    append-only: one row per thing that happened, with an ``event_id`` that is unique
counters    per campaign and shard: how many messages are in each state, retries, deferrals
holds       the accounts that a provider refuses, and when that is asked again
reports     one row per text that a provider reported on: what is known of it
suppressed  the numbers that must not be texted
=========== ===================================================================================

A message without a campaign has the campaign ``''``, since NULL would void the unique keys. The columns from ``epoch``
to ``body`` belong to the journal, those from ``delivery`` on to what came after acceptance. Texts are stored in
``body`` alone, and only until a message has ended; so are numbers, but for those that must not be texted.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from smsretry.core.delivery import LONGEST_WORD
from smsretry.core.message import LONGEST_ID
from smsretry.errors import ConfigurationError
from smsretry.store.moves import COUNTERS, MessageState

SCHEMA_VERSION: Final = 4
SHARDS: Final = 16
"""Rows that the counters of one campaign are spread over, so that many workers do not wait for one."""
LONGEST_EVENT_ID: Final = 2 * LONGEST_ID + 90
"""A message id, its counts and, for a text that was taken twice, the provider's id."""

_PREFIX: Final = re.compile(r"[a-z_][a-z0-9_]{0,29}|", re.ASCII)
_RESERVED: Final = ("sqlite_", "pg_")
_BIG_KEY: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up INTEGER keys only


def _in_utc(value: datetime) -> datetime:
    if value.utcoffset() is None:
        msg = f"A time must be aware, got {value!r}. Use datetime.now(UTC)."
        raise ValueError(msg)
    return value.astimezone(UTC)


def sqlite_text(value: datetime | None) -> str | None:
    """Return ``value`` as SQLAlchemy writes it into SQLite."""
    if value is None:
        return None
    utc = value if value.tzinfo is UTC else _in_utc(value)
    return utc.isoformat(" ", "microseconds")[:26]  # without the offset


class UtcDateTime(TypeDecorator[datetime]):
    """Store an aware datetime as UTC and give it back as aware UTC, in SQLite too, where it sorts as text."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn ``value`` into UTC; raise ValueError for a naive one."""
        del dialect
        return None if value is None else _in_utc(value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """Write SQLite's text in one step: an attempt binds twenty times."""
        return sqlite_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return ``value`` as aware UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class DatabaseNow(FunctionElement[datetime]):
    """Be the present moment by the database's own clock, within a transaction too."""

    type = UtcDateTime()
    name = "database_now"
    inherit_cache = True


@compiles(DatabaseNow, "postgresql")
def _now_on_postgresql(_: DatabaseNow, __: SQLCompiler, **___: Any) -> str:
    return "clock_timestamp()"


@compiles(DatabaseNow, "sqlite")
def _now_on_sqlite(_: DatabaseNow, __: SQLCompiler, **___: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # as SQLAlchemy writes a datetime, so that it compares as text


@dataclass(frozen=True, slots=True)
class Schema:
    """Hold the tables under one prefix; ``metadata`` holds exactly these."""

    prefix: str
    metadata: sa.MetaData
    meta: sa.Table
    messages: sa.Table
    attempts: sa.Table
    counters: sa.Table
    holds: sa.Table
    reports: sa.Table
    suppressed: sa.Table

    @classmethod
    def named(cls, prefix: str) -> Self:
        """Return the tables whose names begin with ``prefix``; raise `ConfigurationError` for one that is no name."""
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix) or prefix.startswith(_RESERVED):
            msg = (
                "table_prefix must be up to 30 of a-z, 0-9 and _, not beginning with a digit, sqlite_ or pg_, "
                f"got {prefix!r}. "
                "Use something like 'smsretry_'."
            )
            raise ConfigurationError(msg)
        metadata = sa.MetaData()
        tables = (_meta(prefix, metadata), _messages(prefix, metadata), _attempts(prefix, metadata))
        more = (_counters(prefix, metadata), _holds(prefix, metadata))
        return cls(prefix, metadata, *tables, *more, _reports(prefix, metadata), _suppressed(prefix, metadata))


def shard_of(message_id: str) -> int:
    """Return the shard whose counters message ``message_id`` moves: always the same, so that none falls below 0."""
    return zlib.crc32(message_id.encode("utf-8", "surrogatepass")) % SHARDS


def _meta(prefix: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{prefix}meta",
        metadata,
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )


def _messages(prefix: str, metadata: sa.MetaData) -> sa.Table:
    table = sa.Table(
        f"{prefix}messages",
        metadata,
        sa.Column("id", sa.String(LONGEST_ID), primary_key=True),
        sa.Column("campaign", sa.String(LONGEST_ID), nullable=False, server_default=""),
        sa.Column("state", sa.String(16), nullable=False),
        _count("round", least=1),
        _count("attempts"),
        _count("retries"),
        _count("deferrals"),
        *_failure_columns(),
        sa.Column("due", UtcDateTime()),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        *_journal_columns(),
        *_delivery_columns(),
    )
    open_ = table.c.state == MessageState.PENDING.value
    sa.Index(f"ix_{prefix}messages_campaign", table.c.campaign, table.c.state)
    sa.Index(f"ix_{prefix}messages_provider_id", table.c.provider_id)
    sa.Index(f"ix_{prefix}messages_due", table.c.due, postgresql_where=open_, sqlite_where=open_)
    sa.Index(f"ix_{prefix}messages_fingerprint", table.c.fingerprint, postgresql_where=open_, sqlite_where=open_)
    sa.Index(f"ix_{prefix}messages_recipient", table.c.recipient)
    asked = table.c.next_fetch.is_not(None)
    sa.Index(f"ix_{prefix}messages_next_fetch", table.c.next_fetch, postgresql_where=asked, sqlite_where=asked)
    return table


def _journal_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("nonce", sa.String(64)),
        sa.Column("claimed_until", UtcDateTime()),
        sa.Column("sending_since", UtcDateTime()),
        sa.Column("sending_epoch", sa.BigInteger),
        sa.Column("doubt_since", UtcDateTime()),
        sa.Column("settles_at", UtcDateTime()),
        sa.Column("deferred_since", UtcDateTime()),
        _count("looks"),
        sa.Column("ending", sa.Text),
        sa.Column("slot", sa.Text),
        sa.Column("handed_over_at", UtcDateTime()),
        _count("hand_overs"),
        sa.Column("send_before", UtcDateTime()),
        sa.Column("recipient", sa.String(64)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("body", sa.Text),
    )


def _delivery_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("delivery", sa.String(16)),
        sa.Column("delivery_kind", sa.String(32)),
        sa.Column("delivery_code", sa.String(LONGEST_WORD)),
        sa.Column("delivery_at", UtcDateTime()),
        sa.Column("next_fetch", UtcDateTime()),
        _count("fetches"),
        _count("delivery_retries"),
    )


def _attempts(prefix: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{prefix}attempts",
        metadata,
        sa.Column("id", _BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(LONGEST_EVENT_ID), nullable=False, unique=True),
        sa.Column("message_id", sa.String(LONGEST_ID), nullable=False),
        _count("round", least=1),
        _count("attempt"),
        sa.Column("epoch", sa.BigInteger),
        sa.Column("outcome", sa.String(16), nullable=False),
        *_failure_columns(),
        sa.Column("delay_s", sa.Double),
        sa.Column("due", UtcDateTime()),
        sa.Column("looked_up", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Index(f"ix_{prefix}attempts_message_id", "message_id"),
    )


def _failure_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("reason", sa.String(LONGEST_WORD)),
        sa.Column("kind", sa.String(32)),
        sa.Column("code", sa.String(LONGEST_WORD)),
        sa.Column("http_status", sa.Integer),
        sa.Column("detail", sa.Text),
        sa.Column("provider", sa.String(LONGEST_WORD)),
        sa.Column("provider_id", sa.String(LONGEST_ID)),
    )


def _counters(prefix: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{prefix}counters",
        metadata,
        sa.Column("campaign", sa.String(LONGEST_ID), primary_key=True, server_default=""),
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in COUNTERS),
    )


def _holds(prefix: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{prefix}holds",
        metadata,
        sa.Column("account", sa.String(LONGEST_ID), primary_key=True),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("next_probe", UtcDateTime(), nullable=False),
    )


def _reports(prefix: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{prefix}reports",
        metadata,
        sa.Column("provider_id", sa.String(LONGEST_ID), primary_key=True),
        sa.Column("message_id", sa.String(LONGEST_ID)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("code", sa.String(LONGEST_WORD), nullable=False, server_default=""),
        sa.Column("kind", sa.String(32)),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.Index(f"ix_{prefix}reports_message_id", "message_id"),
    )


def _suppressed(prefix: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{prefix}suppressed",
        metadata,
        sa.Column("recipient", sa.String(64), primary_key=True),
        sa.Column("sender", sa.String(LONGEST_WORD), primary_key=True, server_default=""),
        sa.Column("reason", sa.String(LONGEST_WORD), nullable=False),
        sa.Column("code", sa.String(LONGEST_WORD)),
        sa.Column("since", UtcDateTime(), nullable=False),
    )


def _count(name: str, *, least: int = 0) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default=str(least))
