"""Tell exceptions of a request that never left from those after which it may have arrived.

The clients are known by the names of their classes, so that none of them is imported: requests, urllib3, aiohttp,
httpx (and httpcore), the standard library, and billiard, whose soft time limit may strike in the middle of a send.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from enum import StrEnum, unique
from functools import lru_cache
from typing import Any, Final, cast


@unique
class Departure(StrEnum):
    """Say whether a request had left when its exception was raised."""

    NOT_SENT = "not_sent"
    """It never left: no connection, no name, no proxy, no trusted certificate. A repeat is safe."""
    UNSENDABLE = "unsendable"
    """It never left and never will unchanged: a bad URL, a bad header, a local protocol error."""
    MAYBE_SENT = "maybe_sent"
    """It may have arrived."""


_NOT_SENT: Final = {
    "requests.exceptions": "ConnectTimeout ProxyError",
    "urllib3.exceptions": "NewConnectionError NameResolutionError ConnectTimeoutError ProxyError ClosedPoolError "
    "EmptyPoolError",
    # A ConnectionTimeoutError is raised while connecting only, whatever its base class says.
    "aiohttp.client_exceptions": "ClientConnectorError ClientHttpProxyError ConnectionTimeoutError",
    "httpx": "ConnectError ConnectTimeout PoolTimeout ProxyError",
    "httpcore": "ConnectError ConnectTimeout PoolTimeout ProxyError",
    "socket": "gaierror herror",
    "ssl": "SSLCertVerificationError",  # TLS checks the certificate before the first byte of a request
    "http.client": "NotConnected CannotSendRequest CannotSendHeader",
    "builtins": "ConnectionRefusedError",
}
_UNSENDABLE: Final = {
    "requests.exceptions": "MissingSchema InvalidSchema InvalidURL InvalidHeader InvalidJSONError",
    "urllib3.exceptions": "LocationValueError URLSchemeUnknown ProxySchemeUnknown HostChangedError InvalidHeader",
    "aiohttp.client_exceptions": "InvalidURL",
    "httpx": "UnsupportedProtocol LocalProtocolError InvalidURL CookieConflict",
    "httpcore": "UnsupportedProtocol LocalProtocolError",
    "http.client": "InvalidURL",
}
_MAYBE_SENT: Final = {
    "requests.exceptions": "RequestException JSONDecodeError",
    "urllib3.exceptions": "HTTPError",
    # A redirect is followed after an answer came.
    "aiohttp.client_exceptions": "ClientError RedirectClientError InvalidUrlRedirectClientError "
    "NonHttpUrlRedirectClientError",
    "httpx": "HTTPError StreamError",
    "httpcore": "ProtocolError TimeoutException NetworkError",
    "ssl": "SSLError",
    "urllib.error": "URLError",
    "http.client": "HTTPException",
    "builtins": "ConnectionError TimeoutError",
    "billiard.exceptions": "SoftTimeLimitExceeded TimeLimitExceeded",
}
_INSIDE: Final = {
    "requests.exceptions.ConnectionError": "args",
    "requests.exceptions.SSLError": "args",
    "urllib3.exceptions.SSLError": "args",
    "urllib3.exceptions.MaxRetryError": "reason",
    "urllib.error.URLError": "reason",
}
"""Wrappers, and where each keeps the exception that says more."""

_BY_NAME: Final = {
    f"{module}.{name}": departure
    for departure, groups in (
        (Departure.NOT_SENT, _NOT_SENT),
        (Departure.UNSENDABLE, _UNSENDABLE),
        (Departure.MAYBE_SENT, _MAYBE_SENT),
    )
    for module, names in groups.items()
    for name in names.split()
}
_CLIENTS: Final = ("requests.", "aiohttp.", "httpx.")
"""What these raise is a whole request's end; the other names also stand for steps of one."""
_FARTHEST: Final = 1_000
"""Exceptions looked at along one chain, at most."""


def departure_of(error: BaseException) -> Departure | None:
    """Say whether the request that raised ``error`` had left; None for an exception that nobody listed. Never raises.

    What an exception was raised from does not excuse it: one that nobody listed stays unlisted whatever its cause is,
    and one of a request that never left still counts as maybe sent where an earlier request, whose exception was being
    handled, may have arrived.
    """
    departure = _own_departure(error)
    if departure in (None, Departure.MAYBE_SENT):
        return departure
    return Departure.MAYBE_SENT if any(_may_have_arrived(earlier) for earlier in _before(error)) else departure


def attribute(thing: object, name: str) -> Any:
    """Return an attribute of a foreign object, None where it has none or raises."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  # a foreign property may raise anything, and judging an error must not
        return None


def names_of(error: BaseException) -> tuple[str, ...]:
    """Return the full names of the class of ``error`` and of its bases, nearest first."""
    return _names(cast("Hashable", type(error)))


def innermost(error: BaseException) -> BaseException:
    """Return the exception inside the wrappers of requests, urllib3 and urllib: the one that says what happened."""
    for _ in range(_FARTHEST):
        inner = _inside(error)
        if inner is None:
            break
        error = inner
    return error


def _own_departure(error: BaseException) -> Departure | None:
    return _listed(names_of(innermost(error)))[0]


def _inside(error: BaseException) -> BaseException | None:
    place = _listed(names_of(error))[1]
    return _exception_in(attribute(error, place)) if place else None


@lru_cache(maxsize=512)
def _names(kind: type) -> tuple[str, ...]:
    return tuple(f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__)


def _listed(names: tuple[str, ...]) -> tuple[Departure | None, str]:
    """Say what the nearest listed name of a class means, and where a wrapper keeps what it wraps."""
    for name in names:
        if name in _INSIDE:
            return Departure.MAYBE_SENT, _INSIDE[name]
        if name in _BY_NAME:
            return _BY_NAME[name], ""
    return None, ""


def _exception_in(value: object) -> BaseException | None:
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, BaseException) else None


def _before(error: BaseException) -> Iterator[BaseException]:
    """Yield what ``error`` was raised from or while handling, once each."""
    seen: set[int] = {id(error)}
    ahead = _origins(error)
    while ahead and len(seen) < _FARTHEST:
        each = ahead.pop()
        if id(each) not in seen:
            seen.add(id(each))
            ahead += _origins(each)
            yield each


def _origins(error: BaseException) -> list[BaseException]:
    origins = (attribute(error, "__cause__"), attribute(error, "__context__"))
    return [each for each in origins if isinstance(each, BaseException)]


def _may_have_arrived(error: BaseException) -> bool:
    is_whole = any(name.startswith(_CLIENTS) for name in names_of(error))
    return is_whole and _own_departure(error) is Departure.MAYBE_SENT
