"""What an HTTP answer means where only its status is known, and when its server wants to be asked again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from smsretry.core.failure import LONGEST_DELAY_S, Failure, FailureKind

_REFUSALS: Final = {
    401: FailureKind.AUTH,
    402: FailureKind.ACCOUNT,
    403: FailureKind.AUTH,
    413: FailureKind.CONTENT,
    425: FailureKind.TEMPORARY,
    429: FailureKind.RATE_LIMITED,
}
_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def failure_of_status(status: int, *, own_error: bool = False, **fields: Any) -> Failure:
    """Say what an answer with ``status`` to a create means by HTTP's own rules; keywords override any field.

    A 4xx is a refusal: not taken. 408 is not, since a gateway may send it for a server that still works. A 3xx is a
    configuration fault. Every 5xx may have been taken: with ``own_error`` the provider itself stated it in its own
    error body, without it a gateway spoke and the answer is lost. So is a 2xx, which comes here only where it told
    nothing.
    """
    usual: dict[str, Any] = {"http_status": status, "detail": f"HTTP {status}"}
    if 300 <= status < 400:
        return Failure.of(FailureKind.SENDER_CONFIG, **(usual | fields))
    if 400 <= status < 500 and status != 408:
        kind = _REFUSALS.get(status, FailureKind.OTHER)
        return Failure.of(kind, **(usual | {"unmapped": kind is FailureKind.OTHER} | fields))
    if 500 <= status < 600 and own_error:
        return Failure.of(FailureKind.TEMPORARY, **(usual | {"maybe_sent": True} | fields))
    return Failure.of(FailureKind.LOST_ANSWER, **(usual | fields))


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Return how many seconds after ``now`` (aware) a Retry-After header asks to wait, 366 days at most.

    It is a number of seconds or an HTTP date (RFC 9110, 10.2.3). None for a header that is missing, in the past or
    anything else; never raises.
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_DELAY_S)
    moment = http_date(text) if text else None
    wait_s = (moment - now).total_seconds() if moment is not None else -1.0
    return min(wait_s, LONGEST_DELAY_S) if wait_s >= 0 else None


def http_date(text: str) -> datetime | None:
    """Return the moment that an HTTP or RFC 2822 date names, aware UTC where it has no zone; None for anything else."""
    from email.utils import parsedate_to_datetime  # it costs milliseconds, and few answers carry a date

    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):  # the parser's own ways to say no
        return None
