"""What went wrong, whom it is about, and what may safely be done about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any, Final, Self, TypeVar

from smsretry.core.mask import mask_numbers_in, shown

M = TypeVar("M", bound=StrEnum)

LONGEST_DELAY_S: Final = 366 * 86_400.0
"""The longest wait that any part of the library asks for, in seconds (366 days).

``time.sleep``, ``timedelta`` and every queue accept it; a longer hint of a server is cut to it.
"""


@unique
class Scope(StrEnum):
    """Say whom a failure is about, so that one bad number never looks like an outage."""

    RECIPIENT = "recipient"
    """This phone number only; the next recipient is untouched."""
    MESSAGE = "message"
    """This text or these parameters; another text to the same number may pass."""
    SENDER = "sender"
    """The number, short code or messaging service it is sent from."""
    ACCOUNT = "account"
    """The account at the provider: every message of it would fail alike."""
    PROVIDER = "provider"
    """The provider or the way to it."""


@unique
class FailureKind(StrEnum):
    """Name what went wrong; each member says what may be done about it."""

    RATE_LIMITED = "rate_limited"
    """Too fast: not taken; retry on the schedule, never before the provider's hint."""
    QUEUE_FULL = "queue_full"
    """The sender's own queue at the provider is full (ten hours of traffic): not taken; retry much later."""
    TEMPORARY = "temporary"
    """A fault that passes: retry on the schedule; where it may have been taken (``maybe_sent``), look it up first."""
    LOST_ANSWER = "lost_answer"
    """The request left and no usable answer came back: whether it was taken is unknown; look it up first."""
    INVALID_NUMBER = "invalid_number"
    """No such mobile number: never retry; clean the list."""
    UNREACHABLE = "unreachable"
    """The handset or route cannot be reached: refused at a create; a delivery report may allow a retry."""
    OPTED_OUT = "opted_out"
    """The recipient said stop: never retry and do not text this number again."""
    CARRIER_REJECTED = "carrier_rejected"
    """A carrier or the provider filtered it: never retry unchanged."""
    CONTENT = "content"
    """The text, media or a parameter of this message is wrong: never retry unchanged."""
    SENDER_CONFIG = "sender_config"
    """The sender number or messaging service is not set up for this: mend it, then requeue."""
    GEO_PERMISSION = "geo_permission"
    """The account may not text this country: allow it, then requeue."""
    AUTH = "auth"
    """Credentials refused: nothing passes until they are mended, then requeue."""
    ACCOUNT = "account"
    """Account suspended, out of funds or on trial: nothing passes until it is mended, then requeue."""
    EXPIRED = "expired"
    """Too late to be of use: ``send_before`` or the validity period is over."""
    OTHER = "other"
    """Refused for a reason that the provider does not tell, or that nobody listed."""


RETRYABLE_KINDS: Final = frozenset(
    {FailureKind.RATE_LIMITED, FailureKind.QUEUE_FULL, FailureKind.TEMPORARY, FailureKind.LOST_ANSWER}
)
"""The kinds that may be tried again unless a table says otherwise."""

_SCOPES: Final[Mapping[FailureKind, Scope]] = {
    FailureKind.RATE_LIMITED: Scope.ACCOUNT,
    FailureKind.QUEUE_FULL: Scope.SENDER,
    FailureKind.TEMPORARY: Scope.PROVIDER,
    FailureKind.LOST_ANSWER: Scope.PROVIDER,
    FailureKind.INVALID_NUMBER: Scope.RECIPIENT,
    FailureKind.UNREACHABLE: Scope.RECIPIENT,
    FailureKind.OPTED_OUT: Scope.RECIPIENT,
    FailureKind.CARRIER_REJECTED: Scope.MESSAGE,
    FailureKind.CONTENT: Scope.MESSAGE,
    FailureKind.SENDER_CONFIG: Scope.SENDER,
    FailureKind.GEO_PERMISSION: Scope.ACCOUNT,
    FailureKind.AUTH: Scope.ACCOUNT,
    FailureKind.ACCOUNT: Scope.ACCOUNT,
    FailureKind.EXPIRED: Scope.MESSAGE,
    FailureKind.OTHER: Scope.MESSAGE,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """State what one attempt ran into: the classifier's whole answer.

    ``Failure.of(kind)`` fills in scope and ``retryable`` as the kind has them. Raises ValueError that names the field.
    """

    kind: FailureKind
    scope: Scope
    retryable: bool
    """Whether the same message may be tried again at all."""
    maybe_sent: bool = False
    """Whether the provider may have taken the text all the same; a repeat could then text twice. After a lost answer
    it may, whatever is given here."""
    code: int | str | None = None
    """The provider's own code, raw; phone numbers in one that is text are masked."""
    http_status: int | None = None
    detail: str = ""
    """One line for people, without any text; phone numbers in it are masked."""
    min_delay_s: float = 0.0
    """Wait at least this long before a retry, in seconds, 0 or more: the table's word."""
    retry_after_s: float | None = None
    """The server's Retry-After in seconds; one that is negative or NaN is ignored and becomes None."""
    provider: str = ""
    unmapped: bool = False
    """True where nobody listed the code and a rule by HTTP or message status decided."""

    def __post_init__(self) -> None:
        if type(self.kind) is not FailureKind or type(self.scope) is not Scope:
            object.__setattr__(self, "kind", member_of(FailureKind, "kind", self.kind))
            object.__setattr__(self, "scope", member_of(Scope, "scope", self.scope))
        for name in _TYPES:
            _check_type(name, getattr(self, name))
        if not 0.0 <= self.min_delay_s <= LONGEST_DELAY_S:
            msg = f"min_delay_s must be from 0 to {LONGEST_DELAY_S:.0f} seconds, got {self.min_delay_s!r}."
            raise ValueError(msg)
        if self.retry_after_s is not None:
            object.__setattr__(self, "retry_after_s", _usable_hint(self.retry_after_s))
        if self.detail:
            object.__setattr__(self, "detail", mask_numbers_in(self.detail))
        if isinstance(self.code, str):
            object.__setattr__(self, "code", mask_numbers_in(self.code))
        if self.kind is FailureKind.LOST_ANSWER:
            object.__setattr__(self, "maybe_sent", True)

    @classmethod
    def of(cls, kind: FailureKind, **fields_: Any) -> Self:
        """Build a failure of ``kind`` with the kind's usual scope and ``retryable``; keywords override any field."""
        kind = member_of(FailureKind, "kind", kind)
        usual: dict[str, Any] = {
            "scope": _SCOPES[kind],
            "retryable": kind in RETRYABLE_KINDS,
            "min_delay_s": 300.0 if kind is FailureKind.QUEUE_FULL else 0.0,
        }
        return cls(kind, **(usual | fields_))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON scalars by field name."""
        data: dict[str, Any] = {name: getattr(self, name) for name in _TYPES}
        return data | {"kind": self.kind.value, "scope": self.scope.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise ValueError on unknown fields or values."""
        if not isinstance(data, Mapping):
            msg = f"A failure must be a JSON object, got {type(data).__name__}. Pass failure.to_dict()."
            raise ValueError(msg)  # noqa: TRY004  # one error type for everything that is corrupt
        for name in data:
            if name not in _TYPES:
                msg = f"A failure has no field {name!r}. Pass what Failure.to_dict() returned."
                raise ValueError(msg)
        try:
            return cls(**data)
        except TypeError as error:
            msg = f"A failure lacks a field ({error}). Pass what Failure.to_dict() returned."
            raise ValueError(msg) from error


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "kind": (FailureKind,),
    "scope": (Scope,),
    "retryable": (bool,),
    "maybe_sent": (bool,),
    "code": (int, str, type(None)),
    "http_status": (int, type(None)),
    "detail": (str,),
    "min_delay_s": (int, float),
    "retry_after_s": (int, float, type(None)),
    "provider": (str,),
    "unmapped": (bool,),
}
"""What each field may be; a bool is no number."""


def member_of(kinds: type[M], field: str, value: Any) -> M:
    """Return the member of ``kinds`` that ``value`` is or names; raise ValueError that names ``field``."""
    try:
        return kinds(value)
    except ValueError:
        msg = f"{field} must be one of {', '.join(kinds)}, got {shown(value)}. Use a member of {kinds.__name__}."
        raise ValueError(msg) from None


def _check_type(name: str, value: object) -> None:
    types = _TYPES[name]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        msg = f"{name} of a failure cannot be a {type(value).__name__}. Give {_names(types)}."
        raise ValueError(msg)


def _names(types: Iterable[type]) -> str:
    return " or ".join("None" if one is type(None) else one.__name__ for one in types)


def _usable_hint(hint_s: float) -> float | None:
    return float(min(hint_s, LONGEST_DELAY_S)) if hint_s >= 0 else None  # NaN is neither
