"""Real objects that stand in for a clock, a provider and a database in tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from smsretry.core.events import Event
from smsretry.core.failure import Failure
from smsretry.core.lookup import LookUp, NotSeen
from smsretry.core.message import Message, Receipt
from smsretry.errors import ProviderError

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """Tell a time that moves only when told to: ``Dispatcher(clock=clock)`` and ``sleep=clock.sleep``.

    ``sleeps`` lists every wait in seconds.
    """

    def __init__(self, now: datetime = _EPOCH) -> None:
        if now.utcoffset() is None:
            msg = f"now must be an aware datetime, got {now!r}. Use datetime(..., tzinfo=UTC)."
            raise ValueError(msg)
        self._now = now.astimezone(UTC)
        self.sleeps: list[float] = []

    def __call__(self) -> datetime:
        """Return the present fake moment (aware UTC)."""
        return self._now

    def now(self) -> datetime:
        """Return the present fake moment (aware UTC)."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock ``seconds`` forward."""
        self._now += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        """Move the clock forward and note the wait, in place of ``time.sleep``; raise ValueError below 0."""
        if seconds < 0:
            msg = f"seconds must be 0 or more, got {seconds!r}. time.sleep refuses it too."
            raise ValueError(msg)
        self.sleeps.append(seconds)
        self.advance(seconds)


class ScriptedSender:
    """Answer each send with the next of ``script``: a `Receipt`, an exception to raise or a `Failure` to raise.

    After the script every send is accepted; with ``repeat=True`` the last answer is given for ever. Look-ups are
    answered by ``finds`` in turn and then by `NotSeen`. ``sent`` lists the messages in order, ``looked_up`` those that
    were asked about.
    """

    def __init__(
        self,
        script: Iterable[Receipt | Exception | Failure] = (),
        *,
        finds: Iterable[LookUp] = (),
        repeat: bool = False,
        clock: FakeClock | None = None,
    ) -> None:
        self._script = deque(script)
        self._finds = deque(finds)
        self._repeat = repeat
        self._clock = clock
        self.sent: list[Message] = []
        self.looked_up: list[Message] = []

    def send(self, message: Message, /) -> Receipt:
        """Give the next answer of the script."""
        self.sent.append(message)
        answer = self._next_answer()
        match answer:
            case Receipt():
                return answer
            case Failure():
                raise ProviderError(answer)
            case _:
                raise answer.with_traceback(None)  # one that is raised again would keep every traceback

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Give the next answer of ``finds``, or `NotSeen` as of now."""
        del since, exclude
        self.looked_up.append(message)
        return self._finds.popleft() if self._finds else NotSeen(self._now())

    def _next_answer(self) -> Receipt | Exception | Failure:
        if not self._script:
            return Receipt("scripted", f"S{len(self.sent)}", self._now())
        return self._script[0] if self._repeat and len(self._script) == 1 else self._script.popleft()

    def _now(self) -> datetime:
        return self._clock() if self._clock is not None else datetime.now(UTC)


class RecordingSink:
    """Keep every event in ``events``, in order."""

    blocks: ClassVar[bool] = False

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event, /) -> None:
        """Append ``event``."""
        self.events.append(event)
