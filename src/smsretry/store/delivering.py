"""Write what a provider reports about texts that it took, and what follows from it, each report in one transaction.

Rows are locked in one order: the message, the report, the attempt, the counters. A report may come before the create's
own answer: with our message's id and mark it proves the acceptance by itself; without, it is kept until the message is
known under the provider's id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from smsretry.core import claims
from smsretry.core.delivery import Delivery, DeliveryReport, DeliveryRetries, DeliveryStatus, Received
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted
from smsretry.store.claiming import Claims
from smsretry.store.database import Database
from smsretry.store.kept import columns_of, entry_of, is_open, read_body
from smsretry.store.moves import (
    DELIVERED,
    DELIVERED_AFTER_RETRY,
    DELIVERY_RETRIES,
    NO_REPORT,
    RETRIES_IN_VAIN,
    STATE_COUNTERS,
    UNDELIVERED,
    AttemptOutcome,
    Fact,
    MessageState,
)
from smsretry.store.records import Unreported
from smsretry.store.schema import DatabaseNow, Schema
from smsretry.store.writing import Writer

NO_REPORT_AFTER: Final = timedelta(hours=72)
"""How long after its acceptance a text is asked about."""
_NO_REPORT: Final = "no_report"
_FIRST_PAUSE: Final = timedelta(minutes=30)
_LONGEST_PAUSE: Final = timedelta(hours=12)
_Known = tuple[Delivery, str | None]
"""What is known of a text, and the kind of the failure that its code means."""


class Deliveries:
    """Hold the statements for delivery reports; ``retries`` says what is sent anew after which of them."""

    def __init__(
        self, schema: Schema, database: Database, writer: Writer, journal: Claims, *, retries: DeliveryRetries
    ) -> None:
        self._messages, self._attempts, self._reports = schema.messages, schema.attempts, schema.reports
        self._database = database
        self._writer = writer
        self._journal = journal
        self._retries = retries

    def receive(self, connection: sa.Connection, report: DeliveryReport) -> Received:
        """Write ``report``, and what follows from it."""
        row = self._message_of(connection, report)
        now = self._writer.now(connection) if row is None else row.now
        message_id = report.message_id if row is None else row.id
        before, known = self._kept(connection, report, message_id, now)
        if row is None:
            return Received(message_id, known[0], before != known)
        proved = self._prove(connection, row, report, now)
        if proved:
            row = self._locked(connection, row.id)
        if known[0].status.has_arrived and self._waits_for_retry(connection, row, report):
            self._take_back_retry(connection, row, report, known, now)
        again = self._apply(connection, row, report, known, now)
        changed = proved or before != known
        if changed:
            self._writer.append(connection, _fact_of(report, row, known[0], now))
        return Received(message_id, known[0], changed, again)

    def unreported(self, connection: sa.Connection, *, limit: int) -> tuple[int, tuple[Unreported, ...]]:
        """Take up to ``limit`` texts whose last word has not come; return how many were due, and those to ask about.

        The others have ended: those of which no word will come, and those of which it is known already.
        """
        message, now = self._messages.c, self._writer.now(connection)
        query = (
            sa.select(self._messages, sa.literal(now, message.decided_at.type).label("now"))
            .where(message.next_fetch.is_not(None), message.next_fetch <= now)
            .order_by(message.next_fetch)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(query).all()
        taken = [self._taken_up(connection, row, now) for row in sorted(rows, key=lambda row: str(row.id))]
        return len(taken), tuple(one for one in taken if one is not None)

    def _taken_up(self, connection: sa.Connection, row: Any, now: datetime) -> Unreported | None:
        """Return a text that is to be asked about; apply what was kept of it, and end one that waited too long."""
        if row.state != MessageState.ACCEPTED.value or row.provider_id is None:
            self._writer.change(connection, row.id, {"next_fetch": None})
            return None
        kept = self._report_of(connection, row.provider_id)
        if kept is not None and _known_in(kept)[0].status.is_final:
            self._apply(connection, row, None, _known_in(kept), now)
            return None
        if now - row.decided_at >= NO_REPORT_AFTER:
            self._end_without_report(connection, row, now)
            return None
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(row.fetches, 6))
        self._writer.change(connection, row.id, {"next_fetch": now + pause, "fetches": row.fetches + 1})
        return Unreported(message_id=row.id, provider_id=row.provider_id, round=row.round, accepted_at=row.decided_at)

    def _end_without_report(self, connection: sa.Connection, row: Any, now: datetime) -> None:
        columns = {"delivery": _NO_REPORT, "delivery_at": now, "next_fetch": None, "body": None}
        self._writer.change(connection, row.id, columns)
        self._count(connection, row, {NO_REPORT: 1, RETRIES_IN_VAIN: int(row.delivery_retries > 0)})

    def _message_of(self, connection: sa.Connection, report: DeliveryReport) -> Any:
        """Return the locked row of the message that ``report`` is about; None where it is not known yet."""
        if report.message_id is not None:
            return self._locked(connection, report.message_id)
        message, told = self._messages.c, self._reports.c
        by_text = sa.select(message.id).where(message.provider_id == report.provider_id).limit(1)
        by_report = sa.select(told.message_id).where(told.provider_id == report.provider_id)
        found = connection.scalar(by_text) or connection.scalar(by_report)
        return None if found is None else self._locked(connection, found)

    def _locked(self, connection: sa.Connection, message_id: str) -> Any:
        row = sa.select(self._messages).where(self._messages.c.id == message_id).with_for_update().cte("locked")
        return connection.execute(sa.select(row, DatabaseNow().label("now"))).one_or_none()

    def _report_of(self, connection: sa.Connection, provider_id: str) -> Any:
        told = sa.select(self._reports).where(self._reports.c.provider_id == provider_id).with_for_update()
        return connection.execute(told).one_or_none()

    def _kept(
        self, connection: sa.Connection, report: DeliveryReport, message_id: str | None, now: datetime
    ) -> tuple[_Known, _Known]:
        """Write ``report``; return what was known of its text before, and what is known now."""
        told, new = self._reports.c, (report.delivery, _kind_of(report))
        values = {"message_id": message_id, **_columns(new), "changed_at": now}
        first = {"provider_id": report.provider_id, "first_at": now, **values}
        insert = self._database.insert(self._reports).values(first)
        insert = insert.on_conflict_do_nothing(index_elements=["provider_id"])
        if connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 1:
            return (Delivery(), None), new
        row = self._report_of(connection, report.provider_id)
        before = _known_in(row)
        known = before if before[0].after(new[0]) == before[0] else new
        if known != before or (row.message_id is None and message_id is not None):
            values = {**_columns(known), "message_id": message_id or row.message_id, "changed_at": now}
            connection.execute(sa.update(self._reports).where(told.provider_id == report.provider_id).values(values))
        return before, known

    def _prove(self, connection: sa.Connection, row: Any, report: DeliveryReport, now: datetime) -> bool:
        """Write that the provider took the message of ``row``, where ``report`` is the first to say so."""
        if report.message_id is None or row.provider_id == report.provider_id:
            return False
        mark = report.mark
        is_accepted = row.state == MessageState.ACCEPTED.value
        if mark is None and (is_accepted or self._round_of(connection, row, report) is not None):
            return False  # known from an earlier round, or of a send of which nobody can tell
        attempt = max(1, row.attempts) if mark is None else mark.attempt
        round_ = row.round if mark is None else mark.round
        fact = _acceptance(report, row, round_, attempt, now)
        if round_ != row.round or row.fingerprint is None:  # of an earlier round, or no journal knows it
            self._writer.note(connection, fact)
            return True
        receipt = Receipt(report.provider, report.provider_id, now)
        entry = claims.proved(entry_of(row), Accepted(receipt, attempt, looked_up=False))
        columns = columns_of(entry) if is_open(row) or row.state != MessageState.ACCEPTED.value else {}
        self._writer.note_locked(connection, fact, row, columns)
        return True

    def _apply(
        self, connection: sa.Connection, row: Any, report: DeliveryReport | None, known: _Known, now: datetime
    ) -> Message | None:
        """Move the message of ``row`` by what is ``known`` of the text that it was sent as; return it to be sent anew.

        ``report`` is what brought it; None where it is the text that the message is known by.
        """
        if row.state != MessageState.ACCEPTED.value or not _is_of(row, report):
            return None
        standing = _standing(row)
        known = known if standing[0].after(known[0]) == known[0] else standing  # a second text may stand elsewhere
        if known[0] == standing[0] and row.delivery is not None and row.delivery != _NO_REPORT:
            return None
        before, bucket = _bucket(row.delivery), _bucket(known[0].status.value)
        due = self._due_again(row, known[0], now) if bucket == UNDELIVERED else None
        if due is not None:
            return self._send_anew(connection, row, known, due, now)
        if row.delivery == _NO_REPORT and bucket is None:
            return None
        columns: dict[str, Any] = {**_delivery_columns(known), "delivery_at": now}
        if known[0].status.is_final:
            columns |= {"next_fetch": None, "body": None}
        self._writer.change(connection, row.id, columns)
        self._count(connection, row, _moves(before, bucket, is_retry=row.delivery_retries > 0))
        return None

    def _waits_for_retry(self, connection: sa.Connection, row: Any, report: DeliveryReport) -> bool:
        """Say whether the message of ``row`` waits to be sent anew for a text that arrived after all."""
        if row.state != MessageState.PENDING.value or not row.delivery_retries or not entry_of(row).may_wait:
            return False
        is_unmade = row.attempts == row.retries == 0
        return is_unmade and self._round_of(connection, row, report) == int(row.round) - 1

    def _round_of(self, connection: sa.Connection, row: Any, report: DeliveryReport) -> int | None:
        if report.mark is not None:
            return report.mark.round
        made = self._attempts.c
        own = (made.message_id == row.id, made.provider_id == report.provider_id)
        return connection.scalar(sa.select(made.round).where(*own).limit(1))

    def _take_back_retry(
        self, connection: sa.Connection, row: Any, report: DeliveryReport, known: _Known, now: datetime
    ) -> None:
        """End the message of ``row`` as delivered in place of sending it anew."""
        entry = claims.proved(entry_of(row), Accepted(Receipt(report.provider, report.provider_id, now)))
        earlier = row.delivery_retries - 1
        columns = {
            **columns_of(entry),
            **_failure_columns((Delivery(), None)),
            **_delivery_columns(known),
            "detail": None,
            "state": MessageState.ACCEPTED.value,
            "provider": report.provider or None,
            "provider_id": report.provider_id,
            "due": None,
            "decided_at": now,
            "delivery_at": now,
            "delivery_retries": earlier,
            "body": None,
        }
        self._writer.change(connection, row.id, columns)
        sent, pending = STATE_COUNTERS[MessageState.ACCEPTED], STATE_COUNTERS[MessageState.PENDING]
        added = Counter(_moves(None, DELIVERED, is_retry=earlier > 0))
        added.update({pending: -1, sent: 1, DELIVERY_RETRIES: -1, RETRIES_IN_VAIN: -int(earlier > 0)})
        self._count(connection, row, added)

    def _due_again(self, row: Any, delivery: Delivery, now: datetime) -> datetime | None:
        """Return when the message is sent anew; None where it is not, or there is no time, or text, left for it."""
        delay_s = self._retries.delay_s(delivery, row.delivery_retries)
        message, _ = read_body(row.body)
        if delay_s is None or message is None or row.fingerprint is None:
            return None
        due = now + timedelta(seconds=delay_s)
        return due if message.send_before is None or due <= message.send_before else None

    def _send_anew(
        self, connection: sa.Connection, row: Any, known: _Known, due: datetime, now: datetime
    ) -> Message | None:
        """Open the next round of the message of ``row``, and return it."""
        entry = claims.sent_anew(entry_of(row), due)
        columns = {
            **columns_of(entry),
            **_failure_columns(known),
            "state": MessageState.PENDING.value,
            "attempts": 0,
            "reason": None,
            "provider_id": None,
            "decided_at": now,
            "handed_over_at": now,
            "hand_overs": 0,
            "delivery": None,
            "delivery_kind": None,
            "delivery_code": None,
            "delivery_at": None,
            "next_fetch": None,
            "fetches": 0,
            "delivery_retries": row.delivery_retries + 1,
        }
        self._writer.change(connection, row.id, columns)
        sent, pending = STATE_COUNTERS[MessageState.ACCEPTED], STATE_COUNTERS[MessageState.PENDING]
        added = Counter(_moves(_bucket(row.delivery), None, is_retry=row.delivery_retries > 0))
        added.update({sent: -1, pending: 1, DELIVERY_RETRIES: 1, RETRIES_IN_VAIN: int(row.delivery_retries > 0)})
        self._count(connection, row, added)
        return read_body(row.body)[0]

    def _count(self, connection: sa.Connection, row: Any, added: Mapping[str, int]) -> None:
        self._writer.count(connection, row.campaign, row.id, added)


def _bucket(delivery: str | None) -> str | None:
    """Return the counter of messages that stand at ``delivery``; None while the last word has not come."""
    if delivery == _NO_REPORT:
        return NO_REPORT
    status = DeliveryStatus.UNKNOWN if delivery is None else DeliveryStatus(delivery)
    if status.has_arrived:
        return DELIVERED
    return UNDELIVERED if status.is_final else None


def _moves(before: str | None, after: str | None, *, is_retry: bool) -> dict[str, int]:
    """Return what the counters of delivery add where a message moves from one to another."""
    added: Counter[str] = Counter()
    for bucket, step in ((before, -1), (after, 1)):
        if bucket is None:
            continue
        added[bucket] += step
        if is_retry:
            added[DELIVERED_AFTER_RETRY if bucket == DELIVERED else RETRIES_IN_VAIN] += step
    return dict(added)


def _is_of(row: Any, report: DeliveryReport | None) -> bool:
    """Say whether ``report`` is about a text of the round in which the message of ``row`` is."""
    if report is None or report.provider_id == row.provider_id:
        return True
    return report.mark is not None and report.mark.round == row.round


def _standing(row: Any) -> _Known:
    if row.delivery is None or row.delivery == _NO_REPORT:
        return Delivery(), None
    return Delivery(DeliveryStatus(row.delivery), row.delivery_code or ""), row.delivery_kind


def _known_in(row: Any) -> _Known:
    return Delivery(DeliveryStatus(row.status), row.code), row.kind


def _kind_of(report: DeliveryReport) -> str | None:
    return None if report.failure is None else report.failure.kind.value


def _columns(known: _Known) -> dict[str, Any]:
    delivery, kind = known
    return {"status": delivery.status.value, "code": delivery.code, "kind": kind}


def _delivery_columns(known: _Known) -> dict[str, Any]:
    delivery, kind = known
    return {"delivery": delivery.status.value, "delivery_code": delivery.code or None, "delivery_kind": kind}


def _failure_columns(known: _Known) -> dict[str, Any]:
    delivery, kind = known
    return {"kind": kind, "code": delivery.code or None, "http_status": None, "detail": "not delivered"}


def _acceptance(report: DeliveryReport, row: Any, round_: int, attempt: int, now: datetime) -> Fact:
    """Return the fact that the provider took the message, as its create would have said."""
    return Fact(
        event_id=f"{row.id}/{round_}/{attempt}/accepted",
        message_id=row.id,
        campaign=row.campaign,
        round=round_,
        attempt=attempt,
        outcome=AttemptOutcome.ACCEPTED,
        state=MessageState.ACCEPTED,
        started_at=row.sending_since or now,
        at=now,
        provider=report.provider or None,
        provider_id=report.provider_id,
        looked_up=True,
    )


def _fact_of(report: DeliveryReport, row: Any, delivery: Delivery, now: datetime) -> Fact:
    """Return the row of history that says what is known of a text after ``report``."""
    round_ = row.round if report.mark is None else report.mark.round
    return Fact(
        event_id=f"{row.id}/{report.provider_id}/{delivery.status}/{delivery.code}",
        message_id=row.id,
        campaign=row.campaign,
        round=round_,
        attempt=max(1, row.attempts if report.mark is None else report.mark.attempt),
        outcome=AttemptOutcome.REPORTED,
        state=MessageState.ACCEPTED,
        started_at=now,
        at=now,
        reason=delivery.status.value,
        kind=_kind_of(report),
        code=delivery.code or None,
        provider=report.provider or None,
    )
