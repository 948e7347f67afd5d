"""Serve an application over real HTTP on loopback, and post to it byte by byte as Twilio does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from http.client import HTTPConnection, HTTPResponse
from http.server import HTTPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name
        """Say nothing."""


def served_by_wsgi(app: Any) -> AbstractContextManager[int]:
    """Serve a WSGI application with the server of the standard library, and return its port."""
    return running(make_server("127.0.0.1", 0, app, server_class=WSGIServer, handler_class=Quiet))


def served_by_werkzeug(app: Any) -> AbstractContextManager[int]:
    """Serve a WSGI application with Flask's own server, which tells the target of a request as it came."""
    from werkzeug.serving import WSGIRequestHandler as Handler
    from werkzeug.serving import make_server as make

    class QuietHandler(Handler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # its name
            """Say nothing."""

    return running(make("127.0.0.1", 0, app, request_handler=QuietHandler))


@contextlib.contextmanager
def running(server: HTTPServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def served_by_asgi(app: Any, **options: Any) -> Iterator[int]:
    """Serve an ASGI application with uvicorn, and return its port."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, **options))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def asked(port: int, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HTTPResponse:
    """Make one request, whose target goes out as it is, and return the answer with its body read."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        response.read()
        return response
