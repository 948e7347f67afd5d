"""Look at the list of who must not be texted, and change it; no number is shown but in an export."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import click

from smsretry.cli.options import STORE
from smsretry.core.mask import mask_number, mask_numbers_in
from smsretry.core.message import check_to
from smsretry.core.suppression import Suppression, SuppressionReason
from smsretry.errors import InvalidMessage

_SENDER = click.option(
    "--sender", default="", help="One of your numbers, or a Messaging Service's SID; without it, every sender."
)
_CREATE = click.option("--create", is_flag=True, help="Make the database where there is none.")
_REMEDY: Final = "Check the --store, or make it with --create."
_REASONS: Final = click.Choice([reason.value for reason in SuppressionReason])


@click.group(short_help="See and change who must not be texted.")
def suppressed() -> None:
    """See and change the list of who must not be texted."""


@suppressed.command(name="list")
@click.argument("number", required=False)
@STORE
def show(number: str | None, url: str) -> None:
    """Show the entries, or those of NUMBER.

    Of each number the last two digits are shown.
    """
    from smsretry.cli.show import opened

    if number is not None:
        _check(number)
    with opened(url) as store:
        count = 0
        for count, entry in enumerate(store.suppressions(number), start=1):  # noqa: B007  # it is told below
            click.echo(_described(entry))
    click.echo("1 entry." if count == 1 else f"{count:,} entries.")


@suppressed.command()
@click.argument("number")
@_SENDER
@click.option("--reason", type=_REASONS, default=SuppressionReason.OPTED_OUT.value, show_default=True)
@_CREATE
@STORE
def add(*, number: str, sender: str, reason: str, create: bool, url: str) -> None:
    """Put NUMBER on the list."""
    from smsretry.cli.show import opened

    try:
        entry = Suppression(to=number, sender=sender, reason=SuppressionReason(reason))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    with opened(url, create=create, remedy=_REMEDY) as store:
        store.suppress(entry)
    click.echo(f"{mask_number(number)} is on the list, for {_who(sender)}.")


@suppressed.command()
@click.argument("number")
@_SENDER
@STORE
def remove(number: str, sender: str, url: str) -> None:
    """Take the entry of NUMBER for a sender off the list.

    It changes nothing at Twilio, which goes on refusing a number that said STOP until that says START.
    """
    from smsretry.cli.show import opened

    _check(number)
    with opened(url) as store:
        if not store.lift(number, sender):
            raise click.ClickException(
                f"There is no entry of {mask_number(number)} for {_who(sender)}. "
                "Those there are: smsretry suppressed list NUMBER"
            )
    click.echo(f"{mask_number(number)} is off the list, for {_who(sender)}.")


@suppressed.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@_CREATE
@STORE
def read(*, file: str, create: bool, url: str) -> None:
    """Put every line of a CSV FILE on the list ('-' for the input).

    Its first line names the columns: to, and where they are there sender, reason, code and since.
    """
    from smsretry.cli.show import opened

    with opened(url, create=create, remedy=_REMEDY) as store, _told(file):
        done = store.import_suppressions(sys.stdin if file == "-" else file)
        click.echo(f"{done.added:,} added, {done.known:,} known already.")


@suppressed.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@STORE
def export(file: str, url: str) -> None:
    """Write the list into a CSV FILE ('-' for the output).

    It holds whole numbers: treat it as personal data.
    """
    from smsretry.cli.show import opened

    with opened(url) as store, _told(file):
        count = store.export_suppressions(sys.stdout if file == "-" else file)
        click.echo(f"{count:,} written.", err=True)


@contextlib.contextmanager
def _told(file: str) -> Iterator[None]:
    """Let what is wrong with ``file`` be told in words."""
    try:
        yield
    except InvalidMessage as error:
        raise click.ClickException(f"{file}: {error}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be used: {error.strerror}.") from None


def _check(number: str) -> None:
    """Raise `click.ClickException` for what is no number of an entry."""
    try:
        check_to(number)
    except InvalidMessage as error:
        raise click.ClickException(str(error)) from None


def _described(entry: Suppression) -> str:
    since = "" if entry.since is None else f"{entry.since:%Y-%m-%d %H:%M:%S}"
    words = (mask_number(entry.to), _who(entry.sender), entry.reason.value, entry.code or "", since)
    return "  ".join(word for word in words if word)


def _who(sender: str) -> str:
    return mask_numbers_in(sender) or "every sender"
