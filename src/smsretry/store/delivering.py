"""Write what a provider reports about texts that it took, and what follows from it, each report in one transaction.

Rows are locked in one order: the message, the report, the attempt, the counters. A report may come before the create's
own answer: with our message's id and mark it proves the acceptance by itself; without, it is kept until the message is
known under the provider's id.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from smsretry.core import claims
from smsretry.core.delivery import Delivery, DeliveryReport, DeliveryRetries, DeliveryStatus, Received
from smsretry.core.failure import FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted
from smsretry.errors import ConfigurationError
from smsretry.store.arriving import Known, delivery_columns, known_in
from smsretry.store.claiming import Claims
from smsretry.store.database import Database
from smsretry.store.kept import columns_of, entry_of, read_body
from smsretry.store.moves import (
    FIRST_FETCH,
    NO_DELIVERY,
    UNDELIVERED,
    WITHOUT_REPORT,
    AttemptOutcome,
    Fact,
    MessageState,
    bucket_of,
)
from smsretry.store.records import Unreported
from smsretry.store.schema import Schema
from smsretry.store.writing import Tally, Writer

NO_REPORT_AFTER: Final = timedelta(hours=72)
"""How long after its acceptance an answer without a last word ends the asking about a text."""
NO_ANSWER_AFTER: Final = timedelta(days=14)
"""How long after it a text is asked about where no answer comes at all."""
_log: Final = logging.getLogger("smsretry.store")
_FIRST_PAUSE: Final = timedelta(minutes=30)
_LONGEST_PAUSE: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class _News:
    """Hold what is known of a text now, when it was learned, and where the moves of counters are added up."""

    known: Known
    now: datetime
    tally: Tally


class Deliveries:
    """Hold the statements for delivery reports; ``retries`` says what is sent anew after which of them."""

    def __init__(
        self, schema: Schema, database: Database, writer: Writer, journal: Claims, *, retries: DeliveryRetries
    ) -> None:
        self._messages, self._attempts, self._reports = schema.messages, schema.attempts, schema.reports
        self._database = database
        self._writer = writer
        self._journal, self._arrivals = journal, journal.arrivals
        self._retries = retries
        self._told_unknown = False

    def receive(self, connection: sa.Connection, report: DeliveryReport) -> Received:
        """Write ``report``, and what follows from it."""
        row = self._message_of(connection, report)
        now = self._writer.now(connection) if row is None else row.now
        message_id = report.message_id if row is None else row.id
        before, known = self._kept(connection, report, message_id, now)
        if row is None:
            self._tell_unknown(report)
            return Received(message_id, known[0], before != known)
        proved = self._prove(connection, row, report, now)
        if proved:
            row = self._arrivals.locked(connection, row.id)
        again, news = None, _News(known, now, Tally(Counter))
        if not (known[0].status.has_arrived and self._arrivals.settle(connection, row, news.tally)):
            again = self._apply(connection, row, report, news)
        changed = proved or before != known
        if changed:
            delay_s = None if again is None else self._retries.delay_s(known[0], row.delivery_retries)
            self._writer.append(connection, _fact_of(report, row, known[0], now, delay_s))
        self._writer.count_all(connection, news.tally)
        return Received(message_id, known[0], changed, again)

    def _tell_unknown(self, report: DeliveryReport) -> None:
        """Warn once of a report that names a message which is not known: it may be of another database."""
        if report.message_id is None or self._told_unknown:
            return
        self._told_unknown = True
        _log.warning(
            "A report names the message %r, which %s does not know. The report is kept; is this the database of the "
            "dispatcher that sent it? (Told once.)",
            report.message_id,
            self._database.place,
        )

    def unreported(
        self, connection: sa.Connection, *, limit: int, first: timedelta
    ) -> tuple[int, tuple[Unreported, ...]]:
        """Take up to ``limit`` texts whose last word has not come; return how many were due, and those to ask about.

        One that nobody asked about yet is due ``first`` after its acceptance. The others have ended: those of which no
        word will come, and those of which it is known already. Counters are moved last, in the order of their shards: a
        plan, too, moves those of many messages.
        """
        message, now, tally = self._messages.c, self._writer.now(connection), Tally(Counter)
        query = (
            sa.select(self._messages, sa.literal(now, message.decided_at.type).label("now"))
            .where(message.next_fetch.is_not(None), _is_due(message, now, first))
            .order_by(message.next_fetch)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(query).all()
        taken = [self._taken_up(connection, row, now, tally) for row in rows]
        self._writer.count_all(connection, tally)
        return len(taken), tuple(one for one in taken if one is not None)

    def put_back(self, connection: sa.Connection, texts: Iterable[Unreported]) -> None:
        """Let ``texts``, which were taken and not asked about, be due at once; those that have ended stay so."""
        message, now = self._messages.c, self._writer.now(connection)
        waits = (message.next_fetch.is_not(None), message.fetches > 0)
        for text in sorted(texts, key=lambda one: one.message_id):  # whoever locks rows does it in this order
            taken = (message.id == text.message_id, message.provider_id == text.provider_id, *waits)
            put_back = sa.update(self._messages).where(*taken)
            connection.execute(put_back.values(next_fetch=now, fetches=message.fetches - 1))

    def _taken_up(self, connection: sa.Connection, row: Any, now: datetime, tally: Tally) -> Unreported | None:
        """Return a text that is to be asked about; apply what was kept of it, and end one that waited too long."""
        has_ended = bucket_of(row.delivery) is not None  # then another text of its round was taken later
        if row.state != MessageState.ACCEPTED.value or row.provider_id is None or has_ended:
            self._writer.change(connection, row.id, {"next_fetch": None})
            return None
        kept = self._report_of(connection, row.provider_id)
        if kept is not None and known_in(kept)[0].status.is_final:
            self._bind(connection, kept, row.id)
            self._apply(connection, row, None, _News(known_in(kept), now, tally))
            return None
        if row.fetches and now - row.decided_at >= NO_ANSWER_AFTER:
            self._end_without_report(connection, row, now, tally)
            return None
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(row.fetches, 6))
        self._writer.change(connection, row.id, {"next_fetch": now + pause, "fetches": row.fetches + 1})
        return Unreported(message_id=row.id, provider_id=row.provider_id, round=row.round, accepted_at=row.decided_at)

    def _bind(self, connection: sa.Connection, kept: Any, message_id: str) -> None:
        """Write whose text a report is about that came before anybody knew: in a later round nothing else would say."""
        if kept.message_id is None:
            told = self._reports.c.provider_id == kept.provider_id
            connection.execute(sa.update(self._reports).where(told).values(message_id=message_id))

    def _end_without_report(self, connection: sa.Connection, row: Any, now: datetime, tally: Tally) -> None:
        arrived = self._arrivals.of_earlier_round(connection, row)
        word = {"delivery": WITHOUT_REPORT} if arrived is None else delivery_columns(known_in(arrived))
        columns = {**word, "delivery_at": now, "next_fetch": None, "body": None}
        self._writer.change_counted(connection, row, columns, tally)

    def _message_of(self, connection: sa.Connection, report: DeliveryReport) -> Any:
        """Return the locked row of the message that ``report`` is about; None where it is not known yet."""
        if report.message_id is not None:
            return self._arrivals.locked(connection, report.message_id)
        message, told = self._messages.c, self._reports.c
        by_text = sa.select(message.id).where(message.provider_id == report.provider_id).limit(1)
        by_report = sa.select(told.message_id).where(told.provider_id == report.provider_id)
        found = connection.scalar(by_text) or connection.scalar(by_report)
        return None if found is None else self._arrivals.locked(connection, found)

    def _report_of(self, connection: sa.Connection, provider_id: str) -> Any:
        told = sa.select(self._reports).where(self._reports.c.provider_id == provider_id).with_for_update()
        return connection.execute(told).one_or_none()

    def _kept(
        self, connection: sa.Connection, report: DeliveryReport, message_id: str | None, now: datetime
    ) -> tuple[Known, Known]:
        """Write ``report``; return what was known of its text before, and what is known now."""
        new = (report.delivery, _kind_of(report))
        values = {"message_id": message_id, **_columns(new), "changed_at": now}
        first = {"provider_id": report.provider_id, "first_at": now, **values}
        insert = self._database.insert(self._reports).values(first)
        insert = insert.on_conflict_do_nothing(index_elements=["provider_id"])
        while True:  # twice at most, unless a purge takes the report away between the two statements
            if connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 1:
                return (Delivery(), None), new
            row = self._report_of(connection, report.provider_id)
            if row is not None:
                return self._raised(connection, row, new, message_id, now)

    def _raised(
        self, connection: sa.Connection, row: Any, new: Known, message_id: str | None, now: datetime
    ) -> tuple[Known, Known]:
        """Write what ``new`` adds to the report in ``row``; return what was known before, and what is known now."""
        before = known_in(row)
        known = _heavier(before, new)
        if known != before or (row.message_id is None and message_id is not None):
            values = {**_columns(known), "message_id": message_id or row.message_id, "changed_at": now}
            told = self._reports.c.provider_id == row.provider_id
            connection.execute(sa.update(self._reports).where(told).values(values))
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
            return self._writer.note(connection, fact)
        receipt = Receipt(report.provider, report.provider_id, now)
        taken = Accepted(receipt, attempt, looked_up=False)
        columns: dict[str, Any] = {}
        if not is_accepted:
            columns = columns_of(claims.proved(entry_of(row), taken)) | self._journal.erased_after(taken)
        return self._writer.note_locked(connection, fact, row, columns)

    def _apply(self, connection: sa.Connection, row: Any, report: DeliveryReport | None, news: _News) -> Message | None:
        """Move the message of ``row`` by the ``news`` of the text that it was sent as; return it to be sent anew.

        ``report`` is what brought it; None where it is the text that the message is known by.
        """
        if row.state != MessageState.ACCEPTED.value or not self._is_of(connection, row, report):
            return None
        standing = _standing(row)
        known = _heavier(news.known, standing)  # a second text may stand elsewhere
        if _was_asked_in_vain(row, report, known, news.now):
            self._end_without_report(connection, row, news.now, news.tally)
            return None
        if known[0] == standing[0] and row.delivery is not None and row.delivery != WITHOUT_REPORT:
            return None
        known = self._of_all_rounds(connection, row, known)
        bucket = bucket_of(known[0].status.value)
        due = self._due_again(row, known, news.now) if bucket == UNDELIVERED else None
        if due is not None:
            return self._send_anew(connection, row, replace(news, known=known), due)
        if row.delivery == WITHOUT_REPORT and bucket is None:
            return None
        columns: dict[str, Any] = {**delivery_columns(known), "delivery_at": news.now}
        if known[0].status.is_final:
            columns |= {"next_fetch": None, "body": None}
        self._writer.change_counted(connection, row, columns, news.tally)
        return None

    def _of_all_rounds(self, connection: sa.Connection, row: Any, known: Known) -> Known:
        """Return what is known of the message of ``row``: one that arrived in an earlier round has not failed."""
        has_failed = bucket_of(known[0].status.value) == UNDELIVERED
        arrived = self._arrivals.of_earlier_round(connection, row) if has_failed else None
        return known if arrived is None else known_in(arrived)

    def _is_of(self, connection: sa.Connection, row: Any, report: DeliveryReport | None) -> bool:
        """Say whether ``report`` is about a text of the round in which the message of ``row`` is."""
        if report is None or report.provider_id == row.provider_id:
            return True
        return bool(self._round_of(connection, row, report) == row.round)

    def _round_of(self, connection: sa.Connection, row: Any, report: DeliveryReport) -> int | None:
        if report.mark is not None:
            return report.mark.round
        made = self._attempts.c
        own = (made.message_id == row.id, made.provider_id == report.provider_id)
        return connection.scalar(sa.select(made.round).where(*own).limit(1))

    def _due_again(self, row: Any, known: Known, now: datetime) -> datetime | None:
        """Return when the message is sent anew; None where it is not, or there is no time, or text, left for it.

        Who has opted out is not texted again, whatever codes are named.
        """
        delay_s = self._retries.delay_s(known[0], row.delivery_retries)
        message, _ = read_body(row.body)
        if known[1] == FailureKind.OPTED_OUT.value:
            return None
        if delay_s is None or message is None or row.fingerprint is None:
            return None
        due = now + timedelta(seconds=delay_s)
        return due if message.send_before is None or due <= message.send_before else None

    def _send_anew(self, connection: sa.Connection, row: Any, news: _News, due: datetime) -> Message | None:
        """Open the next round of the message of ``row``, and return it."""
        entry = claims.sent_anew(entry_of(row), due)
        columns = {
            **columns_of(entry),
            **_failure_columns(news.known),
            **NO_DELIVERY,
            "state": MessageState.PENDING.value,
            "attempts": 0,
            "reason": None,
            "provider_id": None,
            "decided_at": news.now,
            "handed_over_at": news.now,
            "hand_overs": 0,
            "next_fetch": None,
            "fetches": 0,
            "delivery_retries": row.delivery_retries + 1,
        }
        self._writer.change_counted(connection, row, columns, news.tally)
        return read_body(row.body)[0]


def checked_first_fetch(after_s: float) -> timedelta:
    """Return how long after its acceptance a text is first asked about; raise `ConfigurationError` for no such time."""
    longest_s = FIRST_FETCH.total_seconds()
    if not 0.0 <= after_s <= longest_s:
        raise ConfigurationError(
            f"after_s must be from 0 to {longest_s:g} seconds, got {after_s!r}. Leave it out for 900."
        )
    return timedelta(seconds=after_s)


def _is_due(message: Any, now: datetime, first: timedelta) -> sa.ColumnElement[bool]:
    is_due: sa.ColumnElement[bool] = message.next_fetch <= now
    if first == FIRST_FETCH:
        return is_due  # as the index has it
    if not first:
        return sa.or_(is_due, message.fetches == 0)  # by no clock: the one that wrote the time may be ahead
    return sa.or_(is_due, sa.and_(message.fetches == 0, message.next_fetch <= now + (FIRST_FETCH - first)))


def _was_asked_in_vain(row: Any, report: DeliveryReport | None, known: Known, now: datetime) -> bool:
    """Say whether ``report`` is the provider's answer, when the time for it is over, that there is no last word.

    A report that names the message was not asked for: it is a callback.
    """
    is_answer = report is not None and report.message_id is None and row.next_fetch is not None and row.fetches > 0
    return is_answer and not known[0].status.is_final and now - row.decided_at >= NO_REPORT_AFTER


def _heavier(one: Known, other: Known) -> Known:
    return one if one[0].after(other[0]) == one[0] else other


def _standing(row: Any) -> Known:
    if row.delivery is None or row.delivery == WITHOUT_REPORT:
        return Delivery(), None
    return Delivery(DeliveryStatus(row.delivery), row.delivery_code or ""), row.delivery_kind


def _kind_of(report: DeliveryReport) -> str | None:
    return None if report.failure is None else report.failure.kind.value


def _columns(known: Known) -> dict[str, Any]:
    delivery, kind = known
    return {"status": delivery.status.value, "code": delivery.code, "kind": kind}


def _failure_columns(known: Known) -> dict[str, Any]:
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


def _fact_of(report: DeliveryReport, row: Any, delivery: Delivery, now: datetime, delay_s: float | None) -> Fact:
    """Return the row of history that says what is known of a text after ``report``, and when it is sent anew."""
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
        delay_s=delay_s,
        due=None if delay_s is None else now + timedelta(seconds=delay_s),
        kind=_kind_of(report),
        code=delivery.code or None,
        provider=report.provider or None,
    )
