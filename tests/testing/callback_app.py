"""A small application of a real HTTP server, that takes callbacks and inbound messages and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What came: its path with the query, its headers with lower-case names, and its form."""

    path: str
    headers: dict[str, str]
    form: dict[str, str]

    @property
    def status(self) -> str:
        return self.form["MessageStatus"]


class Application:
    """Record what is posted, and answer with the bytes that ``answers`` gives, at once or after a while."""

    def __init__(self) -> None:
        self.got: list[Posted] = []
        self.connections = 0
        self.answers: Callable[[Posted], bytes] = lambda _: NO_CONTENT
        self.leaving = threading.Event()
        self.server: Any = None

    def says_nothing(self) -> None:
        """Take what comes, and answer nothing until the end."""

        def wait(_: Posted) -> bytes:
            self.leaving.wait(60)
            return b""

        self.answers = wait

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/told?id=7&blank="

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def statuses(self, number: str | None = None) -> list[str]:
        return [posted.status for posted in self.got if number in (None, posted.form["To"])]


@contextmanager
def application() -> Iterator[Application]:
    app = Application()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            app.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = parse_qs(body, keep_blank_values=True, strict_parsing=True)
            headers = {name.lower(): value for name, value in self.headers.items()}
            posted = Posted(
                path=self.path, headers=headers, form={name: "".join(each) for name, each in fields.items()}
            )
            app.got.append(posted)
            answer = app.answers(posted)
            self.wfile.write(answer)
            self.close_connection = not answer or b"Connection: close" in answer or answer.startswith(b"HTTP/1.0")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the library's
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        app.server = server
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield app
        finally:
            app.leaving.set()
            server.shutdown()
            serving.join()
