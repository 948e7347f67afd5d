"""Post to the application over kept connections, and read what it answers; all of it inside one event loop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlencode, urlsplit

from smsretry.testing.simulator.server import checked_host

LONGEST_IDLE_S: Final = 1.0
"""A connection that rested longer is not used again: servers close theirs after 2 seconds or more."""
LONGEST_ANSWER_BYTES: Final = 4_194_304

Address: TypeAlias = tuple[str, int]
_Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """Hold what the application answered; ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """Return the body as text, such as TwiML."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Target:
    """Say where a URL is reached, and what is asked for there."""

    address: Address
    host: str
    path: str


class Routes:
    """Know where a URL is reached: on loopback, or where it was said.

    ``routes`` gives the beginning of a URL (``https://sms.example.com``) the address behind it (``http://127.0.0.1:8000``),
    as a proxy does. Raises ValueError for what is no such pair.
    """

    def __init__(self, routes: Mapping[str, str]) -> None:
        self._routes = {_origin(urlsplit(url)): _address(urlsplit(behind)) for url, behind in routes.items()}
        for url in (*routes, *routes.values()):
            if urlsplit(url).path.strip("/"):
                raise ValueError(f"A route leads from scheme://host:port to the like, without a path; got {url!r}.")

    def target(self, url: str) -> Target:
        """Return where ``url`` is reached; raise ValueError where it is none, or leads to another machine."""
        parts = urlsplit(url)
        address = self._routes.get(_origin(parts))
        if address is None:
            address = _address(parts)
            _check_loopback(address[0], parts)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError("A URL must be written in ASCII, without blanks. Quote its path and query.")
        return Target(address, parts.netloc, path)


def _origin(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc}".lower()


def _address(parts: SplitResult) -> Address:
    if parts.scheme != "http" or not parts.hostname or parts.username is not None:
        raise ValueError(
            f"The simulator posts to URLs that begin with http:// and a host, got {_origin(parts)!r}. "
            "For another, give it a route, such as routes={'https://sms.example.com': 'http://127.0.0.1:8000'}."
        )
    return "127.0.0.1" if parts.hostname == "localhost" else parts.hostname, parts.port or 80


def _check_loopback(host: str, parts: SplitResult) -> None:
    try:
        checked_host(host)
    except ValueError:
        origin = _origin(parts)
        raise ValueError(
            f"The simulator posts to loopback only, got {origin!r}. "
            f"Give it a route, such as routes={{{origin!r}: 'http://127.0.0.1:8000'}}, or to itself to allow it."
        ) from None


class Courier:
    """Post forms, each over a connection that is kept for the next; use it in one event loop, and `close` it there."""

    def __init__(self) -> None:
        self._idle: defaultdict[Address, list[tuple[float, _Stream]]] = defaultdict(list)

    async def post(
        self, target: Target, form: Mapping[str, str], headers: Mapping[str, str], *, timeout_s: float
    ) -> WebhookAnswer:
        """Post ``form`` once, and return the answer.

        Raises OSError where there is none: TimeoutError after ``timeout_s`` seconds, ConnectionError where the
        application cannot be reached, leaves, or answers with anything but HTTP.
        """
        async with asyncio.timeout(timeout_s):
            stream = self._rested(target.address) or await asyncio.open_connection(*target.address)
            try:
                answer, is_kept = await _exchange(stream, _request(target, form, headers))
            except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
                stream[1].close()
                raise ConnectionError("The application left, or did not answer in HTTP.") from error
            except BaseException:
                stream[1].close()
                raise
        if is_kept:
            self._idle[target.address].append((monotonic(), stream))
        else:
            stream[1].close()
        return answer

    def _rested(self, address: Address) -> _Stream | None:
        idle = self._idle[address]
        while idle:
            since_s, (reader, writer) = idle.pop()
            if monotonic() - since_s <= LONGEST_IDLE_S and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def close(self) -> None:
        """Close the connections that rest."""
        writers = [writer for idle in self._idle.values() for _, (_, writer) in idle]
        self._idle.clear()
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()


def _request(target: Target, form: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
    body = urlencode(form).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _exchange(stream: _Stream, request: bytes) -> tuple[WebhookAnswer, bool]:
    """Send a request, and return its answer and whether the connection takes the next; raise EOFError or ValueError."""
    reader, writer = stream
    writer.write(request)
    version, status, headers = await _head(reader)
    while status // 100 == 1:
        version, status, headers = await _head(reader)
    body, is_whole = await _body(reader, status, headers)
    wish = headers.get("connection", "").lower()
    is_kept = is_whole and (wish == "keep-alive" if version == "HTTP/1.0" else wish != "close")
    return WebhookAnswer(status=status, headers=MappingProxyType(headers), body=body), is_kept


async def _head(reader: asyncio.StreamReader) -> tuple[str, int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError("The answer is not HTTP/1.")
    pairs = (line.partition(":") for line in lines)
    return version, int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    """Return the body, and whether its end was told otherwise than by the end of the connection."""
    if status in (204, 304):
        return b"", True
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader), True
    if "content-length" in headers:
        return await reader.readexactly(_bounded(int(headers["content-length"]))), True
    return await reader.read(), False


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(_bounded(size + len(body)) - len(body))
        await reader.readuntil(b"\r\n")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def _bounded(size_bytes: int) -> int:
    if not 0 <= size_bytes <= LONGEST_ANSWER_BYTES:
        raise ValueError(f"The answer is longer than {LONGEST_ANSWER_BYTES} bytes.")
    return size_bytes
