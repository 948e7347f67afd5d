"""The main job on embedded parts: a campaign, a real Celery worker, the real Twilio client, a Twilio that fails."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

import click
import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from smsretry.core.message import Message
from smsretry.core.policy import RetryPolicy
from smsretry.store import SQLStore
from smsretry.store.moves import MessageState
from smsretry.testing.simulator import Fault, RateLimited, Refused, TwilioSimulator

SETTINGS_VARIABLE: Final = "SMSRETRY_DEMO"
SETTLE_AFTER_S: Final = 10.0
"""Two minutes by default; the simulator's list lags by 2 s only, and nobody wants to watch for minutes."""
CAMPAIGN: Final = "demo"
RATES: Final[Mapping[str | Fault, float]] = {
    "rate_limited": 0.12,
    "unavailable": 0.05,
    "server_error": 0.03,
    "lost_after_taken": 0.03,
    "lost_before_taken": 0.02,
    "carrier_rejected": 0.02,
}
STANDING: Final[Mapping[int, Fault]] = {
    3: RateLimited(),
    10: Refused(code=21211),
    11: Refused(code=21211),
    20: Refused(code=21610),
}
"""What always happens to these of each fifty numbers."""
CONCURRENCY: Final = 16
PUBLISHED_OVER_S: Final = 8.0
"""From the first text on, until the whole campaign is in the queue: the outage shall meet a part of it."""
OUTAGE_S: Final = 3.0
"""How long nothing answers, after the first quarter of the campaign."""
STRETCHED_S: Final = 2 * OUTAGE_S
"""From its begin on: what has piled up meanwhile is worked off by then."""
NO_PROGRESS_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Hold what the simulator counted at its own socket, beside what the database says."""

    posts: int
    texts: int
    doubled: int
    lost: int
    """Called accepted without a text, or never ended."""
    misjudged: int
    """Called failed although a text was taken."""
    waits_s: dict[int, list[float]]


def run_demo(console: Console, *, messages: int, seed: int, folder: Path | None = None) -> bool:
    """Run the campaign, print what happened, and return whether no text was lost or doubled."""
    with _folder(folder) as place, _simulator(seed) as twilio:
        url = sa.URL.create("sqlite", database=str(place / "sms.db"))
        _settle_in(place, twilio)
        store = SQLStore(url)
        campaign = _campaign(messages, twilio)
        console.print(f"[bold]{messages} texts[/] → Celery worker → Twilio client → simulator at {twilio.url}")
        console.print(f"Faults by seed {seed}: " + ", ".join(f"{name} {rate:.0%}" for name, rate in RATES.items()))
        console.print(
            f"After a quarter of the texts nothing answers for {OUTAGE_S:g} s: attempts then fail as temporary, "
            "and are no POSTs."
        )
        with _worker(place):
            began = time.monotonic()
            _publish(campaign[0])
            twilio.wait_for(lambda: twilio.posts > 0, timeout_s=NO_PROGRESS_S)
            with _publishing(campaign[1:]):
                twilio.wait_for(lambda: twilio.posts > messages // 4, timeout_s=NO_PROGRESS_S)
                down_at = datetime.now(UTC)
                twilio.outage(OUTAGE_S)
                _watch(console, store, twilio, messages)
            seconds = time.monotonic() - began
        counted = _counted(campaign, twilio, store, down_at)
        _print_result(console, store, counted, seconds)
        if folder is not None:
            console.print(Text(f"Kept in {folder}. Look closer:"))
            console.print(Text(f"smsretry show demo:3 --store {shlex.quote(str(url))}"), soft_wrap=True)
    return counted.doubled == counted.lost == counted.misjudged == 0


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield _taken(folder)
        return
    with tempfile.TemporaryDirectory(prefix="smsretry-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _taken(folder: Path) -> Path:
    """Return ``folder``, taken by making what only one demo can make in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_free = not any(folder.iterdir())
        if is_free:
            (folder / "queue").mkdir()
    except FileExistsError:
        is_free = False
    except OSError as error:
        raise click.ClickException(f"The folder {folder} cannot be used: {error.strerror}. Name another.") from None
    if not is_free:
        raise click.ClickException(f"The folder {folder} is not empty: an earlier demo may be in it. Name a new one.")
    return folder.resolve()


def _simulator(seed: int) -> TwilioSimulator:
    return TwilioSimulator(seed=seed, rates=RATES, latency_s=0.02, list_lag_s=2.0)


def _settle_in(folder: Path, twilio: TwilioSimulator) -> None:
    """Tell the worker's process where everything is."""
    os.environ[SETTINGS_VARIABLE] = json.dumps(
        {
            "folder": str(folder),
            "twilio_url": twilio.url,
            "account_sid": twilio.account_sid,
            "auth_token": twilio.auth_token,
            "concurrency": CONCURRENCY,
        }
    )


def _campaign(messages: int, twilio: TwilioSimulator) -> list[Message]:
    """Return the texts; some numbers are bad, and for one in fifty Twilio is always too busy."""
    campaign = []
    for number in range(messages):
        to = f"+1555{number:07d}"
        campaign.append(Message(to, f"Hello {number}, your table is ready.", id=f"demo:{number}", campaign=CAMPAIGN))
        if (fault := STANDING.get(number % 50)) is not None:
            twilio.always(fault, to=to)
    return campaign


@contextmanager
def _worker(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "smsretry.cli.demo_app", "worker"]
    command += ["--pool", "threads", "--concurrency", str(CONCURRENCY), "--loglevel", "INFO", "--without-mingle"]
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(  # noqa: S603  # our own arguments
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _publish(message: Message) -> None:
    from smsretry.cli.demo_app import send_sms  # it reads the settings when it is imported

    send_sms.send(message)


@contextmanager
def _publishing(campaign: list[Message]) -> Iterator[None]:
    """Put the campaign into the queue, little by little, beside whatever is done meanwhile."""
    stopped = threading.Event()

    def publish() -> None:
        for message in campaign:
            if stopped.wait(PUBLISHED_OVER_S / len(campaign)):
                return
            _publish(message)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        yield
    finally:
        stopped.set()
        publisher.join()


def _watch(console: Console, store: SQLStore, twilio: TwilioSimulator, messages: int) -> None:
    """Show the campaign until every message has ended; stop with an error where nothing moves any more."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=messages)
        ended, moved_at, posts = 0, time.monotonic(), 0
        while ended < messages:
            time.sleep(0.25)
            summary = store.campaign_summary(CAMPAIGN)
            ended = summary.planned - summary.pending
            told = f"accepted {summary.sent}  retries {summary.retried}  failed {summary.failed}"
            progress.update(bar, completed=ended, description=told)
            if twilio.posts != posts:
                posts, moved_at = twilio.posts, time.monotonic()
            if time.monotonic() - moved_at > NO_PROGRESS_S:
                msg = f"The worker did nothing for {NO_PROGRESS_S:.0f} s. Run with --folder and read worker.log there."
                raise RuntimeError(msg)


def _counted(campaign: list[Message], twilio: TwilioSimulator, store: SQLStore, down_at: datetime) -> Counted:
    """Count at the simulator: texts per message, and the seconds between the POSTs of a message."""
    texts = Counter(text.to for text in twilio.texts)
    known = {message.to: store.message(str(message.id)) for message in campaign}
    states = [(MessageState.PENDING if record is None else record.state, texts[to]) for to, record in known.items()]
    return Counted(
        posts=twilio.posts,
        texts=sum(texts.values()),
        doubled=sum(max(0, count - 1) for _, count in states),
        lost=sum(
            state is MessageState.PENDING or (state is MessageState.ACCEPTED and not count) for state, count in states
        ),
        misjudged=sum(state is MessageState.FAILED and count > 0 for state, count in states),
        waits_s=_waits(twilio, {to: record.attempts for to, record in known.items() if record is not None}, down_at),
    )


def _waits(twilio: TwilioSimulator, attempts: Mapping[str, int], down_at: datetime) -> dict[int, list[float]]:
    """Return the seconds before retry 1, 2, 3, of the messages whose every attempt came here and was plainly refused.

    An attempt during the outage never came, and an answer that was lost is looked up until it is settled. A wait that
    the outage, which began ``down_at``, has stretched is left out too.
    """
    calm_at = down_at + timedelta(seconds=STRETCHED_S)
    times: dict[str, list[datetime]] = defaultdict(list)
    doubtful: set[str] = set()
    for request in twilio.requests:
        for to in request.form.get("To", ()):  # one that the outage cut off has none
            times[to].append(request.at)
            if request.fault is not None and not isinstance(request.fault, RateLimited | Refused):
                doubtful.add(to)
    waits: dict[int, list[float]] = defaultdict(list)
    for to, at in times.items():
        if to not in doubtful and len(at) == attempts.get(to):
            for retry, (before, after) in enumerate(pairwise(at), start=1):
                if after < down_at or before > calm_at:
                    waits[retry].append((after - before).total_seconds())
    return waits


def _print_result(console: Console, store: SQLStore, counted: Counted, seconds: float) -> None:
    summary = store.campaign_summary(CAMPAIGN)
    table = Table("what", "count", title="The campaign, by the database", title_justify="left")
    table.add_row("accepted", str(summary.sent))
    table.add_row("retries", str(summary.retried))
    for cause in store.retry_reasons(CAMPAIGN):
        table.add_row(f"  {cause.kind} {cause.code or ''}".rstrip(), str(cause.count))
    table.add_row("failed for good", str(summary.failed))
    for cause in store.failure_reasons(CAMPAIGN):
        table.add_row(f"  {cause.kind} {cause.code or ''} ({cause.reason})", str(cause.count))
    table.add_row("unknown", str(summary.unknown))
    console.print(table)
    table = Table("what", "count", title="By the simulator's own socket", title_justify="left")
    table.add_row("POSTs", str(counted.posts))
    table.add_row("texts", str(counted.texts))
    table.add_row("[bold]texts doubled[/]", f"[bold]{counted.doubled}[/]")
    table.add_row("[bold]texts lost[/]", f"[bold]{counted.lost}[/]")
    table.add_row("called failed, but texted", str(counted.misjudged))
    for (retry, waits), planned in zip(sorted(counted.waits_s.items()), RetryPolicy().schedule(), strict=False):
        table.add_row(
            f"seconds before retry {retry} (planned {planned:g}, median of {len(waits)})", f"{median(waits):.2f}"
        )
    console.print(table)
    console.print(f"{seconds:.0f} s. No failure stopped the campaign.")
