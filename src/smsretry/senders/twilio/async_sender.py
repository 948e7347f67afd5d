"""Send texts through Twilio from a running loop: what `smsretry.senders.twilio.sender` does, awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar, Self

from smsretry.core.delivery import DeliveryReport
from smsretry.core.message import Message, Receipt
from smsretry.errors import ConfigurationError
from smsretry.ports import CannotTell, LookUp
from smsretry.senders.twilio.account import Account
from smsretry.senders.twilio.configured import ConfiguredSender
from smsretry.senders.twilio.create import create_fields, receipt_of
from smsretry.senders.twilio.lookup import OwnSids
from smsretry.senders.twilio_reports import fetching


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """Hold what one process has opened: a session for each of its loops."""

    account: Account
    http: Any
    env: Mapping[str, str] = field(repr=False)
    sessions: dict[asyncio.AbstractEventLoop, Any] = field(default_factory=dict)
    own_sids: OwnSids = field(default_factory=OwnSids)

    def forget_closed_loops(self) -> None:
        """Let go of the sessions whose loops are closed."""
        for loop in [each for each in tuple(self.sessions) if each.is_closed()]:
            if (session := self.sessions.pop(loop, None)) is not None:
                session.abandon()


class AsyncTwilioSender(ConfiguredSender[_Process]):
    """Hand texts to Twilio from a running loop, and ask Twilio what became of one.

    Everything is set up as for `smsretry.senders.twilio.TwilioSender`, and means the same; ``max_connections`` is 100
    unless told otherwise. It speaks Twilio's Messages API itself, over connections of aiohttp. A call that waits for a
    free connection spends its own ``timeout_s``; if it ends there, nothing was sent.

    Constructing it opens nothing and imports no client, so one may stand at module level; every loop of every process
    makes its own connections at its first send. They are closed by `close`, at the end of ``async with``, or when the
    loop ends as `asyncio.run` ends it.

    Needs the extra ``aio``.
    """

    _usual_connections: ClassVar[int] = 100
    _of_parents: tuple[_Process, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, message: Message) -> Receipt:
        """Create one message at Twilio with one POST, and return Twilio's word that it took it.

        ``accepted_at`` is our own clock's time. Raises what went wrong for `classify` to judge: an exception of
        Twilio's client with the answer's ``headers``, one of aiohttp, TimeoutError, or `smsretry.errors.ProviderError`
        where the time is up (less than a second left, nothing sent) or a success names no SID. Where the task is
        canceled it ends at once, and what was on its way may have been sent.
        """
        process = self._process()
        session = process.sessions.get(asyncio.get_running_loop())
        if session is None or session.is_closed:
            session = await self._session(process)
        left_s = self._left_s(message)
        fields = create_fields(message, process.account, left_s, self._status_callback_url)
        created = await session.create(fields, total_s=min(self._timeout_s, left_s))
        sid: str = created["sid"]
        process.own_sids.claim(sid, message.id)
        return receipt_of(sid, created.get("num_segments"), created.get("status"), self._clock())

    async def find(self, message: Message, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Ask Twilio whether it took ``message``; never raises: see `smsretry.senders.twilio.TwilioSender.find`."""
        try:
            process = self._process()
            session = await self._session(process)
            listing = self._listing(message, process.account, process.own_sids, since, exclude)
            answer: LookUp = await session.answered(listing, total_s=self._timeout_s)
        except Exception as error:  # noqa: BLE001  # a look-up that fails settles nothing
            return CannotTell(self.classify(error).detail)
        return answer

    async def fetch(self, provider_id: str) -> DeliveryReport:
        """Ask Twilio where a text is on its way: see `smsretry.senders.twilio.TwilioSender.fetch`."""
        process = self._process()
        session = await self._session(process)
        asking = fetching(process.account.message_path(provider_id), self._clock())
        report: DeliveryReport = await session.answered(asking, total_s=self._timeout_s)
        return report

    async def close(self) -> None:
        """Close the connections of this loop, also those that are in use; the next send opens new ones."""
        process = self._processes.get(os.getpid())
        session = None if process is None else process.sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    async def _session(self, process: _Process) -> Any:
        """Return the session of the running loop."""
        loop = asyncio.get_running_loop()
        session = process.sessions.get(loop)
        if session is None or session.is_closed:
            process.forget_closed_loops()
            session = process.sessions[loop] = process.http.Session(
                process.account,
                process.env,
                max_connections=self._max_connections,
                connect_s=self._connect_timeout_s,
                idle_s=process.http.LONGEST_IDLE_S,
            )
            await session.open()
        return session

    def _opened(self) -> _Process:
        # To close a parent's connections, or to let them go, would take them from its loop, which shares the poll.
        self._of_parents += tuple(self._processes.values())
        env = os.environ if self._env is None else self._env
        return _Process(account=self._account(), http=_http_module(), env=env)


def _http_module() -> ModuleType:
    """Import aiohttp, and what raises Twilio's exceptions, at the first use: they cost a quarter of a second."""
    try:
        from smsretry.senders.twilio import async_http
    except ImportError as error:
        missing = (error.name or "one").partition(".")[0]
        raise ConfigurationError(
            f"AsyncTwilioSender needs the aiohttp and twilio packages ({missing} is missing). "
            "Run: pip install 'smsretry[aio]'"
        ) from error
    return async_http
