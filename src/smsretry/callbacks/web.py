"""Serve callbacks over WSGI or ASGI: as an application of their own, or out of a view of any web framework.

`wsgi_path_and_query` and `asgi_path_and_query` tell a view what was asked for, letter by letter as it came: that is
what is signed, and what a framework shows is decoded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import quote

__all__ = ["Handler", "asgi_app", "asgi_path_and_query", "wsgi_app", "wsgi_path_and_query"]

_MOST_BYTES: Final = 1_048_576
"""More of a body is not read: a handler refuses far less."""
_SAFE: Final = "/:@!$&'()*+,;=~-._"


class Answer(Protocol):
    """Be what a handler returns."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...


class Handler(Protocol):
    """Be an object such as `smsretry.callbacks.twilio.TwilioCallbacks`."""

    def handle(self, method: str, path_and_query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        ...


WSGIApp = Callable[[MutableMapping[str, Any], Callable[..., Any]], Iterable[bytes]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def wsgi_app(callbacks: Handler) -> WSGIApp:
    """Return a WSGI application that lets ``callbacks`` answer every request."""

    def app(environ: MutableMapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(_size(environ))
        asked = wsgi_path_and_query(environ)
        answer = callbacks.handle(str(environ["REQUEST_METHOD"]), asked, _headers(environ), body)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
        return [answer.body]

    return app


def asgi_app(callbacks: Handler) -> ASGIApp:
    """Return an ASGI application that lets ``callbacks`` answer every request, in a thread: a store may block."""
    import asyncio  # only whoever runs a loop pays for it

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            msg = f"Callbacks come over HTTP, and not over {scope['type']}."
            raise ValueError(msg)
        body = await _body(receive)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        asked = asgi_path_and_query(scope)
        answer = await asyncio.to_thread(callbacks.handle, scope["method"], asked, headers, body)
        told = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        await send({"type": "http.response.body", "body": answer.body})

    return app


def wsgi_path_and_query(environ: Mapping[str, Any]) -> str:
    """Return the path and query of a request as they came, where the server tells; else the path is quoted again."""
    for name in ("RAW_URI", "REQUEST_URI"):
        raw = environ.get(name)
        if isinstance(raw, str) and raw.startswith("/"):
            return raw
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    query = environ.get("QUERY_STRING")
    return quote(path.encode("latin-1"), safe=_SAFE) + (f"?{query}" if query else "")


def asgi_path_and_query(scope: Mapping[str, Any]) -> str:
    """Return the path and query of a request as they came, where the server tells; else the path is quoted again."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], safe=_SAFE).encode()
    query: bytes = scope.get("query_string") or b""
    return raw.partition(b"?")[0].decode("latin-1") + ("?" + query.decode("latin-1") if query else "")


def _size(environ: Mapping[str, Any]) -> int:
    """Return how many bytes of a body may be read; only some servers end one that does not say its length."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if not length and environ.get("wsgi.input_terminated"):
        return _MOST_BYTES
    return min(int(length), _MOST_BYTES) if length.isascii() and length.isdigit() else 0


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.removeprefix("HTTP_").replace("_", "-"): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }


async def _body(receive: Receive) -> bytes:
    """Return the body; what is longer than any handler reads is cut off."""
    body = bytearray()
    more = True
    while more:
        event = await receive()
        if event["type"] != "http.request":  # the client has gone
            break
        if len(body) <= _MOST_BYTES:
            body += event.get("body", b"")
        more = bool(event.get("more_body"))
    return bytes(body)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
