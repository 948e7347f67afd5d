"""Where the dispatcher of a job comes from, and the journal in which its messages are planned."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Generic, Never, Protocol, TypeVar, runtime_checkable

from smsretry.adapters._seam.envelope import NEW, check_message, seconds_until
from smsretry.adapters._seam.recovery import CanCancel, is_open
from smsretry.adapters._seam.run import Again, DispatcherT
from smsretry.adapters._seam.steps import Blocking, Steps, awaited, called
from smsretry.core.mask import shown
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import AsyncDispatcher, Dispatcher, new_id, utc_now
from smsretry.errors import ConfigurationError, InvalidMessage

T = TypeVar("T")
DispatcherSource = Dispatcher | Callable[[], Dispatcher]
"""A dispatcher, or a function without arguments that makes one: it is called once in each process, at first use."""
AsyncDispatcherSource = AsyncDispatcher | Callable[[], AsyncDispatcher]
"""The same for a queue whose worker awaits."""

_log: Final = logging.getLogger("smsretry")
_TOLD: Final = "_smsretry_told_anew"
_KEPT: Final = "_smsretry_source"
_DELIVERED: Final = "smsretry_delivered"


@runtime_checkable
class CanPlan(Protocol):
    """Write down what will be sent before it is queued: `smsretry.store.SQLStore` can."""

    def plan(self, messages: Message, *, due_in_s: float = 0.0) -> object:
        """Write that ``messages`` will be sent, ``due_in_s`` seconds from now at the earliest."""
        ...


class Source(Generic[DispatcherT]):
    """Hold a dispatcher of ``kind``, or the function that makes one: once in each process, at first use.

    ``journal`` is what messages are planned in: needed where a function makes the dispatcher, which must then have the
    same one. That of a dispatcher is used by itself. Raises `smsretry.ConfigurationError` for what is neither.
    """

    dispatcher: DispatcherT | None
    """The dispatcher where it is known before anything is sent; None where a function will make it."""
    journal: CanPlan | None
    """What plans are written to, where there is one."""

    def __init__(
        self,
        kind: type[DispatcherT],
        dispatcher: DispatcherT | Callable[[], DispatcherT],
        *,
        journal: CanPlan | None = None,
    ) -> None:
        self._kind = kind
        self.given = dispatcher
        self._slots: dict[int, _Slot] = {}
        if journal is not None and not isinstance(journal, CanPlan):
            raise ConfigurationError(
                f"journal must have a method plan(message, due_in_s=...), got {type(journal).__name__}. "
                "Use an SQLStore."
            )
        self.dispatcher, self.journal = None, journal
        if isinstance(dispatcher, kind):
            self.dispatcher, self.journal = dispatcher, _own_journal(dispatcher, journal)
        elif not callable(dispatcher):
            raise ConfigurationError(
                f"dispatcher must be {self._a_kind} or a function that returns one, got {type(dispatcher).__name__}."
            )

    @property
    def is_journaled(self) -> bool:
        """Say whether its messages are known to a journal."""
        return self.journal is not None or (self.dispatcher is not None and self.dispatcher.journal is not None)

    def get(self) -> DispatcherT:
        """Return the dispatcher of this process, whichever thread asks first.

        Raises `smsretry.ConfigurationError` where it has no journal and messages are planned in one: `recover` would
        queue them for ever.
        """
        if self.dispatcher is not None:
            return self.dispatcher
        slot = self._slots.setdefault(os.getpid(), _Slot())  # a forked child finds no lock that its parent held
        with slot.lock:
            if slot.made is None:
                slot.made = self._checked(self.given())  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
            made: DispatcherT = slot.made
            return made

    def send(
        self,
        message: Message,
        publish: Callable[[Again], T],
        *,
        delay_s: float = 0.0,
        state: AttemptState = NEW,
        in_task: bool,
        is_eager: bool = False,
    ) -> T:
        """Plan ``message`` in the journal, where there is one, and return what ``publish`` returns of its first run.

        That is in ``delay_s`` seconds, and not before ``state`` is due; at once where the queue ``is_eager``. Raises
        `smsretry.ConfigurationError` for a wrong delay or state. Raises `smsretry.InvalidMessage`, and queues nothing,
        where the journal knows the id with another recipient or text, and for a message without an id ``in_task``:
        whoever runs again would queue it under another one. Where ``publish`` raises, a message with an id of its own
        stays planned; one without is taken back, so that it may be sent again, unless the job ran at once.
        """
        check_message(message, "Give send a smsretry.Message")
        first = self._first(message, state, delay_s, is_eager=is_eager)
        queued: T = called(self._sending(first, publish, in_task=in_task, is_eager=is_eager))
        return queued

    async def send_async(
        self,
        message: Message,
        publish: Callable[[Again], Any],
        *,
        delay_s: float = 0.0,
        state: AttemptState = NEW,
        in_task: bool,
    ) -> Any:
        """Plan and queue ``message`` as `send` does, in a running loop; an async ``publish`` is awaited."""
        check_message(message, "Give send a smsretry.Message")
        first = self._first(message, state, delay_s, is_eager=False)
        return await awaited(self._sending(first, publish, in_task=in_task, is_eager=False))

    def _first(self, message: Message, state: AttemptState, delay_s: float, *, is_eager: bool) -> Again:
        """Return the first run of a message: the later of ``delay_s`` and the due time of ``state`` is waited for."""
        if not isinstance(state, AttemptState):
            got = type(state).__name__
            raise ConfigurationError(f"state must be an AttemptState, got {got}. Leave it out for a new message.")
        now = utc_now() if self.dispatcher is None else self.dispatcher.clock()
        wait_s = 0.0 if is_eager else max(0.0, _checked_delay(delay_s, now), seconds_until(state.due, now))
        due = now + timedelta(seconds=wait_s) if wait_s > 0.0 else None
        return Again(delay_s=wait_s, message=message, state=replace(state, due=due))

    def _sending(self, first: Again, publish: Callable[[Again], Any], *, in_task: bool, is_eager: bool) -> Steps[Any]:
        journal, message = self.journal, first.message
        if journal is not None:
            if message.id is None and in_task:
                refuse_without_id()
            first = first if message.id is not None else replace(first, message=message.with_id(new_id()))
            yield Blocking(partial(journal.plan, first.message, due_in_s=first.delay_s))
        try:
            return (yield partial(publish, first))
        except Exception as error:
            if journal is not None and message.id is None and not is_eager:
                yield Blocking(partial(_take_back, journal, str(first.message.id), error))
            raise

    def _checked(self, made: object) -> DispatcherT:
        if not isinstance(made, self._kind):
            raise ConfigurationError(
                f"The function that makes the dispatcher must return {self._a_kind}, got {type(made).__name__}."
            )
        if self.journal is not None and made.journal is None:
            raise ConfigurationError(
                "The messages of this queue are planned in a journal and its dispatcher has none, so nothing was sent. "
                f"Make it with the same one: {self._kind.__name__}(sender, journal=store)."
            )
        return made

    @property
    def _a_kind(self) -> str:
        return f"{'an' if self._kind.__name__.startswith('A') else 'a'} {self._kind.__name__}"


def _checked_delay(delay_s: float, now: datetime) -> float:
    """Return ``delay_s``; raise `smsretry.ConfigurationError` where it is no number, or no calendar reaches so far."""
    if not isinstance(delay_s, (int, float)) or not math.isfinite(delay_s):
        raise ConfigurationError(f"delay_s must be a number of seconds, got {shown(delay_s)}. Use 0 to send now.")
    if delay_s > (datetime.max.replace(tzinfo=UTC) - now).total_seconds():
        raise ConfigurationError(f"delay_s must end before the year 10000, got {delay_s:g} s. Use 0 to send now.")
    return delay_s


def kept_on(
    holder: object, kind: type[DispatcherT], dispatcher: DispatcherT | Callable[[], DispatcherT]
) -> Source[DispatcherT]:
    """Return the source for what a body hands over in each run; ``holder`` is the queue's task, and keeps it.

    Warn once where that is another function in each run.
    """
    if isinstance(dispatcher, kind):
        return Source(kind, dispatcher)
    kept: dict[str, Any] = vars(holder)
    source: Source[DispatcherT] = kept.setdefault(_KEPT, Source(kind, dispatcher))
    if source.given != dispatcher:
        _tell_anew(kept)
        source = kept[_KEPT] = Source(kind, dispatcher)
    return source


def _tell_anew(kept: dict[str, Any]) -> None:
    if not kept.get(_TOLD):
        kept[_TOLD] = True
        _log.warning(
            "deliver was given another function that makes a dispatcher than in the run before, so each run connects "
            "anew. Define the function at the top of its module, and hand over its name."
        )


def only_once(marks: Any, name: str) -> None:
    """Raise `smsretry.ConfigurationError` at the second call of `deliver` in one run; ``marks`` lives as long as it."""
    if marks.get(_DELIVERED):
        msg = f"{name} called deliver twice in one run. A retry repeats both: start one task for each message."
        raise ConfigurationError(msg)
    marks.update({_DELIVERED: True})


def check_name(name: object, example: str) -> None:
    """Raise `smsretry.ConfigurationError` where ``name`` names no task."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"name must be a str such as {example!r}, got {shown(name)}.")


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: Any = None


def _own_journal(dispatcher: Any, journal: CanPlan | None) -> CanPlan | None:
    """Return the journal of ``dispatcher`` where it can plan; raise where ``journal`` is another one."""
    own: object = dispatcher.journal
    if journal is not None and own is not journal:
        raise ConfigurationError(
            "journal is not the one of the dispatcher, so what is planned would never be found there. "
            "Pass it to the Dispatcher, which is enough: Dispatcher(sender, journal=store)."
        )
    return own if isinstance(own, CanPlan) else None


def refuse_without_id() -> Never:
    """Raise `smsretry.InvalidMessage`: a journal would know the message by an id that is new each time."""
    raise InvalidMessage(
        "With a journal a message that is queued inside a task needs an id of its own: a task that runs again "
        "would queue it once more. Give it one, such as f'{campaign}:{customer_id}'."
    )


def _take_back(journal: object, message_id: str, error: Exception) -> None:
    """Cancel what was planned under an id that nobody knows: whoever gets ``error`` sends it under another one."""
    canceled = False
    with contextlib.suppress(Exception):  # the queue's error is the one to be told
        taken_back = isinstance(journal, CanCancel) and journal.cancel(message_id)
        canceled = taken_back and not is_open(journal, message_id)
    if not canceled:
        error.add_note(f"The message is planned as {message_id} and may be sent: send it again under that id.")
