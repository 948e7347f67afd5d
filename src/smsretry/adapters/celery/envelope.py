"""What travels in a task's message beside the arguments: the deadline, a wait in hops, and arguments fit to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from celery import Celery
from celery.app.task import Context
from celery.utils.time import maybe_iso8601, maybe_make_aware

from smsretry.adapters._seam import BrokerLimits, state_in, written
from smsretry.adapters.celery.delays import limits_of
from smsretry.core.message import Message
from smsretry.errors import InvalidMessage

EXPIRES_HEADER: Final = "smsretry_expires"


def with_deadline(message: Message, request: Context, app: Celery) -> Message:
    """Return ``message`` with the ``expires`` of its task as ``send_before``, where that is earlier.

    Celery drops a task that wakes after ``expires`` without a word; the policy says how it ended.
    """
    expires = moment(expires_of(request), app)
    if expires is None or (message.send_before is not None and message.send_before <= expires):
        return message
    return replace(message, send_before=expires)


def expires_of(request: Context) -> Any:
    """Return the ``expires`` of a task as it was first published: ISO 8601, or None."""
    return request.expires or (request.headers or {}).get(EXPIRES_HEADER)


def moment(written: Any, app: Celery) -> datetime | None:
    """Return a time as Celery writes it as an aware one."""
    parsed = maybe_iso8601(written)
    return None if parsed is None else maybe_make_aware(parsed, app.timezone)


def held(options: Mapping[str, Any], app: Celery, now: datetime) -> dict[str, Any]:
    """Return publishing options whose countdown or ETA suits the broker; the rest of a longer wait is in the state."""
    eta = moment(options.get("eta"), app)
    delay_s = (eta - now).total_seconds() if eta is not None else options.get("countdown")
    limits = limits_of(app) if delay_s else BrokerLimits()
    if not delay_s or limits.countdown(delay_s) == delay_s:
        return dict(options)
    headers = options.get("headers") or {}
    state = replace(state_in(headers), due=now + timedelta(seconds=delay_s))
    changed = {"countdown": limits.countdown(delay_s), "eta": None, "headers": {**headers, **written(state)}}
    return {**options, **changed}


def shown(argument: object) -> object:
    """Return what may be shown of a task's argument: a message without number and text, of all else the type."""
    if not isinstance(argument, Mapping):
        return _Hidden(type(argument).__name__)
    try:
        return Message.from_dict(argument)
    except InvalidMessage:
        return _Hidden("no message")


class _Hidden:
    """Stand for an argument that is not shown."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __repr__(self) -> str:
        return f"<{self._what}>"
