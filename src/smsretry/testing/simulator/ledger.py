"""Keep what came to the simulator's socket, and which texts were taken."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from secrets import token_hex
from time import monotonic
from typing import TypeAlias
from urllib.parse import parse_qs

from smsretry.core.mask import mask_number, mask_text
from smsretry.testing.simulator.faults import Fault

Params: TypeAlias = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Record one request as it came to the socket, from its first line on.

    ``complete`` is False while, or because, its body did not arrive. ``at`` is aware UTC, ``at_s`` the seconds since
    the simulator began, by a clock that never jumps: measure delays with it. ``fault`` is what it met, None for the
    usual service. ``headers`` have lower-case names and lack Authorization.
    """

    method: str
    target: str = field(repr=False)
    at: datetime
    at_s: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    complete: bool = False
    fault: Fault | None = None

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """Return the query's fields, each with all its values."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def form(self) -> dict[str, list[str]]:
        """Return the form's fields, each with all its values; empty for a body that is no form."""
        return parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Record one text that was taken: it would have reached a phone.

    ``at`` and ``at_s`` are as in `Request`. ``params`` are all fields of the create, as they came.
    """

    sid: str
    to: str
    body: str
    sender: str | None
    messaging_service_sid: str | None
    media_urls: tuple[str, ...]
    at: datetime
    at_s: float
    params: Params = field(repr=False)

    def __repr__(self) -> str:
        return f"Text(sid={self.sid!r}, to={mask_number(self.to)!r}, body={mask_text(self.body)}, at={self.at})"


class Ledger:
    """Count requests and texts; safe to read from any thread while the server writes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._began_s = monotonic()
        self._requests: list[Request] = []
        self._texts: dict[str, Text] = {}
        self._by_number: defaultdict[str, list[Text]] = defaultdict(list)
        self._methods: Counter[str] = Counter()

    def elapsed_s(self) -> float:
        """Return the seconds since the ledger was opened."""
        return monotonic() - self._began_s

    def arrived(self, method: str, target: str) -> int:
        """Record a request whose first line is there, and return its place."""
        request = Request(method=method, target=target, at=datetime.now(UTC), at_s=self.elapsed_s())
        with self._changed:
            self._methods[method] += 1
            self._requests.append(request)
            self._changed.notify_all()
            return len(self._requests) - 1

    def completed(self, place: int, headers: Mapping[str, str], body: bytes) -> Request:
        """Record the rest of the request at ``place``."""
        with self._changed:
            request = replace(self._requests[place], headers=headers, body=body, complete=True)
            self._requests[place] = request
            return request

    def met(self, place: int, fault: Fault) -> None:
        """Record which fault the request at ``place`` was answered with."""
        with self._changed:
            self._requests[place] = replace(self._requests[place], fault=fault)
            self._changed.notify_all()

    def take(self, draft: Text) -> Text:
        """Record a text as taken now, and return it so."""
        text = replace(draft, at=datetime.now(UTC), at_s=self.elapsed_s())
        with self._changed:
            self._texts[text.sid] = text
            self._by_number[text.to].append(text)
            self._changed.notify_all()
        return text

    def drafted(self, params: Params) -> Text:
        """Return the text that a create asks for, under a new SID; nothing is taken yet."""
        return Text(
            sid=f"SM{token_hex(16)}",
            to=params["To"][0],
            body=params.get("Body", [""])[0],
            sender=params.get("From", [None])[0],
            messaging_service_sid=params.get("MessagingServiceSid", [None])[0],
            media_urls=tuple(params.get("MediaUrl", ())),
            at=datetime.now(UTC),
            at_s=self.elapsed_s(),
            params=params,
        )

    def requests_by(self, method: str) -> int:
        """Count the requests with this method."""
        with self._changed:
            return self._methods[method]

    @property
    def requests(self) -> list[Request]:
        """Return all requests in the order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def texts(self) -> list[Text]:
        """Return all texts in the order in which they were taken."""
        with self._changed:
            return list(self._texts.values())

    @property
    def text_count(self) -> int:
        """Count the texts without copying them."""
        with self._changed:
            return len(self._texts)

    def text(self, sid: str) -> Text | None:
        """Return the text with this SID."""
        with self._changed:
            return self._texts.get(sid)

    def texts_to(self, number: str) -> list[Text]:
        """Return the texts to ``number`` in the order in which they were taken."""
        with self._changed:
            return list(self._by_number.get(number, ()))

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until ``condition()`` holds, asked again at every request and text; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)
