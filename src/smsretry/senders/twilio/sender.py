"""Send texts through Twilio: one send is one POST under one deadline, and what became of it can be asked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final, Self, TypedDict, Unpack
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.errors import ConfigurationError, ProviderError
from smsretry.ports import CannotTell, Clock, Found, LookUp
from smsretry.senders.twilio.account import ARGUMENTS, Account, Settings, check_url
from smsretry.senders.twilio.classify import twilio_classifier
from smsretry.senders.twilio.lookup import ListedMessage, OwnSids, count, verdict
from smsretry.senders.twilio_codes import PROVIDER

CALLBACK_PARAMETER: Final = "smsretry_id"
"""The query parameter under which a status callback URL carries our message's id."""
LONGEST_VALIDITY_S: Final = 36_000
LONGEST_TIMEOUT_S: Final = 86_400.0
"""A day: sockets take 24 days at most."""
PAGE_SIZE: Final = 1_000
MOST_PAGES: Final = 20

_API: Final = "2010-04-01"


class TwilioOptions(TypedDict, total=False):
    """Name what `TwilioSender` takes beside the account's SID and token."""

    api_key: str | None
    api_secret: str | None
    from_number: str | None
    messaging_service_sid: str | None
    timeout_s: float
    connect_timeout_s: float
    max_connections: int
    base_url: str | None
    status_callback_url: str | None
    clock: Clock


class TwilioSender:
    """Hand texts to Twilio with its official client, and ask Twilio what became of one.

    Log in with ``account_sid`` and ``auth_token``, or with ``api_key`` and ``api_secret`` in place of the token.
    ``from_number`` or ``messaging_service_sid`` is the sender of every message without a ``sender_id``. ``timeout_s``
    bounds a whole call, however slowly the other side answers, and ``connect_timeout_s`` the connecting in it; both
    are cut to the time left before a message's ``send_before``. Set ``max_connections`` to the number of threads that
    send at once. ``base_url`` leads to a simulator instead of Twilio. ``status_callback_url`` is where Twilio reports
    delivery; the message's id is added to its query as ``smsretry_id``. ``clock`` tells the time.

    Constructing it opens nothing and imports no client, so one may stand at module level; every process makes its own
    connections at its first send. What is missing is told then, as a `ConfigurationError`; what cannot be, at once.

    Needs the extra ``twilio``.
    """

    def __init__(
        self,
        account_sid: str | None,
        auth_token: str | None = None,
        *,
        api_key: str | None = None,
        api_secret: str | None = None,
        from_number: str | None = None,
        messaging_service_sid: str | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 3.0,
        max_connections: int = 10,
        base_url: str | None = None,
        status_callback_url: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = Settings(
            account_sid=account_sid,
            auth_token=auth_token,
            api_key=api_key,
            api_secret=api_secret,
            from_number=from_number,
            messaging_service_sid=messaging_service_sid,
            base_url=base_url,
        ).checked(ARGUMENTS)
        self._env: Mapping[str, str] | None = None
        self._timeout_s = _positive("timeout_s", timeout_s)
        self._connect_timeout_s = _positive("connect_timeout_s", connect_timeout_s)
        self._max_connections = _at_least_one("max_connections", max_connections)
        if status_callback_url is not None:
            check_url("status_callback_url", status_callback_url)
        self._status_callback_url = status_callback_url
        self._clock = clock or _utc_now
        self.classify = twilio_classifier(clock=self._clock)
        self._processes: dict[int, _Process] = {}

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] = os.environ,
        *,
        account_sid: str | None = None,
        auth_token: str | None = None,
        **options: Unpack[TwilioOptions],
    ) -> Self:
        """Return a sender that reads ``TWILIO_ACCOUNT_SID``, ``TWILIO_AUTH_TOKEN`` and their like from ``env``.

        It reads them at the first use, so that a process that only enqueues needs none of them. They are
        ``TWILIO_ACCOUNT_SID``; ``TWILIO_AUTH_TOKEN``, or ``TWILIO_API_KEY`` and ``TWILIO_API_SECRET``;
        ``TWILIO_FROM_NUMBER`` or ``TWILIO_MESSAGING_SERVICE_SID``; and ``TWILIO_BASE_URL`` for a simulator.
        What is given here goes before the environment.
        """
        sender = cls(account_sid, auth_token, **options)
        sender._env = env
        return sender

    def __repr__(self) -> str:
        return (
            f"TwilioSender.from_env({self._settings!r})"
            if self._env is not None
            else f"TwilioSender({self._settings!r})"
        )

    @property
    def timeout_s(self) -> float:
        """Return how long a whole call may take, in seconds."""
        return self._timeout_s

    @property
    def account_key(self) -> str:
        """Return what names the account: its SID, as far as it is known without raising."""
        env = {} if self._env is None else self._env
        return f"twilio:{self._settings.account_sid or env.get('TWILIO_ACCOUNT_SID', '')}"

    def send(self, message: Message) -> Receipt:
        """Create one message at Twilio with one POST, and return Twilio's word that it took it.

        ``accepted_at`` is our own clock's time. Raises what went wrong for `classify` to judge: an exception of
        Twilio's client with the answer's ``headers``, one of requests, or `ProviderError` where the time is up
        (less than a second left, nothing sent) or a success names no SID.
        """
        process = self._process()
        left_s = self._left_s(message)
        fields = _create_fields(message, process.account, left_s, self._status_callback_url)
        call = process.call(min(self._timeout_s, left_s), self._connect_timeout_s)
        try:
            created = process.client(call).messages.create(**fields)
        except process.http.TwilioException as error:
            error.headers = call.headers  # which Twilio's exceptions lose
            raise
        process.own_sids.claim(created.sid, message.id)
        return Receipt(PROVIDER, created.sid, self._clock(), count(created.num_segments) or None, created.status or "")

    def find(self, message: Message, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Ask Twilio whether it took ``message`` at or after ``since``; never raises.

        All messages to that number are listed and compared here: recipient, text, media, sender and time. SIDs in
        ``exclude``, and those that this process holds for other messages, are passed over. Two candidates, an
        unmatched text to that number in the window, a listing that is refused, fails or does not end: `CannotTell`.

        Without a journal one gap stays: where another process sent an equal text to the same number from the same
        sender in the window, its message is taken for this one.
        """
        try:
            return self._find(message, since.astimezone(UTC), frozenset(exclude))
        except Exception as error:  # noqa: BLE001  # a look-up that fails settles nothing
            return CannotTell(self.classify(error).detail)

    def close(self) -> None:
        """Close the idle connections of this process; the next send opens new ones."""
        if (process := self._processes.pop(os.getpid(), None)) is not None:
            process.pool.close()

    def _find(self, message: Message, since: datetime, exclude: frozenset[str]) -> LookUp:
        as_of = self._clock()
        process = self._process()
        sids = process.own_sids
        candidates = [
            row
            for row in process.listed(message.to, self._timeout_s, self._connect_timeout_s)
            if row.could_be(message, since=since)
            and row.sid not in exclude
            and not sids.is_anothers(row.sid, message.id)
        ]
        found = verdict(candidates, message, process.account.expected_sender(message), as_of)
        if isinstance(found, Found) and not sids.claim(found.receipt.provider_id, message.id):
            return CannotTell("another message may hold the only candidate")
        return found

    def _left_s(self, message: Message) -> float:
        """Return the seconds before ``send_before``; raise `ProviderError` where that is less than one."""
        if message.send_before is None:
            return math.inf
        left_s = (message.send_before - self._clock()).total_seconds()
        if left_s < 1:
            detail = "less than a second is left before send_before"
            raise ProviderError(Failure.of(FailureKind.EXPIRED, detail=detail, provider=PROVIDER))
        return left_s

    def _process(self) -> _Process:
        """Return what this process holds; a fork gets its own, since connections must not cross one."""
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            process = self._processes.setdefault(pid, self._opened())  # the first of several threads wins
            for other in set(self._processes) - {pid}:
                self._processes.pop(other, None)
        return process

    def _opened(self) -> _Process:
        from_env = self._env is not None
        settings = self._settings.completed_from(self._env) if self._env is not None else self._settings
        account = Account.checked(settings, from_env=from_env)
        http = _http_module()
        return _Process(account=account, http=http, pool=http.Pool(self._max_connections), env=self._env)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """Hold what one process has opened: shared by its threads, never by a fork."""

    account: Account
    http: Any
    pool: Any
    env: Mapping[str, str] | None = field(repr=False)
    own_sids: OwnSids = field(default_factory=OwnSids)

    def call(self, total_s: float, connect_s: float) -> Any:
        """Return the HTTP client of one call."""
        return self.http.OneCall(self.pool, total_s=total_s, connect_s=connect_s)

    def client(self, call: Any) -> Any:
        """Return a client of Twilio's for one call: it is not made to be shared by threads, and costs microseconds."""
        account = self.account
        # Region and edge would mangle the host of a base_url.
        environment = {"TWILIO_ACCOUNT_SID": account.account_sid} if account.base_url else self.env
        client = self.http.Client(
            account.username, account.password, account.account_sid, http_client=call, environment=environment
        )
        if account.base_url:
            client.api.base_url = account.base_url
        return client

    def listed(self, to: str, total_s: float, connect_s: float) -> Iterator[ListedMessage]:
        """Yield all messages to ``to``, page by page; raise where the listing is refused or does not end."""
        client = self.client(self.call(total_s, connect_s))
        root = client.api.base_url.rstrip("/")
        uri = (
            f"/{_API}/Accounts/{self.account.account_sid}/Messages.json?{urlencode({'To': to, 'PageSize': PAGE_SIZE})}"
        )
        for _ in range(MOST_PAGES):
            page = _page(client.request("GET", root + uri))
            yield from map(ListedMessage.from_json, page["messages"])
            if not page["next_page_uri"]:
                return
            uri = page["next_page_uri"]
        raise _unsettled(f"the list of messages to this number has more than {MOST_PAGES} pages")


def _create_fields(message: Message, account: Account, left_s: float, callback_url: str | None) -> dict[str, Any]:
    sender = account.sender_of(message)
    fields: dict[str, Any] = {
        "to": message.to,
        "body": message.body or None,
        "from_": sender.from_,
        "messaging_service_sid": sender.messaging_service_sid,
        "media_url": list(message.media_urls) or None,
        "validity_period": None if left_s == math.inf else min(int(left_s), LONGEST_VALIDITY_S),
        "status_callback": callback_url and _with_id(callback_url, message.id),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _with_id(url: str, message_id: str | None) -> str:
    if message_id is None:
        return url
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), (CALLBACK_PARAMETER, message_id)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _page(answer: Any) -> dict[str, Any]:
    """Return a page of a list; raise `ProviderError` for anything else."""
    if answer.status_code != 200:
        raise _unsettled(f"Twilio answered the look-up with HTTP {answer.status_code}")
    page: Any = json.loads(answer.text)
    following = page.get("next_page_uri", "") if isinstance(page, dict) else ""
    is_page = isinstance(page, dict) and isinstance(page.get("messages"), list) and "next_page_uri" in page
    if not is_page or not (following is None or (isinstance(following, str) and following.startswith("/"))):
        raise _unsettled("Twilio's answer to the look-up is no list of messages")
    return dict(page)


def _unsettled(why: str) -> ProviderError:
    return ProviderError(Failure.of(FailureKind.OTHER, detail=why, provider=PROVIDER))


def _http_module() -> ModuleType:
    """Import Twilio's client, which costs a tenth of a second, at the first use."""
    try:
        from smsretry.senders.twilio import http
    except ImportError as error:
        raise ConfigurationError(
            f"TwilioSender needs the twilio package ({error.name} is missing). Run: pip install 'smsretry[twilio]'"
        ) from error
    return http


def _positive(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= LONGEST_TIMEOUT_S:
        raise ConfigurationError(
            f"{name} must be more than 0 and {LONGEST_TIMEOUT_S:.0f} at most, got {value!r}. Give it in seconds."
        )
    return float(value)


def _at_least_one(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(
            f"{name} must be a whole number of 1 or more, got {value!r}. Use the number of threads that send."
        )
    return value


def _utc_now() -> datetime:
    return datetime.now(UTC)
