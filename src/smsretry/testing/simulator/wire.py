"""Write what Twilio writes: messages, pages and errors as JSON, in the shapes of the API of 2010-04-01."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from secrets import token_hex
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from smsretry.testing.simulator.faults import Body, HintForm, OddSuccess, RateLimited, Refused, ServerError
from smsretry.testing.simulator.http1 import Answer
from smsretry.testing.simulator.ledger import Standing, Text
from smsretry.testing.simulator.listing import Listing, ListQuery, sender_shown

API_VERSION: Final = "2010-04-01"
PRICE_PER_SEGMENT: Final = 0.0079

_GSM_7: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_7_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
_PAGE: Final = b"<!doctype html><html><head><title>%d</title></head><body><h1>%d</h1></body></html>\n"
_BODIES: Final = MappingProxyType({Body.EMPTY: b"", Body.LIST: b"[]", Body.NULL: b"null"})

_MESSAGES: Final[Mapping[int, str]] = MappingProxyType(
    {
        20003: "Authenticate",
        20008: "Resource not accessible with Test Account Credentials",
        20403: "Forbidden: this account is suspended or closed",
        20404: "The requested resource {target} was not found",
        20429: "Too Many Requests",
        20500: "An internal server error has occurred",
        20503: "Service unavailable",
        21211: "The 'To' number {to} is not a valid phone number.",
        21212: "The 'From' number {sender} is not a valid phone number, short code or alphanumeric sender ID.",
        21408: "Messages to the region of the 'To' number {to} are not enabled for this account.",
        21602: "Message body is required.",
        21603: "A 'From' number or a 'MessagingServiceSid' is required.",
        21604: "A 'To' phone number is required.",
        21606: "The 'From' number {sender} cannot send messages from this account to {to}.",
        21610: "The recipient {to} has opted out of messages from {sender}.",
        21609: "The 'StatusCallback' URL is not valid.",
        21611: "The 'From' number {sender} has too many messages in its queue.",
        21612: "The 'To' number {to} cannot be reached from the 'From' number {sender}.",
        21614: "The 'To' number {to} is not a mobile number.",
        21617: "The message body has more than 1600 characters.",
        21623: "A message can have 10 media URLs at most.",
        21624: "The validity period must be from 1 to 36000 seconds.",
        21701: "The Messaging Service {sender} does not exist.",
        30007: "The message to {to} was filtered.",
    }
)
_DELIVERY_MESSAGES: Final[Mapping[int, str]] = MappingProxyType(
    {
        30001: "Queue overflow",
        30002: "Account suspended",
        30003: "Unreachable destination handset",
        30004: "Message blocked",
        30005: "Unknown destination handset",
        30006: "Landline or unreachable carrier",
        30007: "Message filtered",
        30008: "Unknown error",
        30034: "Message from an unregistered number",
        30036: "Validity period expired",
        30410: "Provider timeout error",
        30500: "Internal error",
    }
)
_OTHER_DELIVERY_MESSAGE: Final = "Message not delivered"
_OTHER_MESSAGE: Final = "The message to {to} was refused."


def created(message: Mapping[str, Any]) -> Answer:
    """Return the 201 to a create."""
    return _json_answer(201, message)


def fetched(message: Mapping[str, Any]) -> Answer:
    """Return the 200 to a fetch."""
    return _json_answer(200, message)


def message_json(text: Text, standing: Standing, *, account_sid: str, body_prefix: str) -> dict[str, Any]:
    """Return a message as the API shows it, however far it has come.

    While it is accepted, a messaging service has yet to choose its sender and count its segments.
    """
    uri = f"/{API_VERSION}/Accounts/{account_sid}/Messages/{text.sid}"
    body = body_prefix + text.body
    parts = segments(body) if standing.has_sender else 0
    code = standing.code
    return {
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "body": body,
        "date_created": rfc_2822(text.at),
        "date_sent": rfc_2822(standing.sent_at) if standing.sent_at else None,
        "date_updated": rfc_2822(standing.updated_at),
        "direction": "outbound-api",
        "error_code": code,
        "error_message": None if code is None else error_message(code),
        "from": sender_shown(text, is_chosen=standing.has_sender),
        "messaging_service_sid": text.messaging_service_sid,
        "num_media": str(len(text.media_urls)),
        "num_segments": str(parts),
        "price": f"-{parts * PRICE_PER_SEGMENT:.5f}" if standing.sent_at else None,
        "price_unit": "USD",
        "sid": text.sid,
        "status": standing.status.value,
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": text.to,
        "uri": f"{uri}.json",
    }


def error_message(code: int) -> str:
    """Return the words that go with the error code of a text."""
    return _DELIVERY_MESSAGES.get(code, _OTHER_DELIVERY_MESSAGE)


def page(listing: Listing, query: ListQuery, *, path: str, messages: list[dict[str, Any]]) -> Answer:
    """Return the 200 to a list: ``messages`` are the texts of ``listing`` as the API shows them."""

    def uri(number: int, **token: str) -> str:
        fields = [*query.filters, ("PageSize", query.page_size), ("Page", number), *token.items()]
        return f"{path}?{urlencode(fields)}"

    return _json_answer(
        200,
        {
            "end": listing.first + max(0, len(messages) - 1),
            "first_page_uri": uri(0),
            "messages": messages,
            "next_page_uri": uri(query.page + 1, PageToken=listing.next_token) if listing.next_token else None,
            "page": query.page,
            "page_size": query.page_size,
            "previous_page_uri": uri(query.page - 1) if query.page else None,
            "start": listing.first,
            "uri": uri(query.page),
        },
    )


def segments(body: str) -> int:
    """Count the segments of ``body``: GSM-7 has 160 characters, then 153 a part; UCS-2 has 70, then 67.

    Characters of GSM-7's extension table, and those outside UCS-2's one plane, count 2 and are never split.
    """
    if _GSM_7.issuperset(body):
        return _parts([1] * len(body), alone=160, joined=153)
    if (_GSM_7 | _GSM_7_EXTENSION).issuperset(body):
        return _parts([1 if character in _GSM_7 else 2 for character in body], alone=160, joined=153)
    return _parts([1 if ord(character) < 0x10000 else 2 for character in body], alone=70, joined=67)


def _parts(widths: Sequence[int], *, alone: int, joined: int) -> int:
    if sum(widths) <= alone:
        return 1
    parts, used = 1, 0
    for width in widths:
        if used + width > joined:
            parts, used = parts + 1, 0
        used += width
    return parts


def refusal(refused: Refused, *, to: str, sender: str, target: str) -> Answer:
    """Return the 4xx that ``refused`` describes, with a message that names the number as Twilio's do."""
    template = _MESSAGES.get(refused.code, _OTHER_MESSAGE)
    message = refused.message or template.format(to=to, sender=sender, target=target)
    headers = (("WWW-Authenticate", 'Basic realm="Twilio API"'),) if refused.status == 401 else ()
    return _json_answer(refused.status, _error_json(refused.status, refused.code, message), headers)


def rate_limit(fault: RateLimited) -> Answer:
    """Return the 429 that ``fault`` describes."""
    body = _error_json(429, 20429, _MESSAGES[20429])
    return _json_answer(429, body, _retry_after(fault.retry_after_s, fault.hint_form))


def server_error(fault: ServerError) -> Answer:
    """Return the 5xx that ``fault`` describes."""
    headers = _retry_after(fault.retry_after_s, HintForm.SECONDS)
    if fault.body is not Body.TWILIO:
        return _odd_answer(fault.status, fault.body, headers)
    code = fault.code or 20000 + fault.status
    return _json_answer(fault.status, _error_json(fault.status, code, _MESSAGES.get(code, _MESSAGES[20500])), headers)


def redirect(status: int, location: str) -> Answer:
    """Return a 3xx to ``location``."""
    return _odd_answer(status, Body.EMPTY, (("Location", location),))


def odd_success(fault: OddSuccess) -> Answer:
    """Return the 2xx that ``fault`` describes."""
    return _odd_answer(fault.status, fault.body, ())


def _odd_answer(status: int, body: Body, headers: tuple[tuple[str, str], ...]) -> Answer:
    if body is Body.HTML:
        return Answer(
            status=status, body=_PAGE % (status, status), content_type="text/html", headers=(*headers, _request_id())
        )
    return Answer(status=status, body=_BODIES[body], headers=(*headers, _request_id()))


def _json_answer(status: int, data: object, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status=status, body=json.dumps(data).encode(), headers=(*headers, _request_id()))


def _error_json(status: int, code: int, message: str) -> dict[str, Any]:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more_info, "status": status}


def _request_id() -> tuple[str, str]:
    return "Twilio-Request-Id", f"RQ{token_hex(16)}"


def _retry_after(seconds: float | None, form: HintForm) -> tuple[tuple[str, str], ...]:
    if seconds is None:
        return ()
    if form is HintForm.SECONDS:
        return (("Retry-After", str(math.ceil(seconds))),)
    return (("Retry-After", format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)),)


def rfc_2822(at: datetime) -> str:
    """Return ``at`` as ``Mon, 23 Nov 2026 18:00:00 +0000``, cut to the second."""
    return _rfc_2822(int(at.timestamp()))


@lru_cache(maxsize=64)
def _rfc_2822(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))
