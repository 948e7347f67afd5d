"""Read what Twilio says of a text after it took it: in a callback's parameters, or in a message that was fetched."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, Final

from smsretry.core.delivery import DeliveryReport, DeliveryStatus, Mark
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.http import failure_of_status
from smsretry.core.suppression import Suppression
from smsretry.errors import ProviderError
from smsretry.senders.twilio_codes import PROVIDER, lookup_code

_WORDS: Final[Mapping[str, DeliveryStatus]] = {
    **{status.value: status for status in DeliveryStatus if status is not DeliveryStatus.UNKNOWN},
    "partially_delivered": DeliveryStatus.DELIVERED,
}
_LONGEST_CODE: Final = 16


def report_of(
    sid: str,
    word: str,
    code: object,
    received_at: datetime,
    *,
    message_id: str | None = None,
    mark: Mark | None = None,
    raw: Mapping[str, Any] | None = None,
) -> DeliveryReport:
    """Return the report that the text ``sid`` stands at Twilio's ``word``, with an error's ``code`` where there is one.

    A word that nobody listed is `smsretry.core.delivery.DeliveryStatus.UNKNOWN`. Raises ValueError for a SID that is
    none.
    """
    kept = _code_of(code)
    return DeliveryReport(
        provider_id=sid,
        status=_WORDS.get(word.lower(), DeliveryStatus.UNKNOWN),
        raw_status=word,
        message_id=message_id,
        mark=mark,
        code=kept,
        failure=None if kept is None else failure_on_delivery(kept),
        received_at=received_at,
        provider=PROVIDER,
        raw=raw or {},
    )


def failure_on_delivery(code: str) -> Failure:
    """Return what an error's ``code`` means in a delivery report; one that nobody listed is unmapped."""
    row = lookup_code(code)
    if row is None:
        return Failure.of(FailureKind.OTHER, code=code, provider=PROVIDER, unmapped=True)
    return Failure.of(row.kind, scope=row.scope, retryable=False, code=code, detail=row.meaning, provider=PROVIDER)


def opt_out_in(report: DeliveryReport) -> Suppression | None:
    """Return the entry for a number that has opted out, as ``report`` says, from its Messaging Service or its sender.

    Its numbers are those in ``raw``: in the words of a callback, or of a message that was fetched.
    """
    if report.failure is None or report.failure.kind is not FailureKind.OPTED_OUT:
        return None
    to = report.raw.get("To") or report.raw.get("to") or ""
    senders = ("MessagingServiceSid", "messaging_service_sid", "From", "from")
    sender = next(filter(None, map(report.raw.get, senders)), "")
    try:
        return Suppression(to=to, sender=sender, code=report.code)
    except ValueError:  # an address of another channel
        return None


def fetching(path: str, received_at: datetime) -> Generator[str, tuple[int, str], DeliveryReport]:
    """Yield the ``path`` of a message to be fetched, get its status and text back, and return the report.

    Raises `smsretry.errors.ProviderError` for what is no message.
    """
    status, text = yield path
    answer = _object_in(text)
    sid, word = answer.get("sid"), answer.get("status")
    if status != 200 or not isinstance(sid, str) or not isinstance(word, str):
        raise ProviderError(_not_fetched(status, answer.get("code")))
    return report_of(sid, word, answer.get("error_code"), received_at, raw=answer)


def _object_in(text: str) -> dict[str, Any]:
    try:
        answer: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _not_fetched(status: int, code: object) -> Failure:
    if status == 200:
        return Failure.of(FailureKind.TEMPORARY, http_status=200, detail="no message in the answer", provider=PROVIDER)
    row = lookup_code(code) if isinstance(code, int) and 400 <= status < 500 else None
    if row is not None and status != 429:
        return row.failure_on_create(status)
    return failure_of_status(status, own_error=True, provider=PROVIDER)


def _code_of(code: object) -> str | None:
    text = "" if code is None else str(code).strip()
    return text if text and text != "0" and text.isprintable() and len(text) <= _LONGEST_CODE else None
