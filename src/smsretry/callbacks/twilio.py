"""Read Twilio's callbacks: delivery reports, and messages that recipients send; framework-free.

`TwilioCallbacks.handle` takes a request as four plain values and returns a `Response`. It believes nothing without
Twilio's signature, changes nothing before that is checked, and never raises for what a request holds.

Needs the extra ``twilio``, for Twilio's own check of signatures.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit

try:
    from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    msg = f"smsretry.callbacks.twilio needs Twilio's client ({error}). Install it: pip install 'smsretry[twilio]'"
    raise ImportError(msg) from error

from smsretry.callbacks.polling import CanQueue, check_queue, note_opt_out, own_list, queue_again
from smsretry.core.delivery import DeliveryReport, callback_query
from smsretry.core.mask import mask_numbers_in, shown_url
from smsretry.core.message import is_e164
from smsretry.core.suppression import Suppression
from smsretry.errors import ConfigurationError, reason_of
from smsretry.ports import Clock, DeliveryLog, SuppressionList
from smsretry.senders.twilio_codes import Decision, lookup_code
from smsretry.senders.twilio_reports import report_of

__all__ = ["Inbound", "Response", "TwilioCallbacks"]

MOST_BYTES: Final = 65_536
"""The longest body that is read: Twilio's are a hundredth of it."""
_MOST_FIELDS: Final = 500
_SIGNATURE: Final = "x-twilio-signature"
_STOP: Final = frozenset({"stop", "unsubscribe", "end", "quit", "stopall", "revoke", "optout", "cancel"})
_START: Final = frozenset({"start", "unstop", "yes"})
_OPT_OUT_TYPES: Final = {"stop": "stop", "start": "start", "help": ""}
_TOLD_EVERY: Final = timedelta(minutes=1)
_LONGEST_PATH: Final = 200
"""So much of a path is logged."""
_log: Final = logging.getLogger("smsretry")


@dataclass(frozen=True, slots=True)
class Response:
    """Hold the answer to a request, for the web framework to send."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers, by name; a 204 has none, since it has no body."""
        if self.status == 204:
            return ()
        return (("Content-Type", self.content_type), ("Content-Length", str(len(self.body))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """Hold a message that somebody sent to one of our numbers."""

    from_number: str
    to_number: str
    body: str
    provider_id: str
    word: str
    """What it asks for: ``stop``, ``start``, or '' for anything else."""
    raw: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Inbound(provider_id={self.provider_id!r}, word={self.word!r})"


_EMPTY_TWIML: Final = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_TAKEN: Final = Response(204)
_FORBIDDEN: Final = Response(403, b"The signature is missing or wrong.\n")
_AWAY: Final = Response(503, b"The store is away.\n")


class TwilioCallbacks:
    """Check and read requests of Twilio, and write what they say into ``store``.

    ``auth_token`` is the account's, with which Twilio signs; during a change of tokens, both. ``public_url`` is how
    Twilio reaches the application, without the path: ``"https://example.com"``; where a proxy cuts off a part of the
    path, with that part. ``store`` (an `smsretry.store.SQLStore`) takes delivery reports. ``queue`` is a ready task of
    an adapter: a message that is sent anew for a delivery failure is queued there; without it, `smsretry.store.recover`
    does so. ``suppression`` takes who said STOP and START; by default it is the store, where that can. ``on_inbound``
    is called with each message that comes in; what it raises is logged.

    Raises `smsretry.ConfigurationError` for a URL that is none, a token that is empty, a store that takes nothing, a
    queue that queues nothing, an ``on_inbound`` that cannot be called, and a store whose ``delivery_retries`` name a
    code after which no retry can help.
    """

    def __init__(
        self,
        auth_token: str | Iterable[str],
        public_url: str,
        store: DeliveryLog,
        *,
        queue: CanQueue | None = None,
        suppression: SuppressionList | None = None,
        on_inbound: Callable[[Inbound], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._validators = [RequestValidator(token) for token in _tokens(auth_token)]
        self._public_url = _checked_url(public_url)
        if not callable(getattr(store, "receive", None)):
            msg = f"store must have a method receive(report), got {type(store).__name__}. Use an SQLStore."
            raise ConfigurationError(msg)
        check_queue(queue)
        self._store = store
        self._queue = queue
        self._suppression = suppression or own_list(store)
        self._on_inbound = _checked_call(on_inbound)
        check_codes(getattr(getattr(store, "delivery_retries", None), "codes", ()))
        self._clock = clock or _utc_now
        self._told_at: dict[str, datetime] = {}

    def __repr__(self) -> str:
        return f"TwilioCallbacks({shown_url(self._public_url)!r})"

    def handle(self, method: str, path_and_query: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Answer one request.

        ``path_and_query`` is what follows the host, as it came; ``headers`` are by name, in any case. The answer is 204
        for what was written (200 with empty TwiML for a message that came in), 403 without a good signature, 405, 413
        and 400 for what no callback is, and 503 where the store is away: then nothing was written.
        """
        if method.upper() != "POST":
            return Response(405, b"Twilio's callbacks are POSTs.\n")
        if len(body) > MOST_BYTES:
            return Response(413, b"The body is too long.\n")
        signed = {name.lower(): value for name, value in headers.items()}
        fields = self._checked(path_and_query, signed, body)
        if fields is None:
            self._tell_refusal(path_and_query, signed, body)
            return _FORBIDDEN
        try:
            write = self._read(path_and_query, fields)
        except ValueError as error:
            _log.warning("A callback of Twilio could not be read: %s", error)
            return Response(400, b"This is no callback.\n")
        try:
            return write()
        except Exception as error:  # noqa: BLE001  # whatever a database raises: Twilio, or the poll, says it again
            _log.error("A callback of Twilio could not be written (%s).", reason_of(error))
            return _AWAY

    def _checked(self, path_and_query: str, headers: Mapping[str, str], body: bytes) -> _Fields | None:
        """Return the fields of a request that Twilio has signed; None for any other."""
        signature = headers.get(_SIGNATURE)
        if not signature or not path_and_query.startswith("/"):
            return None
        url = self._public_url + path_and_query
        try:
            text = body.decode("utf-8")
            is_hashed = "bodySHA256" in parse_qs(urlsplit(url).query)
            fields = _Fields.of_json(text) if is_hashed else _Fields.of_form(text)
            signed: Any = text if is_hashed else fields
            is_signed = any(validator.validate(url, signed, signature) for validator in self._validators)
        except Exception:  # noqa: BLE001  # what cannot be read, or checked, was not signed by Twilio
            return None
        return fields if is_signed else None

    def _tell_refusal(self, path_and_query: str, headers: Mapping[str, str], body: bytes) -> None:
        """Log which URL a refused request was checked for, and each reason once a minute at the most."""
        why = _refusal(headers, body)
        now = self._clock()
        if why in self._told_at and now - self._told_at[why] < _TOLD_EVERY:
            return
        self._told_at[why] = now
        path, question_mark, _ = path_and_query.partition("?")
        checked = shown_url(self._public_url) + ascii(mask_numbers_in(path))[1:-1][:_LONGEST_PATH] + question_mark
        _log.warning("A request was refused (403), checked as one to '%s': %s", checked, why)

    def _read(self, path_and_query: str, fields: _Fields) -> Callable[[], Response]:
        """Return the call that writes what ``fields`` say; raise ValueError where they say nothing that can be."""
        if fields.get("MessageStatus") or fields.get("SmsStatus", "") not in {"", "received"}:
            report = self._report_in(path_and_query, fields)
            return lambda: self._take_report(report)
        if fields.get("From") and (fields.get("MessageSid") or fields.get("SmsSid")):
            inbound = _inbound_in(fields)
            return lambda: self._take_inbound(inbound, fields)
        return lambda: _TAKEN  # signed, and nothing that is read here

    def _report_in(self, path_and_query: str, fields: _Fields) -> DeliveryReport:
        message_id, mark = callback_query(urlsplit(path_and_query).query)
        return report_of(
            fields.get("MessageSid") or fields.get("SmsSid", ""),
            fields.get("MessageStatus") or fields.get("SmsStatus", ""),
            fields.get("ErrorCode"),
            self._clock(),
            message_id=message_id,
            mark=None if message_id is None else mark,
            raw=dict(fields),
        )

    def _take_report(self, report: DeliveryReport) -> Response:
        note_opt_out(self._suppression, report)
        queue_again(self._queue, self._store.receive(report))
        return _TAKEN

    def _take_inbound(self, inbound: Inbound, fields: _Fields) -> Response:
        if self._suppression is not None and inbound.word:
            entries = _entries_of(inbound, fields)
            if inbound.word == "stop":
                _suppress_all(self._suppression, entries)
            else:
                for entry in entries:
                    self._suppression.lift(entry.to, entry.sender)
        self._hand_on(inbound)
        return Response(200, _EMPTY_TWIML, "text/xml; charset=utf-8")

    def _hand_on(self, inbound: Inbound) -> None:
        """Let the application read what came in; what it raises changes nothing of what is written."""
        if self._on_inbound is None:
            return
        try:
            self._on_inbound(inbound)
        except Exception as error:  # noqa: BLE001  # an application raises what it likes, and Twilio asks once
            _log.error("on_inbound raised for %s (%s).", inbound.provider_id, reason_of(error))


def _suppress_all(known: SuppressionList, entries: list[Suppression]) -> None:
    """Put ``entries`` on the list, in one transaction where it can: who said stop must not be on half of it."""
    suppress_all = getattr(known, "suppress_all", None)
    if callable(suppress_all):
        suppress_all(entries)
    else:
        for entry in entries:
            known.suppress(entry)


def _refusal(headers: Mapping[str, str], body: bytes) -> str:
    """Say what may be wrong with a request whose signature is not good."""
    if not headers.get(_SIGNATURE):
        return "it has no X-Twilio-Signature, so it is not of Twilio, or something on its way takes headers off."
    if not body:
        return "its body is empty. Hand over the body as it came, before anything reads it as a form."
    return (
        "it is not signed for this URL with this token. Twilio signs the URL that it was given, letter by letter: "
        "compare public_url (scheme, host, port, and no path of the view) and auth_token, and hand over path and body "
        "as they came."
    )


def _inbound_in(fields: _Fields) -> Inbound:
    inbound = Inbound(
        from_number=fields.get("From", ""),
        to_number=fields.get("To", ""),
        body=fields.get("Body", ""),
        provider_id=fields.get("MessageSid") or fields.get("SmsSid", ""),
        word=_word_of(fields),
        raw=dict(fields),
    )
    _entries_of(inbound, fields)  # raises where there can be none
    return inbound


def _entries_of(inbound: Inbound, fields: _Fields) -> list[Suppression]:
    """Return the entries of who said something: for our number and its Messaging Service, since either may send.

    There is none for what no message goes to, such as an address of another channel.
    """
    if not is_e164(inbound.from_number):
        return []
    senders = {inbound.to_number, fields.get("MessagingServiceSid", "")} - {""}
    return [Suppression(to=inbound.from_number, sender=sender) for sender in sorted(senders or {""})]


class _Fields(dict[str, str]):
    """Hold the fields of a request: the first value of each by name, and all of them for the check of a signature."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._all: dict[str, list[str]] = {}
        for name, value in pairs:
            self._all.setdefault(name, []).append(value)
            self.setdefault(name, value)

    @classmethod
    def of_form(cls, text: str) -> Self:
        """Return the fields of a form, blank ones too; raise ValueError for more than anybody sends."""
        return cls(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"))

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Return the fields of a JSON object, whole numbers as text; what is neither is left out."""
        data = json.loads(text)
        return cls((name, str(value)) for name, value in data.items() if type(value) in {str, int})

    def getall(self, name: str) -> list[str]:
        """Return all values of ``name``: what Twilio's validator asks a form for."""
        return self._all[name]


def _word_of(fields: Mapping[str, str]) -> str:
    """Return what a message asks for: by Twilio's own word where it sends one, else by its default keywords."""
    told = fields.get("OptOutType", "").strip().lower()
    if told in _OPT_OUT_TYPES:
        return _OPT_OUT_TYPES[told]
    word = fields.get("Body", "").strip().lower()
    return "stop" if word in _STOP else "start" if word in _START else ""


def _tokens(auth_token: object) -> list[str]:
    tokens = (
        [auth_token] if isinstance(auth_token, str) else list(auth_token) if isinstance(auth_token, Iterable) else []
    )
    if not tokens or not all(isinstance(token, str) and token for token in tokens):
        raise ConfigurationError("auth_token must be the account's token, or several (none is shown here).")
    return [str(token) for token in tokens]


def _checked_call(on_inbound: Callable[[Inbound], object] | None) -> Callable[[Inbound], object] | None:
    if on_inbound is None or callable(on_inbound):
        return on_inbound
    got = type(on_inbound).__name__
    raise ConfigurationError(f"on_inbound must be a function of an Inbound, got {got}. Leave it out for none.")


def _checked_url(url: object) -> str:
    if isinstance(url, str) and _is_public(url):
        return url.rstrip("/")
    got = repr(shown_url(url)) if isinstance(url, str) else type(url).__name__
    msg = f"public_url must be how Twilio reaches you, such as 'https://example.com', got {got}."
    raise ConfigurationError(msg)


def _is_public(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port, or an address in brackets, that is none
        return False
    is_plain = url.isprintable() and " " not in url and not parts.query and not parts.fragment
    return is_plain and has_place and parts.scheme in {"http", "https"}


def may_help(code: str) -> bool:
    """Say whether a retry may help after a delivery failed with ``code``, by Twilio's table."""
    row = lookup_code(code)
    return row is not None and row.on_delivery in {Decision.ON_REQUEST, Decision.DISPUTED}


def check_codes(codes: Iterable[str]) -> None:
    """Raise `smsretry.ConfigurationError` for a code after which Twilio's table allows no retry of a delivery."""
    for code in codes:
        if not may_help(code):
            row = lookup_code(code)
            why = "nobody listed it" if row is None else row.on_delivery.description
            raise ConfigurationError(
                f"delivery_retries names {code}, and a message is not sent anew for that: {why} "
                f"Leave it out; smsretry explain {code} says more."
            )


def _utc_now() -> datetime:
    return datetime.now(UTC)
