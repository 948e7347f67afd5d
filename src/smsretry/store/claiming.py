"""Claim, renew, finish and release messages, each in one transaction under the lock of the message's row.

Rows are locked in one order: the recipient (PostgreSQL only, where writers run side by side), the message, the hold of
its account, the attempt, the counters. A transaction that waits for another therefore never waits in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from smsretry.core import claims
from smsretry.core.claims import PROBE_EVERY_S, Asked, Begun, Busy, Claim, Ended, Entry, Granted, OnHold, Others
from smsretry.core.events import Event
from smsretry.core.failure import Failure
from smsretry.core.message import Message
from smsretry.core.outcome import Accepted, GaveUp, Outcome
from smsretry.errors import InvalidMessage
from smsretry.store.database import FINGERPRINT_KEY, Database
from smsretry.store.kept import Fingerprints, columns_of, entry_of, may_be_mended, read_body, written_body
from smsretry.store.moves import STATE_COUNTERS, MessageState, fact_of, state_after
from smsretry.store.schema import DatabaseNow, Schema
from smsretry.store.writing import Writer

_PENDING: Final = MessageState.PENDING
_COUNT_ROWS: Final = {"preserve_rowcount": True}
_LISTED_BEFORE: Final = timedelta(hours=1)
"""How long before a doubt began a provider's id may have been noted that its listing still shows."""


class Claims:
    """Hold the statements of the journal; ``keep_bodies`` says whether texts are kept until a message has ended."""

    def __init__(self, schema: Schema, database: Database, writer: Writer, *, keep_bodies: bool) -> None:
        self._messages, self._attempts, self._holds = schema.messages, schema.attempts, schema.holds
        self._meta = schema.meta
        self._database = database
        self._writer = writer
        self._keep_bodies = keep_bodies
        self._plan = database.insert(schema.messages).on_conflict_do_nothing(index_elements=["id"])
        self._lock = sa.select(schema.messages).where(schema.messages.c.id == sa.bindparam("key")).with_for_update()
        self._update = sa.update(schema.messages).where(schema.messages.c.id == sa.bindparam("key"))

    def begin(
        self,
        connection: sa.Connection,
        message: Message,
        asked: Asked,
        *,
        account: str,
        most_deferred_s: float,
        rerun: bool,
    ) -> Begun:
        """Claim the next attempt of ``message``, or say why not."""
        prints = Fingerprints.of(message, self._key(connection))
        self._lock_recipient(connection, prints)
        row = self._ensured(connection, message, prints)
        first = self._first(row, message, prints, rerun=rerun)
        now = self._writer.now(connection)
        entry = entry_of(row)
        if entry.may_wait and (busy := self._like(connection, row, now)) is not None:
            return busy
        claimed, answer = claims.begin(entry, asked, now)
        if not isinstance(answer, Granted):
            return answer
        held = None if claimed.state.provider_id else self._held(connection, account)
        probes = held is not None and held.next_probe <= now
        if held is not None and not probes and not claims.has_waited(claimed, first, now, most_deferred_s):
            self._save(connection, row.id, claims.put_on_hold(entry, until=held.next_probe, now=now))
            return OnHold((held.next_probe - now).total_seconds(), _failure(held))
        if probes:
            self._set_probe(connection, account, now)
        self._save(connection, row.id, claimed, handed_over_at=None, hand_overs=0)
        return Claim(
            message=first,
            epoch=claimed.epoch,
            state=claimed.state,
            now=now,
            dead_since=answer.dead_since,
            probes=probes,
            refused=None if held is None or probes else _failure(held),
        )

    def renew(self, connection: sa.Connection, claim: Claim, lease_s: float) -> bool:
        """Begin the lease of ``claim`` anew, for a send."""
        row = self._locked(connection, str(claim.message.id))
        now = self._writer.now(connection)
        entry = None if row is None else claims.renew(entry_of(row), claim.epoch, now=now, lease_s=lease_s)
        if row is None or entry is None:
            return False
        self._save(connection, row.id, entry)
        return True

    def finish(self, connection: sa.Connection, claim: Claim, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed the attempt under ``claim``, and count it."""
        message_id = str(claim.message.id)
        row = self._locked(connection, message_id)
        if row is None:  # purged under our hands: analytics still takes note
            self._writer.note(connection, fact_of(event))
            return None
        before = entry_of(row)
        after = claims.finish(before, claim, outcome)
        if after is None:
            if isinstance(outcome, Accepted):  # in an earlier round: its id belongs to no other text
                self._writer.note(connection, fact_of(event))
            return claims.instead(before, self._writer.now(connection))
        self._writer.note(connection, fact_of(event))
        erased = {"body": None} if after.end is not None and not may_be_mended(after.end) else {}
        self._save(connection, message_id, after, **erased)
        return None

    def release(self, connection: sa.Connection, claim: Claim) -> None:
        """Give ``claim`` back, under which nothing was sent."""
        row = self._locked(connection, str(claim.message.id))
        if row is not None:
            self._save(connection, row.id, claims.release(entry_of(row), claim.epoch))

    def others(self, connection: sa.Connection, claim: Claim, since: datetime) -> Others:
        """Return what is known of other messages, and of other rounds, to the recipient of ``claim``."""
        message, attempt, key = self._messages.c, self._attempts.c, str(claim.message.id)
        own = connection.execute(sa.select(message.recipient, message.fingerprint).where(message.id == key)).one()
        other = (attempt.message_id != key) | (attempt.round != claim.state.round)
        noted = (
            sa.select(attempt.provider_id)
            .join_from(self._attempts, self._messages, message.id == attempt.message_id)
            .where(message.recipient == own.recipient, attempt.provider_id.is_not(None), other)
            .where(attempt.at >= since - _LISTED_BEFORE)
        )
        unknown = (
            sa.select(message.id)
            .where(message.recipient == own.recipient, message.fingerprint == own.fingerprint, message.id != key)
            .where(message.state == MessageState.UNKNOWN.value, message.decided_at >= since - _LISTED_BEFORE)
            .limit(1)
        )
        ids = frozenset(connection.scalars(noted))
        return Others(provider_ids=ids, unsure=connection.scalar(unknown) is not None)

    def hold(self, connection: sa.Connection, account: str, failure: Failure) -> None:
        """Note that the provider refuses ``account``."""
        now = self._writer.now(connection)
        values = {"failure": json.dumps(failure.to_dict()), "next_probe": now + timedelta(seconds=PROBE_EVERY_S)}
        insert = self._database.insert(self._holds).values(account=account, since=now, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=["account"], set_=values))

    def reopen(self, connection: sa.Connection, account: str) -> None:
        """Note that the provider serves ``account`` again."""
        connection.execute(sa.delete(self._holds).where(self._holds.c.account == account))

    def plan(
        self, connection: sa.Connection, messages: Sequence[Message], due: datetime | None, due_in_s: float
    ) -> int:
        """Write what will be sent, and return how many of ``messages`` are new."""
        key, new = self._key(connection), 0
        if due is None and due_in_s > 0.0:
            due = self._writer.now(connection) + timedelta(seconds=due_in_s)
        for message in messages:
            prints = Fingerprints.of(message, key)
            if self._added(connection, message, prints, due):
                new += 1
            else:
                self._first(self._locked(connection, str(message.id)), message, prints, rerun=False)
        return new

    def cancel(self, connection: sa.Connection, message_id: str) -> bool:
        """Take back a message that is not at work; False where it is, has ended, or is not known."""
        row = self._locked(connection, message_id)
        entry = None if row is None else claims.cancel(entry_of(row))
        if row is None or entry is None:
            return False
        if isinstance(entry.end, GaveUp):
            self.end(connection, row, entry, entry.end)
        else:
            self._save(connection, message_id, entry)
        return True

    def end(self, connection: sa.Connection, row: Any, entry: Entry, end: GaveUp) -> None:
        """End the message of ``row`` without an attempt."""
        now, state = self._writer.now(connection), state_after(end.reason)
        ended = replace(entry, end=end)
        self._save(connection, row.id, ended, state=state.value, reason=end.reason.value, decided_at=now, body=None)
        self._move(connection, row, state)

    def reopen_message(self, connection: sa.Connection, row: Any, entry: Entry) -> None:
        """Write a message that had ended as one that begins a new round."""
        now = self._writer.now(connection)
        values = {"state": _PENDING.value, "round": entry.state.round, "attempts": 0, "reason": None}
        self._save(connection, row.id, entry, **values, decided_at=now, handed_over_at=now, hand_overs=1)
        self._move(connection, row, _PENDING)

    def save(self, connection: sa.Connection, message_id: str, **values: Any) -> None:
        """Change columns of a message."""
        connection.execute(self._update.values(changed_at=DatabaseNow(), **values), {"key": message_id})

    def _save(self, connection: sa.Connection, message_id: str, entry: Entry, **more: Any) -> None:
        self.save(connection, message_id, **columns_of(entry), **more)

    def _locked(self, connection: sa.Connection, message_id: str) -> Any:
        return connection.execute(self._lock, {"key": message_id}).one_or_none()

    def _ensured(self, connection: sa.Connection, message: Message, prints: Fingerprints) -> Any:
        """Return the row of ``message``, locked, made where it is missing, and counted as pending."""
        row = self._locked(connection, str(message.id))
        while row is None:
            self._added(connection, message, prints, None)
            row = self._locked(connection, str(message.id))
        if row.fingerprint is None:  # analytics or `skipped` made it
            self.save(connection, row.id, **self._own(message, prints))
        if row.state == MessageState.SKIPPED.value:
            self.save(connection, row.id, state=_PENDING.value)
            self._move(connection, row, _PENDING)
        return row

    def _added(self, connection: sa.Connection, message: Message, prints: Fingerprints, due: datetime | None) -> bool:
        now = self._writer.now(connection)
        values = {
            "id": message.id,
            "campaign": message.campaign or "",
            "state": _PENDING.value,
            "due": due,
            "decided_at": now,
            "changed_at": now,
            **self._own(message, prints),
        }
        added = connection.execute(self._plan, values, execution_options=_COUNT_ROWS).rowcount == 1
        if added:
            self._writer.count(connection, message.campaign or "", str(message.id), {STATE_COUNTERS[_PENDING]: 1})
        return added

    def _own(self, message: Message, prints: Fingerprints) -> dict[str, Any]:
        return {
            "send_before": message.send_before,
            "recipient": prints.recipient,
            "fingerprint": prints.text,
            "body": written_body(message, keep=self._keep_bodies),
        }

    def _first(self, row: Any, message: Message, prints: Fingerprints, *, rerun: bool) -> Message:
        """Return the message that was first begun under this id; raise where this is another one."""
        if row is None or row.fingerprint is None or row.fingerprint == prints.text:
            return message
        kept, _ = read_body(row.body)
        ended = row.state not in {_PENDING.value, MessageState.SKIPPED.value}
        if row.recipient == prints.recipient and rerun and (kept is not None or ended):
            return kept or message
        what = "text" if row.recipient == prints.recipient else "recipient"
        raise InvalidMessage(
            f"The id {message.id} belongs to a message with another {what}: its fingerprint is "
            f"{row.fingerprint[:12]}, that of this one {prints.text[:12]}. Use an id of its own for each message."
        )

    def _like(self, connection: sa.Connection, row: Any, now: datetime) -> Busy | None:
        """Say how long to wait for another open message with the same recipient and text."""
        other = self._messages.c
        at_work = other.claimed_until.is_not(None) | other.sending_since.is_not(None) | other.doubt_since.is_not(None)
        same = (other.fingerprint == row.fingerprint, other.state == _PENDING.value, other.id != row.id)
        found = connection.execute(sa.select(self._messages).where(*same, at_work).limit(1)).one_or_none()
        return None if found is None else claims.busy(entry_of(found), now)

    def _held(self, connection: sa.Connection, account: str) -> Any:
        holds = self._holds
        found = connection.execute(sa.select(holds).where(holds.c.account == account)).one_or_none()
        if found is None:
            return None
        return connection.execute(sa.select(holds).where(holds.c.account == account).with_for_update()).one_or_none()

    def _set_probe(self, connection: sa.Connection, account: str, now: datetime) -> None:
        later = now + timedelta(seconds=PROBE_EVERY_S)
        connection.execute(sa.update(self._holds).where(self._holds.c.account == account).values(next_probe=later))

    def _move(self, connection: sa.Connection, row: Any, state: MessageState) -> None:
        moved = {STATE_COUNTERS[MessageState(row.state)]: -1, STATE_COUNTERS[state]: 1}
        self._writer.count(connection, row.campaign, row.id, moved)

    def _lock_recipient(self, connection: sa.Connection, prints: Fingerprints) -> None:
        """Let two like messages not begin at once: each would find the other not yet begun."""
        if self._database.kind == "postgresql":
            key = int(prints.recipient[:15], 16)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def _key(self, connection: sa.Connection) -> bytes:
        name, value = self._meta.c.name, self._meta.c.value
        found = connection.scalar(sa.select(value).where(name == FINGERPRINT_KEY))
        return bytes.fromhex(found or "")


def _failure(held: Any) -> Failure:
    return Failure.from_dict(json.loads(held.failure))


def in_batches(messages: Iterable[Message], size: int) -> Iterable[Sequence[Message]]:
    """Yield ``messages`` in lists of up to ``size``."""
    batch: list[Message] = []
    for message in messages:
        batch.append(message)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
