"""What a store answers when it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from smsretry.store.moves import AttemptOutcome, MessageState


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSummary:
    """Count the messages of a campaign by their state, and what happened on the way.

    The states are disjoint: `planned` is the sum of ``pending`` to ``canceled`` and ``suppressed``. What became of
    those that were ``sent`` is disjoint too: `awaiting` is what is left of them.
    """

    campaign: str | None
    pending: int
    """Not at their end yet."""
    sent: int
    """Accepted by the provider."""
    failed: int
    """Failed for good: refused, or out of retries. Neither expired nor unknown ones are in it."""
    expired: int
    """Given up because ``send_before``, or the longest deferral, was over."""
    unknown: int
    """Nobody can say whether the provider took them."""
    skipped: int
    """Left out by the application."""
    canceled: int
    """Taken back by the application."""
    retried: int
    """Retries scheduled; a message that needed three counts three times."""
    deferred: int
    """Times that a message was put off."""
    doubled: int
    """Texts that the provider took beyond the one per message: 0 unless something went wrong."""
    suppressed: int
    """Not sent, since the recipient must not be texted."""
    delivered: int
    """Of those sent: arrived, as the carrier or the handset says."""
    undelivered: int
    """Of those sent: not arrived, as the provider says."""
    no_report: int
    """Of those sent: the provider, asked after three days, knew no last word."""
    delivered_after_retry: int
    """Of those delivered: sent anew for a delivery failure before, whichever of the texts arrived."""
    delivery_retries: int
    """Times that a message was sent anew for a delivery failure."""
    retries_in_vain: int
    """Of these: not arrived either."""

    @property
    def planned(self) -> int:
        """Return how many messages of the campaign are known: the sum of all states."""
        not_sent = self.failed + self.expired + self.unknown + self.skipped + self.canceled + self.suppressed
        return self.pending + self.sent + not_sent

    @property
    def awaiting(self) -> int:
        """Return how many messages were sent whose last word has not come."""
        return self.sent - self.delivered - self.undelivered - self.no_report


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """Count what ended, or repeated, for the same reason.

    ``reason`` is a `smsretry.GiveUpReason` for messages and None for retries; ``code`` is the provider's own as text.
    """

    kind: str
    code: str | None
    reason: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """Hold one row of a message's history; times are aware UTC, ``delay_s`` is in seconds."""

    event_id: str
    message_id: str
    round: int
    attempt: int
    outcome: AttemptOutcome
    reason: str | None
    kind: str | None
    code: str | None
    http_status: int | None
    detail: str | None
    delay_s: float | None
    due: datetime | None
    started_at: datetime
    at: datetime
    provider: str | None
    provider_id: str | None
    looked_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """Hold where a message stands; ``decided_at`` is when the word that holds was said (aware UTC).

    ``claimed_until`` is when the lease ends of a worker that has it, or had it when it was lost; with a journal only.
    """

    message_id: str
    campaign: str | None
    state: MessageState
    round: int
    attempts: int
    retries: int
    deferrals: int
    due: datetime | None
    reason: str | None
    kind: str | None
    code: str | None
    http_status: int | None
    detail: str | None
    provider: str | None
    provider_id: str | None
    started_at: datetime | None
    decided_at: datetime
    claimed_until: datetime | None
    delivery: str | None
    """What is known of a text that was sent: a `smsretry.core.delivery.DeliveryStatus`, or ``no_report``."""
    delivery_kind: str | None
    delivery_code: str | None
    delivery_at: datetime | None
    """When that was reported."""
    delivery_retries: int
    """How often it was sent anew for a delivery failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """Name a text whose last word has not come, so that the provider is asked: for `smsretry.callbacks.poll`."""

    message_id: str
    provider_id: str
    round: int
    accepted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """Count the rows that a purge removed."""

    messages: int
    attempts: int
    reports: int = 0
    """Delivery reports about texts of no message, or of one that is gone."""
