"""What a plain and an async sender share: how they are set up, and the time that a call has."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import ClassVar, Final, Generic, Self, TypedDict, TypeVar, Unpack

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message
from smsretry.errors import ConfigurationError, ProviderError
from smsretry.ports import Clock
from smsretry.senders.twilio.account import ARGUMENTS, Account, Settings, check_url
from smsretry.senders.twilio.classify import twilio_classifier
from smsretry.senders.twilio.lookup import Listing, OwnSids, look_up
from smsretry.senders.twilio_codes import PROVIDER

LONGEST_TIMEOUT_S: Final = 86_400.0
"""A day: sockets take 24 days at most."""

ProcessT = TypeVar("ProcessT")


class TwilioOptions(TypedDict, total=False):
    """Name what a sender takes beside the account's SID and token."""

    api_key: str | None
    api_secret: str | None
    from_number: str | None
    messaging_service_sid: str | None
    timeout_s: float
    connect_timeout_s: float
    max_connections: int | None
    base_url: str | None
    status_callback_url: str | None
    clock: Clock


class ConfiguredSender(Generic[ProcessT]):
    """Hold the settings of a sender, and what each process has opened with them."""

    _usual_connections: ClassVar[int]

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
        max_connections: int | None = None,
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
        self._max_connections = (
            self._usual_connections if max_connections is None else _at_least_one("max_connections", max_connections)
        )
        if status_callback_url is not None:
            check_url("status_callback_url", status_callback_url)
        self._status_callback_url = status_callback_url
        self._clock = clock or _utc_now
        self.classify = twilio_classifier(clock=self._clock)
        self._processes: dict[int, ProcessT] = {}

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
        name = type(self).__name__
        return f"{name}({self._settings!r})" if self._env is None else f"{name}.from_env({self._settings!r})"

    @property
    def timeout_s(self) -> float:
        """Return how long a whole call may take, in seconds."""
        return self._timeout_s

    @property
    def account_key(self) -> str:
        """Return what names the account: its SID, as far as it is known without raising."""
        env = {} if self._env is None else self._env
        return f"twilio:{self._settings.account_sid or env.get('TWILIO_ACCOUNT_SID', '')}"

    @property
    def rate_key(self) -> str | None:
        """Return by what a rate limiter counts a message without a ``sender_id``: the default sender, where known."""
        known = self._settings if self._env is None else self._settings.completed_from(self._env)
        return known.messaging_service_sid or known.from_number

    def _left_s(self, message: Message) -> float:
        """Return the seconds before ``send_before``; raise `ProviderError` where that is less than one."""
        if message.send_before is None:
            return math.inf
        left_s = (message.send_before - self._clock()).total_seconds()
        if left_s < 1:
            detail = "less than a second is left before send_before"
            raise ProviderError(Failure.of(FailureKind.EXPIRED, detail=detail, provider=PROVIDER))
        return left_s

    def _listing(
        self, message: Message, account: Account, own_sids: OwnSids, since: datetime, exclude: Collection[str]
    ) -> Listing:
        return look_up(
            message,
            messages_path=account.messages_path,
            sender=account.expected_sender(message),
            own_sids=own_sids,
            since=since.astimezone(UTC),
            exclude=frozenset(exclude),
            as_of=self._clock(),
        )

    def _process(self) -> ProcessT:
        """Return what this process holds; a fork gets its own, since connections must not cross one."""
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            process = self._processes.setdefault(pid, self._opened())  # the first of several threads wins
            for other in set(self._processes) - {pid}:
                self._processes.pop(other, None)
        return process

    def _opened(self) -> ProcessT:
        """Return what this process will hold; it opens no connection yet."""
        raise NotImplementedError

    def _account(self) -> Account:
        """Return the account; raise `ConfigurationError` that names what is missing."""
        settings = self._settings if self._env is None else self._settings.completed_from(self._env)
        return Account.checked(settings, from_env=self._env is not None)


def _positive(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= LONGEST_TIMEOUT_S:
        raise ConfigurationError(
            f"{name} must be more than 0 and {LONGEST_TIMEOUT_S:.0f} at most, got {value!r}. Give it in seconds."
        )
    return float(value)


def _at_least_one(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(
            f"{name} must be a whole number of 1 or more, got {value!r}. Use the number of texts that are on their way "
            "at once."
        )
    return value


def _utc_now() -> datetime:
    return datetime.now(UTC)
