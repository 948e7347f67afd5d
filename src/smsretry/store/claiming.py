"""Claim, renew, finish and release messages, each in one transaction under the lock of the message's row.

Rows are locked in one order: the recipient (PostgreSQL only, where writers run side by side), the message, the hold of
its account, the attempt, the counters. A transaction that waits for another therefore never waits in a circle.

Two clocks would be one too many: the moment at which something is decided is read in the statement that locks the row,
and, on PostgreSQL, after the wait for that lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from smsretry.core import claims
from smsretry.core.claims import PROBE_EVERY_S, Asked, Begun, Busy, Claim, Ended, Entry, Granted, OnHold, Others
from smsretry.core.events import Event
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.fingerprint import ENDED_WITH_ANOTHER_TEXT, Fingerprints, check_like
from smsretry.core.message import LONGEST_ID, Message
from smsretry.core.outcome import Accepted, GaveUp, GiveUpReason, Outcome
from smsretry.store.arriving import Arrivals
from smsretry.store.database import Database
from smsretry.store.kept import columns_of, entry_of, is_open, may_be_mended, read_body, written_body
from smsretry.store.moves import Fact, MessageState, counted, fact_of, failure_columns, moved, state_after
from smsretry.store.schema import DatabaseNow, Schema, shard_of
from smsretry.store.writing import Tally, Writer

_PENDING: Final = MessageState.PENDING
_PROBE_EVERY: Final = timedelta(seconds=PROBE_EVERY_S)
_log: Final = logging.getLogger("smsretry.store")
_COUNT_ROWS: Final = {"preserve_rowcount": True}
_LISTED_BEFORE: Final = timedelta(hours=1)
"""How long before a doubt began a provider's id may have been noted that its listing still shows."""
_NEVER_READ: Final = frozenset(
    {"reason", "send_before", "changed_at", "handed_over_at", "hand_overs"}
    | {"delivery", "delivery_kind", "delivery_code", "delivery_at", "next_fetch", "fetches"}
)
_Move = tuple[str, str, MessageState | None, int]
"""The campaign and the id of a message, the state that it leaves (None for a new one), and its delivery retries."""
_WORKED_ON: Final[Mapping[str, Any]] = {"handed_over_at": None, "hand_overs": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begin:
    """Hold what a begin is about."""

    message: Message
    prints: Fingerprints
    asked: Asked
    account: str
    most_deferred_s: float
    rerun: bool


class Claims:
    """Hold the statements of the journal; ``keep_bodies`` says whether texts are kept until a message has ended.

    ``keep_sent`` says that they are kept until the provider's last word: a message may be sent anew after that.
    """

    def __init__(
        self, schema: Schema, database: Database, writer: Writer, *, keep_bodies: bool, keep_sent: bool = False
    ) -> None:
        self._messages, self._attempts, self._holds = schema.messages, schema.attempts, schema.holds
        self._database = database
        self._writer = writer
        self.arrivals = Arrivals(schema, writer)
        self._keep_bodies = keep_bodies
        self._keep_sent = keep_sent
        self.insert = database.insert(schema.messages).on_conflict_do_nothing(index_elements=["id"])
        known = schema.messages.c
        self._known = sa.select(known.id, known.state, known.recipient, known.fingerprint, known.body).where(
            known.id.in_(sa.bindparam("ids", expanding=True))
        )
        self.look = look_statement(schema)
        self.lock = _lock_statement(schema)

    def begin(
        self,
        connection: sa.Connection,
        message: Message,
        asked: Asked,
        *,
        account: str,
        most_deferred_s: float,
        rerun: bool,
        prints: Fingerprints | None = None,
    ) -> Begun:
        """Claim the next attempt of ``message``, or say why not."""
        prints = prints or Fingerprints.of(message, self._database.secret(connection))
        wanted = _Begin(
            message=message,
            prints=prints,
            asked=asked,
            account=account_key(account),
            most_deferred_s=most_deferred_s,
            rerun=rerun,
        )
        self._lock_recipient(connection, prints)
        keys = {"key": message.id, "account": wanted.account, "text": prints.text}
        while True:  # once more where another one writes the row before the insert, or the text is another one now
            found = connection.execute(self.look, keys).one()
            anew = rerun and _is_rendered_anew(found, prints)
            if anew and _sent_nothing(found):
                self._writer.change(connection, found.id, self._own(message, prints))
                continue
            first = message if anew else self._first(found, message, prints, rerun=rerun)
            after, answer = self._decided(connection, found, wanted, first)
            if anew and isinstance(answer, Claim) and answer.state.provider_id is None:
                return Ended(self.end_without_text(connection, found))
            if self._kept(connection, found, wanted, after, granted=isinstance(answer, Claim)):
                return self._answer(connection, found, answer)

    def renew(self, connection: sa.Connection, claim: Claim, lease_s: float) -> bool:
        """Begin the lease of ``claim`` anew, for a send."""
        row = self._locked(connection, str(claim.message.id))
        entry = None if row is None else claims.renew(entry_of(row), claim.epoch, now=row.now, lease_s=lease_s)
        if row is None or entry is None:
            return False
        self._save(connection, row.id, entry)
        return True

    def finish(self, connection: sa.Connection, claim: Claim, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed the attempt under ``claim``, and count it."""
        row = self._locked(connection, str(claim.message.id))
        if row is None:  # purged under our hands: analytics still takes note
            self._writer.note(connection, fact_of(event))
            return None
        before = entry_of(row)
        after = claims.finish(before, claim, outcome)
        if after is None:
            if isinstance(outcome, Accepted) and not claims.is_found(claim, outcome):
                # in an earlier round: its id belongs to no other text
                self._writer.note(connection, fact_of(event))
            return claims.instead(before, row.now)
        erased = {} if after.end is None else self.erased_after(after.end)
        self._writer.note_locked(connection, fact_of(event), row, columns_of(after) | erased)
        ended = claims.overruled(after, outcome)
        if isinstance(after.end, GaveUp) and ended is not None:
            self.end(connection, row, after, after.end)
        return self._arrived(connection, row) or ended

    def erased_after(self, end: Accepted | GaveUp) -> dict[str, Any]:
        """Return the columns to be erased where a message ended so; none where it may have to be sent anew."""
        is_kept = may_be_mended(end) or (self._keep_sent and isinstance(end, Accepted))
        return {} if is_kept else {"body": None}

    def release(self, connection: sa.Connection, claim: Claim) -> None:
        """Give ``claim`` back, under which nothing was sent."""
        row = self._locked(connection, str(claim.message.id))
        if row is not None:
            self._save(connection, row.id, claims.release(entry_of(row), claim.epoch))
            self._arrived(connection, row)

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
        values = {"failure": json.dumps(failure.to_dict()), "next_probe": now + _PROBE_EVERY}
        insert = self._database.insert(self._holds).values(account=account_key(account), since=now, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=["account"], set_=values))

    def reopen(self, connection: sa.Connection, account: str) -> None:
        """Note that the provider serves ``account`` again."""
        connection.execute(sa.delete(self._holds).where(self._holds.c.account == account_key(account)))

    def plan(
        self,
        connection: sa.Connection,
        messages: Sequence[Message],
        due: datetime | None,
        due_in_s: float,
        *,
        rerun: bool,
    ) -> int:
        """Write what will be sent, and return how many of ``messages`` are new."""
        secret, now = self._database.secret(connection), self._writer.now(connection)
        if due is None and due_in_s > 0.0:
            due = now + timedelta(seconds=due_in_s)
        wanted = [(message, Fingerprints.of(message, secret)) for message in messages]
        firsts = {str(message.id): (message, prints) for message, prints in reversed(wanted)}
        rows = [self._planned(*firsts[name], Entry(), now) | {"due": due} for name in sorted(firsts)]
        new = set(connection.scalars(self.insert.returning(self._messages.c.id), rows))
        known = {row.id: row for row in connection.execute(self._known, {"ids": sorted(firsts.keys() - new)})}
        moves = [_first_move(message) for name, (message, _) in firsts.items() if name in new]
        for message, prints in sorted(wanted, key=_id_of):  # whoever locks rows does it in this order
            row = known.get(message.id)
            if row is None:  # new, unless it comes twice with two texts
                check_like(message, prints, firsts[str(message.id)][1])
            else:
                moves += self._plan_known(connection, row, message, prints, due, rerun=rerun)
        self._count_moves(connection, moves, _PENDING)
        return len(new)

    def compare(self, connection: sa.Connection, messages: Sequence[Message]) -> dict[str, bool]:
        """Say of each of ``messages`` whose id is known whether it is the one that is known."""
        secret = self._database.secret(connection)
        rows = connection.execute(self._known, {"ids": [str(message.id) for message in messages]})
        texts = {row.id: row.fingerprint for row in rows if row.fingerprint is not None}
        return {
            str(message.id): texts[message.id] == Fingerprints.of(message, secret).text
            for message in messages
            if message.id in texts
        }

    def cancel(self, connection: sa.Connection, message_id: str) -> bool:
        """Take back a message; False where it has ended or is not known."""
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
        self._end_as(connection, row, entry, end, state_after(end.reason))

    def leave_out(self, connection: sa.Connection, fact: Fact) -> None:
        """Note that a message is left out; one that was planned, and of which no send is known, is sent no more."""
        row = self._locked(connection, fact.message_id)
        self._writer.note(connection, fact)
        entry = None if row is None or row.fingerprint is None else claims.leave_out(entry_of(row))
        if entry is not None and isinstance(entry.end, GaveUp):
            self._end_as(connection, row, entry, entry.end, MessageState.SKIPPED)

    def _end_as(self, connection: sa.Connection, row: Any, entry: Entry, end: GaveUp, state: MessageState) -> None:
        now = self._writer.now(connection)
        why = {"reason": end.reason.value, **failure_columns(end.failure)}
        columns = {"state": state.value, "decided_at": now, "body": None, **why}
        self._save(connection, row.id, replace(entry, end=end), **columns)
        self._count_moves(connection, [_move_of(row)], state)

    def end_without_text(self, connection: sa.Connection, row: Any) -> GaveUp:
        """End the message of ``row``, whose text was not kept, and return its end: unknown where it may have been sent.

        A provider that is asked for another text may not list the one that it took.
        """
        entry = entry_of(row)
        in_doubt = entry.sending_since is not None or entry.state.doubt_since is not None
        reason = GiveUpReason.OUTCOME_UNKNOWN if in_doubt else GiveUpReason.UNRECOVERABLE
        failure = Failure.of(FailureKind.OTHER, detail="its text was not kept, and nobody can go on with it")
        end = GaveUp(failure, reason, entry.state.retries)
        self.end(connection, row, Entry(epoch=entry.epoch + 1, state=entry.state), end)
        return end

    def reopen_messages(self, connection: sa.Connection, reopened: Sequence[tuple[Any, Entry]]) -> None:
        """Write messages that had ended as ones that begin a new round."""
        now = self._writer.now(connection)
        values = {"state": _PENDING.value, "attempts": 0, "reason": None}
        for row, entry in reopened:
            self._save(connection, row.id, entry, **values, decided_at=now, handed_over_at=now, hand_overs=1)
        self._count_moves(connection, [_move_of(row) for row, _ in reopened], _PENDING)

    def _save(self, connection: sa.Connection, message_id: str, entry: Entry, **more: Any) -> None:
        self._writer.change(connection, message_id, columns_of(entry) | more)

    def _locked(self, connection: sa.Connection, message_id: str) -> Any:
        """Return the row of a message, locked, with the moment ``now``; None where there is none."""
        return connection.execute(self.lock, {"key": message_id}).one_or_none()

    def _decided(
        self, connection: sa.Connection, found: Any, wanted: _Begin, first: Message
    ) -> tuple[Entry | None, Begun]:
        """Return what a begin leads to, and the entry to keep; None where what is there holds."""
        before, now = _entry_in(found), found.now
        asked = replace(wanted.asked, is_late=claims.is_late(first, now))
        if found.like_until is not None and before.may_wait and not asked.is_late:
            return None, claims.busy(Entry(claimed_until=found.like_until), now)
        after, answer = claims.begin(before, asked, now)
        if not isinstance(answer, Granted):
            return (None if after is before else after), answer
        probes, refused = False, None
        if found.hold_failure is not None and claims.needs_account(after, answer):
            probes = found.hold_until <= now and self._may_probe(connection, wanted.account, now)
            refused = None if probes else Failure.from_dict(json.loads(found.hold_failure))
        if refused is not None and not claims.has_waited(after, first, now, wanted.most_deferred_s):
            until = found.hold_until if found.hold_until > now else now + _PROBE_EVERY  # another one asks just now
            waits = claims.put_on_hold(claims.release(after, after.epoch), until=until, now=now)
            return waits, OnHold((until - now).total_seconds(), refused)
        return after, _claim(first, after, answer, now, probes=probes, refused=refused)

    def _answer(self, connection: sa.Connection, found: Any, answer: Begun) -> Begun:
        is_in_vain = isinstance(answer, Ended) and isinstance(answer.outcome, GaveUp)
        return (self._arrived(connection, found) if is_in_vain else None) or answer

    def _arrived(self, connection: sa.Connection, row: Any) -> Ended | None:
        """Say that a message has arrived in an earlier round: where it was sent anew, what is reported is looked at."""
        end = self.arrivals.end(connection, row.id) if row.delivery_retries else None
        return None if end is None else Ended(end)

    def _kept(
        self, connection: sa.Connection, found: Any, wanted: _Begin, entry: Entry | None, *, granted: bool
    ) -> bool:
        """Write what a begin led to; False where the row is another one by now."""
        worked_on = _WORKED_ON if granted else {}
        if found.id is None:
            return self._added(connection, wanted, entry or Entry(), found.now)
        own: dict[str, Any] = {}
        if found.fingerprint is None and is_open(found):  # analytics or `skipped` made it
            own = {**self._own(wanted.message, wanted.prints), "state": _PENDING.value}
            self._count_moves(connection, [_move_of(found)], _PENDING)
        if entry is not None and isinstance(entry.end, GaveUp) and is_open(found):
            self.end(connection, found, entry, entry.end)
        elif entry is not None or own:
            columns = {} if entry is None else columns_of(entry)
            self._writer.change(connection, found.id, {**columns, **own, **worked_on})
        return True

    def _added(self, connection: sa.Connection, wanted: _Begin, entry: Entry, now: datetime) -> bool:
        row = self._planned(wanted.message, wanted.prints, entry, now)
        if connection.execute(self.insert, row, execution_options=_COUNT_ROWS).rowcount != 1:
            return False
        self._count_moves(connection, [_first_move(wanted.message)], _PENDING)
        return True

    def _planned(self, message: Message, prints: Fingerprints, entry: Entry, now: datetime) -> dict[str, Any]:
        """Return the row of a message that is not known yet."""
        return {
            "id": message.id,
            "campaign": message.campaign or "",
            "state": _PENDING.value,
            "decided_at": now,
            "changed_at": now,
            **columns_of(entry),
            **self._own(message, prints),
        }

    def _own(self, message: Message, prints: Fingerprints) -> dict[str, Any]:
        return {
            "send_before": message.send_before,
            "recipient": prints.recipient,
            "fingerprint": prints.text,
            "body": written_body(message, keep=self._keep_bodies),
        }

    def _plan_known(
        self,
        connection: sa.Connection,
        known: Any,
        message: Message,
        prints: Fingerprints,
        due: datetime | None,
        *,
        rerun: bool,
    ) -> Sequence[_Move]:
        """Plan a message that is known, and return how it moved.

        One that only analytics knew, or that was left out, is to be sent now.
        """
        self._first(known, message, prints, rerun=rerun)
        if known.fingerprint is not None:
            return ()
        row = self._locked(connection, known.id)
        if row is None or row.fingerprint is not None or not is_open(row):
            return ()
        own = {**self._own(message, prints), "state": _PENDING.value, "due": due}
        self._writer.change(connection, row.id, own)
        return (_move_of(row),)

    def _first(self, row: Any, message: Message, prints: Fingerprints, *, rerun: bool) -> Message:
        """Return the message that was first begun under this id; raise where this is another one."""
        if row.fingerprint is None or row.fingerprint == prints.text:
            return message
        kept, _ = read_body(row.body)
        if rerun and row.recipient == prints.recipient and (kept is not None or not is_open(row)):
            if not is_open(row):
                _log.warning(ENDED_WITH_ANOTHER_TEXT, message.id)
            return kept or message
        check_like(message, prints, Fingerprints(row.recipient, row.fingerprint))
        return message

    def _may_probe(self, connection: sa.Connection, account: str, now: datetime) -> bool:
        """Say whether this attempt is the one that asks if ``account`` is served again, and let the next one wait."""
        holds = self._holds.c
        due = sa.update(self._holds).where(holds.account == account, holds.next_probe <= now)
        probing = due.values(next_probe=now + _PROBE_EVERY)
        return connection.execute(probing, execution_options=_COUNT_ROWS).rowcount == 1

    def _count_moves(self, connection: sa.Connection, moves: Iterable[_Move], state: MessageState) -> None:
        """Count messages that are in ``state`` now, and have no delivery."""
        tally = Tally(Counter)
        for campaign, message_id, before, retries in moves:
            added = moved(counted(before, None, retries), counted(state, None, retries))
            tally[campaign, shard_of(message_id)].update(added)
        self._writer.count_all(connection, tally)

    def _lock_recipient(self, connection: sa.Connection, prints: Fingerprints) -> None:
        """Let two like messages not begin at once: each would find the other not yet begun.

        In a statement of its own, since the next one sees what was committed before it began.
        """
        if self._database.kind == "postgresql":
            connection.execute(_LOCK_RECIPIENT, {"number": int(prints.recipient[:15], 16)})


_LOCK_RECIPIENT: Final = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger())))


def _lock_statement(schema: Schema) -> sa.Select[Any]:
    """Return the row of message ``key`` and the moment ``now`` at which it was locked.

    PostgreSQL computes the outer columns when the inner query, with its wait for the lock, has returned its row.
    """
    return sa.select(_locked_row(schema), DatabaseNow().label("now"))


def read_columns(schema: Schema) -> list[sa.Column[Any]]:
    """Return what the journal reads of a message; every column costs time, and the rest is written only."""
    return [column for column in schema.messages.c if column.name not in _NEVER_READ]


def _locked_row(schema: Schema) -> sa.CTE:
    key = schema.messages.c.id == sa.bindparam("key")
    return sa.select(*read_columns(schema)).where(key).with_for_update().cte("locked")


def look_statement(schema: Schema) -> sa.Select[Any]:
    """Return all that a begin must know: always one row, without an ``id`` where the message is not known.

    ``like_until`` is set where another open message has the same recipient and text, and the account's hold is there.
    """
    locked = _locked_row(schema)
    like = _like_until(schema, locked.c.fingerprint, sa.bindparam("text"), sa.bindparam("key"))
    always = sa.select(sa.literal(1).label("one")).subquery("always")
    looked: Any = sa.select(locked, DatabaseNow().label("now"), like, *_hold(schema))
    return _with_hold(schema, looked, always.outerjoin(locked, sa.true()))


def look_at_all_statement(schema: Schema) -> sa.Select[Any]:
    """Return the same for all messages in ``asked``, a JSON array of pairs of id and text, with these two.

    In the words of SQLite, where no row needs a lock.
    """
    messages = schema.messages
    asked = sa.func.json_each(sa.bindparam("asked")).table_valued("value")
    key, text = (sa.func.json_extract(asked.c.value, place) for place in ("$[0]", "$[1]"))
    like = _like_until(schema, messages.c.fingerprint, text, key)
    looked: Any = sa.select(
        *read_columns(schema),
        DatabaseNow().label("now"),
        like,
        *_hold(schema),
        key.label("asked_id"),
        text.label("asked_text"),
    )
    return _with_hold(schema, looked, asked.outerjoin(messages, messages.c.id == key))


def _like_until(schema: Schema, known: Any, text: Any, key: Any) -> Any:
    other = schema.messages.alias("other")
    at_work = other.c.claimed_until.is_not(None) | other.c.sending_since.is_not(None) | other.c.doubt_since.is_not(None)
    return (
        sa.select(sa.func.coalesce(other.c.claimed_until, other.c.due, other.c.decided_at))
        .where(other.c.fingerprint == sa.func.coalesce(known, text), other.c.state == _PENDING.value)
        .where(other.c.id != key, at_work)
        .limit(1)
        .scalar_subquery()
        .label("like_until")
    )


def _hold(schema: Schema) -> tuple[Any, ...]:
    return schema.holds.c.failure.label("hold_failure"), schema.holds.c.next_probe.label("hold_until")


def _with_hold(schema: Schema, looked: Any, rows: Any) -> sa.Select[Any]:
    with_hold: sa.Select[Any] = looked.select_from(
        rows.outerjoin(schema.holds, schema.holds.c.account == sa.bindparam("account"))
    )
    return with_hold


def account_key(account: str) -> str:
    """Return what names ``account`` in its column: a hash of it where it does not fit."""
    fits = len(account) <= LONGEST_ID and account.isprintable()
    return account if fits else hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()


def _move_of(row: Any) -> _Move:
    return row.campaign, row.id, MessageState(row.state), row.delivery_retries


def _first_move(message: Message) -> _Move:
    return message.campaign or "", str(message.id), None, 0


def _id_of(wanted: tuple[Message, Fingerprints]) -> str:
    return str(wanted[0].id)


def _is_rendered_anew(found: Any, prints: Fingerprints) -> bool:
    """Say whether it is an open message, to the same recipient, whose first text was another one and was not kept."""
    if found.fingerprint in {None, prints.text} or found.recipient != prints.recipient or not is_open(found):
        return False
    kept, _ = read_body(found.body)
    return kept is None


def _sent_nothing(found: Any) -> bool:
    return found.claimed_until is None and found.sending_since is None and found.doubt_since is None


def _entry_in(found: Any) -> Entry:
    return Entry() if found.id is None else entry_of(found)


def _claim(
    first: Message, entry: Entry, granted: Granted, now: datetime, *, probes: bool, refused: Failure | None
) -> Claim:
    return Claim(
        message=first,
        epoch=entry.epoch,
        state=entry.state,
        now=now,
        dead_since=granted.dead_since,
        probes=probes,
        refused=refused,
    )


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
