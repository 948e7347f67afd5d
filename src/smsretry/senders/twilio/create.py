"""What a create says to Twilio, and what the answer to one means: values in, values out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote_plus

from smsretry.core.delivery import callback_url
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.mask import mask_numbers_in
from smsretry.core.message import Message, Receipt
from smsretry.errors import ProviderError
from smsretry.ports import mark_of_send
from smsretry.senders.twilio.account import Account
from smsretry.senders.twilio.lookup import count
from smsretry.senders.twilio_codes import PROVIDER

LONGEST_VALIDITY_S: Final = 36_000
KEPT_HEADERS: Final = ("Retry-After", "Date", "Twilio-Request-Id")
"""What a failure needs of an answer's headers."""


def create_fields(message: Message, account: Account, left_s: float, report_to: str | None) -> dict[str, Any]:
    """Return the fields of the create of ``message``, which is good for ``left_s`` more seconds, by Twilio's names.

    Twilio reports to the URL ``report_to``, where there is one, with the message's id and what names this send added.

    Raises `smsretry.ConfigurationError` where the message has no sender and the account no default.
    """
    fields: dict[str, Any] = {"To": message.to} | account.sender_of(message).fields
    if message.body:
        fields["Body"] = message.body
    if message.media_urls:
        fields["MediaUrl"] = list(message.media_urls)
    if left_s != math.inf:
        fields["ValidityPeriod"] = min(int(left_s), LONGEST_VALIDITY_S)
    if report_to:
        fields["StatusCallback"] = callback_url(report_to, message.id, mark_of_send())
    return fields


def form_of(fields: Mapping[str, Any]) -> bytes:
    """Return the body of the POST that creates what ``fields`` say; a list becomes one field for each of its items."""
    pairs = [(name, each) for name, value in fields.items() for each in (value if isinstance(value, list) else [value])]
    return "&".join([f"{name}={quote_plus(str(value))}" for name, value in pairs]).encode()


def created_in(text: str | bytes) -> Mapping[str, Any] | None:
    """Return the message that the answer to a create holds; None where it names no SID."""
    try:
        created = json.loads(text)
    except (ValueError, RecursionError):
        return None
    sid = created.get("sid") if isinstance(created, dict) else None
    return created if isinstance(sid, str) and sid else None


def receipt_of(sid: str, segments: object, status: object, at: datetime) -> Receipt:
    """Return the receipt for what Twilio said that it created, ``at`` our own clock's time."""
    return Receipt(PROVIDER, sid, at, count(segments) or None, status if isinstance(status, str) else "")


def without_sid(status: int, headers: Mapping[str, str]) -> ProviderError:
    """Return the exception for a create that succeeded without saying under which SID."""
    request_id = headers.get("Twilio-Request-Id", "")
    detail = f"HTTP {status} without a SID" + (f" [{request_id}]" if request_id.isalnum() else "")
    return ProviderError(Failure.of(FailureKind.LOST_ANSWER, http_status=status, detail=detail, provider=PROVIDER))


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those of an answer's ``headers`` that a failure needs."""
    return {name: headers[name] for name in KEPT_HEADERS if name in headers}


def masked_body(text: str) -> str:
    """Return the body of an error with phone numbers masked; JSON stays JSON."""
    try:
        return json.dumps(_masked(json.loads(text)))
    except (ValueError, RecursionError):
        return mask_numbers_in(text)


def _masked(value: object) -> object:
    match value:
        case str():
            return mask_numbers_in(value)
        case list():
            return [_masked(each) for each in value]
        case dict():
            return {mask_numbers_in(name): _masked(each) for name, each in value.items()}
        case _:
            return value
