"""What a create says to Twilio, and what the answer to one means: values in, values out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.mask import mask_numbers_in
from smsretry.core.message import Message, Receipt
from smsretry.errors import ProviderError
from smsretry.senders.twilio.account import Account
from smsretry.senders.twilio.lookup import count
from smsretry.senders.twilio_codes import PROVIDER

CALLBACK_PARAMETER: Final = "smsretry_id"
"""The query parameter under which a status callback URL carries our message's id."""
LONGEST_VALIDITY_S: Final = 36_000
KEPT_HEADERS: Final = ("Retry-After", "Date", "Twilio-Request-Id")
"""What a failure needs of an answer's headers."""


def create_fields(message: Message, account: Account, left_s: float, callback_url: str | None) -> dict[str, Any]:
    """Return the fields of the create of ``message``, which is good for ``left_s`` more seconds, by Twilio's names.

    Raises `smsretry.ConfigurationError` where the message has no sender and the account no default.
    """
    fields: dict[str, Any] = {"To": message.to} | account.sender_of(message).fields
    if message.body:
        fields["Body"] = message.body
    if message.media_urls:
        fields["MediaUrl"] = list(message.media_urls)
    if left_s != math.inf:
        fields["ValidityPeriod"] = min(int(left_s), LONGEST_VALIDITY_S)
    if callback_url:
        fields["StatusCallback"] = _with_id(callback_url, message.id)
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


def _with_id(url: str, message_id: str | None) -> str:
    if message_id is None:
        return url
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), (CALLBACK_PARAMETER, message_id)]
    return urlunsplit(parts._replace(query=urlencode(query)))
