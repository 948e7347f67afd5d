"""Make requests as Twilio makes and signs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator

TOKEN = "a-token-that-must-not-be-told"
PUBLIC = "https://example.com"
PATH = "/sms"
FROM, TO = "+15005550006", "+14155550123"
Pairs = Sequence[tuple[str, str]]


class Form(dict[str, list[str]]):
    """Be a form in which a name may come twice."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in pairs:
            self.setdefault(name, []).append(value)

    def getall(self, name: str) -> list[str]:
        return self[name]


def signature(path: str, pairs: Pairs, token: str = TOKEN) -> str:
    return str(RequestValidator(token).compute_signature(PUBLIC + path, Form(pairs)))


def form(pairs: Pairs, path: str = PATH, token: str = TOKEN) -> tuple[str, str, dict[str, str], bytes]:
    """Return what `TwilioCallbacks.handle` takes."""
    headers = {"X-Twilio-Signature": signature(path, pairs, token), "Content-Type": "application/x-www-form-urlencoded"}
    return "POST", path, headers, urlencode(pairs).encode()


def json_body(data: Any, path: str = PATH, token: str = TOKEN) -> tuple[str, str, dict[str, str], bytes]:
    body = json.dumps(data)
    path += f"{'&' if '?' in path else '?'}bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    return "POST", path, {"x-twilio-signature": signature(path, (), token)}, body.encode()


def report(status: str, sid: str = "SM1", code: str | None = None, **more: str) -> list[tuple[str, str]]:
    fields = {
        "AccountSid": "AC1",
        "ApiVersion": "2010-04-01",
        "From": FROM,
        "To": TO,
        "MessageSid": sid,
        "SmsSid": sid,
        "MessageStatus": status,
        "SmsStatus": status,
        **({} if code is None else {"ErrorCode": code, "ErrorMessage": ""}),
        **more,
    }
    return list(fields.items())


def inbound(body: str, sid: str = "SM9", **more: str) -> list[tuple[str, str]]:
    fields = {
        "MessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "From": TO,
        "To": FROM,
        "Body": body,
        "NumMedia": "0",
        **more,
    }
    return list(fields.items())
