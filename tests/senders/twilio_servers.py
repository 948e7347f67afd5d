"""Servers that the simulator is not: one that says what it is told, one that speaks TLS, and some that say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

TO = "+14155550123"
FROM = "+15005550006"
SERVICE = "MG" + "a" * 32
ACCOUNT_SID = "AC" + "5" * 32
AUTH_TOKEN = "a-token-that-must-not-be-told"

CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFWLZidVrVWFmlf9i
JUdb03ZF3TIht8uPNIzSmOC6OFWhRANCAAQG7u8N1Vl7YHvokRZqy6Uj0F6JUuTJ
VQa1Su+Ry6uluLElf1ogbn/3a7SU1tTjj+txGV0rix5hkbhqKbe1wHXN
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBqjCCAVGgAwIBAgIUfmv5hmTWlJ5IlfcYPho0+9Yye7EwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzE5NTgwOVoYDzIxMjYxMDMw
MTk1ODA5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQG7u8N1Vl7YHvokRZqy6Uj0F6JUuTJVQa1Su+Ry6uluLElf1ogbn/3
a7SU1tTjj+txGV0rix5hkbhqKbe1wHXNo38wfTAdBgNVHQ4EFgQUUVY4U2i2T5UM
CGbMYTQ1ndp92xYwHwYDVR0jBBgwFoAUUVY4U2i2T5UMCGbMYTQ1ndp92xYwGgYD
VR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0P
AQH/BAQDAgKEMAoGCCqGSM49BAMCA0cAMEQCIDo9gaeK1E5IOWeAZikjfjMtNOKp
r+NsysmE+3Y34be8AiAVyfQg5MKjhL91UzhrANSnxTxdTOgp8qpQX0dk0vCHyQ==
-----END CERTIFICATE-----
"""
"""A key and a certificate for localhost and 127.0.0.1, good for a hundred years and for nothing but tests."""


def http(status: int, body: str | Mapping[str, object] = "", headers: Iterable[str] = ()) -> bytes:
    """Return a whole answer; what is no string is written as JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    data = text.encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


@dataclass(slots=True)
class Clerk:
    """Answer each request with the next of ``answers`` and the last one for ever; None closes without an answer.

    ``hang_up`` closes every connection in good order after one answer, without having said so.
    """

    answers: list[bytes | None]
    hang_up: bool = False
    heads: list[str] = field(default_factory=list)
    client_ports: list[int] = field(default_factory=list)
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (head := self._read(connection)) is not None:
                answer = self._next(head, connection.getpeername()[1])
                if answer is None:
                    break
                connection.sendall(answer)
                if self.hang_up:
                    break
        self.closed.release()

    def _next(self, head: str, port: int) -> bytes | None:
        with self._lock:
            self.heads.append(head)
            self.client_ports.append(port)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @staticmethod
    def _read(connection: socket.socket) -> str | None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65_536)
            if not chunk:
                return None
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        while left > 0:
            left -= len(connection.recv(left))
        return head.decode()


@contextmanager
def clerk(*answers: bytes | None, hang_up: bool = False) -> Iterator[Clerk]:
    """Run a `Clerk` on a loopback port."""
    serving = Clerk(list(answers), hang_up)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=_accept, args=(listener, serving, threads), daemon=True)
        accepting.start()
        yield serving
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    accepting.join(10)


def _accept(listener: socket.socket, serving: Clerk, threads: list[threading.Thread]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threads.append(threading.Thread(target=serving.serve, args=(connection,), daemon=True))
            threads[-1].start()


@contextmanager
def silent_port(*, full: bool) -> Iterator[str]:
    """Hold a port that completes no TCP handshake (``full``), or completes it and says nothing ever after."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if full else 8)
        for _ in range(2 if full else 0):  # what a queue of nothing still takes
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refusing_port() -> Iterator[str]:
    """Hold a port that refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def tls_front(url: str, folder: Path) -> Iterator[str]:
    """Speak TLS for the plain server at ``url``, byte by byte as it comes; yields the https URL."""
    pem = folder / "localhost.pem"
    pem.write_text(CERTIFICATE, "ascii")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    front = _Front(urlsplit(url).port or 0)
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(front.meet, "127.0.0.1", 0, ssl=context), loop
    ).result(10)
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    asyncio.run_coroutine_threadsafe(front.close(server), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


class _Front:
    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            done = [asyncio.create_task(_pump(reader, plain_writer)), asyncio.create_task(_pump(plain_reader, writer))]
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.cancel()
        for each_writer in (writer, plain_writer):
            each_writer.transport.abort()
        self._tasks.discard(task)

    async def close(self, server: asyncio.Server) -> None:
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
