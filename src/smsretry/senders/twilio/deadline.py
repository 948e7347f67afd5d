"""Connections of urllib3 that hold one deadline for connecting and one for the whole answer.

A socket knows a timeout for each read only, and a server that sends a byte a second never meets it.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from smsretry.ports import check_before_writing

LONGEST_IDLE_S: Final = 30.0
"""A connection idle for longer is not used again: servers close theirs after about a minute, and a create that meets
the closing end cannot know whether it arrived."""

_LEAST_TRY_S: Final = 1.0
"""What one of several addresses gets at least, as far as the time for connecting goes."""
_LEAST_SEND_S: Final = 0.25
"""What is left for handing a few kilobytes to the kernel, however long connecting took."""


class _TimedConnection(HTTPConnection):
    """Hold one deadline for connecting (name, every address, proxy, TLS) and one for status, headers and body.

    urllib3 sets ``timeout`` to the time for connecting first and to what is left of the total then.
    """

    _connect_by_s = 0.0
    _last_used_s = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether an idle connection may be used again: it is open, and not idle for too long."""
        return monotonic() - self._last_used_s < LONGEST_IDLE_S and super().is_connected

    def connect(self) -> None:
        """Connect; whatever goes wrong on the way says that no request was sent, as a certificate's fault does."""
        self._connect_by_s = monotonic() + cast("float", self.timeout)
        self.response_class = _timed(self._connect_by_s)  # a proxy answers before the server does
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            raise
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "connecting took too long") from error
        except (OSError, http.client.HTTPException) as error:
            raise NewConnectionError(self, f"connecting failed: {type(error).__name__}") from error
        self.sock.settimeout(max(self._connect_by_s - monotonic(), _LEAST_SEND_S))

    def send(self, data: Any) -> None:
        """Hand bytes of the request to the kernel, connected, and while the message is ours to send."""
        if self.sock is None:
            self.connect()
        check_before_writing()
        super().send(data)

    def getresponse(self) -> Any:
        """Read status and headers, and let the body be read, by one deadline."""
        self._last_used_s = monotonic()
        self.response_class = _timed(self._last_used_s + cast("float", self.timeout))
        return super().getresponse()

    def _new_conn(self) -> socket.socket:
        try:
            addresses = _addresses(self._dns_host, self.port, by_s=self._connect_by_s)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        return _connected(addresses, by_s=self._connect_by_s, options=self.socket_options or ())


class _TimedTLSConnection(_TimedConnection, HTTPSConnection):
    """Do the same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _TimedConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls: Any = _TimedTLSConnection


POOLS: Final[Mapping[str, Any]] = {"http": _Pool, "https": _TLSPool}
"""What a urllib3 PoolManager takes as ``pool_classes_by_scheme``."""


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, deadline_s: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw: Any = self.fp.detach()
        self.fp = io.BufferedReader(_TimedReader(raw, sock, deadline_s))


class _TimedReader(io.RawIOBase):
    """Read from ``raw``, the stream of ``sock``, until ``deadline_s`` of the monotonic clock."""

    def __init__(self, raw: Any, sock: socket.socket, deadline_s: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline_s = deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline_s - monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left_s)
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


def _timed(deadline_s: float) -> Any:
    return partial(_TimedResponse, deadline_s=deadline_s)


_Address = tuple[Any, Any, int, str, Any]


def _addresses(host: str, port: int, *, by_s: float) -> list[_Address]:
    """Resolve a name until ``by_s``, in a thread, since the system's own call knows no deadline."""
    resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    if _is_address(host):
        return resolve()
    answers: queue.SimpleQueue[list[_Address] | OSError] = queue.SimpleQueue()
    threading.Thread(target=_resolve_into, args=(answers, resolve), name="smsretry-dns", daemon=True).start()
    try:
        answer = answers.get(timeout=max(by_s - monotonic(), 0))
    except queue.Empty:
        raise TimeoutError("resolving the name took too long") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return False
    return True


def _resolve_into(answers: queue.SimpleQueue[list[_Address] | OSError], resolve: Callable[[], list[_Address]]) -> None:
    try:
        answers.put(resolve())
    except (OSError, UnicodeError) as error:
        answers.put(error if isinstance(error, OSError) else socket.gaierror(str(type(error).__name__)))


def _connected(addresses: list[_Address], *, by_s: float, options: Any) -> socket.socket:
    """Return a socket connected to the first address that answers, all of them tried before ``by_s``."""
    last_error: OSError | None = None
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        left_s = by_s - monotonic()
        if left_s <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(min(left_s, max(left_s / (len(addresses) - tried), _LEAST_TRY_S)))
            sock.connect(address)
            sock.settimeout(max(by_s - monotonic(), _LEAST_SEND_S))
        except OSError as error:
            sock.close()
            last_error = error
        else:
            return sock
    raise last_error or TimeoutError("connecting took too long")
