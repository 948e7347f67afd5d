"""Keep what came to the simulator's socket, and which texts were taken."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from time import monotonic
from typing import TypeAlias
from urllib.parse import parse_qs

from smsretry.core.mask import mask_number, mask_text
from smsretry.testing.simulator.fates import SENT, Course, Fate, TextStatus
from smsretry.testing.simulator.faults import Fault

Params: TypeAlias = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Record one request as it came to the socket, from its first line on.

    ``complete`` is False while, or because, its body did not arrive. ``at`` is aware UTC, ``at_s`` the seconds since
    the simulator began, by a clock that never jumps: measure delays with it. ``fault`` is what it met, None for the
    usual service. ``headers`` have lower-case names and lack Authorization.
    """

    method: str
    target: str = field(repr=False)
    at: datetime
    at_s: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    complete: bool = False
    fault: Fault | None = None

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """Return the query's fields, each with all its values."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def form(self) -> dict[str, list[str]]:
        """Return the form's fields, each with all its values; empty for a body that is no form."""
        return parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Record one text that was taken: it would have reached a phone.

    ``at`` and ``at_s`` are as in `Request`. ``params`` are all fields of the create, as they came.
    """

    sid: str
    to: str
    body: str
    sender: str | None
    messaging_service_sid: str | None
    media_urls: tuple[str, ...]
    at: datetime
    at_s: float
    params: Params = field(repr=False)

    def __repr__(self) -> str:
        return f"Text(sid={self.sid!r}, to={mask_number(self.to)!r}, body={mask_text(self.body)}, at={self.at})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Hold how far a text has come: its status, with the error code of undelivered and failed; times are aware UTC.

    ``sent_at`` is None where the text is not sent.
    """

    status: TextStatus
    code: int | None
    sent_at: datetime | None
    updated_at: datetime

    @property
    def has_sender(self) -> bool:
        """Return whether its sender is known: a messaging service chooses one for what it has accepted."""
        return self.status is not TextStatus.ACCEPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """Record one status callback that went out, once it was answered or given up.

    ``status`` and ``code`` are what it told of the text with this ``sid``, ``form`` all its fields. ``answer`` is the
    HTTP status from the application, None where there was none. ``at`` and ``at_s`` are as in `Request`, and are of its
    end. ``is_double`` is true of what was told before, ``is_repeat`` of another try after a 5xx or no answer.
    """

    sid: str
    status: TextStatus
    code: int | None
    url: str = field(repr=False)
    form: Mapping[str, str] = field(repr=False)
    answer: int | None
    is_double: bool
    is_repeat: bool
    at: datetime
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackCounts:
    """Count the callbacks of a run.

    ``sent`` are all that went out, ``doubled`` and ``repeated`` those among them that are doubles and repeats; ``lost``
    never went out. ``answered`` counts those sent by the HTTP status of the answer, ``unanswered`` those without one.
    """

    sent: int
    doubled: int
    repeated: int
    lost: int
    answered: Mapping[int, int]
    unanswered: int


@dataclass(slots=True)
class _Journey:
    """Hold the course of a text, and when it set out, None before."""

    course: Course
    began_at: datetime | None = None
    began_s: float = 0.0


class Ledger:
    """Count requests and texts; safe to read from any thread while the server writes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._began_s = monotonic()
        self._requests: list[Request] = []
        self._texts: dict[str, Text] = {}
        self._by_number: defaultdict[str, list[Text]] = defaultdict(list)
        self._methods: Counter[str] = Counter()
        self._journeys: dict[str, _Journey] = {}
        self._callbacks: list[Callback] = []
        self._lost = 0
        self._under_way = 0

    def elapsed_s(self) -> float:
        """Return the seconds since the ledger was opened."""
        return monotonic() - self._began_s

    def arrived(self, method: str, target: str) -> int:
        """Record a request whose first line is there, and return its place."""
        request = Request(method=method, target=target, at=datetime.now(UTC), at_s=self.elapsed_s())
        with self._changed:
            self._methods[method] += 1
            self._requests.append(request)
            self._changed.notify_all()
            return len(self._requests) - 1

    def completed(self, place: int, headers: Mapping[str, str], body: bytes) -> Request:
        """Record the rest of the request at ``place``."""
        with self._changed:
            request = replace(self._requests[place], headers=headers, body=body, complete=True)
            self._requests[place] = request
            return request

    def met(self, place: int, fault: Fault) -> None:
        """Record which fault the request at ``place`` was answered with."""
        with self._changed:
            self._requests[place] = replace(self._requests[place], fault=fault)
            self._changed.notify_all()

    def take(self, draft: Text) -> Text:
        """Record a text as taken now, and return it so."""
        text = replace(draft, at=datetime.now(UTC), at_s=self.elapsed_s())
        with self._changed:
            self._texts[text.sid] = text
            self._by_number[text.to].append(text)
            self._changed.notify_all()
        return text

    def drafted(self, params: Params) -> Text:
        """Return the text that a create asks for, under a new SID; nothing is taken yet."""
        return Text(
            sid=f"SM{token_hex(16)}",
            to=params["To"][0],
            body=params.get("Body", [""])[0],
            sender=params.get("From", [None])[0],
            messaging_service_sid=params.get("MessagingServiceSid", [None])[0],
            media_urls=tuple(params.get("MediaUrl", ())),
            at=datetime.now(UTC),
            at_s=self.elapsed_s(),
            params=params,
        )

    def decided(self, sid: str, course: Course) -> None:
        """Record what becomes of the text with this SID: it has yet to set out."""
        with self._changed:
            self._journeys[sid] = _Journey(course)
            self._lost += course.lost
            self._under_way += 1

    def set_out(self, sid: str) -> None:
        """Record that the text with this SID sets out now."""
        with self._changed:
            journey = self._journeys[sid]
            journey.began_at, journey.began_s = datetime.now(UTC), self.elapsed_s()

    def came_to_end(self) -> None:
        """Record that a text has come to its end, and all its callbacks have gone out."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def called_back(self, callback: Callback) -> None:
        """Record a callback that went out."""
        with self._changed:
            self._callbacks.append(callback)
            self._changed.notify_all()

    @property
    def under_way(self) -> int:
        """Count the texts that have not come to their end, or have callbacks that are to go out."""
        with self._changed:
            return self._under_way

    @property
    def callbacks(self) -> list[Callback]:
        """Return all callbacks that went out, in the order of their ends."""
        with self._changed:
            return list(self._callbacks)

    @property
    def callback_counts(self) -> CallbackCounts:
        """Count the callbacks."""
        with self._changed:
            answers = Counter(each.answer for each in self._callbacks)
            return CallbackCounts(
                sent=len(self._callbacks),
                doubled=sum(each.is_double for each in self._callbacks),
                repeated=sum(each.is_repeat for each in self._callbacks),
                lost=self._lost,
                unanswered=answers.pop(None, 0),
                answered={status: count for status, count in answers.items() if status is not None},
            )

    @property
    def fates(self) -> dict[str, Fate]:
        """Return what becomes of each text, by its SID."""
        with self._changed:
            return {sid: self._journeys[sid].course.fate if sid in self._journeys else SENT for sid in self._texts}

    def standing(self, text: Text, *, sent_after_s: float) -> Standing:
        """Return how far ``text`` has come; one without a course is sent after ``sent_after_s`` seconds."""
        with self._changed:
            journey = self._journeys.get(text.sid)
            now_s = self.elapsed_s()
        if journey is None:
            return first_standing(text) if now_s < text.at_s + sent_after_s else _sent(text)
        return _standing_on(journey, text, now_s)

    def requests_by(self, method: str) -> int:
        """Count the requests with this method."""
        with self._changed:
            return self._methods[method]

    @property
    def requests(self) -> list[Request]:
        """Return all requests in the order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def texts(self) -> list[Text]:
        """Return all texts in the order in which they were taken."""
        with self._changed:
            return list(self._texts.values())

    @property
    def text_count(self) -> int:
        """Count the texts without copying them."""
        with self._changed:
            return len(self._texts)

    def text(self, sid: str) -> Text | None:
        """Return the text with this SID."""
        with self._changed:
            return self._texts.get(sid)

    def texts_to(self, number: str) -> list[Text]:
        """Return the texts to ``number`` in the order in which they were taken."""
        with self._changed:
            return list(self._by_number.get(number, ()))

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until ``condition()`` holds, asked again at every request and text; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)


def first_standing(text: Text) -> Standing:
    """Return how ``text`` stands at first: queued, or accepted where a messaging service is to choose its sender."""
    status = TextStatus.QUEUED if text.messaging_service_sid is None else TextStatus.ACCEPTED
    return Standing(status=status, code=None, sent_at=None, updated_at=text.at)


def _sent(text: Text) -> Standing:
    return Standing(status=TextStatus.SENT, code=None, sent_at=text.at, updated_at=text.at)


def _standing_on(journey: _Journey, text: Text, now_s: float) -> Standing:
    since_s = now_s - journey.began_s
    step = journey.course.at(since_s) if journey.began_at else None
    if step is None or journey.began_at is None:
        return first_standing(text)
    after_s, fate = step
    sent_s = journey.course.sent_s()
    return Standing(
        status=fate.status,
        code=fate.code,
        sent_at=None if sent_s is None or sent_s > since_s else journey.began_at + timedelta(seconds=sent_s),
        updated_at=journey.began_at + timedelta(seconds=after_s),
    )
