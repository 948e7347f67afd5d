"""Judge a create as Twilio does before it takes it: required fields, limits, magic numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from smsretry.testing.simulator.faults import Refused
from smsretry.testing.simulator.ledger import Params

LONGEST_BODY: Final = 1600
MOST_MEDIA: Final = 10
LONGEST_VALIDITY_S: Final = 36_000

MAGIC_TO: Final[Mapping[str, int]] = MappingProxyType(
    {
        "+15005550001": 21211,
        "+15005550002": 21612,
        "+15005550003": 21408,
        "+15005550004": 21610,
        "+15005550009": 21614,
    }
)
"""Recipients that are refused, and with which code (Twilio's test credentials do the same)."""

MAGIC_FROM: Final[Mapping[str, int]] = MappingProxyType(
    {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}
)
"""Senders that are refused, and with which code; +15005550006 is the one that Twilio accepts."""

_E164: Final = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)
_SENDER: Final = re.compile(r"\+[1-9]\d{1,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}", re.ASCII)
_WHOLE_SECONDS: Final = re.compile(r"\d{1,6}", re.ASCII)
_SERVICE: Final = re.compile(r"MG[0-9a-fA-F]{32}", re.ASCII)


def refusal_of(params: Params) -> Refused | None:
    """Return why a create with these fields is refused, None when it is taken."""
    code = _missing(params) or _bad_to(params["To"][0]) or _bad_sender(params) or _over_a_limit(params)
    if code is None:
        return None
    return Refused(code=code, status=404 if code == 21701 else 400)


def sender_of(params: Params) -> str:
    """Return the From or the messaging service that a create names, empty when it names none."""
    return params.get("From", params.get("MessagingServiceSid", [""]))[0]


def identity_of(params: Params) -> bytes:
    """Return what tells a create from others: recipient, text, sender and media."""
    parts = (params.get("To", [""])[0], params.get("Body", [""])[0], sender_of(params), *params.get("MediaUrl", ()))
    return "\0".join(parts).encode()


def _missing(params: Params) -> int | None:
    if not params.get("To", [""])[0]:
        return 21604
    if not params.get("Body", [""])[0] and "MediaUrl" not in params:
        return 21602
    return None if sender_of(params) else 21603


def _bad_to(to: str) -> int | None:
    return MAGIC_TO.get(to) if _E164.fullmatch(to) else 21211


def _bad_sender(params: Params) -> int | None:
    service = params.get("MessagingServiceSid", [""])[0]
    if service and not _SERVICE.fullmatch(service):
        return 21701
    sender = params.get("From", [""])[0]
    return (MAGIC_FROM.get(sender) if _SENDER.fullmatch(sender) else 21212) if sender else None


def _over_a_limit(params: Params) -> int | None:
    if len(params.get("Body", [""])[0]) > LONGEST_BODY:
        return 21617
    if len(params.get("MediaUrl", ())) > MOST_MEDIA:
        return 21623
    validity = params.get("ValidityPeriod", ["1"])[0]
    is_valid = _WHOLE_SECONDS.fullmatch(validity) and 1 <= int(validity) <= LONGEST_VALIDITY_S
    return None if is_valid else 21624
