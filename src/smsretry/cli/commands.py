"""The commands and their options; each imports what it needs when it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import smsretry as package
from smsretry.cli.ending import end_as_by_hand
from smsretry.cli.extras import check_installed
from smsretry.cli.hand_over import cancel, recover, requeue
from smsretry.cli.options import STORE
from smsretry.cli.reconcile import reconcile
from smsretry.cli.send import send
from smsretry.cli.suppressed import suppressed
from smsretry.core.failure import FailureKind
from smsretry.core.policy import RetryPolicy

KINDS = click.Choice([kind.value for kind in FailureKind])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="smsretry")
def smsretry() -> None:
    """Send each text once, and see why each retry happened."""


for _command in (send, recover, requeue, cancel, reconcile, suppressed):
    smsretry.add_command(_command)


@smsretry.command()
@click.option("--messages", default=200, show_default=True, type=click.IntRange(10, 100_000), help="How many texts.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same faults.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the database and logs here: a new folder, or an empty one.",
)
def demo(messages: int, seed: int, folder: Path | None) -> None:
    """Watch a campaign go through a worker to a Twilio that fails.

    Starts a Twilio simulator and a Celery worker of their own, with a broker in files and a SQLite database, and ends
    both. Nothing leaves this machine.
    """
    check_installed("The demo", "celery", "twilio", "sqlalchemy")
    from smsretry.cli.demo import run_demo

    end_as_by_hand()
    if not run_demo(Console(), messages=messages, seed=seed, folder=folder):
        raise click.ClickException("A text was lost or doubled: this should never happen, please report it.")


@smsretry.command()
@click.argument("code", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(code: int, as_json: bool) -> None:  # noqa: FBT001  # click passes options by name
    """Say what Twilio's error CODE means and what is done about it."""
    from smsretry.cli.explain import explained

    facts = explained(code)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print_facts(f"Twilio {code}", facts)


@smsretry.command()
@click.option("--kind", type=KINDS, help="The schedule after failures of this kind.")
@click.option("--max-retries", type=click.IntRange(0), help="3, and 9 after queue_full, unless you say otherwise.")
@click.option("--first-delay", "first_delay_s", type=click.FloatRange(0), help="Seconds: 2, and 300 after queue_full.")
@click.option("--multiplier", default=2.0, show_default=True, type=click.FloatRange(1))
@click.option("--max-delay", "max_delay_s", type=click.FloatRange(0), help="Seconds: 600, and 7200 after queue_full.")
@click.option("--json", "as_json", is_flag=True, help="Print the waits as a JSON array of seconds.")
def schedule(
    kind: str | None,
    as_json: bool,  # noqa: FBT001  # click passes options by name
    multiplier: float,
    **limits: Any,
) -> None:
    """Show when each retry comes, without running anything."""
    given = {name: value for name, value in limits.items() if value is not None}
    try:
        waits = _waits(None if kind is None else FailureKind(kind), multiplier, given)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(waits))
    else:
        _print_schedule(waits, max_retries=given.get("max_retries"))
        if kind == FailureKind.LOST_ANSWER:
            click.echo("The provider is asked before each retry: the time spent on look-ups comes on top.")


@smsretry.command()
@click.argument("message_id", required=False)
@click.option("--campaign", help="Show the figures of this campaign, in place of one message.")
@STORE
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an array, and of a campaign an object.")
def show(*, message_id: str | None, campaign: str | None, url: str, as_json: bool) -> None:
    """Show what happened to MESSAGE_ID, and why it was tried again.

    With --campaign show where the messages of a campaign stand, and why some failed.
    """
    from smsretry.cli.figures import tell_campaign

    match message_id, campaign:
        case str(), None:
            _show_message(message_id, url, as_json=as_json)
        case None, str():
            tell_campaign(url, campaign, as_json=as_json)
        case _:
            raise click.UsageError("Name a message's id, or a --campaign.")


def _show_message(message_id: str, url: str, *, as_json: bool) -> None:
    from smsretry.cli.show import delivery_of, history_of, history_table, standing_of

    record, attempts = history_of(url, message_id)
    if as_json:
        click.echo(json.dumps(attempts))
        return
    click.echo(message_id)
    if attempts:
        Console().print(history_table(attempts))
    click.echo(" ".join(filter(None, (standing_of(record), delivery_of(record)))))


@smsretry.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> None:
    """Run a local Twilio simulator until it is interrupted."""
    from smsretry.testing.simulator.__main__ import main

    sys.exit(main(arguments, name="smsretry simulate"))


def _waits(kind: FailureKind | None, multiplier: float, limits: dict[str, Any]) -> tuple[float, ...]:
    if kind is None:
        return RetryPolicy(multiplier=multiplier, **limits).schedule()
    return RetryPolicy(multiplier=multiplier).for_kind(kind, **limits).schedule(kind)


def _print_facts(title: str, facts: dict[str, object]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, Text("–" if value is None or value == [] else str(value)))
    Console().print(table)


def _print_schedule(waits: tuple[float, ...], *, max_retries: int | None) -> None:
    if not waits:
        why = "--max-retries is 0" if max_retries == 0 else "this kind of failure ends a message at once"
        click.echo(f"One attempt, and no retry: {why}.")
        return
    table = Table("retry", "seconds after the failure", "seconds after attempt 1", title="Schedule")
    for number, wait_s in enumerate(waits, start=1):
        table.add_row(str(number), f"{wait_s:g}", f"{sum(waits[:number]):g}")
    Console().print(table)
    click.echo(f"{len(waits) + 1} attempts at most, then the message has failed for good.")
