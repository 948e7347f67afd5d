"""Decide what one more fact changes about a message: values in, values out, no database.

A message is in exactly one state, and each state has one counter of its campaign, so that

    planned = pending + sent + failed + expired + unknown + skipped + canceled + suppressed

What became of a message that was sent has counters of its own, moved by delivery reports: ``sent`` is the sum of
``delivered``, ``undelivered``, ``no_report`` and of those whose last word has not come.

A fact moves a message only where it outweighs what is known: a later round outweighs an earlier one, and within a round
the states weigh as `MessageState` lists them. The state and the counters are therefore the same in whatever order the
facts of a message arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Any, Final, assert_never

from smsretry.core.delivery import LONGEST_WORD, DeliveryStatus
from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure
from smsretry.core.mask import mask_numbers_in
from smsretry.core.message import LONGEST_ID
from smsretry.core.outcome import GiveUpReason

"""Characters kept of a provider's name, of its code and of a reason."""
LONGEST_DETAIL: Final = 500
"""Characters kept of a detail."""
FIRST_FETCH: Final = timedelta(minutes=15)
"""How long after a text was accepted the provider is asked what became of it, where no last word has come."""


@unique
class MessageState(StrEnum):
    """Say where a message stands; of two in one round the later member of this list holds."""

    SKIPPED = "skipped"
    """The application left it out. Whatever is known of a send weighs more."""
    PENDING = "pending"
    """Not at its end: planned, waiting for a retry or put off."""
    CANCELED = "canceled"
    """The application took it back."""
    SUPPRESSED = "suppressed"
    """The recipient must not be texted."""
    EXPIRED = "expired"
    """Too late: ``send_before``, or the longest deferral, was over."""
    FAILED = "failed"
    """Failed for good: refused, or out of retries."""
    UNKNOWN = "unknown"
    """Nobody can say whether the provider took it; another copy of the task that failed proves nothing."""
    ACCEPTED = "accepted"
    """The provider took it: no later word takes that back."""


@unique
class AttemptOutcome(StrEnum):
    """Say what one row of a message's history is about."""

    ACCEPTED = "accepted"
    """The provider took it."""
    RETRY = "retry"
    """The attempt failed, and another follows."""
    DEFERRED = "deferred"
    """The message was put off; no retry was used up."""
    FAILED = "failed"
    """The message ended without being accepted."""
    SKIPPED = "skipped"
    """The application left the message out."""
    REPORTED = "reported"
    """The provider reported on the text: ``reason`` is its normalised status."""


STATE_COUNTERS: Final[Mapping[MessageState, str]] = {
    MessageState.PENDING: "sms_pending",
    MessageState.ACCEPTED: "sms_sent",
    MessageState.FAILED: "sms_failed",
    MessageState.EXPIRED: "sms_expired",
    MessageState.UNKNOWN: "sms_unknown",
    MessageState.SKIPPED: "sms_skipped",
    MessageState.CANCELED: "sms_canceled",
    MessageState.SUPPRESSED: "sms_suppressed",
}
"""How many messages are in each state."""
RETRIED: Final = "sms_retried"
"""How many retries were scheduled."""
DEFERRED: Final = "sms_deferred"
"""How often messages were put off."""
DOUBLED: Final = "sms_doubled"
"""How many more texts the provider took than it should have: ids beyond the first of a message and round."""
DELIVERED: Final = "sms_delivered"
"""How many messages that were sent have arrived."""
UNDELIVERED: Final = "sms_undelivered"
"""How many messages that were sent have not arrived, as the provider says."""
NO_REPORT: Final = "sms_no_report"
"""How many messages were sent of which no last word came in time."""
DELIVERED_AFTER_RETRY: Final = "sms_delivered_after_retry"
"""How many of those that arrived had been sent anew for a delivery failure, whichever of their texts it was."""
DELIVERY_RETRIES: Final = "sms_delivery_retries"
"""How often a message was sent anew for a delivery failure."""
RETRIES_IN_VAIN: Final = "sms_retries_in_vain"
"""How many of these did not arrive either: refused again, or never made. Every one of `DELIVERY_RETRIES` is one of
these, or brought its message to `DELIVERED_AFTER_RETRY`, or has not had its last word."""
DELIVERY_COUNTERS: Final = (
    DELIVERED,
    UNDELIVERED,
    NO_REPORT,
    DELIVERED_AFTER_RETRY,
    DELIVERY_RETRIES,
    RETRIES_IN_VAIN,
)
"""What is counted of messages that were sent."""
COUNTERS: Final = (*STATE_COUNTERS.values(), RETRIED, DEFERRED, DOUBLED, *DELIVERY_COUNTERS)
"""Every counter of a campaign, by its column."""

WITHOUT_REPORT: Final = "no_report"
"""Where a message stands of which no last word came in time: beside what `DeliveryStatus` says."""

NO_DELIVERY: Final[Mapping[str, Any]] = {
    "delivery": None,
    "delivery_kind": None,
    "delivery_code": None,
    "delivery_at": None,
}
"""The columns of a message of which nobody has reported anything in its round."""
_SENT_NOTHING: Final = frozenset(
    {
        MessageState.SKIPPED,
        MessageState.CANCELED,
        MessageState.SUPPRESSED,
        MessageState.EXPIRED,
        MessageState.FAILED,
    }
)
"""Ends of which it is known that the provider took nothing in their round."""
_WEIGHTS: Final = {state: weight for weight, state in enumerate(MessageState)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Hold one thing that happened to a message, as the tables keep it: no number and no text."""

    event_id: str
    message_id: str
    campaign: str
    round: int
    attempt: int
    outcome: AttemptOutcome
    state: MessageState
    started_at: datetime
    at: datetime
    deferral: int = 0
    reason: str | None = None
    kind: str | None = None
    code: str | None = None
    http_status: int | None = None
    detail: str | None = None
    delay_s: float | None = None
    due: datetime | None = None
    provider: str | None = None
    provider_id: str | None = None
    looked_up: bool = False

    @property
    def retries(self) -> int:
        """Return how many retries are known to have been made or scheduled."""
        made = self.attempt if self.outcome is AttemptOutcome.RETRY else self.attempt - 1
        return max(made, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Hold what decides whether a fact moves a message: where it stands, and since when.

    ``delivery`` is read where a new round may end it: only an accepted message has one.
    """

    campaign: str
    state: MessageState
    round: int
    attempts: int
    retries: int
    deferrals: int
    started_at: datetime | None
    decided_at: datetime
    delivery: str | None = None
    delivery_retries: int = 0


def fact_of(event: Event) -> Fact:
    """Return what the tables keep of ``event``; raise TypeError for one of another library or version."""
    own: dict[str, Any]
    match event:
        case MessageAccepted():
            own = _of_acceptance(event)
        case RetryScheduled():
            own = {"outcome": AttemptOutcome.RETRY, "state": MessageState.PENDING} | _of_wait(event)
            own |= failure_columns(event.failure)
        case MessageDeferred():
            own = {"outcome": AttemptOutcome.DEFERRED, "state": MessageState.PENDING} | _of_wait(event)
            own |= {"reason": event.reason.value, "deferral": event.deferral}
            own |= {} if event.failure is None else failure_columns(event.failure)
        case MessageFailed():
            own = {"outcome": AttemptOutcome.FAILED, "state": state_after(event.reason)}
            own |= {"reason": event.reason.value} | failure_columns(event.failure)
        case _:
            msg = f"event must be one of smsretry.core.events, got {type(event).__qualname__}. Upgrade smsretry."
            raise TypeError(msg)
    return Fact(**_of_any(event), **own)


def fact_of_skip(message_id: str, campaign: str, reason: str, now: datetime) -> Fact:
    """Return the fact that the application left a message out, for ``reason``, at ``now``."""
    return Fact(
        event_id=f"{message_id}/1/0/skipped",
        message_id=message_id,
        campaign=campaign,
        round=1,
        attempt=0,
        outcome=AttemptOutcome.SKIPPED,
        state=MessageState.SKIPPED,
        started_at=now,
        at=now,
        reason=_kept(mask_numbers_in(reason), LONGEST_WORD),
    )


def first_standing(fact: Fact) -> dict[str, Any]:
    """Return the columns of a message of which ``fact`` is the first that is known."""
    return {
        "campaign": fact.campaign,
        "started_at": fact.started_at,
        **_counts(fact),
        **_word(fact),
    }


def changes(standing: Standing, fact: Fact) -> dict[str, Any]:
    """Return the columns of a message that ``fact`` changes."""
    changed: dict[str, Any] = {"started_at": min(standing.started_at or fact.started_at, fact.started_at)}
    if fact.round > standing.round:
        return changed | _counts(fact) | _word(fact) | dict(NO_DELIVERY)
    if fact.round == standing.round:
        changed |= {name: max(count, getattr(standing, name)) for name, count in _counts(fact).items()}
    return changed | _word(fact) if outweighs(fact, standing) else changed


def outweighs(fact: Fact, standing: Standing) -> bool:
    """Say whether ``fact`` is the word that holds; of two that weigh the same it is the later one."""
    new = (fact.round, _WEIGHTS[fact.state], fact.at, fact.attempt)
    return new > (standing.round, _WEIGHTS[standing.state], standing.decided_at, standing.attempts)


def has_sent_nothing(state: MessageState) -> bool:
    """Say whether a message that ended so is known not to have been taken by the provider in its present round."""
    return state in _SENT_NOTHING


def bucket_of(delivery: str | None) -> str | None:
    """Return the counter of messages that stand at ``delivery``; None while the last word has not come."""
    if delivery == WITHOUT_REPORT:
        return NO_REPORT
    status = DeliveryStatus.UNKNOWN if delivery is None else DeliveryStatus(delivery)
    if status.has_arrived:
        return DELIVERED
    return UNDELIVERED if status.is_final else None


def counted(state: MessageState | None, delivery: str | None = None, delivery_retries: int = 0) -> Counter[str]:
    """Return what one message adds to the counters of its campaign where it stands so; nothing before it is known."""
    if state is None:
        return Counter()
    bucket = bucket_of(delivery) if state is MessageState.ACCEPTED else None
    sums = Counter({STATE_COUNTERS[state]: 1, DELIVERY_RETRIES: delivery_retries})
    if bucket is not None:
        sums[bucket] += 1
    if delivery_retries:
        is_in_vain = bucket in {UNDELIVERED, NO_REPORT} or has_sent_nothing(state)
        sums[RETRIES_IN_VAIN] = delivery_retries - 1 + is_in_vain
        sums[DELIVERED_AFTER_RETRY] = int(bucket == DELIVERED)
    return sums


def moved(before: Counter[str], after: Counter[str]) -> Counter[str]:
    """Return what the counters add where a message that was ``counted`` as ``before`` stands as ``after`` now."""
    added = Counter(after)
    added.subtract(before)
    return added


def moves(before: Standing | None, after: MessageState, fact: Fact) -> dict[str, int]:
    """Return what a fact adds to the counters of the campaign where it moves its message from ``before``."""
    added = dict.fromkeys(COUNTERS, 0)
    if before is None:
        added |= counted(after)
    elif before.state is not after or fact.round > before.round:
        retries = before.delivery_retries
        delivery = before.delivery if fact.round <= before.round else None
        added |= moved(counted(before.state, before.delivery, retries), counted(after, delivery, retries))
    added[RETRIED] = int(fact.outcome is AttemptOutcome.RETRY)
    added[DEFERRED] = int(fact.outcome is AttemptOutcome.DEFERRED)
    return added


def _counts(fact: Fact) -> dict[str, int]:
    return {"attempts": fact.attempt, "retries": fact.retries, "deferrals": fact.deferral}


def _word(fact: Fact) -> dict[str, Any]:
    return {
        "state": fact.state.value,
        "round": fact.round,
        "decided_at": fact.at,
        "due": fact.due,
        "reason": fact.reason,
        "kind": fact.kind,
        "code": fact.code,
        "http_status": fact.http_status,
        "detail": fact.detail,
        "provider": fact.provider,
        "provider_id": fact.provider_id,
        "next_fetch": fact.at + FIRST_FETCH if fact.state is MessageState.ACCEPTED else None,
    }


def _of_any(event: Event) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "message_id": event.message_id,
        "campaign": event.campaign or "",
        "round": event.round,
        "attempt": event.attempt,
        "started_at": event.started_at,
        "at": event.at,
    }


def _of_acceptance(event: MessageAccepted) -> dict[str, Any]:
    return {
        "outcome": AttemptOutcome.ACCEPTED,
        "state": MessageState.ACCEPTED,
        "provider": _kept(event.receipt.provider, LONGEST_WORD),
        "provider_id": _kept(event.receipt.provider_id, LONGEST_ID),
        "looked_up": event.looked_up,
    }


def _of_wait(event: RetryScheduled | MessageDeferred) -> dict[str, Any]:
    return {"delay_s": event.delay_s, "due": event.due}


def failure_columns(failure: Failure) -> dict[str, Any]:
    """Return the columns that hold ``failure``."""
    return {
        "kind": failure.kind.value,
        "code": None if failure.code is None else _kept(str(failure.code), LONGEST_WORD),
        "http_status": failure.http_status,
        "detail": _kept(mask_numbers_in(failure.detail), LONGEST_DETAIL),
        "provider": _kept(failure.provider, LONGEST_WORD),
    }


def state_after(reason: GiveUpReason) -> MessageState:
    """Return where a message stands that was given up for ``reason``."""
    match reason:
        case GiveUpReason.PERMANENT | GiveUpReason.RETRIES_EXHAUSTED | GiveUpReason.UNRECOVERABLE:
            return MessageState.FAILED
        case GiveUpReason.EXPIRED:
            return MessageState.EXPIRED
        case GiveUpReason.OUTCOME_UNKNOWN:
            return MessageState.UNKNOWN
        case GiveUpReason.CANCELED:
            return MessageState.CANCELED
        case GiveUpReason.SUPPRESSED:
            return MessageState.SUPPRESSED
        case _ as unreachable:
            assert_never(unreachable)


def _kept(text: str, longest: int) -> str | None:
    """Return what every database takes of ``text``: no NUL, no lone surrogate, ``longest`` characters; None for ''."""
    writable = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    return writable[:longest] or None
