"""Let Twilio's own client make one request under one deadline, over connections that a process shares.

Importing this needs the extra ``twilio``; `smsretry.senders.twilio.sender` does it at the first send.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from requests import PreparedRequest, Request, Session
from requests import Response as Answer
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectTimeout
from twilio.base.exceptions import TwilioException  # type: ignore[import-untyped]
from twilio.http import HttpClient  # type: ignore[import-untyped]
from twilio.http.response import Response  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]
from twilio.rest.api.v2010.account.message import MessageList  # type: ignore[import-untyped]
from urllib3 import Timeout

from smsretry.core.mask import mask_numbers_in
from smsretry.senders.twilio.create import created_in, kept_headers, masked_body, without_sid
from smsretry.senders.twilio.deadline import POOLS

__all__ = ["Client", "MessageList", "OneCall", "Pool", "TwilioException"]
# MessageList is here to be loaded: the client would load it in the first call, for most of a second of its time.

_log: Final = logging.getLogger("smsretry.twilio")


class OneCall(HttpClient):  # type: ignore[misc]
    """Be the HTTP client of one call of Twilio's client: ``total_s`` seconds for all its requests together.

    ``headers`` holds what Twilio's exceptions lose of the last answer: Retry-After, Date and Twilio-Request-Id. Nothing
    is logged, no redirect followed, and no request repeated.
    """

    def __init__(self, pool: Pool, *, total_s: float, connect_s: float) -> None:
        super().__init__(_log, is_async=False)
        self.headers: dict[str, str] = {}
        self._pool = pool
        self._connect_s = connect_s
        self._ends_s = monotonic() + total_s

    def request(  # noqa: PLR0917  # Twilio's signature
        self,
        method: str,
        uri: str,
        params: Mapping[str, object] | None = None,
        data: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002  # the deadline of the call holds
        allow_redirects: bool = False,  # noqa: ARG002, FBT001, FBT002  # none is followed
    ) -> Response:
        """Make one request; raise `smsretry.errors.ProviderError` where a create succeeded without naming a SID.

        Any other answer goes back to Twilio's client, the phone numbers of an error masked; network exceptions come
        through as requests raises them.
        """
        left_s = self._ends_s - monotonic()
        if left_s <= 0:
            raise ConnectTimeout("the time for this call was over before the request began")
        request = Request(method, uri, params=params, data=data, headers=headers, auth=auth)
        answer = self._pool.send(request, Timeout(connect=min(self._connect_s, left_s), total=left_s))
        self.headers = kept_headers(answer.headers)
        status, text = answer.status_code, answer.text
        if not 200 <= status < 300:
            return Response(status, masked_body(text), self.headers)
        if method == "POST" and created_in(text) is None:
            raise without_sid(status, self.headers)
        return Response(status, text, self.headers)


class Pool:
    """Keep up to ``max_connections`` connections for the calls of one process; make none before the first request."""

    def __init__(self, max_connections: int) -> None:
        self._session = Session()
        self._adapter = _Adapter(pool_maxsize=max_connections, max_retries=0)
        for name in ("urllib3.connectionpool", "urllib3.connection"):
            logging.getLogger(name).addFilter(_QUIET)  # once: a second time does nothing

    def send(self, request: Request, timeout: Timeout) -> Answer:
        """Send ``request`` once and read the whole answer, its redirect if it is one."""
        prepared: PreparedRequest = self._session.prepare_request(request)
        # Proxies and certificates as the environment has them, like any program that uses requests.
        settings: dict[str, Any] = {
            **self._session.merge_environment_settings(prepared.url or "", {}, None, None, None),
            "timeout": timeout,
            "stream": True,
        }
        answer = self._adapter.send(prepared, **settings)
        _ = answer.content  # read it here, under the deadline
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()


class _Adapter(HTTPAdapter):
    """Use connections with deadlines, directly and through HTTP proxies."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those connect in a way of their own
            manager.pool_classes_by_scheme = POOLS
        return manager


class _QuietNumbers(logging.Filter):
    """Mask phone numbers in what urllib3 logs of a URL of Twilio's: a list names the recipient in its query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_without_number(each) for each in record.args)
        return True


def _without_number(value: object) -> object:
    is_ours = isinstance(value, str) and "/Accounts/" in value and "/Messages" in value
    return mask_numbers_in(value) if is_ours and isinstance(value, str) else value


_QUIET: Final = _QuietNumbers()
