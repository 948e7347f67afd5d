"""Say what a code of Twilio's means and what is done about it."""

from __future__ import annotations

from typing import Any, Final

from smsretry.core.policy import RetryPolicy
from smsretry.senders.twilio_codes import Decision, TwilioCode, decide_unlisted, lookup_code

_STATUSES: Final = (400, 401, 429, 500)
_UNMAPPED: Final = "Nobody listed this code: it is unmapped, which says nothing about whether a text was sent."
_NO_CODE: Final = "Twilio lists no code like this one, since its codes have five digits. Check what you typed."


def explained(code: int) -> dict[str, Any]:
    """Return what is known of ``code`` and done about it, as a JSON object."""
    row = lookup_code(code)
    return _unlisted(code) if row is None else _listed(row)


def _listed(row: TwilioCode) -> dict[str, Any]:
    schedule = RetryPolicy().schedule(row.kind) if row.is_retried_on_create else ()
    return {
        "code": row.code,
        "listed": True,
        "meaning": row.meaning,
        "kind": row.kind.value,
        "scope": row.scope.value,
        "arrives": row.arrives.value,
        "on_create": _told(row.on_create),
        "waits_s": [max(wait_s, row.min_delay_s) for wait_s in schedule],
        "on_delivery": _told(row.on_delivery),
        "source": row.source,
    }


def _unlisted(code: int) -> dict[str, Any]:
    by_status = ", ".join(f"{status}: {decide_unlisted(status).value}" for status in _STATUSES)
    return {
        "code": code,
        "listed": False,
        "meaning": _UNMAPPED if 10_000 <= code <= 99_999 else _NO_CODE,
        "kind": None,
        "scope": None,
        "arrives": None,
        "on_create": f"Decided by its HTTP status ({by_status}), and counted as unmapped.",
        "waits_s": None,
        "on_delivery": "Decided by the message's status, and counted as unmapped.",
        "source": None,
    }


def _told(decision: Decision) -> str:
    return f"{decision.value}: {decision.description}"
