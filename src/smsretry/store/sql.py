"""The store that an application holds: an analytics sink, and the answers to what became of a campaign."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

import sqlalchemy as sa

from smsretry.core.claims import Asked, Begun, Busy, Claim, Ended, Others
from smsretry.core.delivery import DeliveryReport, DeliveryRetries, Received
from smsretry.core.events import Event
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import LONGEST_ID, Message, check_to
from smsretry.core.outcome import AttemptState, Outcome
from smsretry.core.suppression import Suppression
from smsretry.errors import ConfigurationError, InvalidMessage
from smsretry.store import reading
from smsretry.store.claiming import Claims, in_batches
from smsretry.store.database import Database
from smsretry.store.delivering import Deliveries, checked_first_fetch
from smsretry.store.gathering import Statements
from smsretry.store.moves import fact_of, fact_of_skip
from smsretry.store.records import AttemptRecord, CampaignSummary, MessageRecord, Purged, ReasonCount, Unreported
from smsretry.store.recovery import GRACE_S, LOST_AFTER_S, Overdue, Recovered, Recovery, Requeue, recover
from smsretry.store.schema import Schema
from smsretry.store.suppressing import Imported, Suppressions, read_csv, write_csv
from smsretry.store.writing import Writer

if TYPE_CHECKING:
    from smsretry.store.in_loop import InLoop

BUSY_TIMEOUT_S: Final = 30.0
"""How long a writer waits for the others at a SQLite file, unless told otherwise."""
_PLANNED_AT_ONCE: Final = 500
_OLDEST: Final = timedelta(days=36_525)


class SQLStore:
    """Keep each attempt as a row and count a campaign's messages, in the same transaction.

    ``url`` is ``"sqlite:///sms.db"``, ``"postgresql+psycopg://user:password@host/database"`` or an Engine of the
    application's own, which is used as it is: only the isolation of the transactions made here is set, and their errors
    show no parameters. An event that comes again (by its ``event_id``), late or out of order counts once, under any
    number of workers.

    Constructing it opens nothing; the tables, whose names begin with ``table_prefix``, are made at first use. One store
    may serve every thread and forked process. Alembic finds the tables in ``metadata``. With ``create=False``, for
    looking into a database, nothing is made, neither file nor tables: where they are missing the first use raises
    `smsretry.ConfigurationError`.

    A SQLite file is opened with WAL, ``synchronous=FULL`` (a commit survives a power cut) and a wait of
    ``busy_timeout_s`` seconds for other writers; it belongs on a disk of this machine and not on a network file system.
    ``"sqlite://"`` keeps everything in memory, for tests in one process.

    As a journal (``Dispatcher(…, journal=store)``) it writes the same rows and counters, in the transaction that
    finishes an attempt; it need not be a sink as well. A database that does not wait for the disk may forget a claim:
    its first use as a journal logs a warning with the remedy.

    A message with its number and text is kept until it has ended, so that `recover` can queue it again, and then
    erased; with ``keep_bodies=False`` neither is ever stored, and what a worker lost can only be queued again by an
    application that renders it anew. Where a ready task queues, such a message ends as unrecoverable when nothing was
    heard of it for ``lost_after_s`` seconds past its time; let that be longer than your queue keeps a message (a day,
    unless told otherwise).

    ``delivery_retries`` says after which codes of a delivery report a message is sent anew; then its text is kept until
    the provider's last word. Every store of this database needs the same.

    Raises `smsretry.ConfigurationError` for a URL, prefix, driver or version of the tables that it cannot work with. No
    error shows a number or a text.
    """

    def __init__(
        self,
        url: str | sa.URL | sa.Engine,
        *,
        table_prefix: str = "smsretry_",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        keep_bodies: bool = True,
        lost_after_s: float = LOST_AFTER_S,
        delivery_retries: DeliveryRetries | None = None,
        create: bool = True,
    ) -> None:
        retries = _checked_retries(delivery_retries, keep_bodies=keep_bodies)
        self._schema = Schema.named(table_prefix)
        self._database = Database(url, self._schema, busy_timeout_s=busy_timeout_s, create=create)
        self._writer = Writer(self._schema, self._database)
        keeps: dict[str, bool] = {"keep_bodies": keep_bodies, "keep_sent": bool(retries.codes)}
        self._claims = Claims(self._schema, self._database, self._writer, **keeps)
        self._recovery = Recovery(self._schema, self._writer, self._claims, lost_after_s=lost_after_s)
        self._suppressions = Suppressions(self._schema, self._database, self._writer)
        self.delivery_retries = retries
        self._deliveries = Deliveries(self._schema, self._database, self._writer, self._claims, retries=retries)

    def __repr__(self) -> str:
        return f"SQLStore({self.name!r}, table_prefix={self._schema.prefix!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Return the URL without its password."""
        return self._database.name

    @property
    def metadata(self) -> sa.MetaData:
        """Return the tables of this store, for Alembic's ``target_metadata``."""
        return self._schema.metadata

    def create_tables(self) -> None:
        """Make the tables where they are missing; the first use does it by itself.

        Raise `smsretry.ConfigurationError` where they belong to another version of smsretry.
        """
        self._database.prepare()

    def close(self) -> None:
        """Close the connections of this process; the next use opens new ones. An engine handed in stays open."""
        self._database.close()

    def record(self, event: Event, /) -> None:
        """Store ``event``, and count it unless it was counted before."""
        fact = fact_of(event)
        self._database.write(lambda connection: self._writer.note(connection, fact))

    def begin(
        self,
        message: Message,
        /,
        *,
        hint: AttemptState,
        nonce: str,
        lease_s: float,
        account: str,
        most_deferred_s: float,
        rerun: bool = False,
    ) -> Begun:
        """Claim the next attempt of ``message``, or say why not: see `smsretry.ports.Journal`."""
        asked = Asked(hint=hint, nonce=nonce, lease_s=lease_s)
        options: dict[str, Any] = {"account": account, "most_deferred_s": most_deferred_s, "rerun": rerun}
        return self._database.write(lambda connection: self._claims.begin(connection, message, asked, **options))

    def in_loop(self) -> InLoop:
        """Return the same journal and sink for an `smsretry.AsyncDispatcher`, which asks for it by itself.

        It never blocks the loop, and writes together, in one transaction, what is asked at the same time.
        """
        from smsretry.store.in_loop import InLoop  # only whoever runs a loop pays for it

        return InLoop(self._database, self._claims, self._writer, Statements(self._schema, self._claims, self._writer))

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        """Begin the lease anew, for a send; False where the claim is lost."""
        return self._database.write(lambda connection: self._claims.renew(connection, claim, lease_s))

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed, and count it; None where the claim was held, else what holds in its place."""
        return self._database.write(lambda connection: self._claims.finish(connection, claim, outcome, event))

    def release(self, claim: Claim, /) -> None:
        """Give a claim back under which nothing was sent."""
        self._database.write(lambda connection: self._claims.release(connection, claim))

    def others(self, claim: Claim, /, *, since: datetime) -> Others:
        """Return what is known of other messages to the recipient of ``claim``."""
        with self._database.reading() as connection:
            return self._claims.others(connection, claim, since)

    def hold(self, account: str, failure: Failure, /) -> None:
        """Note that the provider refuses ``account``: from now on one attempt a minute asks whether it still does."""
        self._database.write(lambda connection: self._claims.hold(connection, account, failure))

    def reopen(self, account: str, /) -> None:
        """Note that the provider serves ``account`` again."""
        self._database.write(lambda connection: self._claims.reopen(connection, account))

    def plan(
        self,
        messages: Message | Iterable[Message],
        *,
        due: datetime | None = None,
        due_in_s: float = 0.0,
        rerun: bool = False,
    ) -> int:
        """Write that ``messages`` will be sent, before they are queued, and return how many of them are new.

        What is planned ends, even where the queue loses it: `recover` hands it over. ``due`` is when (aware), or
        ``due_in_s`` in how many seconds by the database's clock; nothing is sent before it. ``rerun`` says that texts
        may have been rendered anew: the first one of an id stays. Raises
        `smsretry.InvalidMessage` for a message without an id, and for one whose id belongs to another recipient or
        text: then neither it nor those beside it (up to 500) are written. Raises ValueError for a ``due`` that is not
        aware, and for a ``due_in_s`` that is no number of seconds.
        """
        _check_due(due, due_in_s)
        checked = (_planned(message) for message in ((messages,) if isinstance(messages, Message) else messages))
        new = 0
        for batch in in_batches(checked, _PLANNED_AT_ONCE):
            plan = functools.partial(self._claims.plan, messages=batch, due=due, due_in_s=due_in_s, rerun=rerun)
            new += self._database.write(plan)
        return new

    def compare(self, messages: Iterable[Message]) -> dict[str, bool]:
        """Say of those of ``messages`` whose id this journal knows whether it knows them with this recipient and text.

        Those with a new id are not in the answer. It changes nothing: before a campaign is sent again, it finds what
        `begin` would refuse.
        """
        found: dict[str, bool] = {}
        for batch in in_batches(messages, _PLANNED_AT_ONCE):
            with self._database.reading() as connection:
                found |= self._claims.compare(connection, batch)
        return found

    def cancel(self, message_id: str) -> bool:
        """Take back a message: from now on nobody begins to send it. False where it has ended, or is not known.

        One that is being sent at this moment, or whose outcome is in doubt, is not sent again. It ends as what becomes
        of that send: as accepted, where the provider took it.
        """
        return self._database.write(lambda connection: self._claims.cancel(connection, message_id))

    def recover(self, requeue: Requeue, *, grace_s: float = GRACE_S) -> Recovered:
        """Queue again what nobody works on any more: see `smsretry.store.recover`."""
        return recover(self, requeue, grace_s=grace_s)

    def overdue(self, *, grace_s: float = GRACE_S, limit: int = 200, running_s: float = 0.0) -> tuple[Overdue, ...]:
        """Take messages that nobody works on any more, for the caller to queue: for `recover`.

        What was handed over in the last ``running_s`` seconds is left out: since then the caller's run has been going.
        """
        return self._database.write(
            lambda connection: self._recovery.overdue(connection, grace_s=grace_s, limit=limit, running_s=running_s)
        )

    def mended(
        self,
        campaign: str | None,
        kind: FailureKind | str,
        *,
        limit: int = 200,
        after: str = "",
        with_text: bool = False,
    ) -> tuple[Overdue, ...]:
        """Open a new round of messages that failed with ``kind``, for the caller to queue: for `requeue`.

        They come in the order of their ids, those behind ``after``. ``with_text`` says that the caller needs the text
        to queue one: then those whose text was not kept stay as they are, and are returned with ``message`` None.
        """
        wanted: dict[str, Any] = {"limit": limit, "after": after, "with_text": with_text}
        kind = FailureKind(kind)
        return self._database.write(
            lambda connection: self._recovery.mended(connection, campaign or "", kind.value, **wanted)
        )

    def unrecoverable(self, message_id: str) -> int:
        """End a message whose text was not kept, ``lost_after_s`` past its time; 0 where it is not to be ended."""
        return self._database.write(lambda connection: self._recovery.unrecoverable(connection, message_id))

    def skipped(self, message: Message | str, reason: str, *, campaign: str | None = None) -> None:
        """Count a message that the application leaves out itself, for ``reason``; once, however often it is said.

        ``message`` is the message, or, where none can be built from a bad row, its id; ``campaign`` goes with an id.
        ``reason`` is a word or two of the application's own, kept up to 64 characters. A message that was planned, and
        of which no send is known, is not sent any more, whatever is queued of it. One of which a send is known, or
        that is being sent, is not skipped: that weighs more. Raises `smsretry.InvalidMessage` for one without an id.
        """
        message_id, campaign = _skipped_row(message, campaign)
        if not isinstance(reason, str):
            raise InvalidMessage(f"reason must be a str, got {type(reason).__name__}. Give a word or two.")

        def note(connection: sa.Connection) -> None:
            fact = fact_of_skip(message_id, campaign or "", reason, self._writer.now(connection))
            self._claims.leave_out(connection, fact)

        self._database.write(note)

    def receive(self, report: DeliveryReport, /) -> Received:
        """Write a delivery report, and what follows from it: see `smsretry.ports.DeliveryLog`.

        It settles a message in doubt, moves the figures of its campaign, and, after a code that ``delivery_retries``
        names, opens the next round of its message: then ``again`` is that message. It may be queued at once, since the
        journal knows when it is due; where nobody queues it, `recover` does.
        """
        return self._database.write(lambda connection: self._deliveries.receive(connection, report))

    def unreported(self, *, limit: int = 100, after_s: float = 900.0) -> tuple[Unreported, ...]:
        """Take up to ``limit`` texts whose last word has not come, for the caller to ask the provider about.

        Each is taken ``after_s`` seconds (0 to 900) after it was accepted, and then half an hour, an hour and so on
        later, up to every 12 hours. It has no report when what was fetched (a report without our message's id) after 72
        hours is no last word, or nothing was in 14 days. What was taken is not taken again meanwhile, by whoever asks.
        """
        first = checked_first_fetch(after_s)
        while True:
            due, taken = self._database.write(
                lambda connection: self._deliveries.unreported(connection, limit=limit, first=first)
            )
            if taken or not due:
                return taken

    def put_back(self, texts: Sequence[Unreported], /) -> None:
        """Let ``texts``, which were taken by `unreported` and not asked about, be taken again at once."""
        self._database.write(lambda connection: self._deliveries.put_back(connection, texts))

    def suppressed(self, to: str, sender: str, /) -> Suppression | None:
        """Return the entry by which ``sender`` must not text ``to``: see `smsretry.ports.SuppressionList`.

        Raises `smsretry.InvalidMessage` for a ``to`` that is not in E.164, of which there can be none.
        """
        check_to(to)
        with self._database.reading() as connection:
            return self._suppressions.find(connection, to, sender)

    def suppress(self, entry: Suppression, /) -> None:
        """Put ``entry`` on the list of who must not be texted; raise `smsretry.InvalidMessage` for what is none."""
        self.suppress_all((entry,))

    def suppress_all(self, entries: Iterable[Suppression], /) -> None:
        """Put all ``entries`` on the list, or none: in one transaction."""
        entries = tuple(entries)
        for entry in entries:
            if not isinstance(entry, Suppression):
                got = type(entry).__name__
                raise InvalidMessage(f"What goes on the list must be a Suppression, got {got}. Use Suppression(to=…).")
        self._database.write(lambda connection: self._suppressions.add(connection, entries))

    def lift(self, to: str, sender: str, /) -> bool:
        """Take the entry of this very number and sender off the list; False where there is none.

        Raises `smsretry.InvalidMessage` for a ``to`` that is not in E.164.
        """
        check_to(to)
        return self._database.write(lambda connection: self._suppressions.remove(connection, to, sender))

    def suppressions(self, to: str | None = None) -> Iterator[Suppression]:
        """Yield the list of who must not be texted, by number and sender; with ``to`` the entries of this number.

        It reads the database until it has yielded the last one. Raises `smsretry.InvalidMessage` for a ``to`` that is
        not in E.164.
        """
        if to is not None:
            check_to(to)
        with self._database.reading() as connection:
            yield from self._suppressions.all(connection, to)

    def import_suppressions(self, source: str | os.PathLike[str] | TextIO) -> Imported:
        """Put every line of a CSV file on the list of who must not be texted.

        ``source`` is a path, or a text file opened with ``newline=""``. Its first line names the columns: ``to``, and
        where they are there ``sender`` (empty for every sender), ``reason``, ``code`` and ``since`` (ISO 8601). Lines
        that are on the list already stay as they are. Raises `smsretry.InvalidMessage` that names a line that is no
        entry; what stands 500 lines and more before it is written then.
        """
        if isinstance(source, (str, os.PathLike)):
            with Path(source).open(encoding="utf-8-sig", newline="") as file:
                return self.import_suppressions(file)
        added = read = 0
        for batch in read_csv(source):
            read += len(batch)
            added += self._database.write(functools.partial(self._suppressions.add, entries=batch))
        return Imported(added=added, known=read - added)

    def export_suppressions(self, target: str | os.PathLike[str] | TextIO) -> int:
        """Write the list of who must not be texted as CSV, and return how many entries there were.

        ``target`` is a path, which is overwritten, or a text file opened with ``newline=""``.
        """
        if isinstance(target, (str, os.PathLike)):
            with Path(target).open("w", encoding="utf-8", newline="") as file:
                return self.export_suppressions(file)
        with self._database.reading() as connection:
            return write_csv(target, self._suppressions.all(connection))

    def undelivered_reasons(self, campaign: str | None) -> tuple[ReasonCount, ...]:
        """Count the messages of ``campaign`` that were sent and did not arrive by kind and code, the most first."""
        _check_campaign(campaign)
        with self._database.reading() as connection:
            return reading.undelivered_reasons_of(connection, self._schema, campaign)

    def campaign_summary(self, campaign: str | None) -> CampaignSummary:
        """Return how many messages of ``campaign`` are in each state; None stands for messages without a campaign."""
        _check_campaign(campaign)
        with self._database.reading() as connection:
            return reading.summary_of(connection, self._schema, campaign)

    def failure_reasons(self, campaign: str | None) -> tuple[ReasonCount, ...]:
        """Count the failed, expired and unknown messages of ``campaign`` by kind, code and reason, the most first."""
        _check_campaign(campaign)
        with self._database.reading() as connection:
            return reading.failure_reasons_of(connection, self._schema, campaign)

    def retry_reasons(self, campaign: str | None) -> tuple[ReasonCount, ...]:
        """Count the retries of ``campaign`` by the kind and code of the failure that caused each, the most first."""
        _check_campaign(campaign)
        with self._database.reading() as connection:
            return reading.retry_reasons_of(connection, self._schema, campaign)

    def message(self, message_id: str) -> MessageRecord | None:
        """Return where a message stands, or None where nothing is known of it."""
        with self._database.reading() as connection:
            return reading.message_of(connection, self._schema, message_id)

    def history(self, message_id: str) -> tuple[AttemptRecord, ...]:
        """Return everything that happened to a message, oldest first; empty where nothing is known of it."""
        with self._database.reading() as connection:
            return reading.history_of(connection, self._schema, message_id)

    def export_csv(self, target: str | os.PathLike[str] | TextIO, campaign: str | None) -> int:
        """Write one line per message of ``campaign``, ordered by id, and return how many there were.

        ``target`` is a path, which is overwritten, or a text file opened with ``newline=""``. The columns are the
        fields of `MessageRecord`; times are in ISO 8601, and what has no value is empty. A text that a spreadsheet
        would take for a formula, since it begins with ``=``, ``+``, ``-`` or ``@``, has an apostrophe before it.
        """
        _check_campaign(campaign)
        with self._database.reading() as connection:
            messages = reading.messages_of(connection, self._schema, campaign)
            if not isinstance(target, (str, os.PathLike)):
                return reading.write_csv(target, messages)
            with Path(target).open("w", encoding="utf-8", newline="") as file:
                return reading.write_csv(file, messages)

    def purge(self, older_than: timedelta) -> Purged:
        """Remove the messages that ended and were not touched for ``older_than``, with their attempts.

        So are delivery reports of that age about texts of no message, or of one that is gone. The age is measured by
        the database's clock. The counters of their campaigns stay, and the list of who must not be texted. An event of
        a removed message that arrives after all counts anew, so keep messages for longer than the queue may deliver one
        again.
        Raises ValueError for a negative age, and for one of more than a hundred years.
        """
        if not isinstance(older_than, timedelta) or not timedelta() <= older_than <= _OLDEST:
            most = _OLDEST.days
            msg = f"older_than must be a timedelta of 0 to {most} days, got {older_than!r}. Use timedelta(days=90)."
            raise ValueError(msg)
        messages = attempts = 0
        while (batch := self._database.write(lambda connection: self._writer.purge(connection, older_than))).messages:
            messages += batch.messages
            attempts += batch.attempts
        reports = 0
        while removed := self._database.write(lambda connection: self._writer.purge_reports(connection, older_than)):
            reports += removed
        return Purged(messages=messages, attempts=attempts, reports=reports)


def _checked_retries(retries: DeliveryRetries | None, *, keep_bodies: bool) -> DeliveryRetries:
    if retries is None:
        return DeliveryRetries()
    if not isinstance(retries, DeliveryRetries):
        got = type(retries).__name__
        msg = f"delivery_retries must be a DeliveryRetries, got {got}. Use DeliveryRetries(codes={{'30003'}})."
        raise ConfigurationError(msg)
    if retries.codes and not keep_bodies:
        msg = "delivery_retries need the texts that are to be sent anew, got keep_bodies=False. Leave one of them out."
        raise ConfigurationError(msg)
    return retries


def _check_due(due: object, due_in_s: Any) -> None:
    if due is not None and (not isinstance(due, datetime) or due.utcoffset() is None):
        got = "a naive datetime" if isinstance(due, datetime) else f"a {type(due).__name__}"
        msg = f"due must be an aware datetime or None, got {got}. Use datetime.now(UTC) + timedelta(hours=1)."
        raise ValueError(msg)
    is_number = isinstance(due_in_s, (int, float)) and not isinstance(due_in_s, bool)
    most_s = _OLDEST.total_seconds()
    if not is_number or not -most_s <= due_in_s <= most_s:  # what lies in the past is due now
        msg = f"due_in_s must be a number of seconds, up to {_OLDEST.days} days of them, got {due_in_s!r}. Use 3600."
        raise ValueError(msg)


def _planned(message: Message) -> Message:
    if not isinstance(message, Message):
        raise InvalidMessage(f"What is planned must be a smsretry.Message, got {type(message).__name__}.")
    if message.id is None:
        raise InvalidMessage(
            "A planned message needs an id that is the same when it is planned again. "
            "Give it one, such as f'{campaign}:{customer_id}'."
        )
    return message


def _check_campaign(campaign: object) -> None:
    if campaign is not None and not isinstance(campaign, str):
        raise InvalidMessage(f"campaign must be a str or None, got {type(campaign).__name__}. Give its name.")


def _skipped_row(message: Message | str, campaign: str | None) -> tuple[str, str | None]:
    if isinstance(message, Message):
        message_id, campaign = message.id, message.campaign
    else:
        message_id = message
    if not isinstance(message_id, str) or not 1 <= len(message_id) <= LONGEST_ID or not message_id.isprintable():
        raise InvalidMessage(
            f"A skipped message needs an id of 1 to {LONGEST_ID} printable characters. "
            "Build it from what identifies it, such as f'{campaign}:{customer_id}', so that a re-run counts it once."
        )
    return message_id, campaign
