"""Find out what a journal knows of a campaign already, before it is sent again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Final

import click

from smsretry.cli.telling import lines_told
from smsretry.contacts import Contacts, Item, Ready
from smsretry.contacts.occurrences import Place, place_of
from smsretry.store import SQLStore, requeue

MOST_MOVED: Final = 1_000
"""Up to so many rows are looked for elsewhere in the journal: a template that was reworded has changed them all."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Say how many messages the journal knows, and which rows have another text than it knows."""

    messages: int
    changed_lines: tuple[int, ...] = ()
    places: Mapping[Place, int] = field(default_factory=dict)
    """Which of its number's texts each is, where their order in the file is not the one in the journal."""


def known_before(contacts: Contacts, store: SQLStore, *, resume: bool) -> Known:
    """Return what ``store`` knows of the campaign; refuse one that is there, and to resume one that is not."""
    there = store.campaign_summary(contacts.campaign)
    if there.planned and not resume:
        raise click.ClickException(
            f"The campaign {contacts.campaign!r} is in {store.name} already: {there.planned:,} messages, of which "
            f"{there.sent:,} were accepted. Go on with --resume, or give a new campaign a name of its own."
        )
    if not there.planned and resume:
        raise click.ClickException(
            f"There is no campaign {contacts.campaign!r} in {store.name} to go on with. Check both names, or begin it "
            "without --resume."
        )
    known = known_of(contacts, store) if resume else Known(messages=0)
    if known.changed_lines:
        raise click.ClickException(
            f"Nothing is sent, since rows have another text than when the campaign was begun ("
            f"{lines_told(known.changed_lines)}). Go on with the template and cells of then, or begin another campaign."
        )
    return known


def reopen(store: SQLStore, campaign: str, kinds: Iterable[str]) -> dict[str, int]:
    """Open a new round of what failed with ``kinds``, for this run to send, and return how many there were of each.

    Of none of them anything was sent.
    """
    return {kind: requeue(store, _by_this_run, campaign=campaign, kind=kind).handed_over for kind in kinds}


def _by_this_run(_message_id: str, _metadata: Mapping[str, object]) -> None:
    """Queue nothing: the rows are read again."""


def known_of(contacts: Contacts, store: SQLStore) -> Known:
    """Compare what the rows become with what ``store`` knows.

    An id stands for the number and for which of its texts a text is. Where the file was sorted otherwise, or a row was
    added or left out, a text is therefore looked for under the other ids of its number. One that is not there is new if
    the file has more texts to that number than the journal; else the text was changed, and nobody can say whether the
    recipient is to get it too.
    """
    messages, moved = 0, list[Ready]()
    moved_lines: list[int] = []
    for batch in _batches(contacts.items()):
        compared = store.compare([ready.message for ready in batch])
        messages += len(compared)
        for ready in batch:
            if compared.get(str(ready.message.id)) is False:
                moved_lines.append(ready.line)
                moved += [ready] if len(moved) < MOST_MOVED else []
    if len(moved_lines) > len(moved):
        return Known(messages=messages, changed_lines=tuple(moved_lines))
    changed_lines, places = _looked_for({ready.message.to for ready in moved}, contacts, store)
    return Known(messages=messages, changed_lines=changed_lines, places=places)


def _looked_for(numbers: set[str], contacts: Contacts, store: SQLStore) -> tuple[tuple[int, ...], dict[Place, int]]:
    """Return the rows to ``numbers`` whose text was changed, and the places of the others."""
    rows: defaultdict[str, list[Ready]] = defaultdict(list)
    for ready in _ready(contacts.items() if numbers else ()):
        if ready.message.to in numbers:
            rows[ready.message.to].append(ready)
    changed: list[int] = []
    places: dict[Place, int] = {}
    for number in rows:
        known, free = _places(rows[number], contacts, store)
        new = [ready for ready in rows[number] if _place_of(ready) not in known]
        places |= known | {_place_of(ready): place for place, ready in enumerate(new, start=free)}
        if free - 1 + len(new) > len(rows[number]):  # more texts would have gone to the number than the file has
            changed += [ready.line for ready in new]
    return tuple(sorted(changed)), places


def _places(rows: Sequence[Ready], contacts: Contacts, store: SQLStore) -> tuple[dict[Place, int], int]:
    """Return which of ``rows``, all to one number, the journal knows and where, and the first place that is free."""
    known: dict[Place, int] = {}
    for place in count(1):
        message_id = contacts.message_id(rows[0].message.to, place)
        answers = [store.compare([replace(ready.message, id=message_id)]).get(message_id) for ready in rows]
        if None in answers:
            return known, place
        known |= {_place_of(ready): place for ready, same in zip(rows, answers, strict=True) if same}
    raise AssertionError


def _place_of(ready: Ready) -> Place:
    return place_of(ready.message.to, ready.message.body)


def _ready(items: Iterable[Item]) -> Iterator[Ready]:
    return (item for item in items if isinstance(item, Ready))


def _batches(items: Iterable[Item]) -> Iterator[Sequence[Ready]]:
    ready = _ready(items)
    while batch := list(islice(ready, _BATCH)):
        yield batch
