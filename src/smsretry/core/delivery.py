"""What became of a text after the provider took it: reports that come unordered, repeated, or never; values only.

What is known of a text is a `Delivery`. A report can only raise it, and of two reports the heavier one holds, whichever
came first: so the end is the same in whatever order, and however often, reports come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from smsretry.core.failure import Failure
from smsretry.core.mask import shown
from smsretry.core.message import LONGEST_ID, Message
from smsretry.core.policy import RetryPolicy

_ID: Final = "smsretry_id"
_MARK_NAME: Final = "smsretry_mark"
_MOST_FIELDS: Final = 100
LONGEST_WORD: Final = 64
"""The most characters of a provider's name and of its code."""
_NO_RAW: Final[Mapping[str, Any]] = {}
_MARK: Final = re.compile(r"[1-9]\d{0,5}\.[1-9]\d{0,5}\.\d{1,18}", re.ASCII)


@unique
class DeliveryStatus(StrEnum):
    """Say where a text is on its way; of two the later member of this list holds.

    So a text of several parts, of which one is reported as delivered and another as not, is delivered: something of it
    was shown, and sending it again would show that part twice.
    """

    UNKNOWN = "unknown"
    """Nothing is known, or the provider uses a word that nobody listed."""
    ACCEPTED = "accepted"
    """The provider has it."""
    SCHEDULED = "scheduled"
    """The provider sends it at a later time."""
    QUEUED = "queued"
    """It waits at the provider for its sender's turn."""
    SENDING = "sending"
    """The provider is handing it to the carrier."""
    SENT = "sent"
    """The carrier has it; often the last word."""
    CANCELED = "canceled"
    """It was taken back at the provider before it was sent."""
    FAILED = "failed"
    """The provider did not hand it over: a repeat cannot text twice."""
    UNDELIVERED = "undelivered"
    """The carrier says that it did not reach the handset. That is seldom wrong, and a repeat may then text twice."""
    DELIVERED = "delivered"
    """The carrier, or the handset, says that it arrived."""
    READ = "read"
    """The recipient opened it, on channels that tell."""

    @property
    def is_final(self) -> bool:
        """Say whether the provider says no more, unless it contradicts itself."""
        return self in _FINAL

    @property
    def has_arrived(self) -> bool:
        """Say whether the text reached a handset, as far as anybody can tell."""
        return self in _ARRIVED


_ARRIVED: Final = frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.READ})
_NOT_ARRIVED: Final = frozenset({DeliveryStatus.CANCELED, DeliveryStatus.FAILED, DeliveryStatus.UNDELIVERED})
_FINAL: Final = _ARRIVED | _NOT_ARRIVED
_REFUSED: Final = frozenset({DeliveryStatus.FAILED, DeliveryStatus.UNDELIVERED})
_WEIGHTS: Final = {status: weight for weight, status in enumerate(DeliveryStatus)}


@dataclass(frozen=True, slots=True)
class Mark:
    """Name one send of a message: with its id in a callback's URL, a report proves which send the provider took.

    ``round`` and ``attempt`` count from 1; ``epoch`` is the claim under which it was sent.
    """

    round: int
    attempt: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.round}.{self.attempt}.{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the mark that ``str`` wrote; None for anything else, since a URL may come from anybody."""
        if not _MARK.fullmatch(text):
            return None
        round_, attempt, epoch = map(int, text.split("."))
        return cls(round_, attempt, epoch)


def callback_url(url: str, message_id: str | None, mark: Mark | None) -> str:
    """Return the URL to which a provider reports about one send: ``url`` with the message's id and mark in its query.

    What ``url`` has in its query stays; its fragment goes.
    """
    parts = urlsplit(url)
    ours = {_ID: message_id, _MARK_NAME: None if mark is None else str(mark)}
    own = [f"{name}={quote(value, safe='')}" for name, value in ours.items() if value is not None]
    return urlunsplit(parts._replace(query="&".join([*filter(None, [parts.query]), *own]), fragment=""))


def callback_query(query: str) -> tuple[str | None, Mark | None]:
    """Return the message's id and the mark in the query of such a URL; None for what is not there, or is none."""
    found = {name: value for name, value in parse_qsl(query, max_num_fields=_MOST_FIELDS) if name in {_ID, _MARK_NAME}}
    message_id, mark = found.get(_ID), found.get(_MARK_NAME)
    is_id = message_id is not None and is_text_id(message_id)
    return message_id if is_id else None, None if mark is None else Mark.parse(mark)


def is_text_id(value: object) -> bool:
    """Say whether ``value`` may be the id of a message or text: 1 to 255 printable characters."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_ID and value.isprintable()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """Hold one report of a provider about one text.

    ``message_id`` and ``mark`` are ours, where the report carries them: then it proves that the provider took that
    message. ``code`` is the provider's own, and ``failure`` what it means. ``received_at`` is aware UTC. ``raw`` is the
    report as it came, numbers among it, and in no repr. Raises ValueError that names the field.
    """

    provider_id: str
    status: DeliveryStatus
    raw_status: str = ""
    """The provider's own word."""
    message_id: str | None = None
    mark: Mark | None = None
    code: str | None = None
    failure: Failure | None = None
    received_at: datetime
    provider: str = ""
    raw: Mapping[str, Any] = field(default_factory=lambda: _NO_RAW, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("provider_id", self.provider_id), ("message_id", self.message_id)):
            if name == "message_id" and value is None:
                continue
            if not is_text_id(value):
                msg = f"{name} must be a str of 1 to {LONGEST_ID} printable characters, got {shown(value)}."
                raise ValueError(msg)
        for name, value in (("code", self.code or ""), ("provider", self.provider)):
            if value != "" and not (is_text_id(value) and len(value) <= LONGEST_WORD):
                msg = f"{name} must be a str of up to {LONGEST_WORD} printable characters, got {shown(value)}."
                raise ValueError(msg)
        object.__setattr__(self, "status", DeliveryStatus(self.status))
        if not isinstance(self.received_at, datetime) or self.received_at.utcoffset() is None:
            msg = f"received_at must be an aware datetime, got {self.received_at!r}. Use datetime.now(UTC)."
            raise ValueError(msg)

    @property
    def delivery(self) -> Delivery:
        """Return what this report alone says."""
        return Delivery(self.status, self.code or "")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Hold what is known of one text; ``code`` is that of the report which holds, '' where it came without."""

    status: DeliveryStatus = DeliveryStatus.UNKNOWN
    code: str = ""

    def after(self, other: Delivery) -> Delivery:
        """Return what holds of this and ``other``: the same whichever was known first."""
        return max(self, other, key=_weight)

    @classmethod
    def of(cls, reports: Iterable[DeliveryReport]) -> Delivery:
        """Return what ``reports`` say together."""
        known = Delivery()
        for report in reports:
            known = known.after(report.delivery)
        return known


def _weight(known: Delivery) -> tuple[int, str]:
    return _WEIGHTS[known.status], known.code


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRetries:
    """Say after which codes of a delivery report a message is sent anew, in a new round; by default after none.

    ``codes`` are the provider's own, such as ``{"30003"}``. The delays, and how often, are those of ``policy``: one
    retry of the default waits 10 minutes, the next 20. Raises ValueError that names the field.
    """

    codes: frozenset[str] = frozenset()
    policy: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(max_retries=2, first_delay_s=600.0, max_delay_s=86_400.0)
    )

    def __post_init__(self) -> None:
        if isinstance(self.codes, str):
            msg = f"codes must be a set of codes, got the str {self.codes!r}. Use {{{self.codes!r}}}."
            raise ValueError(msg)  # noqa: TRY004  # one error type for every field
        codes = frozenset(str(code) for code in self.codes)
        if not all(code.isprintable() and code for code in codes):
            msg = f"codes must be the provider's codes, such as {{'30003'}}, got {sorted(codes)!r}."
            raise ValueError(msg)
        object.__setattr__(self, "codes", codes)
        if not isinstance(self.policy, RetryPolicy):
            msg = f"policy must be a RetryPolicy, got {type(self.policy).__name__}."
            raise ValueError(msg)  # noqa: TRY004

    def delay_s(self, known: Delivery, retries: int) -> float | None:
        """Return after how many seconds a text that ended as ``known`` is sent anew; None where it is not.

        ``retries`` is how many retries after a delivery failure were made before.
        """
        if known.status not in _REFUSED or known.code not in self.codes or retries >= self.policy.max_retries:
            return None
        return self.policy.backoff(retries + 1)


@dataclass(frozen=True, slots=True)
class Received:
    """Say what a report led to: what is known of its text now, and the message to be queued where it is sent anew."""

    message_id: str | None
    """None where nobody knows yet whose text it is; the report is kept."""
    known: Delivery
    changed: bool
    """False where the report said nothing new."""
    again: Message | None = None
    """The message to be queued for its next round: `due` by the journal, so that it may be queued at once."""
