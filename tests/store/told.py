"""What happens to messages, as events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from smsretry import (
    Failure,
    FailureKind,
    GiveUpReason,
    MessageAccepted,
    MessageDeferred,
    MessageFailed,
    Receipt,
    RetryScheduled,
)
from smsretry.core.outcome import DeferReason

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUSY = Failure.of(FailureKind.RATE_LIMITED, code=20429, http_status=429, detail="too many requests", provider="twilio")
NO_NUMBER = Failure.of(FailureKind.INVALID_NUMBER, code=21211, http_status=400, provider="twilio")
LOST = Failure.of(FailureKind.LOST_ANSWER, provider="twilio")


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def about(message_id: str, attempt: int, second: float, more: dict[str, Any]) -> dict[str, Any]:
    usual = {"campaign": "spring", "metadata": {"customer": 7}, "round": 1}
    return {
        "message_id": message_id,
        "attempt": attempt,
        "started_at": at(second - 0.25),
        "at": at(second),
        **usual,
        **more,
    }


def accepted(message_id: str, attempt: int = 1, second: float = 60.0, *, sid: str = "", **more: Any) -> MessageAccepted:
    receipt = Receipt("twilio", sid or f"SM-{message_id}", at(second), 1, "queued")
    return MessageAccepted(**about(message_id, attempt, second, more), receipt=receipt)


def retry(message_id: str, attempt: int = 1, *, failure: Failure = BUSY, **more: Any) -> RetryScheduled:
    second = 4.0 * attempt
    about_it = about(message_id, attempt, second, more)
    return RetryScheduled(**about_it, failure=failure, delay_s=2.0**attempt, due=at(second + 2.0**attempt))


def deferred(message_id: str, attempt: int = 1, deferral: int = 1, **more: Any) -> MessageDeferred:
    second = 4.0 * attempt + deferral / 10
    about_it = about(message_id, attempt, second, more)
    wait: dict[str, Any] = {"reason": DeferReason.IN_DOUBT, "delay_s": 1.0, "due": at(second + 1)}
    return MessageDeferred(**about_it, **wait, deferral=deferral)


def failed(
    message_id: str,
    attempt: int = 1,
    *,
    reason: GiveUpReason = GiveUpReason.PERMANENT,
    failure: Failure = NO_NUMBER,
    second: float = 50.0,
    **more: Any,
) -> MessageFailed:
    return MessageFailed(**about(message_id, attempt, second, more), failure=failure, reason=reason)


def unknown(message_id: str, attempt: int = 1, **more: Any) -> MessageFailed:
    return failed(message_id, attempt, reason=GiveUpReason.OUTCOME_UNKNOWN, failure=LOST, **more)
