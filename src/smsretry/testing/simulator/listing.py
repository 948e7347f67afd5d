"""Read the query of a list request and choose the texts that it asks for, newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final, Self

from smsretry.testing.simulator.ledger import Params, Standing, Text

DEFAULT_PAGE_SIZE: Final = 50
LARGEST_PAGE_SIZE: Final = 1000
SERVICE_NUMBER: Final = "+15005550006"
"""The number from which every messaging service of the simulator sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Hold what a list request asks for; a filter that is None lets all pass.

    ``on``, ``before`` and ``after`` are about the day or the second at which a text was sent, both ends included.
    """

    filters: tuple[tuple[str, str], ...]
    to: str | None
    sender: str | None
    on: date | None
    before: date | datetime | None
    after: date | datetime | None
    page: int
    page_size: int
    token: str | None

    @classmethod
    def from_params(cls, params: Params) -> Self:
        """Read the fields of a query; raise ValueError for a number or a time that is none."""
        given = {name: values[0] for name, values in params.items() if values[0]}
        on = _moment(given.get("DateSent"))
        return cls(
            filters=tuple((name, value) for name, value in given.items() if name in _FILTERS),
            to=given.get("To"),
            sender=given.get("From"),
            on=on.date() if isinstance(on, datetime) else on,
            before=_moment(given.get("DateSent<")),
            after=_moment(given.get("DateSent>")),
            page=max(0, int(given.get("Page", "0"))),
            page_size=min(max(1, int(given.get("PageSize", DEFAULT_PAGE_SIZE))), LARGEST_PAGE_SIZE),
            token=given.get("PageToken"),
        )

    def admits(self, text: Text, standing: Standing) -> bool:
        """Return whether ``text`` passes every filter; what is not sent has no date, and may have no sender yet."""
        return (
            self.to in (None, text.to)
            and self.sender in (None, sender_shown(text, is_chosen=standing.has_sender))
            and (self._asks_no_date() or self._admits_date(standing.sent_at))
        )

    def _asks_no_date(self) -> bool:
        return self.on is None and self.before is None and self.after is None

    def _admits_date(self, sent_at: datetime | None) -> bool:
        if sent_at is None:
            return False
        at = sent_at.replace(microsecond=0)
        return (
            self.on in (None, at.date())
            and (self.before is None or at <= _end_of(self.before))
            and (self.after is None or at >= _start_of(self.after))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Hold one page: its texts, the place of the first one, and the token of the next page where there is one."""

    texts: Sequence[Text]
    first: int
    next_token: str | None


def sender_shown(text: Text, *, is_chosen: bool) -> str | None:
    """Return the sender that is shown: that of a messaging service only once it ``is_chosen``."""
    return text.sender or (SERVICE_NUMBER if is_chosen else None)


def listed(texts: Iterable[Text], query: ListQuery) -> Listing:
    """Return the page of ``texts``, newest first, that ``query`` asks for.

    A token names the last text of the page before, so that texts that arrive between two pages shift nothing.
    """
    rows = list(texts)
    first = _first(rows, query)
    page = rows[first : first + query.page_size]
    is_last = first + len(page) >= len(rows)
    return Listing(texts=page, first=first, next_token=None if is_last else f"PA{page[-1].sid}")


def _first(rows: Sequence[Text], query: ListQuery) -> int:
    if query.token is None:
        return query.page * query.page_size
    last_sid = query.token.removeprefix("PA")
    return next((place + 1 for place, text in enumerate(rows) if text.sid == last_sid), len(rows))


_FILTERS: Final = frozenset({"To", "From", "DateSent", "DateSent<", "DateSent>"})


def _moment(value: str | None) -> date | datetime | None:
    if value is None:
        return None
    if len(value) == len("2026-11-23"):
        return date.fromisoformat(value)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _start_of(moment: date | datetime) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time.min, UTC)


def _end_of(moment: date | datetime) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time.max, UTC)
