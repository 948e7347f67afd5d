"""Send a text to each row of a CSV file: the command and its options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console

from smsretry.cli.ending import INTERRUPTED, Course
from smsretry.cli.options import MENDABLE
from smsretry.errors import ConfigurationError, InvalidMessage

if TYPE_CHECKING:
    from smsretry.contacts import Contacts, Table

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_MORE_THAN_0: Final = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--template", "template", help="The text; {name} stands for the column name, {{ for a brace.")
@click.option("--template-file", type=_FILE, help="In its place: a file with the text, in UTF-8.")
@click.option("--campaign", required=True, help="Its name: with it, a campaign is known again.")
@click.option(
    "--store", default="sms.db", show_default=True, help="The journal: a SQLite file, or the URL of a database."
)
@click.option("--number-column", default="phone", show_default=True, help="The column with the numbers.")
@click.option("--region", metavar="US", help="The country of numbers that do not say theirs. Needs the extra phone.")
@click.option("--delimiter", help="What is between two cells; recognised unless given.")
@click.option(
    "--from", "sender_id", help="A number, or the SID of a messaging service; else what the environment says."
)
@click.option("--concurrency", type=click.IntRange(1, 1_000), help="How many are sent at once.")
@click.option("--rate", type=_MORE_THAN_0, help="Segments a second, at the most; a dry run says how long that takes.")
@click.option("--dry-run", is_flag=True, help="Read and count everything, and send nothing.")
@click.option("--resume", is_flag=True, help="Go on with a campaign that was begun.")
@click.option(
    "--retry",
    multiple=True,
    type=click.Choice(MENDABLE),
    help="With --resume: send once more what failed for this kind of reason. May be given several times.",
)
@click.option(
    "--failed", type=_FILE, help="At the end, write the rows that failed into this CSV file, with the reason."
)
@click.option(
    "--bad-rows",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="Send nothing while a row is bad, or leave bad rows out.",
)
@click.option("--yes", is_flag=True, help="Send without asking.")
def send(
    *,
    file: Path,
    template: str | None,
    template_file: Path | None,
    campaign: str,
    store: str,
    number_column: str,
    region: str | None,
    delimiter: str | None,
    sender_id: str | None,
    concurrency: int | None,
    rate: float | None,
    dry_run: bool,
    resume: bool,
    retry: tuple[str, ...],
    failed: Path | None,
    bad_rows: str,
    yes: bool,
) -> None:
    """Send a text to each row of a CSV FILE.

    The whole file is read and checked before anything is sent. What was sent is kept in the store: a campaign that was
    stopped or killed goes on with --resume, and sends nothing twice.

    It ends with 0 where all were accepted, 3 where some were not, 130 where it was interrupted, and 1 where something
    was wrong before.
    """
    from smsretry.cli.checking import check_survey, check_target, survey_of
    from smsretry.cli.telling import print_survey
    from smsretry.contacts import Table

    if retry and not resume:
        raise click.UsageError("--retry goes on with a campaign that was begun. Say --resume too.")
    console, course = Console(), Course()
    with _told(course):
        text = _template(template, template_file)
        contacts = _contacts(Table(file, delimiter=delimiter), text, _name(campaign), region, number_column)
        check_target(failed, contacts)
        survey = survey_of(console, contacts)
        print_survey(console, survey, rate=rate)
        check_survey(survey, skip_bad_rows=bad_rows == "skip")
        if dry_run:
            return
        from smsretry.cli.sending import Order, carry_out

        order = Order(
            contacts=contacts,
            survey=survey,
            sender_id=sender_id,
            concurrency=concurrency,
            rate_per_s=rate,
            resume=resume,
            retry=retry,
            failed=failed,
            course=course,
        )
        code = carry_out(console, order, store, ask=lambda: _ask(survey.messages, yes=yes or resume))
    sys.exit(code)


def _ask(messages: int, *, yes: bool) -> None:
    """Ask whoever sits there whether to begin; a script has said so by calling it."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Send {messages:,} texts?", abort=True)


def _contacts(table: Table, text: str, campaign: str, region: str | None, number_column: str) -> Contacts:
    from smsretry.contacts import Contacts, Numbers, Template

    try:
        table.index_of(number_column)
    except ConfigurationError as error:
        raise click.ClickException(f"{error} Name that of the numbers with --number-column.") from None
    return Contacts(
        table=table,
        template=Template.of(text),
        campaign=campaign,
        numbers=Numbers(region),
        number_column=number_column,
    )


def _name(campaign: str) -> str:
    if not campaign:
        raise click.ClickException("--campaign must not be empty. Give it a name, by which it is known again.")
    return campaign


def _template(text: str | None, file: Path | None) -> str:
    match text, file:
        case str(), None:
            return _checked(text)
        case None, Path():
            return _text_in(file)
        case _:
            raise click.UsageError("Give the text with --template, or a file that holds it with --template-file.")


def _checked(text: str) -> str:
    """Refuse what is not UTF-8 on the command line: each row would be blamed for it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.ClickException("The text of --template is not UTF-8. Give it in a --template-file.") from None
    return text


def _text_in(file: Path) -> str:
    """Return what stands in ``file``, without the line break at its end that editors add."""
    try:
        return file.read_text("utf-8-sig").removesuffix("\n")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8. Save it as UTF-8.") from None


@contextmanager
def _told(course: Course) -> Iterator[None]:
    """Let whatever is wrong be told in words."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(course.where_it_stopped(), err=True)
        sys.exit(INTERRUPTED)
    except (ConfigurationError, InvalidMessage, ModuleNotFoundError) as error:  # the last says which extra to install
        raise click.ClickException(str(error)) from None
