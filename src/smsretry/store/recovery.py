"""Hand messages back to the queue that nobody works on any more, and those that may be sent once more."""

from __future__ import annotations

import inspect
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import sqlalchemy as sa

from smsretry.core import claims
from smsretry.core.claims import Entry
from smsretry.core.failure import FailureKind
from smsretry.core.message import Message
from smsretry.errors import ConfigurationError, reason_of
from smsretry.store.claiming import Claims
from smsretry.store.kept import MENDABLE, entry_of, read_body
from smsretry.store.moves import MessageState
from smsretry.store.schema import Schema, UtcDateTime
from smsretry.store.writing import Writer

if TYPE_CHECKING:
    from smsretry.store.sql import SQLStore

GRACE_S: Final = 60.0
"""How long after its time a message is taken for lost, unless told otherwise."""
LOST_AFTER_S: Final = 86_400.0
"""How long after its time a message whose text was not kept is given up, unless told otherwise: a day."""
LONGEST_LOST_AFTER_S: Final = 366 * 86_400.0
_SLOWEST: Final = 6
"""A message that is handed over again and again comes back after ``2**6`` times the grace at the latest."""
_LEAST_PAUSE: Final = timedelta(seconds=1)
_BATCH: Final = 200
_OVERDUE_BATCH: Final = 2_000
"""So many are taken at once: each time all that is overdue is sorted, and a SQLite file is locked for 0.1 s or so."""
_MENDED: Final = (MessageState.FAILED.value, MessageState.EXPIRED.value)

_log: Final = logging.getLogger("smsretry.store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """Hold a message that is to be queued again; ``message`` is None where its text was not kept."""

    message_id: str
    campaign: str | None
    message: Message | None = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Count what one run of `recover` did."""

    handed_over: int = 0
    """Queued again."""
    failed: int = 0
    """Could not be queued: they stay overdue, and the next run tries again."""
    unrecoverable: int = 0
    """Ended, because their text was not kept and nothing was heard of them for ``lost_after_s``."""
    without_text: int = 0
    """Left as they are: their text was not kept, so a ready task cannot queue them. Your own function can."""


@runtime_checkable
class CanQueue(Protocol):
    """Queue a message: what `smsretry.adapters.celery.sms_task` returns can."""

    def send(self, message: Message, /) -> object:
        """Queue ``message``."""
        ...


Requeue = CanQueue | Callable[[str, Mapping[str, Any]], object]
"""A ready task, or an application's own function of a message's id and metadata that queues it."""


def recover(store: SQLStore, requeue: Requeue, *, grace_s: float = GRACE_S) -> Recovered:
    """Queue again what was planned, claimed, put off or to be retried, and is ``grace_s`` seconds past its time.

    ``requeue`` is a ready task, whose ``send`` gets the kept message, or a function that gets the message's id and
    metadata. A worker that is merely slow loses nothing: whoever comes second finds the message busy or ended. Run it
    every minute or so: beside workers, or twice at once, it doubles nothing. What is handed over comes back no sooner
    than ``grace_s``, doubling each time.

    A ready task cannot queue what was written with ``keep_bodies=False``: the queue may have it still, so it is left as
    it is until the store's ``lost_after_s`` has passed, and then ends as unrecoverable.

    Raises `smsretry.ConfigurationError` for a ``requeue`` that queues nothing, or is to be awaited.
    """
    _check_parts(store, requeue)
    done, began = Recovered(), time.monotonic()
    while batch := store.overdue(grace_s=grace_s, limit=_OVERDUE_BATCH, running_s=time.monotonic() - began):
        done = _added(done, _queued(store, requeue, batch))
        if len(batch) < _OVERDUE_BATCH:
            break
    return done


def requeue(store: SQLStore, queue: Requeue, *, campaign: str | None, kind: FailureKind | str) -> Recovered:
    """Send once more what failed in ``campaign`` with ``kind``, after somebody has mended what that was about.

    For what the account was refused for (``auth``, ``account``, ``sender_config``, ``geo_permission``), whose messages
    keep their text until they are purged. Each opens a new round, with all its retries. One whose text was not kept
    (``keep_bodies=False``) can be queued by a function alone, and stays as it is for a ready task. Raises
    `smsretry.ConfigurationError` for any other kind.
    """
    _check_mendable(kind)
    _check_parts(store, queue)
    done = Recovered()
    after, with_text = "", isinstance(queue, CanQueue)
    while batch := store.mended(campaign, kind, limit=_BATCH, after=after, with_text=with_text):
        done, after = _added(done, _queued(store, queue, batch)), batch[-1].message_id
    return done


def _check_parts(store: object, requeue: object) -> None:
    """Raise where nothing would be queued.

    Nobody would await what is to be awaited, and it would be counted all the same.
    """
    if not callable(getattr(store, "overdue", None)):
        raise ConfigurationError(
            f"store must be an SQLStore, got {type(store).__name__}. The store comes first: recover(store, task)."
        )
    called = requeue.send if isinstance(requeue, CanQueue) else requeue
    if not callable(called):
        raise ConfigurationError(
            "What queues must be a ready task, or a function of a message's id and metadata, "
            f"got {type(requeue).__name__}. Pass what sms_task returned."
        )
    if inspect.iscoroutinefunction(called):
        raise ConfigurationError(
            "What queues here is to be awaited, and this is plain code, so nothing would be queued. "
            "Use the recover_every, recover_job (SAQ) or recover of your queue's adapter."
        )


def _check_mendable(kind: object) -> None:
    if kind not in MENDABLE:
        those = ", ".join(sorted(MENDABLE))
        raise ConfigurationError(f"kind must be one that somebody can mend ({those}), got {kind!r}. Name one of these.")


def _queued(store: SQLStore, requeue: Requeue, batch: Sequence[Overdue]) -> Recovered:
    handed_over = failed = unrecoverable = without_text = 0
    for overdue in batch:
        try:
            if not isinstance(requeue, CanQueue):
                requeue(overdue.message_id, overdue.metadata)
            elif overdue.message is None:
                ended = store.unrecoverable(overdue.message_id)
                unrecoverable, without_text = unrecoverable + ended, without_text + 1 - ended
                continue
            else:
                requeue.send(overdue.message)
            handed_over += 1
        except Exception as error:  # noqa: BLE001  # a queue raises what it likes, and the others must go on
            _log.error("%s could not be queued again (%s%s).", overdue.message_id, reason_of(error), _place_of(error))
            failed += 1
    return Recovered(handed_over=handed_over, failed=failed, unrecoverable=unrecoverable, without_text=without_text)


def _place_of(error: Exception) -> str:
    """Say where ``error`` was raised, unless its words are ours and told: those of another may hold a number."""
    if isinstance(error, ConfigurationError):
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" in {frame.name}, {Path(frame.filename).name}:{frame.lineno}"


def _added(one: Recovered, other: Recovered) -> Recovered:
    return Recovered(
        handed_over=one.handed_over + other.handed_over,
        failed=one.failed + other.failed,
        unrecoverable=one.unrecoverable + other.unrecoverable,
        without_text=one.without_text + other.without_text,
    )


class Recovery:
    """Hold the statements that find messages to be queued again."""

    def __init__(self, schema: Schema, writer: Writer, journal: Claims, *, lost_after_s: float) -> None:
        _check_lost_after(lost_after_s)
        self._messages = schema.messages
        self._writer = writer
        self._journal = journal
        self._lost_after = timedelta(seconds=lost_after_s)

    def overdue(
        self, connection: sa.Connection, *, grace_s: float, limit: int, running_s: float
    ) -> tuple[Overdue, ...]:
        """Take up to ``limit`` messages that are past their time, for the caller to queue."""
        message, now = self._messages.c, self._writer.now(connection)
        grace = timedelta(seconds=grace_s)
        pause = max(grace, timedelta(seconds=running_s) + _LEAST_PAUSE)  # so that a long run does not come round
        due = sa.func.coalesce(message.due, message.decided_at)
        late = sa.case((message.claimed_until.is_not(None), message.claimed_until), else_=due) <= now - grace
        query = (
            sa.select(self._messages)
            .where(message.state == MessageState.PENDING.value, message.fingerprint.is_not(None), late)
            .where(self._is_its_turn(now, pause))
            .order_by(message.hand_overs, due)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(query).all()
        handed = [{"message_id": row.id, "handed_over_at": now, "hand_overs": row.hand_overs + 1} for row in rows]
        if handed:
            connection.execute(self._writer.change_message, handed)
        return tuple(_overdue(row) for row in rows)

    def _is_its_turn(self, now: datetime, pause: timedelta) -> sa.ColumnElement[bool]:
        """Say in SQL that a message was not handed over, or long enough ago: one pause, then two, four and so on."""
        message = self._messages.c
        times = [(message.hand_overs <= n + 1, _at(now - pause * 2**n)) for n in range(_SLOWEST)]
        latest = sa.case(*times, else_=_at(now - pause * 2**_SLOWEST))
        return message.handed_over_at.is_(None) | (message.handed_over_at <= latest)

    def mended(
        self, connection: sa.Connection, campaign: str, kind: str, *, limit: int, after: str, with_text: bool
    ) -> tuple[Overdue, ...]:
        """Open a new round of up to ``limit`` messages of ``campaign`` that failed with ``kind``.

        In the order of their ids, beginning behind ``after``. Where they must be ``with_text``, one whose text was not
        kept is returned as it is.
        """
        message = self._messages.c
        query = (
            sa.select(self._messages)
            .where(message.campaign == campaign, message.kind == kind, message.state.in_(_MENDED))
            .where(message.body.is_not(None), message.id > after)
            .order_by(message.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        found, reopened = list[Overdue](), list[tuple[Any, Entry]]()
        for row in connection.execute(query).all():
            one, entry = _overdue(row), claims.reopened(entry_of(row))
            if with_text and one.message is None:
                found.append(one)
            elif entry is not None:
                found.append(one)
                reopened.append((row, entry))
        self._journal.reopen_messages(connection, reopened)
        return tuple(found)

    def unrecoverable(self, connection: sa.Connection, message_id: str) -> int:
        """End a message whose text was not kept; 0 where it has ended meanwhile, or may be in a queue still."""
        query = sa.select(self._messages).where(self._messages.c.id == message_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None or row.state != MessageState.PENDING.value:
            return 0
        its_time = row.claimed_until or row.due or row.decided_at
        if self._writer.now(connection) - its_time < self._lost_after:
            return 0
        self._journal.end_without_text(connection, row)
        return 1


def _check_lost_after(lost_after_s: Any) -> None:
    is_number = isinstance(lost_after_s, (int, float)) and not isinstance(lost_after_s, bool)
    if not is_number or not 0 < lost_after_s <= LONGEST_LOST_AFTER_S:
        msg = (
            f"lost_after_s must be more than 0 and {LONGEST_LOST_AFTER_S:.0f} at most, got {lost_after_s!r}. "
            "Give the seconds after which your queue has surely lost a message, such as 86_400."
        )
        raise ConfigurationError(msg)


def _at(moment: datetime) -> sa.BindParameter[datetime]:
    return sa.bindparam(None, moment, UtcDateTime())


def _overdue(row: Any) -> Overdue:
    message, metadata = read_body(row.body)
    return Overdue(message_id=row.id, campaign=row.campaign or None, message=message, metadata=metadata)
