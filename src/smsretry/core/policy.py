"""Decide whether and when a failed message is sent again: a value whose schedule can be printed without running it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum, unique
from itertools import pairwise
from typing import Any, Final, Self, assert_never

from smsretry.core.failure import LONGEST_DELAY_S, RETRYABLE_KINDS, Failure, FailureKind, member_of
from smsretry.core.mask import shown
from smsretry.core.outcome import (
    AttemptState,
    DeferReason,
    Deferred,
    GaveUp,
    GiveUpReason,
    RetryAfter,
)

POLICY_VERSION: Final = 1
MOST_RETRIES: Final = 1_000
_SLOWEST_LOOK: Final = 9
"""Looks at the provider's list are at most 2**9 seconds apart, whatever the schedule of the retries is."""


@unique
class Jitter(StrEnum):
    """Choose the random part of a delay."""

    NONE = "none"
    """Exactly the schedule: 2, 4, 8 seconds."""
    FULL = "full"
    """Anything between 0 and the backoff."""
    EQUAL = "equal"
    """Half of the backoff, and a random part of the other half."""


@unique
class OnUnknown(StrEnum):
    """Choose what happens to a message of which nobody knows whether the provider took it."""

    LOOK_UP = "look_up"
    """Ask the provider; resend only when it is settled that it does not have it; if it can't tell, end as unknown."""
    LOOK_UP_OR_RESEND = "look_up_or_resend"
    """Ask the provider; resend when it does not have it, and also when it can't tell. May text twice."""
    RESEND = "resend"
    """Send again on the schedule without asking first. May text twice: for one-time passwords."""
    NEVER_RESEND = "never_resend"
    """Ask the provider, and end as unknown where it does not show it. Never texts twice."""
    GIVE_UP = "give_up"
    """End as unknown at once. Never texts twice."""


@dataclass(frozen=True, slots=True)
class KindLimit:
    """Hold the limits of one kind of failure that differ from the policy's own.

    Raises ValueError that names the field.
    """

    kind: FailureKind
    max_retries: int
    first_delay_s: float
    max_delay_s: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", member_of(FailureKind, "kind", self.kind))
        _check_whole("max_retries", self.max_retries, hint="Use 0 to send once.")
        for name in ("first_delay_s", "max_delay_s"):
            object.__setattr__(self, name, _checked_duration(name, getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Say how often and when a failed message is tried again, and what an unknown outcome leads to.

    Delays are in seconds. Retry n (n = 1, 2, 3, …) comes ``first_delay_s * multiplier ** (n - 1)`` after the failure
    before it, ``max_delay_s`` at most: with the defaults exactly ``2**n``, so 2, 4 and 8 seconds, and then the message
    has failed for good. A server's hint lengthens a delay, up to ``max_hint_s``.

    ``settle_after_s`` is how long after a send whose answer was lost a listing without the message counts as "not
    taken"; ``settle_after_error_s`` the same where the provider itself stated the error. ``max_looks`` bounds how often
    a provider that can't tell is asked; ``max_deferral_s`` bounds deferrals of a message without ``send_before``.

    A full queue of the sender (`FailureKind.QUEUE_FULL`) has a schedule of its own, nine retries over ten hours, unless
    ``max_retries`` is 0 or `for_kind` says otherwise.

    Raises ValueError that names the field.
    """

    max_retries: int = 3
    first_delay_s: float = 2.0
    multiplier: float = 2.0
    max_delay_s: float = 600.0
    max_hint_s: float = 3_600.0
    jitter: Jitter = Jitter.NONE
    on_unknown: OnUnknown = OnUnknown.LOOK_UP
    settle_after_s: float = 120.0
    settle_after_error_s: float = 0.0
    max_looks: int = 8
    max_deferral_s: float = 86_400.0
    kind_limits: tuple[KindLimit, ...] = ()

    def __post_init__(self) -> None:
        _check_whole("max_retries", self.max_retries, hint="Use 0 to send once.")
        _check_whole("max_looks", self.max_looks, least=1, hint="Use OnUnknown.GIVE_UP to ask nothing.")
        for name in _DURATIONS:
            object.__setattr__(self, name, _checked_duration(name, getattr(self, name)))
        if not _is_number(self.multiplier) or not 1.0 <= self.multiplier <= LONGEST_DELAY_S:
            most = f"{LONGEST_DELAY_S:.0f}"
            msg = f"multiplier must be from 1 to {most}, got {self.multiplier!r}. Use 1 for equal delays."
            raise ValueError(msg)
        object.__setattr__(self, "multiplier", float(self.multiplier))
        object.__setattr__(self, "jitter", member_of(Jitter, "jitter", self.jitter))
        object.__setattr__(self, "on_unknown", member_of(OnUnknown, "on_unknown", self.on_unknown))
        object.__setattr__(self, "kind_limits", _checked_limits(self.kind_limits))

    def should_retry(self, failure: Failure, retries: int) -> bool:
        """Say whether ``failure`` may be tried again after ``retries`` retries (0 while attempt 1 is judged)."""
        return failure.retryable and retries < self._limit(failure.kind).max_retries

    def backoff(self, n: int) -> float:
        """Return the seconds before retry ``n``, n = 1, 2, 3, …: ``2**n`` by default; raise ValueError for n < 1."""
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            msg = f"n must be a whole number of 1 or more, got {n!r}. Retry 1 follows attempt 1."
            raise ValueError(msg)
        return _exponential(self.first_delay_s, self.multiplier, n, self.max_delay_s)

    def delay(self, failure: Failure, n: int, draw: float = 0.0) -> float:
        """Return the seconds before retry ``n`` after ``failure``: backoff, hint and jitter together.

        ``draw`` is a random number from 0 up to, not including, 1. Jitter stays within the backoff; where the failure
        asks for a wait, it is added to that, so that a whole campaign does not come back in the same instant.
        """
        limit = self._limit(failure.kind)
        backoff_s = _exponential(limit.first_delay_s, self.multiplier, n, limit.max_delay_s)
        hint_s = failure.retry_after_s
        least_s = failure.min_delay_s if hint_s is None else max(failure.min_delay_s, min(hint_s, self.max_hint_s))
        match self.jitter:
            case Jitter.NONE:
                return max(backoff_s, least_s)
            case Jitter.FULL:
                return least_s + draw * backoff_s
            case Jitter.EQUAL:
                half_s = backoff_s / 2
                return max(half_s, least_s) + draw * half_s
            case _ as unreachable:  # pragma: no cover
                assert_never(unreachable)

    def decide(
        self,
        failure: Failure,
        state: AttemptState,
        *,
        now: datetime,
        send_before: datetime | None = None,
        draw: float = 0.0,
        began: datetime | None = None,
    ) -> RetryAfter | Deferred | GaveUp:
        """Decide what follows an attempt that began at ``began`` and ended at ``now`` with ``failure``.

        ``state`` is the state that the attempt was made with, ``draw`` a random number from 0 up to, not including, 1.
        `Deferred` comes back where no retry is left but the provider must be asked before the message may end.
        """
        attempts = state.retries + 1
        if failure.maybe_sent or state.deferred_since is not None:
            state = self._after_send(failure, state, now, began or now)
        if state.doubt_since is not None and self.on_unknown is OnUnknown.GIVE_UP:
            return GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, attempts)
        if not self.should_retry(failure, state.retries):
            return self.end(GaveUp(failure, _end_reason(failure), attempts), state, now=now)
        delay_s = self.delay(failure, attempts, draw)
        due = now + timedelta(seconds=delay_s)
        if send_before is not None and due > send_before:
            return self.end(GaveUp(failure, GiveUpReason.EXPIRED, attempts, due), state, now=now)
        return RetryAfter(delay_s, failure, state.with_retry(due))

    def end(self, ending: GaveUp, state: AttemptState, *, now: datetime) -> Deferred | GaveUp:
        """End a message as ``ending``, or, while its outcome is in doubt, defer it until the doubt can be settled."""
        if state.doubt_since is None:
            return ending
        if self.is_settled(state, now):
            return Deferred(0.0, DeferReason.IN_DOUBT, replace(state, ending=ending, due=now))
        return self.look_again(replace(state, ending=ending), now=now)

    def look_again(self, state: AttemptState, *, now: datetime) -> Deferred:
        """Defer a message in doubt until the provider should be asked again: 2, 4, 8, … seconds between the looks."""
        delay_s = min(2.0 ** min(state.looks, _SLOWEST_LOOK), self.max_deferral_s)
        settles_at = self._settles_at(state)
        if settles_at is not None and settles_at > now:
            delay_s = min(delay_s, (settles_at - now).total_seconds())
        return Deferred(delay_s, DeferReason.IN_DOUBT, state.with_deferral(now, now + timedelta(seconds=delay_s)))

    def is_settled(self, state: AttemptState, now: datetime) -> bool:
        """Say whether, at ``now``, "not listed" means "not taken" for a message with ``state``."""
        settles_at = self._settles_at(state)
        return settles_at is None or settles_at <= now

    def may_look_again(self, state: AttemptState, *, now: datetime) -> bool:
        """Say whether a provider that could not settle the doubt so far may be asked once more.

        Until "not listed" would mean "not taken" it may, in as many looks as that takes, so that this ends even where
        the clock stands still; from then on up to ``max_looks`` in all. Neither goes on beyond ``max_deferral_s``.
        """
        waited = now - (state.deferred_since or now)
        if waited >= timedelta(seconds=self.max_deferral_s):
            return False
        wait_s = max(self.settle_after_s, self.settle_after_error_s)
        early_looks = 0 if self.is_settled(state, now) else _SLOWEST_LOOK + math.ceil(wait_s / 2**_SLOWEST_LOOK)
        return state.looks < self.max_looks + early_looks

    def schedule(self, kind: FailureKind | None = None) -> tuple[float, ...]:
        """Return the waits in seconds, without jitter and hints, of a message that always fails with ``kind``.

        None stands for any failure that may be retried and has no limit of its own. A kind that is never retried gives
        ``()``. Time spent on look-ups after lost answers comes on top.
        """
        if kind is not None and (kind := member_of(FailureKind, "kind", kind)) not in RETRYABLE_KINDS:
            return ()
        limit = self._limit(kind)
        return tuple(
            _exponential(limit.first_delay_s, self.multiplier, n, limit.max_delay_s)
            for n in range(1, limit.max_retries + 1)
        )

    def for_kind(
        self,
        kind: FailureKind,
        *,
        max_retries: int | None = None,
        first_delay_s: float | None = None,
        max_delay_s: float | None = None,
    ) -> Self:
        """Return a policy in which ``kind`` has limits of its own; what is left out stays as it is.

        All kinds share one count of retries: the limit says up to which count a failure of this kind is retried.
        """
        kind = member_of(FailureKind, "kind", kind)
        present = self._limit(kind)
        limit = KindLimit(
            kind,
            present.max_retries if max_retries is None else max_retries,
            present.first_delay_s if first_delay_s is None else first_delay_s,
            present.max_delay_s if max_delay_s is None else max_delay_s,
        )
        others = tuple(one for one in self.kind_limits if one.kind is not kind)
        return replace(self, kind_limits=(*others, limit))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with the version ``v``."""
        data: dict[str, Any] = {"v": POLICY_VERSION}
        data |= {name: getattr(self, name) for name in _FIELDS if name != "kind_limits"}
        data |= {"jitter": self.jitter.value, "on_unknown": self.on_unknown.value}
        data["kind_limits"] = [
            [one.kind.value, one.max_retries, one.first_delay_s, one.max_delay_s] for one in self.kind_limits
        ]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise ValueError for another version, an unknown field or a bad value."""
        if not isinstance(data, Mapping):
            msg = f"A policy must be a JSON object, got {type(data).__name__}. Pass policy.to_dict()."
            raise ValueError(msg)  # noqa: TRY004  # one error type for everything that is corrupt
        known = dict(data)
        version = known.pop("v", None)
        if type(version) is not int or version != POLICY_VERSION:
            msg = f"This policy has version {version!r} and this smsretry reads version {POLICY_VERSION}. Upgrade it."
            raise ValueError(msg)
        for name in known:
            if name not in _FIELDS:
                msg = f"A policy has no field {name!r}. Pass what RetryPolicy.to_dict() returned."
                raise ValueError(msg)
        if "kind_limits" in known:
            known["kind_limits"] = _read_limits(known["kind_limits"])
        return cls(**known)

    def _limit(self, kind: FailureKind | None) -> KindLimit | RetryPolicy:
        for limit in self.kind_limits:
            if limit.kind is kind:
                return limit
        return _QUEUE_FULL if kind is _QUEUE_FULL.kind and self.max_retries else self

    def _after_send(self, failure: Failure, state: AttemptState, now: datetime, began: datetime) -> AttemptState:
        """Return ``state`` after one more send: look-ups start anew, and a doubtful end opens or prolongs the doubt."""
        fresh = replace(state, looks=0, deferred_since=None)
        if not failure.maybe_sent:
            return fresh
        lost = failure.kind is FailureKind.LOST_ANSWER
        settles_at = now + timedelta(seconds=self.settle_after_s if lost else self.settle_after_error_s)
        present = self._settles_at(state)
        return replace(
            fresh,
            doubt_since=state.doubt_since or began,
            settles_at=settles_at if present is None else max(settles_at, present),
        )

    def _settles_at(self, state: AttemptState) -> datetime | None:
        """Return when a doubt settles; where the state does not say, the first doubtful send is taken for the last."""
        if state.settles_at is None and state.doubt_since is not None:
            return state.doubt_since + timedelta(seconds=self.settle_after_s)
        return state.settles_at


_FIELDS: Final = tuple(one.name for one in fields(RetryPolicy))
_DURATIONS: Final = (
    "first_delay_s",
    "max_delay_s",
    "max_hint_s",
    "settle_after_s",
    "settle_after_error_s",
    "max_deferral_s",
)


def _exponential(first_s: float, multiplier: float, n: int, cap_s: float) -> float:
    """Return ``first_s * multiplier ** (n - 1)``, ``cap_s`` at most, in constant time for any n."""
    if first_s == 0.0 or multiplier == 1.0:
        return min(first_s, cap_s)
    try:
        return min(first_s * multiplier ** (n - 1), cap_s)
    except OverflowError:
        return cap_s


def _end_reason(failure: Failure) -> GiveUpReason:
    if failure.kind is FailureKind.EXPIRED:
        return GiveUpReason.EXPIRED
    return GiveUpReason.RETRIES_EXHAUSTED if failure.retryable else GiveUpReason.PERMANENT


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name: str, value: object, *, least: int = 0, hint: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_RETRIES:
        msg = f"{name} must be a whole number from {least} to {MOST_RETRIES}, got {value!r}. {hint}"
        raise ValueError(msg)


def _checked_duration(name: str, value: float) -> float:
    if not _is_number(value) or not 0.0 <= value <= LONGEST_DELAY_S:
        msg = f"{name} must be from 0 to {LONGEST_DELAY_S:.0f} seconds, got {value!r}. Give seconds as a number."
        raise ValueError(msg)
    return float(value)


def _checked_limits(limits: Iterable[KindLimit]) -> tuple[KindLimit, ...]:
    """Return them in one order, so that equal policies are equal."""
    given = tuple(limits) if isinstance(limits, Iterable) else (limits,)
    if not all(isinstance(one, KindLimit) for one in given):
        msg = f"kind_limits must hold KindLimits, got {shown(limits)}. Use for_kind()."
        raise ValueError(msg)
    ordered = tuple(sorted(given, key=lambda limit: limit.kind.value))
    for one, next_one in pairwise(ordered):
        if one.kind is next_one.kind:
            msg = f"kind_limits must name each kind once, got {one.kind.value} twice. Use for_kind()."
            raise ValueError(msg)
    return ordered


def _read_limits(rows: Any) -> tuple[KindLimit, ...]:
    try:
        return tuple(KindLimit(*row) for row in rows)
    except TypeError as error:
        msg = f"kind_limits must be rows of kind, max_retries, first_delay_s, max_delay_s ({error})."
        raise ValueError(msg) from error


_QUEUE_FULL: Final = KindLimit(FailureKind.QUEUE_FULL, max_retries=9, first_delay_s=300.0, max_delay_s=7_200.0)
"""Twilio queues ten hours of a sender's traffic (36,000 segments of a long code): these nine waits make 10.6 hours."""
