"""Serve HTTP on a loopback port, from an event loop in a thread of its own, down to single bytes and resets."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar, assert_never, cast

from smsretry.testing.simulator.http1 import (
    Answer,
    Delivery,
    Ending,
    MalformedRequest,
    RequestLine,
    RequestReader,
    Whole,
    delivery_of,
)
from smsretry.testing.simulator.plan import NORMAL

T = TypeVar("T")
Finish: TypeAlias = Callable[[Whole], Delivery | Coroutine[None, None, Delivery]]
Begin: TypeAlias = Callable[[RequestLine], Finish]
"""Take note of a request at its first line; return what answers it once it is whole."""

_BACKLOG: Final = 4096
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_PATIENCE_S: Final = 10.0
_TIME_TO_READ_S: Final = 0.05


class Server:
    """Hold one loopback port from `start` to `close`; `down` refuses connections on it, `up` takes them again.

    ``end`` runs at the end, when no connection is left.
    """

    _gate: asyncio.Lock

    def __init__(self, begin: Begin, end: Callable[[], Coroutine[None, None, None]], *, host: str, port: int) -> None:
        self._begin = begin
        self._at_end = end
        self._host = checked_host(host)
        self._port = checked_port(port)
        self._reserve: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._outages: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Return ``http://host:port``; raise RuntimeError before the first `start`."""
        if self._port == 0:
            raise RuntimeError("The simulator has no port yet. Use it as a context manager, or call start() first.")
        return f"http://[{self._host}]:{self._port}" if ":" in self._host else f"http://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """Return the port; 0 before one is taken, where any will do."""
        return self._port

    def start(self) -> None:
        """Take the port and serve; raise OSError where the port is not free."""
        if self._loop is not None:
            raise RuntimeError("The simulator runs already. Close it first, or use a second one.")
        self._take_port()
        self._gate = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="twilio-simulator", daemon=True)
        self._thread.start()
        try:
            self.run(self._listen)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Reset what is open, and wait until the thread and the sockets are gone; do nothing where none are."""
        if self._loop is None or self._thread is None:
            return
        self.run(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def down(self) -> None:
        """Refuse connections and reset the open ones."""
        self.run(self._refuse)

    def up(self) -> None:
        """Take connections again, on the same port."""
        self.run(self._listen)

    def outage(self, duration_s: float) -> None:
        """Go down once the answer of the moment has left, and up ``duration_s`` seconds later; do not wait for it."""
        if not 0 <= duration_s < float("inf"):
            raise ValueError(f"duration_s must be 0 or more and finite, got {duration_s}. Use down() and up() instead.")
        self._running_loop().call_soon_threadsafe(self._begin_outage, duration_s)

    def run(self, step: Callable[[], Coroutine[None, None, T]], *, patience_s: float = _PATIENCE_S) -> T:
        """Run ``step`` in the loop, wait for it, and return what it returns; raise TimeoutError after the patience."""
        loop = self._running_loop()
        return asyncio.run_coroutine_threadsafe(step(), loop).result(patience_s)

    def soon(self, action: Callable[[], object]) -> None:
        """Call ``action`` in the loop, and do not wait for it; do nothing where none runs."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(action)

    def later(self, delay_s: float, action: Callable[[], object]) -> object:
        """Call ``action`` after ``delay_s`` seconds, unless the server is closed before; call in the loop."""
        return asyncio.get_running_loop().call_later(delay_s, action)

    def _take_port(self) -> None:
        if sys.platform == "linux":
            # Bound and never listening: the port stays ours while we are down, and refuses.
            self._reserve = _bound(self._host, self._port)
            self._port = self._reserve.getsockname()[1]

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("The simulator does not run. Use it as a context manager, or call start() first.")
        return self._loop

    async def _listen(self) -> None:
        async with self._gate:
            if self._listener is None:
                listening = _bound(self._host, self._port)
                self._port = listening.getsockname()[1]
                loop = asyncio.get_running_loop()
                self._listener = await loop.create_server(self._connection, sock=listening, backlog=_BACKLOG)

    async def _refuse(self) -> None:
        async with self._gate:
            if self._listener is not None:
                listening = self._listener.sockets[0]
                asyncio.get_running_loop().remove_reader(listening)
                # What was accepted in this turn reaches its protocol two turns later, and leaks if we close before.
                await _turns(3)
                # A process forked meanwhile holds a copy, which would go on accepting after a mere close.
                with suppress(OSError):
                    listening.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            for connection in tuple(self._connections):
                connection.reset()
            await _turns(1)  # in which the sockets are closed

    def _begin_outage(self, duration_s: float) -> None:
        task = asyncio.get_running_loop().create_task(self._pause(duration_s))
        self._outages.add(task)
        task.add_done_callback(self._outages.discard)

    async def _pause(self, duration_s: float) -> None:
        await asyncio.sleep(_TIME_TO_READ_S)
        await self._refuse()
        await asyncio.sleep(duration_s)
        await self._listen()

    async def _end(self) -> None:
        for task in tuple(self._outages):
            task.cancel()
        await self._refuse()
        await self._at_end()
        await _turns(1)  # in which the sockets are closed

    def _connection(self) -> Connection:
        return Connection(self._begin, self._connections)


class Connection(asyncio.Protocol):
    """Read requests from one connection, one after the other, and send each answer as its delivery says."""

    _transport: asyncio.Transport
    _finish: Finish
    _awaited: asyncio.Task[Delivery] | None = None

    def __init__(self, begin: Begin, open_connections: set[Connection]) -> None:
        self._begin = begin
        self._open_connections = open_connections
        self._reader = RequestReader()
        self._is_answering = False
        self._keeps_alive = True
        self._timer: asyncio.TimerHandle | None = None
        self._left: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection as open."""
        self._transport = cast("asyncio.Transport", transport)
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget the connection and what it still had to send."""
        self._open_connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._awaited is not None:
            self._awaited.cancel()
        self._tell_left()

    def data_received(self, data: bytes) -> None:
        """Read on, and answer what is whole."""
        self._reader.feed(data)
        self._read()

    def reset(self) -> None:
        """Close the connection with an RST."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _read(self) -> None:
        try:
            while not self._is_answering and (event := self._reader.next_event()) is not None:
                self._take(event)
        except MalformedRequest as error:
            self._keeps_alive = False
            self._send(delivery_of(_bad_request(str(error)), NORMAL))

    def _take(self, event: RequestLine | Whole) -> None:
        match event:
            case RequestLine():
                self._finish = self._begin(event)
            case Whole():
                self._is_answering = True
                self._keeps_alive = event.head.keep_alive
                self._answer(self._finish(event))
            case _:
                assert_never(event)

    def _answer(self, delivery: Delivery | Coroutine[None, None, Delivery]) -> None:
        if isinstance(delivery, Delivery):
            self._deliver(delivery)
        else:
            self._awaited = asyncio.get_running_loop().create_task(delivery)
            self._awaited.add_done_callback(self._deliver_awaited)

    def _deliver_awaited(self, task: asyncio.Task[Delivery]) -> None:
        if not task.cancelled() and not self._transport.is_closing():
            self._deliver(task.result())
            self._read()

    def _deliver(self, delivery: Delivery) -> None:
        self._left = delivery.left
        if delivery.hold is None:
            self._begin_sending(delivery)
        else:
            delivery.hold(lambda: self._resume(delivery))

    def _resume(self, delivery: Delivery) -> None:
        if not self._transport.is_closing():
            self._begin_sending(delivery)
            self._read()

    def _begin_sending(self, delivery: Delivery) -> None:
        if delivery.wait_s:
            self._call_later(delivery.wait_s, lambda: self._send(delivery))
        else:
            self._send(delivery)

    def _send(self, delivery: Delivery) -> None:
        if delivery.data:
            self._transport.write(delivery.data)
        if delivery.trickle:
            self._trickle(delivery, 0)
        else:
            self._end(delivery.ending)

    def _trickle(self, delivery: Delivery, sent: int) -> None:
        def send_byte() -> None:
            self._transport.write(delivery.trickle[sent : sent + 1])
            self._trickle(delivery, sent + 1)

        if sent < len(delivery.trickle):
            self._call_later(delivery.interval_s, send_byte)
        else:
            self._end(delivery.ending)

    def _tell_left(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left()

    def _end(self, ending: Ending) -> None:
        self._tell_left()
        match ending:
            case Ending.KEEP if self._keeps_alive:
                self._is_answering = False
            case Ending.KEEP | Ending.CLOSE:
                self._transport.close()
            case Ending.RESET:
                self.reset()
            case Ending.HOLD:
                pass
            case _:
                assert_never(ending)

    def _call_later(self, delay_s: float, step: Callable[[], None]) -> None:
        def step_and_read() -> None:
            step()
            self._read()

        self._timer = asyncio.get_running_loop().call_later(delay_s, step_and_read)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def checked_host(host: str) -> str:
    """Return ``host`` as a numeric loopback address; raise ValueError for any other."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"host must be a loopback address, got {host!r}. The simulator serves 127.0.0.1 or ::1 only.")
    return address


def checked_port(port: int) -> int:
    """Return ``port``; raise ValueError where there is no such port."""
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65_535:
        raise ValueError(f"port must be from 0 to 65535, got {port!r}. Use 0 for a free one.")
    return port


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _bad_request(why: str) -> Answer:
    return Answer(status=400, body=json.dumps({"status": 400, "message": why}).encode())
