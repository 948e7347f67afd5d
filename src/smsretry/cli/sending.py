"""What stands behind ``smsretry send``: check the list and the journal, and then send."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from smsretry.campaign import Progress, run_campaign
from smsretry.cli.ending import INTERRUPTED, Course, end_as_by_hand, end_by_itself
from smsretry.cli.resuming import Known, known_before, reopen
from smsretry.cli.rows import Rows, tell_rows
from smsretry.cli.show import database_of, first_line
from smsretry.cli.telling import print_result
from smsretry.contacts import Bad, Contacts, Occurrences, Survey
from smsretry.contacts.occurrences import place_of
from smsretry.core.failure import Failure
from smsretry.dispatcher import AsyncDispatcher
from smsretry.errors import ConfigurationError
from smsretry.limits import MemoryLimiter
from smsretry.senders.twilio import AsyncTwilioSender
from smsretry.senders.twilio.account import Account, Settings
from smsretry.store import SQLStore

CONCURRENCY: Final = 100
LONG_WAIT_S: Final = 10.0
"""A longer wait is told."""
NOT_ALL_ACCEPTED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Hold what is to be sent, and how."""

    contacts: Contacts
    survey: Survey
    sender_id: str | None
    concurrency: int | None
    rate_per_s: float | None
    resume: bool
    retry: tuple[str, ...] = ()
    failed: Path | None = None
    course: Course = field(default_factory=Course)


def carry_out(console: Console, order: Order, store: str, *, ask: Callable[[], None]) -> int:
    """Check everything, ``ask``, send, print what became of the campaign, and return what the command ends with.

    Raises `ConfigurationError` and `click.ClickException` for what is wrong before the first text is sent; that the
    file is changed meanwhile is found while it is read.
    """
    contacts = order.contacts
    sender = sender_from(order.sender_id, order.concurrency)
    with opened(store, create=not order.resume) as journal:
        known = known_before(contacts, journal, resume=order.resume)
        if order.resume:
            console.print(f"{known.messages:,} of {order.survey.messages:,} messages are in the store already.")
        ask()
        for kind, count in reopen(journal, contacts.campaign, order.retry).items():
            console.print(f"Sent once more, since they failed with {kind}: {count:,}.")
        leave_out_bad_rows(contacts, journal, order.survey)
        plan_several(contacts, journal, known, order.survey)
        end_as_by_hand()
        done = sent(console, order, known, AsyncDispatcher(sender, journal=journal, suppression=journal))
        print_result(console, journal, contacts.campaign)
        if done is None:
            return INTERRUPTED
        rows = Rows(contacts=contacts, places=known.places, store=journal)
        tell_rows(console, rows, failed=order.failed, store=store)
    return 0 if done.accepted == done.taken else NOT_ALL_ACCEPTED


def sender_from(
    sender_id: str | None, concurrency: int | None, env: Mapping[str, str] = os.environ
) -> AsyncTwilioSender:
    """Return a sender for ``sender_id``, or for the one in ``env``; raise `ConfigurationError` for what is missing.

    A campaign of an account that is not configured would otherwise begin, and fail message by message.
    """
    if find_spec("aiohttp") is None or find_spec("twilio") is None:
        raise ConfigurationError("Sending needs aiohttp and twilio. Install them: pip install 'smsretry[aio]'")
    given: dict[str, str] = {}
    if sender_id:
        given["messaging_service_sid" if sender_id.startswith("MG") else "from_number"] = sender_id
    if Account.checked(Settings(**given).completed_from(env), from_env=True).sender is None:
        raise ConfigurationError(
            "Nobody is named to send from. Give --from, or set TWILIO_FROM_NUMBER or TWILIO_MESSAGING_SERVICE_SID."
        )
    return AsyncTwilioSender.from_env(
        env,
        from_number=given.get("from_number"),
        messaging_service_sid=given.get("messaging_service_sid"),
        max_connections=concurrency or CONCURRENCY,
    )


@contextmanager
def opened(store: str, *, create: bool) -> Iterator[SQLStore]:
    """Lend the store at a URL, or in a SQLite file of that name; raise `click.ClickException` where it fails."""
    with SQLStore(database_of(store), create=create) as lent:
        try:
            yield lent
        except SQLAlchemyError as error:
            raise click.ClickException(f"{lent.name} cannot be used: {first_line(error)}. Check the --store.") from None


def leave_out_bad_rows(contacts: Contacts, store: SQLStore, survey: Survey) -> None:
    """Count in ``store`` what will not be sent, so that the campaign's figures add up to its list."""
    for item in contacts.items() if survey.bad else ():
        if isinstance(item, Bad):
            store.skipped(item.id, item.fault.value, campaign=contacts.campaign)


def plan_several(contacts: Contacts, store: SQLStore, known: Known, survey: Survey) -> None:
    """Write down the texts of numbers that get several, in their order, before the first one is sent.

    `known_before` finds a text again by that order, so it must have no gaps, wherever the campaign is killed.
    """
    if survey.with_several:
        messages = contacts.messages(Occurrences(known.places))
        store.plan(one for one in messages if place_of(one.to, "")[0] in survey.with_several)


def sent(console: Console, order: Order, known: Known, dispatcher: AsyncDispatcher) -> Progress | None:
    """Send all messages, and return what became of them; None, and how to go on is told, where it was interrupted.

    An interrupt after the last one has ended stops nothing.
    """
    ends = list[Progress]()
    order.course.has_begun = True
    try:
        send_all(console, order, known, dispatcher, ends.append)
    except KeyboardInterrupt:
        if not ends:
            click.echo(order.course.where_it_stopped(), err=True)
            return None
    order.course.has_ended = True
    end_by_itself()
    return ends[0]


def send_all(
    console: Console, order: Order, known: Known, dispatcher: AsyncDispatcher, tell: Callable[[Progress], None]
) -> None:
    """Send the messages of a list with a progress bar until each has ended, and ``tell`` what became of them."""
    with _Shown(console, order.survey.messages) as shown:
        messages = order.contacts.messages(Occurrences(known.places))
        limiter = None if order.rate_per_s is None else MemoryLimiter(order.rate_per_s)
        concurrency = order.concurrency or CONCURRENCY
        tell(run_campaign(messages, dispatcher, concurrency=concurrency, limiter=limiter, on_progress=shown.show))


class _Shown:
    """Show a campaign on two lines: how far it is, and what became of it so far."""

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Bar(
            SpinnerColumn(), BarColumn(), MofNCompleteColumn(), _Rate(), TextColumn("left"), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("", total=total)
        self._is_waiting = False
        self._live = Live(self._bar, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if not self._live.console.is_terminal:
            self._live.console.print()  # what is written into a file ends with its last line

    def show(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.ended)
        self._live.update(Group(self._bar, Text(_described(progress))))
        self._tell_wait(progress)

    def _tell_wait(self, progress: Progress) -> None:
        """Tell once until when nothing is sent: a command that is silent for minutes looks hung."""
        wait_s = progress.next_in_s or 0.0
        if wait_s >= LONG_WAIT_S and not self._is_waiting:
            self._live.console.print(Text(f"Nothing is sent before {_time_in(wait_s)}: {_why(progress)}."))
        self._is_waiting = wait_s > 0.0


class _Rate(ProgressColumn):
    """Show how many messages end in a second."""

    def render(self, task: Task) -> Text:
        speed = task.completed / task.finished_time if task.finished_time else task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


def _described(progress: Progress) -> str:
    told = {
        "accepted": progress.accepted,
        "failed": progress.failed + progress.expired + progress.canceled + progress.refused,
        "unknown": progress.unknown,
        "waiting": progress.waiting,
        "retries": progress.retries,
    }
    words = "  ".join(f"{what} {count:,}" for what, count in told.items())
    hold = progress.on_hold
    return words if hold is None else f"{words}  on hold: {_kind_of(hold)}"


def _why(progress: Progress) -> str:
    if (hold := progress.on_hold) is not None:
        return f"the provider refuses the account ({_kind_of(hold)}), and is asked again then"
    one = progress.waiting == 1
    return f"{progress.waiting:,} {'message waits' if one else 'messages wait'} for a retry, a look-up or the account"


def _kind_of(failure: Failure) -> str:
    return f"{failure.kind} {failure.code or ''}".rstrip()


def _time_in(seconds: float) -> str:
    return f"{datetime.now(UTC).astimezone() + timedelta(seconds=seconds):%H:%M:%S}"
