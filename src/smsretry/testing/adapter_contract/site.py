"""Where a contract's worker sends, and the notes that it leaves: one folder that the worker and the checks share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, assert_never

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.lookup import CannotTell, Found, LookUp, NotSeen
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, Deferred, GaveUp, Outcome, RetryAfter
from smsretry.core.policy import RetryPolicy
from smsretry.dispatcher import AsyncDispatcher, Dispatcher
from smsretry.errors import ProviderError

if TYPE_CHECKING:
    from smsretry.store import SQLStore

POLICY: Final = RetryPolicy(max_retries=4, first_delay_s=0.2, settle_after_s=2.0, max_looks=2)
"""The policy of the checks: one retry more than the usual limit of a queue, and waits that a test can afford."""
LEASE_S: Final = 3.0
"""How long a claim in the journal of the checks holds."""
BUSY: Final = Failure.of(FailureKind.RATE_LIMITED, code=20429, http_status=429, detail="too many requests")
INVALID: Final = Failure.of(FailureKind.INVALID_NUMBER, code=21211, http_status=400, detail="no such number")
LOST: Final = Failure.of(FailureKind.LOST_ANSWER, detail="the list is away")
_NEW: Final = AttemptState()
_STUCK_S: Final = 60.0
_TAKEN: Final = frozenset({"taken", "stuck"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One call of the sender."""

    at: float
    """When, in seconds since 1970."""
    pid: int
    """The process that sent."""
    answer: str
    """What was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """One run that came to the dispatcher."""

    message: dict[str, Any]
    """The message as it came out of the queue."""
    given: dict[str, Any]
    """The state as it came out of the queue."""
    left: dict[str, Any] | None
    """The state that the queue had to carry on; None where the message has ended."""
    outcome: str
    """What the run led to: ``Accepted``, ``RetryAfter``, ``Deferred`` or ``GaveUp``."""
    end: str | None
    """How the message ended: ``accepted``, or the reason why not; None where it goes on."""


class Site:
    """Make the dispatchers that the worker under test sends with, and read what they did.

    The worker and the checks each make one on the same ``folder``. The sender answers attempt n of a message with word
    n of ``message.metadata["answers"]``, and the last one for ever: ``taken``; ``busy`` (a rate limit); ``invalid`` (no
    such number); ``drop`` (nothing is taken, and no answer comes); ``silent`` (no answer comes, and nobody can tell
    whether it was taken); ``stuck`` (taken, and the call hangs).

    ``settle_after_s`` is that of the worker's policy: more than the queue adds to a wait, or no doubt is waited for.
    """

    def __init__(self, folder: str | Path, *, settle_after_s: float = POLICY.settle_after_s) -> None:
        self.folder = Path(folder)
        self._policy = replace(POLICY, settle_after_s=settle_after_s)

    def dispatcher(self, *, journaled: bool = False) -> Dispatcher:
        """Return a dispatcher for a queue whose worker calls."""
        return _Noting(self, _Sender(self), **self._parts(journaled=journaled))

    def async_dispatcher(self, *, journaled: bool = False) -> AsyncDispatcher:
        """Return a dispatcher for a queue whose worker awaits."""
        return _AsyncNoting(self, _AsyncSender(self), **self._parts(journaled=journaled))

    def store(self) -> SQLStore:
        """Return the journal of the journaled dispatchers; it needs the extra ``sql``."""
        from smsretry.store import SQLStore  # the other checks need no database

        return SQLStore(f"sqlite:///{self.folder / 'journal.db'}")

    def sent(self, message_id: str) -> list[Sent]:
        """List the calls of the sender for one message, in order."""
        return [Sent(**line) for line in self._lines("sent", message_id)]

    def texts(self, message_id: str) -> int:
        """Return how many texts the provider has taken for one message."""
        return sum(sent.answer in _TAKEN for sent in self.sent(message_id))

    def handled(self, message_id: str) -> list[Handled]:
        """List the runs of one message that came to the dispatcher, in order."""
        return [Handled(**line) for line in self._lines("handled", message_id)]

    def end(self, message_id: str) -> str | None:
        """Return how one message has ended: ``accepted``, or the reason why not; None where it is open."""
        ends = [run.end for run in self.handled(message_id) if run.end is not None]
        return ends[0] if ends else None

    def note(self, name: str, message_id: str | None, **said: Any) -> None:
        """Append a line in one write, so that processes do not mix theirs."""
        with (self.folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"id": message_id, **said}) + "\n")

    def _parts(self, *, journaled: bool) -> dict[str, Any]:
        parts: dict[str, Any] = {"policy": self._policy, "lease_s": LEASE_S}
        return {**parts, "journal": self.store()} if journaled else parts

    def _lines(self, name: str, message_id: str) -> list[dict[str, Any]]:
        file = self.folder / f"{name}.jsonl"
        text = file.read_text() if file.exists() else ""
        written = text[: text.rfind("\n") + 1]  # a reader may see half of a line that is being written
        lines = [json.loads(line) for line in written.splitlines()]
        return [line for line in lines if line.pop("id") == message_id]


class _Sender:
    timeout_s: ClassVar[float] = 1.0

    def __init__(self, site: Site) -> None:
        self._site = site

    def send(self, message: Message, /) -> Receipt:
        if self._answer(message) == "stuck":
            time.sleep(_STUCK_S)
        return _receipt(message)

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        del since, exclude
        if any(sent.answer == "silent" for sent in self._site.sent(str(message.id))):
            return CannotTell(LOST.detail)
        return Found(_receipt(message)) if self._site.texts(str(message.id)) else NotSeen(datetime.now(UTC))

    def _answer(self, message: Message) -> str:
        earlier = len(self._site.sent(str(message.id)))
        answers = message.metadata.get("answers", ["taken"])
        answer = str(answers[min(earlier, len(answers) - 1)])
        self._site.note("sent", message.id, at=time.time(), pid=os.getpid(), answer=answer)
        match answer:
            case "busy":
                raise ProviderError(BUSY) from _talkative(message)
            case "invalid":
                raise ProviderError(INVALID) from _talkative(message)
            case "drop" | "silent":
                raise TimeoutError(_talkative(message))
            case _:
                return answer


class _AsyncSender(_Sender):
    async def send(self, message: Message, /) -> Receipt:  # type: ignore[override]  # the same, awaited
        if self._answer(message) == "stuck":
            import asyncio

            await asyncio.sleep(_STUCK_S)
        return _receipt(message)

    async def find(  # type: ignore[override]  # the same, awaited
        self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()
    ) -> LookUp:
        return super().find(message, since=since, exclude=exclude)


class _Noting(Dispatcher):
    """Note what comes out of the queue, and what goes back into it."""

    def __init__(self, site: Site, sender: _Sender, **parts: Any) -> None:
        super().__init__(sender, **parts)
        self._site = site

    def attempt(self, message: Message, state: AttemptState = _NEW, *, rerun: bool = False) -> Outcome:
        outcome = super().attempt(message, state, rerun=rerun)
        _note_handled(self._site, message, state, outcome)
        return outcome


class _AsyncNoting(AsyncDispatcher):
    """Note the same in a running loop."""

    def __init__(self, site: Site, sender: _AsyncSender, **parts: Any) -> None:
        super().__init__(sender, **parts)
        self._site = site

    async def attempt(self, message: Message, state: AttemptState = _NEW, *, rerun: bool = False) -> Outcome:
        outcome = await super().attempt(message, state, rerun=rerun)
        _note_handled(self._site, message, state, outcome)
        return outcome


def _note_handled(site: Site, message: Message, state: AttemptState, outcome: Outcome) -> None:
    left: dict[str, Any] | None = None
    end: str | None = None
    match outcome:
        case Accepted():
            end = "accepted"
        case GaveUp():
            end = outcome.reason.value
        case RetryAfter() | Deferred():
            left = outcome.state.to_dict()
        case _ as unreachable:
            assert_never(unreachable)
    name, given = type(outcome).__name__, state.to_dict()
    site.note("handled", message.id, message=message.to_dict(), given=given, left=left, outcome=name, end=end)


def _talkative(message: Message) -> Exception:
    """Return what clients raise: it tells the number and the text."""
    return ValueError(f"cannot send {message.body!r} to {message.to}")


def _receipt(message: Message) -> Receipt:
    return Receipt("contract", f"sid-{message.id}", datetime.now(UTC), 1, "queued")
