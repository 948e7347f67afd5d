"""Check a list of contacts before anything is sent, with neither network nor database."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from smsretry.contacts import Contacts, Survey, surveyed


def survey_of(console: Console, contacts: Contacts) -> Survey:
    """Read the whole file once, and return what its rows become."""
    with console.status(Text(f"Reading {contacts.table.path} …")):
        return surveyed(contacts)


def check_survey(survey: Survey, *, skip_bad_rows: bool) -> None:
    """Refuse a list with bad rows, unless they are to be skipped, and one without a message."""
    if survey.bad and not skip_bad_rows:
        raise click.ClickException(
            f"{survey.bad:,} rows are bad, so nothing is sent. Correct them, or leave them out with --bad-rows skip."
        )
    if not survey.messages:
        raise click.ClickException("There is nothing to send: no row becomes a message.")


def check_target(target: Path | None, contacts: Contacts) -> None:
    """Refuse a file that could not be written once everything was sent."""
    if target is None:
        return
    if target.exists() and target.samefile(contacts.table.path):
        raise click.ClickException(f"--failed {target} is the list itself. Name another file.")
    if not target.parent.is_dir():
        raise click.ClickException(f"--failed {target} cannot be written: {target.parent} is no folder. Make it.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise click.ClickException(f"--failed {target} cannot be written: it is not allowed. Name another file.")
