"""Serve the Messages API: who may ask, what goes wrong this time, and what is answered."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Final, TypeAlias, assert_never

from smsretry.testing.simulator import wire
from smsretry.testing.simulator.callbacks import Callbacks, Passage
from smsretry.testing.simulator.faults import (
    Closed,
    Cut,
    Delayed,
    Fault,
    Hang,
    Normal,
    OddSuccess,
    RateLimited,
    Redirected,
    Refused,
    Reset,
    ServerError,
    Slow,
)
from smsretry.testing.simulator.http1 import Answer, Delivery, RequestLine, Whole, delivery_of
from smsretry.testing.simulator.ledger import Ledger, Params, Request, Standing, Text, first_standing
from smsretry.testing.simulator.listing import ListQuery, listed
from smsretry.testing.simulator.plan import NORMAL, FaultPlan
from smsretry.testing.simulator.rules import identity_of, refusal_of, sender_of

Later: TypeAlias = Callable[[float, Callable[[], object]], object]
"""Call a function after so many seconds."""

_PATH: Final = re.compile(rf"/{wire.API_VERSION}/Accounts/(?P<account>\w+)/Messages(?:/(?P<sid>\w+))?\.json", re.ASCII)
_NOTHING: Final = Answer(status=500, body=b"")
_NOT_FOUND: Final = Refused(code=20404, status=404)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Hold the one account of a simulator: who may use it, and how its messages look and move.

    ``test_credentials`` lets creates work and refuses every look-up (403, code 20008). A taken text is seen by look-ups
    after ``list_lag_s`` seconds. One of which nobody said what becomes of it is shown as sent after ``sent_after_s``.
    Until a text is sent it has no date_sent; where a messaging service chooses its sender, it has none at first.
    ``body_prefix`` stands before every text that look-ups show, as a trial account's does.
    """

    account_sid: str
    auth_token: str = field(repr=False)
    api_key: str
    api_secret: str = field(repr=False)
    test_credentials: bool = False
    list_lag_s: float = 0.0
    sent_after_s: float = 0.0
    body_prefix: str = ""

    def admits(self, authorization: str) -> bool:
        """Return whether the Authorization header carries the account's token or its API key."""
        return authorization in (_basic(self.account_sid, self.auth_token), _basic(self.api_key, self.api_secret))


@lru_cache(maxsize=8)
def _basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Served:
    """Hold how a request was served: what it met, the answer, and what joins the answer with callbacks, if any."""

    fault: Fault
    answer: Answer
    passage: Passage | None = None


class Desk:
    """Answer the requests of one run: from `reset` to `reset` of a simulator."""

    def __init__(
        self,
        account: Account,
        *,
        ledger: Ledger,
        callbacks: Callbacks,
        creates: FaultPlan,
        look_ups: FaultPlan,
        latency_s: float,
        later: Later,
    ) -> None:
        self.ledger = ledger
        self.callbacks = callbacks
        self.creates = creates
        self.look_ups = look_ups
        self._account = account
        self._latency_s = latency_s
        self._later = later

    def begin(self, line: RequestLine) -> Callable[[Whole], Delivery]:
        """Count a request at its first line, and return what answers it once it is whole."""
        return partial(self._finish, self.ledger.arrived(line.method, line.target))

    def _finish(self, place: int, whole: Whole) -> Delivery:
        request = self.ledger.completed(place, whole.head.headers, whole.body)
        served = self._served(request, whole.head.authorization)
        if not isinstance(served.fault, Normal):
            self.ledger.met(place, served.fault)
        delivery = delivery_of(served.answer, served.fault)
        if self._latency_s:
            delivery = replace(delivery, wait_s=delivery.wait_s + self._latency_s)
        if served.passage is not None:
            delivery = replace(delivery, left=served.passage.answered.set)
            if served.passage.is_held:
                delivery = replace(delivery, hold=served.passage.when_free)
        return delivery

    def _served(self, request: Request, authorization: str) -> Served:
        if not self._account.admits(authorization):
            return self._declined(Refused(code=20003, status=401), request)
        path = _PATH.fullmatch(request.path)
        if path is None or path["account"] != self._account.account_sid:
            return self._declined(_NOT_FOUND, request)
        match request.method, path["sid"]:
            case "POST", None:
                return self._create(request)
            case "GET", sid:
                return self._look_up(request, sid)
            case _:
                return self._declined(Refused(code=20004, status=405), request)

    def _create(self, request: Request) -> Served:
        params = request.form
        fault = self.creates.next_fault(to=params.get("To", [None])[0], identity=identity_of(params))
        if not fault.taken:
            return Served(fault, self._answer(fault, request, params, _NOTHING))
        if (refused := refusal_of(params)) is not None:
            return self._declined(refused, request, params)
        if (objection := self.callbacks.objection(params)) is not None:
            return self._declined(Refused(code=21609, message=objection), request, params)
        text, passage = self._taken(params, fault.taken_after_s)
        usual = wire.created(self._shown(text, first_standing(text)))
        return Served(fault, self._answer(fault, request, params, usual), passage)

    def _taken(self, params: Params, after_s: float) -> tuple[Text, Passage | None]:
        text = self.ledger.drafted(params)
        passage = self.callbacks.expect(text, is_late=after_s > 0)
        if after_s:
            self._later(after_s, partial(self._take, text, passage))
            return text, passage
        return self._take(text, passage), passage

    def _take(self, text: Text, passage: Passage | None) -> Text:
        if passage is not None:
            passage.taken.set()
        return self.ledger.take(text)

    def _look_up(self, request: Request, sid: str | None) -> Served:
        if self._account.test_credentials:
            return self._declined(Refused(code=20008, status=403), request)
        query = request.query
        fault = self.look_ups.next_fault(to=query.get("To", [None])[0], identity=request.target.encode())
        found = self._list(request) if sid is None else self._fetch(request, sid)
        return Served(fault, self._answer(fault, request, query, found))

    def _fetch(self, request: Request, sid: str) -> Answer:
        text = self.ledger.text(sid)
        if text is None or not self._is_visible(text):
            return self._refused(_NOT_FOUND, request)
        return wire.fetched(self._shown(text, self._standing(text)))

    def _list(self, request: Request) -> Answer:
        try:
            query = ListQuery.from_params(request.query)
        except ValueError:
            return self._refused(Refused(code=20001, message="A number or a date of the query is invalid."), request)
        texts = self.ledger.texts if query.to is None else self.ledger.texts_to(query.to)
        seen = (text for text in reversed(texts) if self._is_visible(text))
        listing = listed([text for text in seen if query.admits(text, self._standing(text))], query)
        messages = [self._shown(text, self._standing(text)) for text in listing.texts]
        return wire.page(listing, query, path=request.path, messages=messages)

    def _shown(self, text: Text, standing: Standing) -> dict[str, object]:
        return wire.message_json(
            text, standing, account_sid=self._account.account_sid, body_prefix=self._account.body_prefix
        )

    def _is_visible(self, text: Text) -> bool:
        return text.at_s + self._account.list_lag_s <= self.ledger.elapsed_s()

    def _standing(self, text: Text) -> Standing:
        return self.ledger.standing(text, sent_after_s=self._account.sent_after_s)

    def _declined(self, refused: Refused, request: Request, params: Params | None = None) -> Served:
        return Served(NORMAL, self._refused(refused, request, params))

    def _refused(self, refused: Refused, request: Request, params: Params | None = None) -> Answer:
        known = params or {}
        return wire.refusal(refused, to=known.get("To", [""])[0], sender=sender_of(known), target=request.path)

    def _answer(self, fault: Fault, request: Request, params: Params, usual: Answer) -> Answer:
        match fault:
            case RateLimited():
                return wire.rate_limit(fault)
            case Refused():
                return self._refused(fault, request, params)
            case ServerError():
                return wire.server_error(fault)
            case Redirected():
                return wire.redirect(fault.status, request.target)
            case OddSuccess():
                return wire.odd_success(fault)
            case Normal() | Delayed() | Slow() | Cut() | Reset() | Closed() | Hang():
                return usual
            case _:
                assert_never(fault)
