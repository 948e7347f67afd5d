"""Put desk, control and server together as `TwilioSimulator`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from smsretry.testing.simulator.callbacks import Callbacks
from smsretry.testing.simulator.control import PREFIX, Control
from smsretry.testing.simulator.courier import Courier, Routes, WebhookAnswer
from smsretry.testing.simulator.desk import Account, Desk
from smsretry.testing.simulator.fates import WITH_CODE, CallbackPlan, Fate, Fates, Script, TextStatus, checked_status
from smsretry.testing.simulator.faults import Fault
from smsretry.testing.simulator.ledger import Ledger
from smsretry.testing.simulator.plan import Call, FaultPlan, checked_fault, checked_rates
from smsretry.testing.simulator.server import Finish, Server
from smsretry.testing.simulator.webhooks import inbound_form, webhook_headers

if TYPE_CHECKING:
    from smsretry.testing.simulator.http1 import RequestLine
    from smsretry.testing.simulator.ledger import Callback, CallbackCounts, Request, Text

ACCOUNT_SID: Final = "AC" + "5" * 32
AUTH_TOKEN: Final = "simulated-auth-token"  # noqa: S105
API_KEY: Final = "SK" + "5" * 32
API_SECRET: Final = "simulated-api-secret"  # noqa: S105
_NO_RATES: Final[Mapping[str | Fault, float]] = MappingProxyType({})
_NO_ROUTES: Final[Mapping[str, str]] = MappingProxyType({})
_PATIENCE_S: Final = 15.0


class TwilioSimulator:
    """Stand in for Twilio's Messages API on a loopback port, and fail as you say.

    >>> with TwilioSimulator() as simulator:
    ...     simulator.script(RateLimited(), Reset(taken=True))
    ...     client = Client(simulator.account_sid, simulator.auth_token)
    ...     client.api.base_url = simulator.url

    It counts requests at its own socket and keeps every text that it took, so that a test can say how often a message
    was posted and how many texts it became. Constructing it opens nothing; entering it takes the port and a thread, and
    leaving it ends both. What it counted can still be read afterwards. All members may be used from any thread.

    ``rates`` and ``look_up_rates`` give faults, or names of `FAULTS`, their share of the creates and of the look-ups,
    0 to 1. Which request meets which follows from ``seed``, from its recipient, text and sender, and from how many like
    it came before, never from the order of arrival. ``latency_s`` comes before every answer. Look-ups see a text
    ``list_lag_s`` seconds after it was taken, show it as sent after ``sent_after_s``, with ``body_prefix`` before its
    words, and are refused under ``test_credentials``. ``port`` 0 takes a free one.

    ``callbacks`` says what becomes of the texts afterwards, and lets signed callbacks tell their senders. ``routes``
    says where URLs of the application are reached that are not on loopback: ``{"https://sms.example.com":
    "http://127.0.0.1:8000"}`` posts there what is signed for the public URL, as a proxy does. Without a plan texts are
    sent and no callback is.

    Raises ValueError for a ``host`` that is not loopback, a port that is none, a negative time, and for rates that do
    not add up.
    """

    def __init__(
        self,
        *,
        account_sid: str = ACCOUNT_SID,
        auth_token: str = AUTH_TOKEN,
        api_key: str = API_KEY,
        api_secret: str = API_SECRET,
        seed: int = 0,
        rates: Mapping[str | Fault, float] = _NO_RATES,
        look_up_rates: Mapping[str | Fault, float] = _NO_RATES,
        latency_s: float = 0.0,
        list_lag_s: float = 0.0,
        sent_after_s: float = 0.0,
        body_prefix: str = "",
        test_credentials: bool = False,
        callbacks: CallbackPlan | None = None,
        routes: Mapping[str, str] = _NO_ROUTES,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        for name, time_s in {"latency_s": latency_s, "list_lag_s": list_lag_s, "sent_after_s": sent_after_s}.items():
            _check_time(name, time_s)
        self._account = Account(
            account_sid=account_sid,
            auth_token=auth_token,
            api_key=api_key,
            api_secret=api_secret,
            test_credentials=test_credentials,
            list_lag_s=list_lag_s,
            sent_after_s=sent_after_s,
            body_prefix=body_prefix,
        )
        self._seed = seed
        self._rates = {Call.CREATE: checked_rates(rates), Call.LOOK_UP: checked_rates(look_up_rates)}
        self._latency_s = latency_s
        self._callback_plan = callbacks
        self._routes = Routes(routes)
        self._courier = Courier()
        self._server = Server(self._begin, self._end, host=host, port=port)
        self._control = Control(self, post_inbound=self._post_inbound)
        self._desk = self._new_desk()

    def __repr__(self) -> str:
        return f"TwilioSimulator(posts={self.posts}, gets={self.gets}, texts={self.text_count})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Take the port and serve; raise OSError where the port is not free."""
        self._server.start()

    def close(self) -> None:
        """Stop serving and reset what is open; texts that were to be taken late are not, and no more callbacks go out.

        Safe to call twice.
        """
        self._server.close()

    @property
    def url(self) -> str:
        """Return the base URL, ``http://127.0.0.1:PORT``, the same through `down` and `up`."""
        return self._server.url

    @property
    def port(self) -> int:
        """Return the port; 0 before the first `start`, where any will do."""
        return self._server.port

    @property
    def account_sid(self) -> str:
        """Return the account's SID."""
        return self._account.account_sid

    @property
    def auth_token(self) -> str:
        """Return the account's token."""
        return self._account.auth_token

    @property
    def api_key(self) -> str:
        """Return the SID of the account's API key."""
        return self._account.api_key

    @property
    def api_secret(self) -> str:
        """Return the secret of the account's API key."""
        return self._account.api_secret

    def script(self, *faults: Fault | str, to: str | None = None, on: Call = Call.CREATE) -> None:
        """Let the next requests meet ``faults``, one each in this order, and the usual service after them.

        With ``to`` they are for creates (or lists) of this number alone, and go before those for everyone. A request
        with wrong credentials or to an unknown path meets none and uses up none. A fault may be a name of `FAULTS`.

        Raises ValueError for what is no fault.
        """
        self._plan(on).script([checked_fault(each) for each in faults], to=to)

    def always(self, fault: Fault | str | None, *, to: str | None = None, on: Call = Call.CREATE) -> None:
        """Let every request that meets no script meet ``fault``, until told otherwise; None ends it.

        Raises ValueError for what is no fault.
        """
        self._plan(on).always(None if fault is None else checked_fault(fault), to=to)

    @property
    def unplayed(self) -> int:
        """Count the scripted faults that no request has met yet, and the scripted fates that no text has."""
        desk = self._desk
        return desk.creates.unplayed + desk.look_ups.unplayed + desk.callbacks.fates.unplayed

    @property
    def posts(self) -> int:
        """Count the POSTs whose first line came to the socket, whatever became of them."""
        return self._desk.ledger.requests_by("POST")

    @property
    def gets(self) -> int:
        """Count the GETs whose first line came to the socket: fetches and lists."""
        return self._desk.ledger.requests_by("GET")

    @property
    def requests(self) -> list[Request]:
        """Return every request in the order of arrival."""
        return self._desk.ledger.requests

    @property
    def texts(self) -> list[Text]:
        """Return every text that was taken, in that order."""
        return self._desk.ledger.texts

    @property
    def text_count(self) -> int:
        """Count the texts that were taken."""
        return self._desk.ledger.text_count

    @property
    def texts_doubled(self) -> int:
        """Count the texts that repeat an earlier one: the same number and the same words."""
        return self.text_count - len(self.count_by_message())

    def texts_to(self, number: str) -> list[Text]:
        """Return the texts that ``number`` (E.164) would have received, in the order in which they were taken."""
        return self._desk.ledger.texts_to(number)

    def count_by_message(self) -> Counter[tuple[str, str]]:
        """Count the texts of each message, under its number and its words."""
        return Counter((text.to, text.body) for text in self.texts)

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float = 10.0) -> bool:
        """Wait until ``condition()`` holds, asked again at every request and text; return whether it does."""
        return self._desk.ledger.wait_for(condition, timeout_s=timeout_s)

    def down(self) -> None:
        """Refuse connections from now on, and reset those that are open; the port stays ours."""
        self._server.down()

    def up(self) -> None:
        """Take connections again, on the same port."""
        self._server.up()

    def outage(self, duration_s: float) -> None:
        """Go `down` now and `up` again after ``duration_s`` seconds, without waiting for it."""
        self._server.outage(duration_s)

    def plan_callbacks(self, plan: CallbackPlan | None) -> None:
        """Let ``plan`` say what becomes of the texts taken from now on; None ends that."""
        self._callback_plan = plan
        self._desk.callbacks.fates.plan(plan)

    def script_fate(
        self,
        status: TextStatus | str,
        code: int | None = None,
        *,
        to: str | None = None,
        callbacks: Iterable[TextStatus | str | Fate] | None = None,
        before_answer: bool = False,
    ) -> None:
        """Say what becomes of the next text that is taken: where it ends, with the ``code`` of undelivered and failed.

        With ``to`` it is for the next text to this number, and goes before what is for everyone. ``callbacks`` are the
        ones that go out, in this order, true or not; None for the usual ones. With ``before_answer`` the first of them
        is answered before the create is. One call is for one text; those after it follow the plan again.

        Raises ValueError for a status that no text ends in, and for undelivered or failed without a code.
        """
        told = None if callbacks is None else tuple(_told(each, code) for each in callbacks)
        fate = Fate(checked_status(status), code)
        self._desk.callbacks.fates.script(Script(fate=fate, told=told, before_answer=before_answer), to=to)

    @property
    def fates(self) -> dict[str, Fate]:
        """Return what becomes of every text that was taken, by its SID: the truth, whatever callbacks told.

        It is decided when the text is taken, and holds once `drain` has returned.
        """
        return self._desk.ledger.fates

    @property
    def callbacks(self) -> list[Callback]:
        """Return every callback that went out, in the order of their answers."""
        return self._desk.ledger.callbacks

    @property
    def callback_counts(self) -> CallbackCounts:
        """Count the callbacks that went out, were doubled, repeated, lost, and how they were answered."""
        return self._desk.ledger.callback_counts

    @property
    def under_way(self) -> int:
        """Count the texts that have not come to their end, or have callbacks that are to go out."""
        return self._desk.ledger.under_way

    def drain(self, *, timeout_s: float = 30.0) -> bool:
        """Wait until every text has come to its end, and every callback has gone out; return whether it is so."""
        return self.wait_for(lambda: self.under_way == 0, timeout_s=timeout_s)

    def receive(
        self,
        from_number: str,
        to_number: str,
        body: str,
        *,
        url: str,
        opt_out_type: str | None = None,
        messaging_service_sid: str | None = None,
        media_urls: Sequence[str] = (),
        timeout_s: float = _PATIENCE_S,
    ) -> WebhookAnswer:
        """Post an inbound message, signed, to ``url``, and return what the application answers.

        ``opt_out_type`` is STOP, START or HELP, as Twilio tells it where a service handles the words.

        Raises ValueError for a URL that is none or leads to another machine, OSError where there is no answer
        (TimeoutError after ``timeout_s`` seconds), and RuntimeError where the simulator does not run.
        """
        form = inbound_form(
            account_sid=self.account_sid,
            from_number=from_number,
            to_number=to_number,
            body=body,
            messaging_service_sid=messaging_service_sid,
            opt_out_type=opt_out_type,
            media_urls=media_urls,
        )
        return self._server.run(
            lambda: self._post_inbound(form, url, timeout_s=timeout_s), patience_s=timeout_s + _PATIENCE_S
        )

    def reset(self) -> None:
        """Forget requests, texts, callbacks, scripts and standing faults; chance begins anew, from the same seed.

        Callbacks that were to go out do not.
        """
        old, self._desk = self._desk, self._new_desk()
        self._server.soon(old.callbacks.stop)

    async def _post_inbound(
        self, form: Mapping[str, str], url: str, *, timeout_s: float = _PATIENCE_S
    ) -> WebhookAnswer:
        target = self._routes.target(url)
        headers = webhook_headers(url, form, auth_token=self.auth_token)
        return await self._courier.post(target, form, headers, timeout_s=timeout_s)

    def _new_desk(self) -> Desk:
        creates, look_ups = (FaultPlan(seed=self._seed, rates=self._rates[call]) for call in Call)
        ledger = Ledger()
        callbacks = Callbacks(
            ledger,
            Fates(seed=self._seed, plan=self._callback_plan),
            self._courier,
            self._routes,
            account_sid=self.account_sid,
            auth_token=self.auth_token,
        )
        return Desk(
            self._account,
            ledger=ledger,
            callbacks=callbacks,
            creates=creates,
            look_ups=look_ups,
            latency_s=self._latency_s,
            later=self._server.later,
        )

    async def _end(self) -> None:
        await self._desk.callbacks.end()
        await self._courier.close()

    def _plan(self, on: Call) -> FaultPlan:
        return self._desk.creates if on is Call.CREATE else self._desk.look_ups

    def _begin(self, line: RequestLine) -> Finish:
        return self._control.begin(line) if line.target.startswith(PREFIX) else self._desk.begin(line)


def _check_time(name: str, time_s: float) -> None:
    if not 0.0 <= time_s < math.inf:
        raise ValueError(f"{name} must be 0 seconds or more, got {time_s!r}.")


def _told(told: TextStatus | str | Fate, code: int | None) -> Fate:
    if isinstance(told, Fate):
        return told
    status = checked_status(told)
    return Fate(status, code if status in WITH_CODE else None)
