"""Write what Twilio posts to an application: status callbacks and inbound messages, with their signature."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from secrets import token_hex
from typing import Final
from urllib.parse import urldefrag
from uuid import uuid4

from smsretry.testing.simulator.fates import Fate
from smsretry.testing.simulator.ledger import Text
from smsretry.testing.simulator.listing import sender_shown
from smsretry.testing.simulator.wire import API_VERSION, error_message, segments

Form = Mapping[str, str]
OPT_OUT_TYPES: Final = ("STOP", "START", "HELP")
_PLACES: Final = ("City", "State", "Zip")


def callback_form(text: Text, told: Fate, *, account_sid: str, done_at: datetime | None) -> dict[str, str]:
    """Return the fields of the callback that tells ``told`` of ``text``; ``done_at`` goes into RawDlrDoneDate."""
    form = {
        "AccountSid": account_sid,
        "ApiVersion": API_VERSION,
        "From": sender_shown(text, is_chosen=True) or "",
        "MessageSid": text.sid,
        "MessageStatus": told.status.value,
        "SmsSid": text.sid,
        "SmsStatus": told.status.value,
        "To": text.to,
    }
    if told.code is not None:
        form |= {"ErrorCode": str(told.code), "ErrorMessage": error_message(told.code)}
    if text.messaging_service_sid is not None:
        form["MessagingServiceSid"] = text.messaging_service_sid
    if done_at is not None:
        form["RawDlrDoneDate"] = done_at.strftime("%y%m%d%H%M")
    return form


def inbound_form(
    *,
    account_sid: str,
    from_number: str,
    to_number: str,
    body: str,
    messaging_service_sid: str | None,
    opt_out_type: str | None,
    media_urls: Sequence[str],
) -> dict[str, str]:
    """Return the fields of a message that came in, under a new SID; what is not known of the place is blank.

    Raises ValueError for an ``opt_out_type`` that Twilio does not know.
    """
    if opt_out_type is not None and opt_out_type not in OPT_OUT_TYPES:
        raise ValueError(f"opt_out_type must be one of {', '.join(OPT_OUT_TYPES)}, or None; got {opt_out_type!r}.")
    sid = f"{'MM' if media_urls else 'SM'}{token_hex(16)}"
    form = {
        "AccountSid": account_sid,
        "ApiVersion": API_VERSION,
        "Body": body,
        "From": from_number,
        "FromCountry": "US",
        "MessageSid": sid,
        "NumMedia": str(len(media_urls)),
        "NumSegments": str(segments(body)),
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "To": to_number,
        "ToCountry": "US",
    }
    form |= {f"{end}{place}": "" for end in ("From", "To") for place in _PLACES}
    for place, url in enumerate(media_urls):
        form |= {f"MediaUrl{place}": url, f"MediaContentType{place}": "image/jpeg"}
    if messaging_service_sid is not None:
        form["MessagingServiceSid"] = messaging_service_sid
    if opt_out_type is not None:
        form["OptOutType"] = opt_out_type
    return form


def webhook_headers(url: str, form: Form, *, auth_token: str) -> dict[str, str]:
    """Return the headers of a POST of ``form`` to ``url``: its signature, and a token that repeats of it share."""
    return {
        "Accept": "*/*",
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "I-Twilio-Idempotency-Token": str(uuid4()),
        "User-Agent": "TwilioProxy/1.1",
        "X-Twilio-Signature": signature(url, form, auth_token=auth_token),
    }


def signature(url: str, form: Form, *, auth_token: str) -> str:
    """Return Twilio's signature of a POST: HMAC-SHA1 over the URL and every field, blank ones too, sorted by name.

    The URL counts as it was given, with its query and without its fragment.
    https://www.twilio.com/docs/usage/security#validating-requests
    """
    signed = urldefrag(url).url + "".join(name + form[name] for name in sorted(form))
    return b64encode(hmac.digest(auth_token.encode(), signed.encode(), "sha1")).decode()
