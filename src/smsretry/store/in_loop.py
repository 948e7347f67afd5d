"""Be the store of a running loop: nothing blocks it, and what is asked at the same time is written together.

On SQLite a commit waits for the disk, and there is one writer. While one group is being written, in a thread, the next
one gathers; it is committed as a whole before anybody is answered. Where a group fails, each of its works is written by
itself, so that nobody suffers for another's mistake. PostgreSQL commits side by side, so there each work has a thread.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Final, Protocol

import sqlalchemy as sa

from smsretry.core.claims import Asked, Begun, Busy, Claim, Ended, Others
from smsretry.core.events import Event
from smsretry.core.failure import Failure
from smsretry.core.fingerprint import Fingerprints
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState, Outcome
from smsretry.errors import InvalidMessage
from smsretry.store.claiming import Claims, account_key
from smsretry.store.database import Database
from smsretry.store.gathering import Gathered, Needs, Statements
from smsretry.store.moves import fact_of
from smsretry.store.writing import Writer

_MOST: Final = 256
"""So many works share a transaction at the most: other processes wait meanwhile."""
_AT_ONCE: Final = 15
"""As many as a store has connections."""


class _Work(Protocol):
    """Be what one caller asks for."""

    rank: ClassVar[int]
    """Works of a lower rank come first in a group."""

    def needs(self, secret: bytes) -> Needs | None:
        """Return what it reads, where that is known."""
        ...

    def run(self, connection: Any) -> Any:
        """Do it."""
        ...


@dataclass(slots=True)
class _Finish:
    claims: Claims
    claim: Claim
    outcome: Outcome
    event: Event
    rank: ClassVar[int] = 0

    def needs(self, secret: bytes) -> Needs:
        del secret
        return Needs(message_id=str(self.claim.message.id), event_id=self.event.event_id)

    def run(self, connection: Any) -> Ended | Busy | None:
        return self.claims.finish(connection, self.claim, self.outcome, self.event)


@dataclass(slots=True)
class _Begin:
    claims: Claims
    message: Message
    asked: Asked
    account: str
    most_deferred_s: float
    rerun: bool
    prints: Fingerprints | None = None
    rank: ClassVar[int] = 1

    def needs(self, secret: bytes) -> Needs:
        self.prints = Fingerprints.of(self.message, secret)
        return Needs(message_id=str(self.message.id), text=self.prints.text, account=account_key(self.account))

    def run(self, connection: Any) -> Begun:
        return self.claims.begin(
            connection,
            self.message,
            self.asked,
            account=self.account,
            most_deferred_s=self.most_deferred_s,
            rerun=self.rerun,
            prints=self.prints,
        )


@dataclass(slots=True)
class _Other:
    work: Callable[[Any], Any]
    rank: ClassVar[int] = 2

    def needs(self, secret: bytes) -> None:
        del secret

    def run(self, connection: Any) -> Any:
        return self.work(connection)


@dataclass(slots=True, eq=False)
class _Job:
    work: _Work
    answer: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class InLoop:
    """Be the journal, and an analytics sink, of an `smsretry.AsyncDispatcher`; for any number of loops."""

    def __init__(self, database: Database, claims: Claims, writer: Writer, statements: Statements) -> None:
        self._database = database
        self._claims = claims
        self._writer = writer
        self._statements = statements
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = weakref.WeakKeyDictionary()

    async def begin(
        self,
        message: Message,
        /,
        *,
        hint: AttemptState,
        nonce: str,
        lease_s: float,
        account: str,
        most_deferred_s: float,
        rerun: bool = False,
    ) -> Begun:
        """Claim the next attempt of ``message``; canceled, it leaves no claim behind."""
        asked = Asked(hint=hint, nonce=nonce, lease_s=lease_s)
        work = _Begin(self._claims, message, asked, account, most_deferred_s, rerun)
        begun: Begun = await self._queue.ask(work, self._undo)
        return begun

    async def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        """Begin the lease anew, for a send; False where the claim is lost."""
        renewed: bool = await self._other(lambda connection: self._claims.renew(connection, claim, lease_s))
        return renewed

    async def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed; it is written where the caller is canceled, too."""
        instead: Ended | Busy | None = await self._queue.ask(_Finish(self._claims, claim, outcome, event))
        return instead

    async def release(self, claim: Claim, /) -> None:
        """Give a claim back under which nothing was sent."""
        await self._other(lambda connection: self._claims.release(connection, claim))

    async def others(self, claim: Claim, /, *, since: datetime) -> Others:
        """Return what is known of other messages to the recipient of ``claim``."""
        others: Others = await self._other(lambda connection: self._claims.others(connection, claim, since))
        return others

    async def hold(self, account: str, failure: Failure, /) -> None:
        """Note that the provider refuses ``account``."""
        await self._other(lambda connection: self._claims.hold(connection, account, failure))

    async def reopen(self, account: str, /) -> None:
        """Note that the provider serves ``account`` again."""
        await self._other(lambda connection: self._claims.reopen(connection, account))

    async def record(self, event: Event, /) -> None:
        """Store ``event``, and count it unless it was counted before."""
        fact = fact_of(event)
        await self._other(lambda connection: self._writer.note(connection, fact))

    async def _other(self, work: Callable[[Any], Any]) -> Any:
        return await self._queue.ask(_Other(work))

    @property
    def _queue(self) -> _Queue:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            is_sqlite = self._database.kind == "sqlite"
            queue = _Queue(self._write_together, _MOST, 1) if is_sqlite else _Queue(self._write_each, 1, _AT_ONCE)
            self._queues[loop] = queue
        return queue

    def _undo(self, begun: Any) -> _Work | None:
        """Return what takes back a claim that nobody waits for any more."""
        if not isinstance(begun, Claim):
            return None
        return _Other(lambda connection: self._claims.release(connection, begun))

    def _write_together(self, jobs: Sequence[_Job]) -> None:
        try:
            self._database.write(partial(self._run_all, jobs))
        except Exception:  # noqa: BLE001  # each is told its own
            self._write_each(jobs)

    def _run_all(self, jobs: Sequence[_Job], connection: sa.Connection) -> None:
        secret = self._database.secret(connection)
        gathered: Any = Gathered(connection, self._statements)
        for rank in range(3):
            ours = [job for job in jobs if job.work.rank == rank]
            gathered.read_ahead([needs for job in ours if (needs := job.work.needs(secret)) is not None])
            for job in ours:
                job.error = None
                try:
                    job.result = job.work.run(gathered)
                except InvalidMessage as error:
                    job.error = error
            gathered.flush()

    def _write_each(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            try:
                job.result, job.error = self._database.write(job.work.run), None
            except Exception as error:  # noqa: BLE001  # it is raised where it was asked for
                job.error = error


@dataclass(slots=True, eq=False)
class _Queue:
    """Hold the works of one loop that wait, and write ``at_once`` groups of ``most`` side by side.

    It does not hold the loop, whose end is its own.
    """

    write: Callable[[Sequence[_Job]], None]
    most: int
    at_once: int
    waiting: list[_Job] = field(default_factory=list)
    writing: int = 0
    threads: ThreadPoolExecutor | None = None

    async def ask(self, work: _Work, undo: Callable[[Any], _Work | None] | None = None) -> Any:
        """Return what ``work`` returns, once it is committed; where the caller is canceled, ``undo`` what it did."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        self.waiting.append(job)
        self._write_on()
        try:
            return await job.answer
        except asyncio.CancelledError:
            if undo is not None:
                self._take_back(job, undo)
            raise

    def _take_back(self, job: _Job, undo: Callable[[Any], _Work | None]) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        elif job.answer.cancelled():  # it is being written
            job.answer = asyncio.get_running_loop().create_future()
            job.answer.add_done_callback(lambda answer: self._undo(answer, undo))
        else:
            self._undo(job.answer, undo)

    def _undo(self, answer: asyncio.Future[Any], undo: Callable[[Any], _Work | None]) -> None:
        work = None if answer.exception() is not None else undo(answer.result())
        if work is not None:
            taken_back = answer.get_loop().create_future()
            taken_back.add_done_callback(asyncio.Future.exception)  # where it fails, the claim's lease ends it
            self.waiting.append(_Job(work, taken_back))
            self._write_on()

    def _write_on(self) -> None:
        """Write what waits, where nobody does."""
        while self.waiting and self.writing < self.at_once:
            jobs, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
            self.writing += 1
            if self.threads is None:
                self.threads = ThreadPoolExecutor(self.at_once, thread_name_prefix="smsretry")
            done = asyncio.get_running_loop().run_in_executor(self.threads, self.write, jobs)
            done.add_done_callback(partial(self._written, jobs))

    def _written(self, jobs: Sequence[_Job], done: asyncio.Future[None]) -> None:
        self.writing -= 1
        failed = done.exception()
        for job in jobs:
            error = job.error or failed
            if job.answer.cancelled():
                continue
            if error is not None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(job.result)
        self._write_on()
