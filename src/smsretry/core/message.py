"""The text to send, and the provider's word that it took it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeGuard

from smsretry.core.mask import mask_number, mask_text, shown
from smsretry.errors import InvalidMessage

MESSAGE_VERSION: Final = 1
LONGEST_ID: Final = 255
"""Characters that an id or a campaign's name may have: what an indexed column of every database takes."""

_E164: Final = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)
_SENDER_ID: Final = re.compile(
    r"\+[1-9]\d{1,14}"  # E.164
    r"|\d{3,8}"  # short code
    r"|MG[0-9a-fA-F]{32}"  # messaging service SID
    r"|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}",  # alphanumeric sender ID
    re.ASCII,
)
_URL: Final = re.compile(r"https?://[^\s\x00-\x1f\x7f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one text for one recipient.

    ``to`` is E.164 (``+15005550006``). ``sender_id`` is a number in E.164, a short code, an alphanumeric sender ID (11
    characters at most) or a messaging service SID; without it the sender's own default is used. ``send_before`` is the
    one deadline, an aware datetime: no attempt begins after it. ``metadata`` is a JSON object that travels with the
    message into every event; keep numbers and names out of it.

    ``id`` is the dedupe key: the same message must have the same id whenever it is submitted again, so build it from
    what identifies it in the application (``f"{campaign}:{customer_id}"``), never from its number: ids are in logs,
    events and tables. Where it is left out, the adapter fills in
    one that a re-run shares, such as the queue's task id.

    Raises `InvalidMessage` (a `ValueError`) that names the field.
    """

    to: str
    body: str
    _: KW_ONLY
    id: str | None = None
    campaign: str | None = None
    sender_id: str | None = None
    media_urls: tuple[str, ...] = ()
    send_before: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_to(self.to)
        _check_body(self.body, self.media_urls)
        _check_name("id", self.id)
        _check_name("campaign", self.campaign)
        _check_sender_id(self.sender_id)
        object.__setattr__(self, "media_urls", _checked_media_urls(self.media_urls))
        object.__setattr__(self, "send_before", _checked_deadline(self.send_before))
        object.__setattr__(self, "metadata", _checked_metadata(self.metadata))

    def __repr__(self) -> str:
        parts = [f"id={self.id!r}", f"to={mask_number(self.to)!r}", f"body={mask_text(self.body)}"]
        parts += [f"campaign={self.campaign!r}"] if self.campaign is not None else []
        parts += [f"send_before={self.send_before.isoformat()}"] if self.send_before is not None else []
        return f"Message({', '.join(parts)})"

    def with_id(self, message_id: str) -> Message:
        """Return this message with ``message_id`` where it has no id of its own."""
        return self if self.id is not None else replace(self, id=message_id)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with the version ``v``, times in ISO 8601; what has no value is left out."""
        data: dict[str, Any] = {"v": MESSAGE_VERSION, "to": self.to, "body": self.body}
        for name in ("id", "campaign", "sender_id"):
            if (value := getattr(self, name)) is not None:
                data[name] = value
        if self.media_urls:
            data["media_urls"] = list(self.media_urls)
        if self.send_before is not None:
            data["send_before"] = self.send_before.isoformat()
        if self.metadata:
            data["metadata"] = _json_copy(self.metadata)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise `InvalidMessage` for another version or an unknown field."""
        known = _checked_fields(data)
        if "send_before" in known:
            known["send_before"] = _parsed_time(known["send_before"])
        return cls(known.pop("to"), known.pop("body"), **known)


_FIELDS: Final = frozenset({"to", "body", "id", "campaign", "sender_id", "media_urls", "send_before", "metadata"})


def _checked_fields(data: object) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise InvalidMessage(f"A message must be a JSON object, got {type(data).__name__}. Pass message.to_dict().")
    known: dict[str, Any] = dict(data)
    version = known.pop("v", None)
    if type(version) is not int or version != MESSAGE_VERSION:
        raise InvalidMessage(
            f"This message has version {shown(version)} and this smsretry reads version {MESSAGE_VERSION}. "
            "Pass message.to_dict(), and upgrade the process that reads it first."
        )
    if unknown := known.keys() - _FIELDS:
        first = min(map(shown, unknown))
        raise InvalidMessage(f"A message has no field {first}. Pass what Message.to_dict() returned.")
    if missing := {"to", "body"} - known.keys():
        raise InvalidMessage(f"A message needs the field {min(missing)!r}. Pass what Message.to_dict() returned.")
    return known


def is_e164(number: object) -> TypeGuard[str]:
    """Say whether ``number`` is one that a message can go to."""
    return isinstance(number, str) and _E164.fullmatch(number) is not None


def check_to(to: object) -> None:
    """Raise `InvalidMessage` for what no message can go to."""
    if not is_e164(to):
        got = mask_number(to) if isinstance(to, str) else type(to).__name__
        raise InvalidMessage(f"to must be a number in E.164 such as +15005550006, got {got!r}. Add + and the country.")


def _check_body(body: object, media_urls: object) -> None:
    if not isinstance(body, str):
        raise InvalidMessage(f"body must be a str, got {type(body).__name__}. Render the text before you send it.")
    if not _is_writable(body):
        raise InvalidMessage(
            "body holds half of a surrogate pair or a NUL, which no provider and no database takes. "
            "Decode the text properly before you send it."
        )
    if not body and not media_urls:
        raise InvalidMessage("body is empty and there are no media_urls. Give the message a text or a media URL.")


def _is_writable(text: str) -> bool:
    return "\0" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))


def _check_name(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise InvalidMessage(f"{name} must be a str, got {type(value).__name__}. Use str(...).")
    if not value:
        raise InvalidMessage(f"{name} must not be empty. Leave it out, or give one.")
    if len(value) > LONGEST_ID:
        raise InvalidMessage(f"{name} must have {LONGEST_ID} characters at most, got {len(value)}. Shorten it.")
    if not value.isprintable():
        raise InvalidMessage(f"{name} must be printable, got a control character. Remove it.")


def _check_sender_id(sender_id: object) -> None:
    if sender_id is not None and not (isinstance(sender_id, str) and _SENDER_ID.fullmatch(sender_id)):
        got = mask_number(sender_id) if isinstance(sender_id, str) else type(sender_id).__name__
        raise InvalidMessage(
            "sender_id must be an E.164 number, a short code, an alphanumeric ID of up to 11 characters or a messaging "
            f"service SID (MG and 32 hex digits), got {got!r}. Correct it, or leave it out for the sender's default."
        )


def _checked_media_urls(urls: object) -> tuple[str, ...]:
    if isinstance(urls, str) or not isinstance(urls, (tuple, list)):
        raise InvalidMessage(f"media_urls must be a tuple of URLs, got {type(urls).__name__}. Wrap one: (url,).")
    for url in urls:
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise InvalidMessage("media_urls must hold http or https URLs only. Give the provider a URL it can fetch.")
    return tuple(urls)


def _checked_deadline(deadline: object) -> datetime | None:
    if deadline is None:
        return None
    if not isinstance(deadline, datetime) or deadline.utcoffset() is None:
        got = deadline.isoformat() if isinstance(deadline, datetime) else type(deadline).__name__
        raise InvalidMessage(
            f"send_before must be an aware datetime, got {got}. Use datetime.now(UTC) + timedelta(...)."
        )
    try:
        return deadline.astimezone(UTC)
    except OverflowError as error:  # the first and last hours of the calendar
        raise InvalidMessage("send_before is no moment in UTC. Leave it out where there is no deadline.") from error


def _parsed_time(text: object) -> datetime:
    try:
        return datetime.fromisoformat(text)  # type: ignore[arg-type]  # a wrong type is the error below
    except (TypeError, ValueError) as error:
        got = shown(text)
        raise InvalidMessage(f"send_before must be an ISO 8601 time, got {got}. Pass message.to_dict().") from error


def _checked_metadata(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidMessage(f"metadata must be a mapping with str keys, got {type(metadata).__name__}. Use a dict.")
    if not metadata:
        return {}
    try:
        copied, has_text_keys = _json_copy(metadata), _has_text_keys(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        reason = type(error).__name__
        raise InvalidMessage(
            f"metadata must be JSON ({reason}). Use str, int, float, bool, None, list, dict."
        ) from error
    if not has_text_keys:
        raise InvalidMessage("metadata must be a mapping with str keys, all the way down. Write str(key).")
    return copied


def _has_text_keys(value: object) -> bool:
    """Say whether every mapping within ``value`` has str keys only: JSON would turn 1 into "1"."""
    match value:
        case Mapping():
            return all(isinstance(key, str) and _has_text_keys(inner) for key, inner in value.items())
        case list() | tuple():
            return all(map(_has_text_keys, value))
        case _:
            return True


def _json_copy(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copy it deeply, so that nobody changes a frozen message from outside; raise where it is no JSON in UTF-8."""
    import json  # a third of what the front door would cost

    text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
    copied: dict[str, Any] = json.loads(text.encode())
    return copied


def json_copied(value: Any) -> Any:
    """Return a copy of what `json.loads` returned, down to the last object, much faster than to write and read it."""
    if type(value) is dict:
        copied = {}
        for name, inner in value.items():  # a comprehension would take up twice the stack
            copied[name] = json_copied(inner)
        return copied
    if type(value) is list:
        return list(map(json_copied, value))
    return value


@dataclass(frozen=True, slots=True)
class Receipt:
    """Hold the provider's answer to a create: it took the text. Whether a handset has it is told later, if at all.

    ``provider_id`` is never empty: a success without an id is a lost answer. ``accepted_at`` is aware UTC; ``segments``
    is None where the provider does not say; ``raw_status`` is its own word. Raises ValueError that names the field.
    """

    provider: str
    provider_id: str
    accepted_at: datetime
    segments: int | None = None
    raw_status: str = ""

    def __post_init__(self) -> None:
        for name in ("provider", "provider_id", "raw_status"):
            if not isinstance(value := getattr(self, name), str):
                raise _bad_receipt(f"{name} of a receipt must be a str, got {type(value).__name__}. Use str(...).")
        if not self.provider_id:
            raise _bad_receipt("provider_id of a receipt must not be empty. A success without an id is a lost answer.")
        if self.segments is not None and type(self.segments) is not int:
            got = type(self.segments).__name__
            raise _bad_receipt(f"segments of a receipt must be a whole number or None, got {got}. Use int(...).")
        if type(self.accepted_at) is not datetime or self.accepted_at.tzinfo is not UTC:
            object.__setattr__(self, "accepted_at", _in_utc(self.accepted_at))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON scalars by field name, the time in ISO 8601."""
        return {
            "provider": self.provider,
            "provider_id": self.provider_id,
            "accepted_at": self.accepted_at.isoformat(),
            "segments": self.segments,
            "raw_status": self.raw_status,
        }

    def __json__(self) -> dict[str, Any]:
        """Let Celery's serializer write a receipt that a task returns."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise ValueError on anything else."""
        if not isinstance(data, Mapping):
            msg = f"A receipt must be a JSON object, got {type(data).__name__}. Pass receipt.to_dict()."
            raise ValueError(msg)  # noqa: TRY004  # one error type for everything that is corrupt
        try:
            known = dict(data)
            known["accepted_at"] = datetime.fromisoformat(known["accepted_at"])
            return cls(**known)
        except (KeyError, TypeError) as error:
            msg = f"A receipt lacks a field or has a wrong one ({error}). Pass what Receipt.to_dict() returned."
            raise ValueError(msg) from error


def _in_utc(moment: object) -> datetime:
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        got = moment.isoformat() if isinstance(moment, datetime) else type(moment).__name__
        raise _bad_receipt(f"accepted_at of a receipt must be an aware datetime, got {got}. Use datetime.now(UTC).")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # the first and last hours of the calendar
        raise _bad_receipt("accepted_at of a receipt is no moment in UTC. Use datetime.now(UTC).") from error


def _bad_receipt(why: str) -> ValueError:
    """Return what is raised: no `InvalidMessage`, since the text may be sent."""
    return ValueError(why)
