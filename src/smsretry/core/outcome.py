"""What one attempt ended in, and what must be remembered until the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Any, Final, Self

from smsretry.core.failure import Failure
from smsretry.core.message import Receipt

STATE_VERSION: Final = 1
MOST_COUNTED: Final = 1_000_000
"""The largest count that a state may hold: more can only be corrupt."""


@unique
class GiveUpReason(StrEnum):
    """Say why a message ended without being accepted."""

    PERMANENT = "permanent"
    """The failure allows no retry."""
    RETRIES_EXHAUSTED = "retries_exhausted"
    """The last retry of the policy failed as well."""
    EXPIRED = "expired"
    """``send_before`` (or the longest deferral) is over, or the next retry would come after it."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The provider may have taken it, and nobody can say whether it did."""
    CANCELED = "canceled"
    """The application took it back."""
    UNRECOVERABLE = "unrecoverable"
    """Its worker was lost, and its text was not kept."""
    SUPPRESSED = "suppressed"
    """The recipient must not be texted; nothing was sent."""


@unique
class DeferReason(StrEnum):
    """Say why an attempt was put off without costing a retry."""

    IN_DOUBT = "in_doubt"
    """An answer was lost and the provider's listing does not settle it yet."""
    BUSY = "busy"
    """Another worker holds the message, or one with the same recipient and text."""
    NOT_DUE = "not_due"
    """It came before its time."""
    ON_HOLD = "on_hold"
    """The provider refuses the account: nothing is sent until that is mended."""
    JOURNAL_AWAY = "journal_away"
    """The journal could not be written."""
    LIMITED = "limited"
    """What its sender may carry is used up: its turn comes later."""
    LIMITER_AWAY = "limiter_away"
    """The rate limiter could not be reached."""
    LIST_AWAY = "list_away"
    """The list of who must not be texted could not be read."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """End the message: it was not accepted, because of ``failure``, for ``reason``, after ``attempts`` sends.

    Each call of the sender counts as a send, also where it refused by itself and asked nobody: for want of a setting,
    or with too little time left. ``would_retry_at`` is set where a retry was allowed but would have come after
    ``send_before``. ``cause`` is the exception of the sender, or what cut it short, for whoever raises; it is no part
    of the value.
    """

    failure: Failure
    reason: GiveUpReason
    attempts: int
    would_retry_at: datetime | None = None
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object without ``cause``."""
        return {
            "failure": self.failure.to_dict(),
            "reason": self.reason.value,
            "attempts": self.attempts,
            "would_retry_at": _written(self.would_retry_at),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise ValueError on anything else."""
        try:
            failure, reason, attempts = data["failure"], data["reason"], data["attempts"]
            would_retry_at = _read("would_retry_at", data.get("would_retry_at"))
        except (AttributeError, KeyError, TypeError) as error:
            msg = f"The end of a message is incomplete ({error!r}). Pass what GaveUp.to_dict() returned."
            raise ValueError(msg) from error
        _check_count("attempts", attempts)
        return cls(Failure.from_dict(failure), GiveUpReason(reason), attempts, would_retry_at)


@dataclass(frozen=True, kw_only=True)  # without slots: every failed attempt copies one, and a dict is copied at once
class AttemptState:
    """Hold what must travel with a message from one attempt to the next; a new message starts with ``AttemptState()``.

    Counts are whole numbers, 0 or more; times are aware UTC. Raises ValueError that names the field.
    """

    version: int = STATE_VERSION
    retries: int = 0
    """Retries made or scheduled so far: 0 while the first attempt is being made."""
    doubt_since: datetime | None = None
    """When the first attempt whose answer was lost began; from then on the provider is asked before every send."""
    looks: int = 0
    """How often the provider was asked since the last send."""
    deferrals: int = 0
    """How often the message was put off without costing a retry."""
    due: datetime | None = None
    """Before this moment there is nothing to do: a queue may wait for it in several hops."""
    round: int = 1
    """1, and one more for each time that the message is sent anew after a delivery failure."""
    provider_id: str | None = None
    """The provider's id where it is known that the text was taken."""
    settles_at: datetime | None = None
    """From this moment on "not listed" means "not taken"; while in doubt, None leaves it to the policy."""
    deferred_since: datetime | None = None
    """When the present run of deferrals began, which bounds it."""
    ending: GaveUp | None = None
    """The end already decided, which holds unless the provider turns out to have the text."""
    message_id: str | None = None
    """The generated id of a message that came without one."""
    claim: str | None = None
    """Names a claim in a journal under which nothing was sent, where the journal's answer was lost."""
    slot: str | None = None
    """The place that a rate limiter keeps for the next send, in the limiter's own words."""

    def __post_init__(self) -> None:
        _check_version(self.version)
        for name in ("retries", "looks", "deferrals"):
            _check_count(name, getattr(self, name))
        _check_count("round", self.round, least=1)
        for name in _TIMES:
            _check_time(name, getattr(self, name))
        for name in ("provider_id", "message_id", "claim", "slot"):
            _check_text(name, getattr(self, name))
        if self.ending is not None and not isinstance(self.ending, GaveUp):
            msg = f"ending must be a GaveUp or None, got {type(self.ending).__name__}. The state is corrupt."
            raise ValueError(msg)
        if self.doubt_since is None:
            self._check_without_doubt()

    def _check_without_doubt(self) -> None:
        if self.looks or self.settles_at is not None or self.ending is not None:
            msg = "looks, settles_at and ending need doubt_since, got None. The state is corrupt."
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with the version ``v``; fields that have their default are left out."""
        data: dict[str, Any] = {"v": self.version}
        for name, default in _DEFAULTS.items():
            if (value := getattr(self, name)) != default:
                data[name] = _written(value)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise ValueError for another version, an unknown field or a bad value."""
        if not isinstance(data, Mapping):
            msg = f"A state must be a JSON object, got {type(data).__name__}. Pass state.to_dict()."
            raise ValueError(msg)  # noqa: TRY004  # one error type for every corrupt state
        known = dict(data)
        version = known.pop("v", None)
        _check_version(version)  # first: another version has other fields
        for name, value in known.items():
            if name not in _DEFAULTS:
                msg = f"A state has no field {name!r}. Pass what AttemptState.to_dict() returned."
                raise ValueError(msg)
            if name in _TIMES:
                known[name] = _read(name, value)
        if known.get("ending") is not None:
            known["ending"] = GaveUp.from_dict(known["ending"])
        return cls(version=version, **known)

    def with_retry(self, due: datetime) -> AttemptState:
        """Return the state after a send that failed, with one more retry scheduled for ``due``."""
        return self._with(retries=self.retries + 1, due=due, slot=None)

    def with_slot(self, slot: str | None) -> AttemptState:
        """Return the state with the place that a rate limiter keeps; None where it was used, or none is kept."""
        return self._with(slot=slot)

    def with_deferral(self, now: datetime, due: datetime) -> AttemptState:
        """Return the state after one more deferral until ``due``."""
        return self._with(deferrals=self.deferrals + 1, due=due, deferred_since=self.deferred_since or now)

    def _with(self, **changes: object) -> AttemptState:
        """Return a copy with ``changes``, which follow from checked fields: four times as fast as ``replace``."""
        changed = object.__new__(AttemptState)
        object.__setattr__(changed, "__dict__", self.__dict__ | changes)
        return changed


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the text: at the attempt just made, or at an earlier one as a look-up showed."""

    receipt: Receipt
    attempts: int = 1
    looked_up: bool = False
    """True where a look-up proved it and not the create's own answer."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again in ``delay_s`` seconds with ``state``; the retry is already counted in it."""

    delay_s: float
    failure: Failure
    state: AttemptState


@dataclass(frozen=True, slots=True)
class Deferred:
    """Call again in ``delay_s`` seconds with ``state``; no attempt was made and no retry is used up.

    ``failure`` is set where the account is on hold: what the provider says of it.
    """

    delay_s: float
    reason: DeferReason
    state: AttemptState
    failure: Failure | None = None


Outcome = Accepted | RetryAfter | Deferred | GaveUp
"""What one attempt can end in; `RetryAfter` and `Deferred` ask for another call, the others are the end."""

_DEFAULTS: Final = {f.name: f.default for f in fields(AttemptState) if f.name != "version"}
_TIMES: Final = frozenset({"doubt_since", "due", "settles_at", "deferred_since"})


def _check_version(version: object) -> None:
    if type(version) is not int or version != STATE_VERSION:
        msg = (
            f"This state has version {version!r} and this smsretry reads version {STATE_VERSION}. "
            "Upgrade the process that reads it before the one that writes it."
        )
        raise ValueError(msg)


def _check_count(name: str, value: object, *, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= MOST_COUNTED:  # a bool is no count
        msg = f"{name} must be a whole number from {least} to {MOST_COUNTED}, got {value!r}. The state is corrupt."
        raise ValueError(msg)


def _check_time(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
        msg = f"{name} must be an aware datetime or None, got {value!r}. The state is corrupt."
        raise ValueError(msg)


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        msg = f"{name} must be a str that is not empty or None, got {value!r}. The state is corrupt."
        raise ValueError(msg)


def _written(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case GaveUp():
            return value.to_dict()
        case _:
            return value


def _read(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    try:
        parsed = datetime.fromisoformat(value)  # type: ignore[arg-type]  # a wrong type is the error below
        if parsed.utcoffset() is not None:
            return parsed.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{name} must be an ISO 8601 time, got {value!r}. The state is corrupt."
        raise ValueError(msg) from error
    msg = f"{name} must be a time with an offset, got {value!r}. The state is corrupt."
    raise ValueError(msg)
