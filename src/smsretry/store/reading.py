"""Read what a store knows about a campaign and about a message."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, Final, TextIO

import sqlalchemy as sa

from smsretry.core.delivery import DeliveryStatus
from smsretry.store.moves import COUNTERS, AttemptOutcome, MessageState
from smsretry.store.records import AttemptRecord, CampaignSummary, MessageRecord, ReasonCount
from smsretry.store.schema import Schema

CSV_COLUMNS: Final = tuple(MessageRecord.__dataclass_fields__)
"""The columns of an export: the fields of `MessageRecord`."""
_ENDED_BADLY: Final = tuple(state.value for state in (MessageState.FAILED, MessageState.EXPIRED, MessageState.UNKNOWN))
_NOT_ARRIVED: Final = tuple(s.value for s in DeliveryStatus if s.is_final and not s.has_arrived)
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings that a spreadsheet takes for a formula."""
_BATCH: Final = 1_000
_MESSAGE_COLUMNS: Final = tuple(name for name in CSV_COLUMNS if name != "message_id")
_ATTEMPT_COLUMNS: Final = tuple(AttemptRecord.__dataclass_fields__)


def summary_of(connection: sa.Connection, schema: Schema, campaign: str | None) -> CampaignSummary:
    """Add up the counters of ``campaign``."""
    counters = schema.counters
    sums = [sa.func.coalesce(sa.func.sum(counters.c[name]), 0).label(name) for name in COUNTERS]
    row = connection.execute(sa.select(*sums).where(counters.c.campaign == (campaign or ""))).one()
    figures = {name.removeprefix("sms_"): int(value) for name, value in zip(COUNTERS, row, strict=True)}
    return CampaignSummary(campaign=campaign or None, **figures)


def failure_reasons_of(connection: sa.Connection, schema: Schema, campaign: str | None) -> tuple[ReasonCount, ...]:
    """Count the messages of ``campaign`` that ended without being accepted, by their last failure."""
    messages = schema.messages.c
    why = (messages.kind, messages.code, messages.reason)
    of_campaign = (messages.campaign == (campaign or ""), messages.state.in_(_ENDED_BADLY))
    rows = connection.execute(sa.select(*why, sa.func.count()).where(*of_campaign).group_by(*why))
    return _most_first(
        ReasonCount(kind=kind or "", code=code, reason=reason, count=n) for kind, code, reason, n in rows
    )


def undelivered_reasons_of(connection: sa.Connection, schema: Schema, campaign: str | None) -> tuple[ReasonCount, ...]:
    """Count the messages of ``campaign`` that were sent and did not arrive, by what the provider reported."""
    messages = schema.messages.c
    why = (messages.delivery_kind, messages.delivery_code, messages.delivery)
    of_campaign = (messages.campaign == (campaign or ""), messages.delivery.in_(_NOT_ARRIVED))
    is_sent = messages.state == MessageState.ACCEPTED.value
    rows = connection.execute(sa.select(*why, sa.func.count()).where(*of_campaign, is_sent).group_by(*why))
    return _most_first(
        ReasonCount(kind=kind or "", code=code, reason=status, count=n) for kind, code, status, n in rows
    )


def retry_reasons_of(connection: sa.Connection, schema: Schema, campaign: str | None) -> tuple[ReasonCount, ...]:
    """Count the retries of ``campaign`` by the failure that caused them."""
    messages, attempts = schema.messages.c, schema.attempts.c
    why = (attempts.kind, attempts.code)
    query = (
        sa.select(*why, sa.func.count())
        .join_from(schema.attempts, schema.messages, messages.id == attempts.message_id)
        .where(messages.campaign == (campaign or ""), attempts.outcome == AttemptOutcome.RETRY.value)
        .group_by(*why)
    )
    rows = connection.execute(query)
    return _most_first(ReasonCount(kind=kind or "", code=code, reason=None, count=n) for kind, code, n in rows)


def history_of(connection: sa.Connection, schema: Schema, message_id: str) -> tuple[AttemptRecord, ...]:
    """Return everything that happened to a message, in the order in which it happened."""
    attempts = schema.attempts.c
    query = (
        sa.select(*(attempts[name] for name in _ATTEMPT_COLUMNS))
        .where(attempts.message_id == message_id)
        .order_by(attempts.round, attempts.at, attempts.attempt, attempts.id)
    )
    return tuple(_attempt_record(row) for row in connection.execute(query).mappings())


def message_of(connection: sa.Connection, schema: Schema, message_id: str) -> MessageRecord | None:
    """Return where a message stands, or None where nothing is known of it."""
    query = _messages_query(schema).where(schema.messages.c.id == message_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _message_record(row)


def messages_of(connection: sa.Connection, schema: Schema, campaign: str | None) -> Iterator[MessageRecord]:
    """Yield the messages of ``campaign`` in the order of their ids, without holding them all in memory."""
    messages = schema.messages.c
    query = _messages_query(schema).where(messages.campaign == (campaign or "")).order_by(messages.id)
    for row in connection.execute(query, execution_options={"yield_per": _BATCH}).mappings():
        yield _message_record(row)


def write_csv(file: TextIO, messages: Iterator[MessageRecord]) -> int:
    """Write one line per message under a header, and return how many there were."""
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    count = 0
    for count, message in enumerate(messages, start=1):  # noqa: B007  # it is the answer
        writer.writerow([_in_csv(getattr(message, name)) for name in CSV_COLUMNS])
    return count


def _messages_query(schema: Schema) -> sa.Select[Any]:
    messages = schema.messages.c
    return sa.select(messages.id.label("message_id"), *(messages[name] for name in _MESSAGE_COLUMNS))


def _message_record(row: sa.RowMapping) -> MessageRecord:
    known: dict[str, Any] = {**row, "campaign": row["campaign"] or None, "state": MessageState(row["state"])}
    return MessageRecord(**known)


def _attempt_record(row: sa.RowMapping) -> AttemptRecord:
    known: dict[str, Any] = {**row, "outcome": AttemptOutcome(row["outcome"])}
    return AttemptRecord(**known)


def _most_first(counts: Iterator[ReasonCount]) -> tuple[ReasonCount, ...]:
    return tuple(sorted(counts, key=lambda one: (-one.count, one.kind, one.code or "", one.reason or "")))


def _in_csv(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    isoformat = getattr(value, "isoformat", None)
    return value if isoformat is None else isoformat()
