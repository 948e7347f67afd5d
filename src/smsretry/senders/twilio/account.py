"""Read what a sender needs to know of its Twilio account, and say clearly what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from smsretry.core.mask import mask_number, shown_url
from smsretry.core.message import Message
from smsretry.errors import ConfigurationError
from smsretry.senders.twilio.lookup import Sender

API: Final = "2010-04-01"
VARIABLES: Final[Mapping[str, str]] = {
    "account_sid": "TWILIO_ACCOUNT_SID",
    "auth_token": "TWILIO_AUTH_TOKEN",  # the name of a variable
    "api_key": "TWILIO_API_KEY",
    "api_secret": "TWILIO_API_SECRET",
    "from_number": "TWILIO_FROM_NUMBER",
    "messaging_service_sid": "TWILIO_MESSAGING_SERVICE_SID",
    "base_url": "TWILIO_BASE_URL",
}
"""The environment variable of each setting."""
_PREFIXES: Final[Mapping[str, str]] = {"account_sid": "AC", "api_key": "SK", "messaging_service_sid": "MG"}
"""How Twilio's SIDs begin."""
_LONGEST_SHORT_CODE: Final = 8
ARGUMENTS: Final[Mapping[str, str]] = {name: name for name in VARIABLES}
"""The argument of each setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold what was given, None for what was not; whether it is complete is not checked."""

    account_sid: str | None = None
    auth_token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    api_secret: str | None = field(default=None, repr=False)
    from_number: str | None = None
    messaging_service_sid: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        shown = {
            "account_sid": self.account_sid and mask_number(self.account_sid),
            "from_number": self.from_number and mask_number(self.from_number),
            "messaging_service_sid": self.messaging_service_sid,
            "base_url": self.base_url and shown_url(self.base_url),
        }
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value)

    def checked(self, names: Mapping[str, str]) -> Settings:
        """Return these settings; raise `ConfigurationError` for a value that no request could carry, by ``names``."""
        for name in ("account_sid", "auth_token", "api_key", "api_secret"):
            _check_credential(names[name], getattr(self, name))
        for name in ("from_number", "messaging_service_sid"):
            _check_sender(names[name], getattr(self, name))
        for name, prefix in _PREFIXES.items():
            _check_prefix(names[name], getattr(self, name), prefix)
        _check_number(names["from_number"], self.from_number)
        if self.base_url:
            check_url(names["base_url"], self.base_url)
        return self

    def completed_from(self, env: Mapping[str, str]) -> Settings:
        """Return these settings with ``env`` for what was not given; one given sender, or login, replaces the other."""
        given = {name: value for name in VARIABLES if (value := getattr(self, name))}
        found = {name: value for name in VARIABLES if (value := env.get(VARIABLES[name], "").strip())}
        for either in (("from_number", "messaging_service_sid"), ("auth_token", "api_key", "api_secret")):
            if not given.keys().isdisjoint(either):
                found = {name: value for name, value in found.items() if name not in either}
        return Settings(**(found | given))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Hold a complete, checked set of credentials and the default sender."""

    account_sid: str
    username: str = field(repr=False)
    password: str = field(repr=False)
    sender: Sender | None
    base_url: str | None

    @classmethod
    def checked(cls, settings: Settings, *, from_env: bool) -> Account:
        """Return the account; raise `ConfigurationError` that names the argument or variable which is missing."""
        names = VARIABLES if from_env else ARGUMENTS
        settings.checked(names)
        username, password = _login(settings, names)
        return cls(
            account_sid=_needed("account_sid", settings, names),
            username=username,
            password=password,
            sender=_default_sender(settings, names),
            base_url=settings.base_url.rstrip("/") if settings.base_url else None,
        )

    @property
    def messages_path(self) -> str:
        """Return the path under which the account's messages are created and listed."""
        return f"/{API}/Accounts/{self.account_sid}/Messages.json"

    def message_path(self, sid: str) -> str:
        """Return the path under which the account's message ``sid`` is fetched."""
        return f"/{API}/Accounts/{self.account_sid}/Messages/{quote(sid, safe='')}.json"

    def sender_of(self, message: Message) -> Sender:
        """Return the message's own sender, else the default; raise `ConfigurationError` where there is neither."""
        if message.sender_id is not None:
            return Sender.of(message.sender_id)
        if self.sender is None:
            raise ConfigurationError(
                "This message has no sender_id and the sender has no default. Pass from_number or "
                "messaging_service_sid to the sender, or set TWILIO_FROM_NUMBER or TWILIO_MESSAGING_SERVICE_SID "
                "for its from_env()."
            )
        return self.sender

    def expected_sender(self, message: Message) -> Sender | None:
        """Return the sender of ``message`` as far as it is known."""
        return self.sender if message.sender_id is None else Sender.of(message.sender_id)


def _login(settings: Settings, names: Mapping[str, str]) -> tuple[str, str]:
    if settings.api_key or settings.api_secret:
        return _needed("api_key", settings, names), _needed("api_secret", settings, names)
    if not settings.auth_token and settings.account_sid:
        raise ConfigurationError(
            f"{names['auth_token']} is missing. Set it, or {names['api_key']} and {names['api_secret']}, to what "
            "Twilio's console shows."
        )
    return _needed("account_sid", settings, names), settings.auth_token or ""


def _needed(name: str, settings: Settings, names: Mapping[str, str]) -> str:
    value: str | None = getattr(settings, name)
    if not value:
        raise ConfigurationError(f"{names[name]} is missing. Set it to what Twilio's console shows.")
    return value


def _default_sender(settings: Settings, names: Mapping[str, str]) -> Sender | None:
    if settings.from_number and settings.messaging_service_sid:
        raise ConfigurationError(
            f"{names['from_number']} and {names['messaging_service_sid']} are both set. Keep one: it is the default "
            "sender of every message without a sender_id."
        )
    if settings.messaging_service_sid:
        return Sender(messaging_service_sid=settings.messaging_service_sid)
    return Sender(from_=settings.from_number) if settings.from_number else None


def check_url(name: str, url: object) -> None:
    """Raise `ConfigurationError` that calls ``url`` by ``name`` where it is no http or https URL."""
    if not isinstance(url, str) or not _is_url(url):
        shown = repr(shown_url(url)) if isinstance(url, str) else type(url).__name__
        raise ConfigurationError(
            f"{name} must be a URL that begins with https:// or http://, got {shown}. Correct it, or leave it out."
        )


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.port is not False  # a port that is none raises
    except ValueError:
        return False
    return is_complete and parts.scheme in {"http", "https"} and url.isprintable() and " " not in url


def _check_credential(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise ConfigurationError(
            f"{name} must be a str of printable ASCII, which is all that a request can carry (it is not shown here). "
            "Copy it from Twilio's console."
        )


def _check_sender(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        got = type(value).__name__
        raise ConfigurationError(f"{name} must be a str, got {got}. Put it in quotes, a number with + and the country.")


def _check_prefix(name: str, value: str | None, prefix: str) -> None:
    if value and not value.startswith(prefix):
        got = f"one with {value[:2]}" if value[:2] in _PREFIXES.values() else "something else"  # which may be a token
        raise ConfigurationError(f"{name} must begin with {prefix}, got {got}. Copy it from Twilio's console.")


def _check_number(name: str, value: str | None) -> None:
    """Raise for what is neither a number in E.164 nor a short code nor, since it has no letter, a name."""
    if not value or any(one.isalpha() for one in value):
        return
    digits = value.removeprefix("+")
    is_short = digits == value and len(digits) <= _LONGEST_SHORT_CODE
    is_number = digits != value and 1 < len(digits) <= 15 and not digits.startswith("0")
    if not (digits.isascii() and digits.isdecimal() and (is_short or is_number)):
        raise ConfigurationError(
            f"{name} must be a number like +14155550101, a short code or a name, got {mask_number(value)!r} "
            f"({len(value)} characters). Write a number with + and the country, and without spaces."
        )
