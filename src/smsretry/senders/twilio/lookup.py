"""Find one text among the messages that Twilio lists for a number: values in, a verdict out."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import urlencode

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.http import http_date
from smsretry.core.message import Message, Receipt
from smsretry.errors import ProviderError
from smsretry.ports import CannotTell, Found, LookUp, NotSeen
from smsretry.senders.twilio_codes import PROVIDER

TRIAL_PREFIX: Final = "Sent from your Twilio trial account - "
"""What Twilio puts before every text of a trial account."""
PAGE_SIZE: Final = 1_000
MOST_PAGES: Final = 20

T = TypeVar("T")
Asking: TypeAlias = Generator[str, tuple[int, str], T]
"""A generator of paths to be fetched, which gets back each answer's status and text, and returns what they tell."""
Listing: TypeAlias = Asking[LookUp]
"""A look-up in steps: it yields the path and query of each page, gets its status and text, and returns the answer."""

_NOT_BY_API: Final = frozenset({"inbound", "outbound-call", "outbound-reply"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Hold from what a text is sent: a number (or short code, or name), or a messaging service that chooses one."""

    from_: str | None = field(default=None, repr=False)
    messaging_service_sid: str | None = None

    @classmethod
    def of(cls, sender_id: str) -> Self:
        """Tell the two apart: a messaging service's SID is MG and 32 hex digits, longer than any name."""
        is_service = sender_id.startswith("MG") and len(sender_id) == 34
        return cls(messaging_service_sid=sender_id) if is_service else cls(from_=sender_id)

    @property
    def fields(self) -> dict[str, str]:
        """Return what a create says of it."""
        named = {"From": self.from_, "MessagingServiceSid": self.messaging_service_sid}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMessage:
    """Hold what the look-up reads of one listed message; what Twilio leaves out or garbles is None."""

    sid: str
    to: str | None = field(repr=False)
    body: str | None = field(repr=False)
    from_: str | None = field(repr=False)
    messaging_service_sid: str | None
    direction: str | None
    created_at: datetime | None
    media: int | None
    segments: int | None
    status: str

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read one row; raise ValueError for one without a SID."""
        row = data if isinstance(data, Mapping) else {}
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
        if not texts.get("sid"):
            raise ValueError(
                "A listed message must be a JSON object with a SID. Look at what answers in Twilio's place."
            )
        return cls(
            sid=texts["sid"],
            to=texts.get("to"),
            body=texts.get("body"),
            from_=texts.get("from"),
            messaging_service_sid=texts.get("messaging_service_sid"),
            direction=texts.get("direction"),
            created_at=http_date(texts.get("date_created", "")),
            media=count(row.get("num_media")),
            segments=count(row.get("num_segments")) or None,
            status=texts.get("status", ""),
        )

    def could_be(self, message: Message, *, since: datetime) -> bool:
        """Say whether it was sent to the same number through the API at or after ``since``, whatever its text."""
        # Twilio cuts its times to whole seconds.
        in_time = self.created_at is None or self.created_at >= since.replace(microsecond=0)
        return in_time and self.to in (None, message.to) and self.direction not in _NOT_BY_API

    def is_exactly(self, message: Message, sender: Sender | None) -> bool:
        """Say whether it has the same number, text, count of media and, where both are known, sender."""
        same_text = self.body in (message.body, TRIAL_PREFIX + message.body)
        same_media = self.media in (None, len(message.media_urls))
        return self.to == message.to and same_text and same_media and self._is_from(sender)

    def _is_from(self, sender: Sender | None) -> bool:
        if sender is None:
            return True
        # Twilio names the service only where the create did, and a service may choose the very same number.
        same_service = self.messaging_service_sid == sender.messaging_service_sid
        return same_service and (sender.from_ is None or self.from_ in (None, sender.from_))

    def receipt(self, otherwise: datetime) -> Receipt:
        """Return the receipt that its create would have given; ``otherwise`` is the time where the list has none."""
        return Receipt(PROVIDER, self.sid, self.created_at or otherwise, self.segments, self.status)


def verdict(candidates: Iterable[ListedMessage], message: Message, sender: Sender | None, as_of: datetime) -> LookUp:
    """Say what a complete listing tells, where ``candidates`` could be ``message`` and belong to no other."""
    rows = list(candidates)
    exact = [row for row in rows if row.is_exactly(message, sender)]
    if len(exact) == 1:
        return Found(exact[0].receipt(as_of))
    if exact:
        return CannotTell(f"{len(exact)} messages with this text went to this number")
    if rows:
        return CannotTell("another text went to this number, and may be this one changed on its way")
    return NotSeen(as_of)


def look_up(
    message: Message,
    *,
    messages_path: str,
    sender: Sender | None,
    own_sids: OwnSids,
    since: datetime,
    exclude: Collection[str],
    as_of: datetime,
) -> Listing:
    """Say what Twilio's list at ``messages_path`` tells of ``message``, which went out at or after ``since`` if at all.

    SIDs in ``exclude``, and those that ``own_sids`` binds to other messages, are passed over. Raises `ProviderError`
    for a listing that is refused or does not end, and ValueError for what is none.
    """
    candidates: list[ListedMessage] = []
    path = f"{messages_path}?{urlencode({'To': message.to, 'PageSize': PAGE_SIZE})}"
    for _ in range(MOST_PAGES):
        page = _page(*(yield path))
        candidates += [
            row
            for row in map(ListedMessage.from_json, page["messages"])
            if row.could_be(message, since=since)
            and row.sid not in exclude
            and not own_sids.is_anothers(row.sid, message.id)
        ]
        path = page["next_page_uri"]
        if not path:
            return own_sids.checked(verdict(candidates, message, sender, as_of), message.id)
    raise _unsettled(f"the list of messages to this number has more than {MOST_PAGES} pages")


def _page(status: int, text: str) -> dict[str, Any]:
    """Return a page of a list; raise `ProviderError` for anything else."""
    if status != 200:
        raise _unsettled(f"Twilio answered the look-up with HTTP {status}")
    page: Any = json.loads(text)
    following = page.get("next_page_uri", "") if isinstance(page, dict) else ""
    is_page = isinstance(page, dict) and isinstance(page.get("messages"), list) and "next_page_uri" in page
    if not is_page or not (following is None or (isinstance(following, str) and following.startswith("/"))):
        raise _unsettled("Twilio's answer to the look-up is no list of messages")
    return dict(page)


def _unsettled(why: str) -> ProviderError:
    return ProviderError(Failure.of(FailureKind.OTHER, detail=why, provider=PROVIDER))


class OwnSids:
    """Remember which message of this process holds which SID: at most ``most``, the oldest forgotten first."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._owners: OrderedDict[str, str | None] = OrderedDict()

    def claim(self, sid: str, message_id: str | None) -> bool:
        """Bind ``sid`` to a message; return whether it was free or is bound to this very message.

        Messages without an id cannot be told apart, so that one never has a SID that another may hold.
        """
        with self._lock:
            is_free = sid not in self._owners
            owner = self._owners.setdefault(sid, message_id)
            while len(self._owners) > self._most:
                self._owners.popitem(last=False)
        return is_free or (message_id is not None and owner == message_id)

    def checked(self, answer: LookUp, message_id: str | None) -> LookUp:
        """Return ``answer``, whose SID is then bound to the message; `CannotTell` where another may hold it."""
        if isinstance(answer, Found) and not self.claim(answer.receipt.provider_id, message_id):
            return CannotTell("another message may hold the only candidate")
        return answer

    def is_anothers(self, sid: str, message_id: str | None) -> bool:
        """Say whether ``sid`` is surely bound to another message."""
        with self._lock:
            return sid in self._owners and self._owners[sid] != message_id


def count(value: object) -> int | None:
    """Read a whole number, which Twilio writes as a string; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
