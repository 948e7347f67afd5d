"""Print what a list of contacts becomes, and what became of it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from smsretry.contacts import Survey
    from smsretry.store import SQLStore

_MOST_LINES: Final = 10
_MOST_CHARACTERS: Final = 8


def print_survey(console: Console, survey: Survey, *, rate: float | None) -> None:
    """Print rows, messages and segments, and then every sort of row that deserves a look."""
    table = Table("what", "count", title="The list", title_justify="left")
    for what, count in _figures(survey):
        table.add_row(Text(what), Text(f"{count:,}", justify="right"))
    console.print(table)
    if rate is not None:
        time = timedelta(seconds=math.ceil(survey.segments / rate))
        console.print(f"At {rate:g} segments a second it takes {time} or more.")
    if survey.repeated:
        console.print(f"Sent once, though they are there again: {lines_told(survey.repeated_lines, survey.repeated)}.")
    for column, lines in survey.empty_lines.items():
        console.print(Text(f"Sent with nothing in {{{column}}}: {lines_told(lines, survey.empty[column])}."))
    if survey.bad:
        _print_bad_rows(console, survey)


def print_result(console: Console, store: SQLStore, campaign: str) -> None:
    """Print where the messages of ``campaign`` stand, in this run and in earlier ones."""
    summary = store.campaign_summary(campaign)
    table = Table("what", "count", title=Text(f"The campaign {campaign}"), title_justify="left")
    table.add_row("accepted", f"{summary.sent:,}")
    for what in ("delivered", "undelivered", "no_report"):
        if count := getattr(summary, what):
            table.add_row(f"  {what.replace('_', ' ')}", f"{count:,}")
    table.add_row("failed", f"{summary.failed:,}")
    for cause in store.failure_reasons(campaign):
        table.add_row(Text(f"  {cause.kind} {cause.code or ''} ({cause.reason})"), f"{cause.count:,}")
    for what in ("expired", "unknown", "canceled", "suppressed", "skipped", "pending"):
        if count := getattr(summary, what):
            table.add_row(what, f"{count:,}")
    table.add_row("retries", f"{summary.retried:,}")
    console.print(table)


def lines_told(lines: Sequence[int], count: int | None = None) -> str:
    """Return the first few of ``count`` lines in words."""
    count = len(lines) if count is None else count
    told = ", ".join(str(line) for line in lines[:_MOST_LINES])
    more = f" and {count - _MOST_LINES:,} more" if count > _MOST_LINES else ""
    return f"{'line' if count == 1 else 'lines'} {told}{more}"


def _figures(survey: Survey) -> list[tuple[str, int]]:
    figures = [("rows", survey.rows), ("messages", survey.messages)]
    figures += [(f"  of {segments_told(each)}", count) for each, count in survey.by_segments.items()]
    figures += [("segments", survey.segments)]
    if survey.with_several:
        figures += [("numbers with several texts", len(survey.with_several))]
    if survey.ucs2:
        figures += [("messages in UCS-2, with shorter segments", survey.ucs2)]
        first = list(survey.beyond_gsm_7.items())[:_MOST_CHARACTERS]
        figures += [(f"  for {_named(character)}", count) for character, count in first]
    figures += [("rows that repeat another", survey.repeated), ("bad rows", survey.bad)]
    return figures + [(f"  {fault.value}", count) for fault, count in survey.faults.items()]


def segments_told(count: int) -> str:
    """Return ``count`` segments in words."""
    return "1 segment" if count == 1 else f"{count} segments"


def _named(character: str) -> str:
    shown = character if character.isprintable() else ""
    return f"{shown} U+{ord(character):04X} {unicodedata.name(character, '')}".strip()


def _print_bad_rows(console: Console, survey: Survey) -> None:
    table = Table("line", "what is wrong", title="Bad rows", title_justify="left")
    for bad in survey.bad_rows:
        table.add_row(str(bad.line), Text(f"{bad.fault.value}: {bad.detail}" if bad.detail else bad.fault.value))
    if survey.bad > len(survey.bad_rows):
        table.add_row("…", f"and {survey.bad - len(survey.bad_rows):,} more")
    console.print(table)
