"""Send texts through Twilio: one send is one POST under one deadline, and what became of it can be asked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar, Final, TypeVar

from smsretry.core.delivery import DeliveryReport
from smsretry.core.message import Message, Receipt
from smsretry.errors import ConfigurationError
from smsretry.ports import CannotTell, LookUp
from smsretry.senders.twilio.account import Account
from smsretry.senders.twilio.configured import ConfiguredSender
from smsretry.senders.twilio.create import create_fields, receipt_of
from smsretry.senders.twilio.lookup import Asking, OwnSids
from smsretry.senders.twilio_reports import fetching

T = TypeVar("T")

_ARGUMENTS: Final[Mapping[str, str]] = {
    "To": "to",
    "From": "from_",
    "MessagingServiceSid": "messaging_service_sid",
    "Body": "body",
    "MediaUrl": "media_url",
    "ValidityPeriod": "validity_period",
    "StatusCallback": "status_callback",
}
"""What Twilio's client calls each field of a create."""


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

    def answered(self, asking: Asking[T], total_s: float, connect_s: float) -> T:
        """Fetch what ``asking`` asks for, page by page, and return what it tells."""
        client = self.client(self.call(total_s, connect_s))
        root = client.api.base_url.rstrip("/")
        try:
            path = next(asking)
            while True:
                page = client.request("GET", root + path)
                path = asking.send((page.status_code, page.text))
        except StopIteration as end:
            answer: T = end.value
            return answer


class TwilioSender(ConfiguredSender[_Process]):
    """Hand texts to Twilio with its official client, and ask Twilio what became of one.

    Log in with ``account_sid`` and ``auth_token``, or with ``api_key`` and ``api_secret`` in place of the token.
    ``from_number`` or ``messaging_service_sid`` is the sender of every message without a ``sender_id``. ``timeout_s``
    bounds a whole call, however slowly the other side answers, and ``connect_timeout_s`` the connecting in it; both
    are cut to the time left before a message's ``send_before``. Set ``max_connections`` (10) to the number of threads
    that send at once. ``base_url`` leads to a simulator instead of Twilio. ``status_callback_url`` is where Twilio
    reports delivery; the message's id is added to its query as ``smsretry_id``, and with a journal what names the send,
    as ``smsretry_mark``. ``clock`` tells the time.

    Constructing it opens nothing and imports no client, so one may stand at module level; every process makes its own
    connections at its first send. What is missing is told then, as a `ConfigurationError`; what cannot be, at once.

    Needs the extra ``twilio``.
    """

    _usual_connections: ClassVar[int] = 10

    def send(self, message: Message) -> Receipt:
        """Create one message at Twilio with one POST, and return Twilio's word that it took it.

        ``accepted_at`` is our own clock's time. Raises what went wrong for `classify` to judge: an exception of
        Twilio's client with the answer's ``headers``, one of requests, or `smsretry.errors.ProviderError` where the
        time is up (less than a second left, nothing sent) or a success names no SID.
        """
        process = self._process()
        left_s = self._left_s(message)
        fields = create_fields(message, process.account, left_s, self._status_callback_url)
        call = process.call(min(self._timeout_s, left_s), self._connect_timeout_s)
        try:
            created = process.client(call).messages.create(**{_ARGUMENTS[name]: fields[name] for name in fields})
        except process.http.TwilioException as error:
            error.headers = call.headers  # which Twilio's exceptions lose
            raise
        process.own_sids.claim(created.sid, message.id)
        return receipt_of(created.sid, created.num_segments, created.status, self._clock())

    def find(self, message: Message, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Ask Twilio whether it took ``message`` at or after ``since``; never raises.

        All messages to that number are listed and compared here: recipient, text, media, sender and time. SIDs in
        ``exclude``, and those that this process holds for other messages, are passed over. Two candidates, an
        unmatched text to that number in the window, a listing that is refused, fails or does not end: `CannotTell`.

        Without a journal one gap stays: where another process sent an equal text to the same number from the same
        sender in the window, its message is taken for this one.
        """
        try:
            process = self._process()
            listing = self._listing(message, process.account, process.own_sids, since, exclude)
            return process.answered(listing, self._timeout_s, self._connect_timeout_s)
        except Exception as error:  # noqa: BLE001  # a look-up that fails settles nothing
            return CannotTell(self.classify(error).detail)

    def fetch(self, provider_id: str) -> DeliveryReport:
        """Ask Twilio where the text with the SID ``provider_id`` is on its way.

        Raises `smsretry.errors.ProviderError` where Twilio does not say, and what its client, or requests, raises.
        """
        process = self._process()
        asking = fetching(process.account.message_path(provider_id), self._clock())
        return process.answered(asking, self._timeout_s, self._connect_timeout_s)

    def close(self) -> None:
        """Close the idle connections of this process; the next send opens new ones."""
        if (process := self._processes.pop(os.getpid(), None)) is not None:
            process.pool.close()

    def _opened(self) -> _Process:
        account = self._account()
        http = _http_module()
        return _Process(account=account, http=http, pool=http.Pool(self._max_connections), env=self._env)


def _http_module() -> ModuleType:
    """Import Twilio's client, which costs a tenth of a second, at the first use."""
    try:
        from smsretry.senders.twilio import http
    except ImportError as error:
        raise ConfigurationError(
            f"TwilioSender needs the twilio package ({error.name} is missing). Run: pip install 'smsretry[twilio]'"
        ) from error
    return http
