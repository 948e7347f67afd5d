"""Read HTTP/1.1 requests from bytes and turn answers into bytes; no input or output happens here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto, unique
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, TypeAlias, assert_never

from smsretry.testing.simulator.faults import (
    Closed,
    Cut,
    Delayed,
    Fault,
    Hang,
    Normal,
    OddSuccess,
    Part,
    RateLimited,
    Redirected,
    Refused,
    Reset,
    ServerError,
    Slow,
)

LONGEST_HEAD_BYTES: Final = 65_536
LONGEST_BODY_BYTES: Final = 4_194_304
_STATUS_LINE_BYTES: Final = len(b"HTTP/1.1 201")


class MalformedRequest(ValueError):
    """Raise where the bytes are no request that this server reads; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Tell that a request has begun."""

    method: str
    target: str


@dataclass(frozen=True, slots=True)
class Head:
    """Hold a request's first line and headers; ``headers`` have lower-case names and lack Authorization."""

    line: RequestLine
    headers: Mapping[str, str]
    authorization: str = field(repr=False)
    body_bytes: int
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """Tell that a request is there to its last byte."""

    head: Head
    body: bytes


ReaderEvent: TypeAlias = RequestLine | Whole


class RequestReader:
    """Cut a stream of bytes into requests: first the line of each, as soon as it is there, then the whole."""

    def __init__(self) -> None:
        self._buffer = b""
        self._line_told = False
        self._head: Head | None = None

    def feed(self, data: bytes) -> None:
        """Add what the socket gave."""
        self._buffer += data

    def next_event(self) -> ReaderEvent | None:
        """Return the next thing that is complete, None until more bytes come; raise `MalformedRequest`."""
        if not self._line_told:
            return self._line()
        if self._head is None:
            self._head = self._read_head()
        return self._whole(self._head) if self._head is not None else None

    def _line(self) -> RequestLine | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            self._bound(LONGEST_HEAD_BYTES)
            return None
        self._line_told = True
        return _request_line(self._buffer[:end])

    def _read_head(self) -> Head | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._bound(LONGEST_HEAD_BYTES)
            return None
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return _parsed_head(head)

    def _whole(self, head: Head) -> Whole | None:
        if len(self._buffer) < head.body_bytes:
            return None
        body, self._buffer = self._buffer[: head.body_bytes], self._buffer[head.body_bytes :]
        self._head, self._line_told = None, False
        return Whole(head, body)

    def _bound(self, limit_bytes: int) -> None:
        if len(self._buffer) > limit_bytes:
            raise MalformedRequest(f"The head is longer than {limit_bytes} bytes.")


def _request_line(line: bytes) -> RequestLine:
    parts = line.decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise MalformedRequest("The first line must be 'METHOD target HTTP/1.1'. Point an HTTP client at this port.")
    return RequestLine(parts[0], parts[1])


@lru_cache(maxsize=512)
def _parsed_head(head: bytes) -> Head:
    """Parse a head; a client that keeps its connection sends the same one over and over."""
    first, *rest = head.split(b"\r\n")
    pairs = (line.decode("latin-1").partition(":") for line in rest)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    authorization = headers.pop("authorization", "")
    return Head(
        _request_line(first),
        MappingProxyType(headers),
        authorization,
        _body_bytes(headers),
        _keeps_alive(first, headers),
    )


def _body_bytes(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        raise MalformedRequest("A request needs a Content-Length that is a number, and no Transfer-Encoding.")
    if int(length) > LONGEST_BODY_BYTES:
        raise MalformedRequest(f"The body is longer than {LONGEST_BODY_BYTES} bytes.")
    return int(length)


def _keeps_alive(first_line: bytes, headers: Mapping[str, str]) -> bool:
    wish = headers.get("connection", "").lower()
    return wish == "keep-alive" if first_line.endswith(b"HTTP/1.0") else wish != "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold an answer before it is bytes."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def head(self) -> bytes:
        """Return the status line and the headers with the empty line after them."""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        return (
            f"HTTP/1.1 {self.status} {_reason(self.status)}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n{more}\r\n"
        ).encode("latin-1")


@lru_cache
def _reason(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"


@unique
class Ending(Enum):
    """Say what becomes of the connection after the last byte."""

    KEEP = auto()
    """It takes the next request."""
    CLOSE = auto()
    """It is closed in good order (FIN)."""
    RESET = auto()
    """It is reset (RST)."""
    HOLD = auto()
    """It stays open in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Say which bytes leave and when: ``wait_s``, ``data``, then ``trickle`` with ``interval_s`` before each byte.

    With ``hold`` none leaves before it calls what it is given. ``left`` is called once the last has left, or cannot.
    """

    data: bytes = field(default=b"", repr=False)
    trickle: bytes = field(default=b"", repr=False)
    wait_s: float = 0.0
    interval_s: float = 0.0
    ending: Ending = Ending.KEEP
    hold: Callable[[Callable[[], object]], object] | None = field(default=None, repr=False)
    left: Callable[[], object] | None = field(default=None, repr=False)


_ENDINGS: Final[Mapping[type[Fault], Ending]] = MappingProxyType(
    {Reset: Ending.RESET, Closed: Ending.CLOSE, Hang: Ending.HOLD}
)


def delivery_of(answer: Answer, fault: Fault) -> Delivery:
    """Return how ``answer`` leaves the socket under ``fault``."""
    match fault:
        case Normal() | RateLimited() | Refused() | ServerError() | Redirected() | OddSuccess():
            return Delivery(data=answer.head() + answer.body)
        case Delayed():
            return Delivery(data=answer.head() + answer.body, wait_s=fault.delay_s)
        case Slow():
            data, trickle = _split(answer, fault.part)
            return Delivery(data=data, trickle=trickle, interval_s=fault.interval_s)
        case Cut():
            return Delivery(data=_first_part(answer, fault.part), ending=Ending.CLOSE)
        case Reset() | Closed() | Hang():
            return Delivery(ending=_ENDINGS[type(fault)])
        case _:
            assert_never(fault)


def _split(answer: Answer, part: Part) -> tuple[bytes, bytes]:
    head = answer.head()
    at = {Part.STATUS_LINE: 0, Part.HEADERS: head.index(b"\r\n") + 2, Part.BODY: len(head)}[part]
    whole = head + answer.body
    return whole[:at], whole[at:]


def _first_part(answer: Answer, part: Part) -> bytes:
    head = answer.head()
    match part:
        case Part.STATUS_LINE:
            return head[:_STATUS_LINE_BYTES]
        case Part.HEADERS:
            return head[: head.index(b"\r\n") + len(b"\r\nContent-")]
        case Part.BODY:
            return head + answer.body[: len(answer.body) // 2]
        case _:
            assert_never(part)
