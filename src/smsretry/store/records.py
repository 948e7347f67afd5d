"""What a store answers when it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from smsretry.store.moves import AttemptOutcome, MessageState


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSummary:
    """Count the messages of a campaign by their state, and what happened on the way.

    The states are disjoint: `planned` is the sum of ``pending`` to ``canceled``.
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

    @property
    def planned(self) -> int:
        """Return how many messages of the campaign are known: the sum of all states."""
        at_their_end = self.sent + self.failed + self.expired + self.unknown + self.skipped + self.canceled
        return self.pending + at_their_end


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """Count the rows that a purge removed."""

    messages: int
    attempts: int
