"""Let no further text of a message go out once one of an earlier round has arrived, whatever came first.

That it has arrived may be said while the next send waits, while it is made, or after it was refused. It is looked for
in what was reported, under the lock of the message's row, wherever a message that was sent anew comes to a rest.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import sqlalchemy as sa

from smsretry.core import claims
from smsretry.core.delivery import Delivery, DeliveryStatus
from smsretry.core.message import Receipt
from smsretry.core.outcome import Accepted
from smsretry.store.kept import columns_of, entry_of
from smsretry.store.moves import NO_REPORT, UNDELIVERED, MessageState, bucket_of, has_sent_nothing
from smsretry.store.schema import DatabaseNow, Schema
from smsretry.store.writing import Tally, Writer

Known = tuple[Delivery, str | None]
"""What is known of a text, and the kind of the failure that its code means."""
_ARRIVED: Final = tuple(status.value for status in DeliveryStatus if status.has_arrived)
_NO_FAILURE: Final = dict.fromkeys(("reason", "kind", "code", "http_status", "detail"))


class Arrivals:
    """Hold the statements that find texts of earlier rounds, and end their messages."""

    def __init__(self, schema: Schema, writer: Writer) -> None:
        self._messages, self._attempts, self._reports = schema.messages, schema.attempts, schema.reports
        self._writer = writer

    def locked(self, connection: sa.Connection, message_id: str) -> Any:
        """Return the whole row of a message, locked, with the moment ``now``; None where there is none."""
        row = sa.select(self._messages).where(self._messages.c.id == message_id).with_for_update().cte("locked")
        return connection.execute(sa.select(row, DatabaseNow().label("now"))).one_or_none()

    def end(self, connection: sa.Connection, message_id: str) -> Accepted | None:
        """Do what `settle` does with a message that has just changed, and count it."""
        row, tally = self.locked(connection, message_id), Tally(Counter)
        end = None if row is None else self.settle(connection, row, tally)
        self._writer.count_all(connection, tally)
        return end

    def settle(self, connection: sa.Connection, row: Any, tally: Tally) -> Accepted | None:
        """End the message of ``row`` as delivered where a text of an earlier round has arrived; None where it goes on.

        One that is being sent, or in doubt, goes on to what becomes of that send, and is not sent again.
        """
        text = self.of_earlier_round(connection, row)
        if text is None:
            return None
        taken = Accepted(Receipt(text.provider or "", text.provider_id, row.now))
        columns: dict[str, Any] = delivery_columns(known_in(text)) | {"delivery_at": row.now, "body": None}
        if bucket_of(row.delivery) in {UNDELIVERED, NO_REPORT}:
            self._writer.change_counted(connection, row, columns, tally)
            return taken
        if _is_unsent(row):
            self._writer.change_counted(connection, row, columns | _taken_back(row, taken), tally)
            return taken
        self._stop(connection, row)
        return None

    def of_earlier_round(self, connection: sa.Connection, row: Any) -> Any:
        """Return what was reported of a text of the message of ``row`` that arrived in a round before its present one.

        None where there is none, and, without asking, where it was never sent anew.
        """
        if not row.delivery_retries:
            return None
        told, made = self._reports.c, self._attempts.c
        query = (
            sa.select(told.provider_id, told.status, told.code, told.kind, made.provider)
            .join_from(self._attempts, self._reports, told.provider_id == made.provider_id)
            .where(made.message_id == row.id, made.round < row.round, told.status.in_(_ARRIVED))
            .order_by(made.round)
            .limit(1)
        )
        return connection.execute(query).one_or_none()

    def _stop(self, connection: sa.Connection, row: Any) -> None:
        """Let the message of ``row``, where it is open, end as what becomes of the send that is on its way."""
        entry = entry_of(row)
        stopped = claims.cancel(entry)
        if stopped is not None and stopped != entry:
            self._writer.change(connection, row.id, columns_of(stopped))


def known_in(row: Any) -> Known:
    """Return what a row of reports says."""
    return Delivery(DeliveryStatus(row.status), row.code), row.kind


def delivery_columns(known: Known) -> dict[str, Any]:
    """Return the columns of a message that hold what is ``known`` of its text."""
    delivery, kind = known
    return {"delivery": delivery.status.value, "delivery_code": delivery.code or None, "delivery_kind": kind}


def _is_unsent(row: Any) -> bool:
    """Say whether the provider has certainly taken nothing in the present round: it waits, or has ended so."""
    waits = row.state == MessageState.PENDING.value and entry_of(row).may_wait
    return waits or has_sent_nothing(MessageState(row.state))


def _taken_back(row: Any, taken: Accepted) -> dict[str, Any]:
    """Return the columns of a message that is known by a text which was ``taken`` before, in place of its retry."""
    return {
        **columns_of(claims.proved(entry_of(row), taken)),
        **_NO_FAILURE,
        "state": MessageState.ACCEPTED.value,
        "provider": taken.receipt.provider or None,
        "provider_id": taken.receipt.provider_id,
        "due": None,
        "decided_at": row.now,
        "delivery_retries": row.delivery_retries - 1,
    }
