"""Twilio's error codes as a table: what each means, whom it is about, and what is done about it.

The rows are in ``twilio_codes.csv`` beside this module, one for each code that a send or a delivery report can meet,
each with its source. They are read once, at the first question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cache
from types import MappingProxyType
from typing import Final, Self

from smsretry.core.failure import RETRYABLE_KINDS, Failure, FailureKind, Scope
from smsretry.core.http import failure_of_status

PROVIDER: Final = "twilio"
_MOST_DIGITS: Final = 9


@unique
class Decision(StrEnum):
    """Say what is done about a code; ``description`` says it in a sentence."""

    description: str

    def __new__(cls, value: str, description: str = "") -> Self:
        """Make the member ``value``, which carries ``description``."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    RETRY = "retry", "Not taken: tried again on the policy's schedule."
    RETRY_LATER = "retry_later", "Not taken: tried again, never before the code's minimum delay."
    LOOK_UP = "look_up", "May have been taken: looked up first, then tried again on the policy's schedule."
    GIVE_UP = "give_up", "Ends the message: it would fail again unchanged."
    WARNING = "warning", "May sit on a message that went out all the same: never sent again because of it."
    ON_REQUEST = "on_request", "Not sent again by itself, though Twilio says that a new message may pass."
    DISPUTED = "disputed", "Not sent again by itself: whether a repeat helps, or texts twice, is disputed or untold."
    NOT_SEEN_THERE = "not_seen_there", "Does not come there; if it does, its kind decides."


@unique
class Arrives(StrEnum):
    """Say where a code comes from."""

    REST = "rest"
    """The answer to a request."""
    DELIVERY = "delivery"
    """A delivery report."""
    BOTH = "both"
    """Either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioCode:
    """Hold one row of the table.

    ``min_delay_s`` is the wait in seconds that Twilio asks for before another try, 0 where it asks for none.
    ``on_create`` is what is done where the code refuses a create, ``on_delivery`` where it comes in a delivery report.
    """

    code: int
    meaning: str
    kind: FailureKind
    scope: Scope
    min_delay_s: float
    on_create: Decision
    on_delivery: Decision
    arrives: Arrives
    source: str

    @property
    def is_retried_on_create(self) -> bool:
        """Whether a create that this code refused is tried again."""
        if self.on_create is Decision.NOT_SEEN_THERE:
            return self.kind in RETRYABLE_KINDS
        return self.on_create in (Decision.RETRY, Decision.RETRY_LATER, Decision.LOOK_UP)

    def failure_on_create(self, http_status: int | None = None) -> Failure:
        """Return what the code means as the answer, with ``http_status``, to a create.

        Every 5xx may have been taken, whatever its code; a 429 never was, so it is no lost answer.
        """
        doubtful = self.on_create in (Decision.LOOK_UP, Decision.WARNING)
        refused = http_status == 429 and self.kind is FailureKind.LOST_ANSWER
        return Failure.of(
            FailureKind.RATE_LIMITED if refused else self.kind,
            scope=self.scope,
            retryable=self.is_retried_on_create,
            maybe_sent=http_status != 429 and (doubtful or is_server_error(http_status)),
            code=self.code,
            http_status=http_status,
            detail=self.meaning,
            min_delay_s=self.min_delay_s,
            provider=PROVIDER,
        )


def lookup_code(code: int | str) -> TwilioCode | None:
    """Return the row of ``code`` (a number, or its digits), None where nobody listed it."""
    if isinstance(code, str):
        code = int(code) if code.isdecimal() and len(code) <= _MOST_DIGITS else -1
    return codes().get(code)


def decide_unlisted(http_status: int) -> Decision:
    """Say what is done where a code that nobody listed refuses a create with ``http_status``."""
    failure = failure_of_status(http_status, own_error=True)
    if failure.maybe_sent:
        return Decision.LOOK_UP
    return Decision.RETRY if failure.retryable else Decision.GIVE_UP


def is_server_error(http_status: int | None) -> bool:
    """Say whether ``http_status`` is a 5xx."""
    return http_status is not None and 500 <= http_status < 600


@cache
def codes() -> Mapping[int, TwilioCode]:
    """Return the whole table by code, in ascending order."""
    import csv
    from importlib import resources

    text = (resources.files("smsretry.senders") / "twilio_codes.csv").read_text("utf-8")
    rows = (_row(fields) for fields in csv.DictReader(text.splitlines()))
    return MappingProxyType({row.code: row for row in rows})


def _row(fields: Mapping[str, str]) -> TwilioCode:
    return TwilioCode(
        code=int(fields["code"]),
        meaning=fields["meaning"],
        kind=FailureKind(fields["kind"]),
        scope=Scope(fields["scope"]),
        min_delay_s=float(fields["min_delay_s"]),
        on_create=Decision(fields["on_create"]),
        on_delivery=Decision(fields["on_delivery"]),
        arrives=Arrives(fields["arrives"]),
        source=fields["source"],
    )
