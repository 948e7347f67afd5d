"""Speak the Messages API over an aiohttp session that one loop of one process holds.

Importing this needs the extra ``aio``; `smsretry.senders.twilio.async_sender` does it at the first send.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import hdrs
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict, CIMultiDictProxy
from requests import Session as Requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, prepend_scheme_if_needed, select_proxy
from twilio.base.client_base import ClientBase  # type: ignore[import-untyped]
from twilio.base.version import Version  # type: ignore[import-untyped]
from twilio.http.response import Response  # type: ignore[import-untyped]
from urllib3.util.wait import wait_for_read
from yarl import URL

from smsretry.core.mask import mask_numbers_in
from smsretry.errors import ConfigurationError
from smsretry.ports import check_before_writing_async
from smsretry.senders.twilio.account import API, Account
from smsretry.senders.twilio.create import created_in, form_of, kept_headers, masked_body, without_sid
from smsretry.senders.twilio.lookup import Asking

T = TypeVar("T")

LONGEST_IDLE_S: Final = 30.0
"""A connection idle for longer is not used again: servers close theirs after about a minute, and a create that meets
the closing end cannot know whether it arrived."""

_ROOT: Final = "https://api.twilio.com"
_FORM: Final = "application/x-www-form-urlencoded"
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
"""The deadlines are ours: see `Session` and `_Connector`."""


class Session:
    """Hold up to ``max_connections`` connections for one account in the running loop; make none before a request.

    A request is made once, no redirect is followed, and no cookie kept. The session ends with its loop, where that is
    ended as `asyncio.run` does it, or by `close`.
    """

    def __init__(
        self, account: Account, env: Mapping[str, str], *, max_connections: int, connect_s: float, idle_s: float
    ) -> None:
        self._account = account
        root = _root_of(account, env)
        self._root = str(root).rstrip("/")
        self._messages = URL(self._root + account.messages_path)
        way = _Way.to(root)
        # Given with each request: what a session has by itself it tells a proxy too.
        self._headers = CIMultiDict(
            {
                hdrs.AUTHORIZATION: _basic(account.username, account.password),
                hdrs.ACCEPT: "application/json",
                hdrs.ACCEPT_ENCODING: "gzip, deflate",
                hdrs.USER_AGENT: "smsretry",
                **({} if way.is_tunnel else way.proxy_headers),
            }
        )
        self._http = aiohttp.ClientSession(
            connector=_Connector(
                connect_s=connect_s, limit=max_connections, keepalive_timeout=idle_s, ssl=way.context or True
            ),
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=way.proxy,
            timeout=_NO_TIMEOUT,
        )
        # A GET whose connection broke would be made again.
        self._http._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._proxy_headers = way.proxy_headers if way.is_tunnel else None
        self._keeper = _kept_until_its_end(self._http)

    @property
    def is_closed(self) -> bool:
        """Say whether it can make no request any more."""
        return self._http.closed

    async def open(self) -> None:
        """See to it that the session is closed with its loop."""
        await anext(self._keeper)

    async def close(self) -> None:
        """Close all connections; a request that is on its way loses its answer."""
        await self._keeper.aclose()

    def abandon(self) -> None:
        """Let go of what cannot be closed any more, because its loop was closed before it."""
        closing = self._http.close()
        with suppress(StopIteration):  # nothing is awaited where the loop is closed
            closing.send(None)
        closing.close()

    async def create(self, fields: Mapping[str, Any], *, total_s: float) -> Mapping[str, Any]:
        """Create a message with one POST in ``total_s`` seconds, and return what Twilio says of it.

        Raises Twilio's exception for an answer that is a refusal, with the answer's ``headers``; what aiohttp raises;
        and `smsretry.errors.ProviderError` for a success that names no SID.
        """
        form = _Form(form_of(fields))
        try:
            async with asyncio.timeout(total_s):
                answer, body = await self._answer("POST", self._messages, form)
        except (TimeoutError, asyncio.CancelledError) as error:
            if form.is_leaving or isinstance(error, aiohttp.ClientError) or _is_canceled():
                raise
            # Its time was over, or `close` took the connections for which it waited.
            raise aiohttp.ConnectionTimeoutError("the call ended before it had a connection") from error
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status, body, kept_headers(answer.headers))
        created = created_in(body)
        if created is None:
            raise without_sid(answer.status, kept_headers(answer.headers))
        return created

    async def answered(self, asking: Asking[T], *, total_s: float) -> T:
        """Fetch what ``asking`` asks for, page by page, in ``total_s`` seconds, and return what it tells."""
        async with asyncio.timeout(total_s):
            try:
                path = next(asking)
                while True:
                    answer, body = await self._answer("GET", URL(self._root + path))
                    path = asking.send((answer.status, body.decode("utf-8", "replace")))
            except StopIteration as end:
                told: T = end.value
                return told

    async def _answer(self, method: str, url: URL, form: _Form | None = None) -> tuple[aiohttp.ClientResponse, bytes]:
        try:
            answer = await self._http.request(
                method,
                url,
                data=form,
                headers=self._headers,
                allow_redirects=False,
                proxy_headers=self._proxy_headers,
            )
            body = await answer.read()
        except aiohttp.ClientResponseError as error:
            unreadable = _without_secrets(error)
        else:
            return answer, body
        raise unreadable

    def _refusal(self, status: int, body: bytes, headers: dict[str, str]) -> Exception:
        uri = self._account.messages_path.removeprefix(f"/{API}")
        answer = Response(status, masked_body(body.decode("utf-8", "replace")))
        error: Exception = Version.exception("POST", uri, answer, "Unable to create record")
        error.headers = headers  # type: ignore[attr-defined]
        return error


async def _kept_until_its_end(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """Close ``session`` when this generator ends, as a loop ends all of its generators before it is closed."""
    try:
        yield
    finally:
        await session.close()


def _is_canceled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Form(BytesPayload):
    """Be the body of a create, and know whether it may have left."""

    is_leaving = False

    def __init__(self, data: bytes) -> None:
        super().__init__(data, content_type=_FORM)


class _Request(aiohttp.ClientRequest):
    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request to a connection, while the message is ours to send."""
        await check_before_writing_async()
        if isinstance(self.body, _Form):
            self.body.is_leaving = True
        return await super().send(conn)


class _Connector(aiohttp.TCPConnector):
    """Hold one deadline for connecting (name, every address, proxy, TLS), ``connect_s`` seconds."""

    def __init__(self, *, connect_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._connect_s = connect_s
        self._new: set[Any] = set()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # aiohttp's name
        """Return a connection that has not ended: a loop that stood still does not know yet which of them have."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol in self._new:
                self._new.remove(connection.protocol)  # where TLS may have something to read from the beginning
            elif _can_be_read(connection):
                connection.close()
                continue
            return connection

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # aiohttp's name
        """Connect; whatever goes wrong on the way says that no request was sent."""
        try:
            async with asyncio.timeout(self._connect_s):
                made = await super()._create_connection(req, traces, timeout)
        except (TimeoutError, aiohttp.ClientConnectorError, aiohttp.InvalidURL):
            raise
        except aiohttp.ClientHttpProxyError as error:
            refused: Exception = _without_secrets(error)
        except UnicodeError as error:
            refused = aiohttp.ClientConnectorDNSError(req.connection_key, OSError(errno.EINVAL, str(error)))
        except (aiohttp.ClientError, OSError) as error:
            why = OSError(errno.ECONNABORTED, f"connecting failed: {type(error).__name__}")
            refused = aiohttp.ClientConnectorError(req.connection_key, why)
        else:
            self._new.add(made)
            return made
        # Out here the first exception is no context of this one: of a request it would mean that it may have arrived.
        raise refused


def _can_be_read(connection: Any) -> bool:
    """Say whether an idle connection has something to read: most likely its end."""
    return wait_for_read(connection.transport.get_extra_info("socket"), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """Hold how the environment wants an address to be reached: as any program that uses requests reads it."""

    proxy: URL | None
    proxy_headers: dict[str, str]
    context: ssl.SSLContext | None
    is_tunnel: bool

    @classmethod
    def to(cls, root: URL) -> _Way:
        settings = Requests().merge_environment_settings(str(root), {}, None, None, None)
        proxy = _proxy_of(select_proxy(str(root), settings["proxies"]))
        speaks_tls = "https" in (root.scheme, proxy and proxy.scheme)
        login = _basic(proxy.user or "", proxy.password or "") if proxy is not None and proxy.user else None
        return cls(
            proxy=proxy and proxy.with_user(None),
            proxy_headers={"Proxy-Authorization": login} if login else {},
            context=_context(settings["verify"]) if speaks_tls else None,
            is_tunnel=root.scheme == "https",
        )


def _proxy_of(url: str | None) -> URL | None:
    if not url:
        return None
    proxy = URL(prepend_scheme_if_needed(url, "http"))  # type: ignore[no-untyped-call]
    if proxy.scheme not in {"http", "https"}:
        raise ConfigurationError(
            f"The proxy of the environment must be an http or https one, got {proxy.scheme}. Name another one, or send "
            "with TwilioSender."
        )
    return proxy


def _context(verify: object) -> ssl.SSLContext:
    """Trust what requests would trust: the file or folder that the environment names, else its own bundle."""
    trusted = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    context = ssl.create_default_context(
        cafile=None if os.path.isdir(trusted) else trusted,  # noqa: PTH112
        capath=trusted if os.path.isdir(trusted) else None,  # noqa: PTH112
    )
    context.set_alpn_protocols(["http/1.1"])
    return context


def _root_of(account: Account, env: Mapping[str, str]) -> URL:
    """Return where Twilio's API is: at the region and edge that the environment names, unless a base_url says it."""
    if account.base_url:
        return URL(account.base_url).with_user(None)
    unused: Any = object()  # in place of a client of its own, which would be opened
    client = ClientBase(account.username, account.password, http_client=unused, environment=dict(env))
    return URL(client.get_hostname(_ROOT))


def _basic(username: str, password: str) -> str:
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def _without_secrets(error: aiohttp.ClientResponseError) -> aiohttp.ClientResponseError:
    """Return ``error`` without the request's headers, which hold the credentials and are part of its repr."""
    asked = error.request_info
    bare = aiohttp.RequestInfo(asked.url, asked.method, CIMultiDictProxy(CIMultiDict()), asked.real_url)
    return type(error)(bare, (), status=error.status, message=mask_numbers_in(error.message), headers=error.headers)
