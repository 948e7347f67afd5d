"""Turn the exceptions of Twilio's client into failures, whoever's client it is, without importing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from smsretry.core.classify import classify_error, header, hint_s, said
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.http import failure_of_status
from smsretry.core.network import attribute, names_of
from smsretry.ports import Clock
from smsretry.senders.twilio_codes import PROVIDER, is_server_error, lookup_code

Overrides = Mapping[int, FailureKind | Failure]
"""What to make of a code instead of the table's word: a kind, or a whole failure as a template."""

_NO_OVERRIDES: Final[Overrides] = {}
_MODULE: Final = "twilio.base.exceptions"
_MOST_DIGITS: Final = 18
"""What is longer is no code."""
_CLIENT_WORDS: Final = ("Unable to create record", "Unable to fetch record", "Unable to fetch page")
"""What the client says by itself, before Twilio's words or without any."""


def classify_twilio_error(error: Exception) -> Failure:
    """Say what an exception of a send through Twilio's client means. Never raises.

    It knows ``TwilioRestException``, ``TwilioServiceException`` and the bare ``TwilioException`` of a list, by
    Twilio's code first and by HTTP status where nobody listed the code; everything else is
    `smsretry.core.classify.classify_error`'s. Every 5xx may have been taken; a 429 never was. The exception's
    ``headers``, which `smsretry.senders.twilio.TwilioSender` adds, give the Retry-After and Twilio's id of the request.
    """
    return _classify(error, _NO_OVERRIDES, _utc_now)


def twilio_classifier(
    overrides: Overrides = _NO_OVERRIDES, *, clock: Clock | None = None
) -> Callable[[Exception], Failure]:
    """Return `classify_twilio_error` with a table of one's own before Twilio's.

    ``twilio_classifier({30007: FailureKind.TEMPORARY})`` changes or adds a code; a `Failure` in place of a kind is a
    template that keeps its fields. Code, status, detail, provider and Retry-After are filled in from the answer, and a
    5xx stays maybe sent. ``clock`` gives the moment from which a Retry-After date without the answer's own Date counts.
    """
    copied = dict(overrides)
    return lambda error: _classify(error, copied, clock or _utc_now)


def _classify(error: Exception, overrides: Overrides, clock: Clock) -> Failure:
    names = {name.rpartition(".")[2] for name in names_of(error) if name.startswith(f"{_MODULE}.")}
    if not names:
        return classify_error(error)
    status = _status(error)
    if status is None:
        return Failure.of(FailureKind.LOST_ANSWER, detail=type(error).__name__, provider=PROVIDER, unmapped=True)
    failure = _by_code(_code(error), status, overrides, is_own="TwilioServiceException" in names)
    hint = hint_s(attribute(error, "headers"), clock()) if failure.retryable else None
    return replace(failure, retry_after_s=hint, provider=PROVIDER, detail=_detail(error, failure.detail))


def _by_code(code: int | str | None, status: int, overrides: Overrides, *, is_own: bool) -> Failure:
    if isinstance(code, int) and code in overrides:
        return _overridden(overrides[code], code, status)
    if 200 <= status < 400:
        return failure_of_status(status)
    row = None if code is None else lookup_code(code)
    if row is not None and (status != 429 or row.kind in (FailureKind.RATE_LIMITED, FailureKind.QUEUE_FULL)):
        return row.failure_on_create(status)
    if code is None or code == status:  # the client's stand-in where the body carried no code
        return failure_of_status(status, own_error=is_own)
    return failure_of_status(status, own_error=True, code=code, unmapped=row is None)


def _overridden(template: FailureKind | Failure, code: int, status: int) -> Failure:
    failure = template if isinstance(template, Failure) else Failure.of(template)
    maybe_sent = failure.maybe_sent or is_server_error(status)
    return replace(failure, code=code, http_status=status, maybe_sent=maybe_sent and status != 429)


def _status(error: Exception) -> int | None:
    """Return the HTTP status; the bare exception of a list keeps its response as its second argument."""
    args = attribute(error, "args")
    answer = args[1] if isinstance(args, tuple) and len(args) > 1 else None
    for status in (attribute(error, "status"), attribute(answer, "status_code")):
        if isinstance(status, int):
            return int(status)
    return None


def _code(error: Exception) -> int | str | None:
    code = attribute(error, "code")
    if isinstance(code, str) and len(code) <= _MOST_DIGITS:
        return int(code) if code.isdecimal() else said(code) or None
    is_code = isinstance(code, int) and not isinstance(code, bool) and abs(code) < 10**_MOST_DIGITS
    return int(code) if is_code else None


def _detail(error: Exception, usual: str) -> str:
    """Return Twilio's own words, or ``usual``, and its id of the request for a question to Twilio's support."""
    words = next((text for text in map(_without_clients_words, _words(error)) if text), usual)
    request_id = _request_id(attribute(error, "headers"))
    return f"{words} [{request_id}]" if request_id else words


def _without_clients_words(words: object) -> str:
    text = said(words)
    for prefix in _CLIENT_WORDS:
        text = text.removeprefix(prefix).removeprefix(": ")
    return text


def _words(error: Exception) -> tuple[object, ...]:
    return attribute(error, "msg"), attribute(error, "detail"), attribute(error, "title")


def _request_id(headers: object) -> str:
    value = header(headers, "Twilio-Request-Id") or ""
    return value if value.isascii() and value.isalnum() and len(value) <= 64 else ""


def _utc_now() -> datetime:
    return datetime.now(UTC)
