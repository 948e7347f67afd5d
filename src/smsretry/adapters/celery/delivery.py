"""Make one attempt inside a running task, and publish what follows."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, assert_never

from celery import Task
from celery.app.task import Context
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded

from smsretry.adapters.celery.envelope import (
    EXPIRES_HEADER,
    expires_of,
    header_of,
    limits_of,
    seconds_until,
    state_in,
    with_deadline,
)
from smsretry.adapters.celery.settings import check_once, sending_of, tell_not_set_up
from smsretry.core.failure import Failure
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, DeferReason, Deferred, GaveUp, Outcome, RetryAfter
from smsretry.dispatcher import Dispatcher
from smsretry.errors import (
    ConfigurationError,
    InvalidMessage,
    NotAccepted,
    ProviderError,
    SendFailed,
    SendUnknown,
    not_accepted,
)

DispatcherSource = Dispatcher | Callable[[], Dispatcher]
"""A dispatcher, or a function without arguments that makes one: it is called once in each process, at first use."""

_log: Final = logging.getLogger("smsretry")
_EARLY_S: Final = 0.5
"""A task that wakes this much before its state is due goes on: clocks differ a little between machines."""
_LEAST_WAIT_S: Final = 1.0
"""A copy of a message that another worker holds comes back no sooner, so that it does not spin."""
_LONGEST_PAUSE_S: Final = 10.0
"""A run that goes back to the broker keeps its worker no longer: the broker hands it out again at once, as it was."""
_RAISED: Final = (SendFailed, SendUnknown, Reject)
_CACHE: Final = "_smsretry_dispatcher"
_DELIVERED: Final = "smsretry_delivered"


def deliver(task: Task[Any, Any], dispatcher: DispatcherSource, message: Message) -> Receipt:
    """Make one attempt to send ``message`` from the body of ``task``, the running task of ``@app.task(bind=True)``.

    Return the `smsretry.Receipt` where the text was accepted. Raise Celery's ``Retry`` where another run of the task
    was published, ``Reject`` where that could not be done and the broker shall hand this run out again, and
    `smsretry.NotAccepted` where the message has ended. Let ``Retry`` and ``Reject`` pass: a body that catches
    ``Exception`` needs ``except (Retry, Reject): raise`` before it.

    Each run repeats the whole body, so render the same text every time; with a journal, the text of the first run is
    the one that is sent, whatever the later ones render. A message without an id gets the task's id, which its retries
    share. An ``expires`` of the task becomes the message's ``send_before``. One task sends one message. Run eagerly
    (``task_always_eager``, ``apply``), all attempts follow each other here without waiting, and a message that would
    have to wait for a look-up ends as unknown; with a journal, what would have to wait stays in it, and ``Retry`` is
    raised.

    Raises `smsretry.ConfigurationError`, before anything is sent, outside of a running task and in a task whose
    ``autoretry_for`` would repeat what has ended.
    """
    return deliver_in(task, dispatcher, message, rerun=True)


def deliver_in(task: Task[Any, Any], source: DispatcherSource, message: Message, *, rerun: bool) -> Receipt:
    """Do what `deliver` does; ``rerun`` says whether a body rendered the text, and may have rendered it anew."""
    check_message(message, "Give deliver a smsretry.Message")
    request = _running(task)
    refuse_autoretry(getattr(task, "autoretry_for", ()), getattr(task, "dont_autoretry_for", ()))
    state = state_in(request.headers)
    message = with_deadline(message.with_id(str(request.id)), request, task.app)
    dispatcher = dispatcher_of(task, source)
    _check_journal(task, dispatcher)
    delivery = _Delivery(task, request, dispatcher, message, rerun)
    if request.is_eager:
        return delivery.run_eagerly(state)
    check_once(task, dispatcher)
    return delivery.run(state)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """Hold what one run of a task needs in order to send its message."""

    task: Task[Any, Any]
    request: Context
    dispatcher: Dispatcher
    message: Message
    rerun: bool

    @property
    def is_journaled(self) -> bool:
        """Say whether a journal knows the message, so that what came with it is a hint."""
        return self.dispatcher.journal is not None

    def run(self, state: AttemptState) -> Receipt:
        """Make one attempt, or wait on where the broker's limit has cut the wait short."""
        try:
            return self._run(state)
        except SoftTimeLimitExceeded as error:
            if not self.is_journaled:
                raise
            raise self._again(self._cut_short(state), state) from error

    def _run(self, state: AttemptState) -> Receipt:
        early_s = seconds_until(state.due, self.dispatcher.clock())
        if early_s > _EARLY_S:
            raise self._again(_Next(state, early_s, "not due yet"), state)
        outcome = self._attempt(state)
        match outcome:
            case Accepted(receipt):
                return receipt
            case RetryAfter(delay_s, failure, following):
                raise self._again(_Next(following, delay_s, "", failure, counted=True), state)
            case Deferred(delay_s, reason, following):
                raise self._again(_Next(following, _wait_s(delay_s, reason), f"put off ({reason})"), state)
            case GaveUp():
                raise self._ended(outcome) from outcome.cause
            case _ as unreachable:
                assert_never(unreachable)

    def run_eagerly(self, state: AttemptState) -> Receipt:
        """Make all attempts at once: eager mode has no queue to wait in."""
        while True:
            outcome = self._attempt(state)
            match outcome:
                case Accepted(receipt):
                    return receipt
                case RetryAfter(delay_s) if not self.is_journaled or delay_s <= _EARLY_S:
                    state = outcome.state
                case RetryAfter() | Deferred() if self.is_journaled:
                    raise _Next(outcome.state, outcome.delay_s, "eager mode does not wait, the journal has it").retry(0)
                case Deferred(_, DeferReason.LIMITED | DeferReason.LIMITER_AWAY, AttemptState(doubt_since=None)):
                    why = f"{outcome.reason}, eager mode does not wait, and it was not taken"
                    raise _Next(outcome.state, outcome.delay_s, why).retry(0)
                case RetryAfter() | Deferred():
                    raise self._unknown(outcome.state, "eager mode does not wait for a look-up")
                case GaveUp():
                    raise self._ended(outcome) from outcome.cause
                case _ as unreachable:
                    assert_never(unreachable)

    def _ended(self, outcome: GaveUp) -> NotAccepted:
        """Return what says how the message ended; a sender that is not set up is told aloud, for it ends every text."""
        if isinstance(outcome.cause, ConfigurationError):
            tell_not_set_up(self.task, outcome.cause)
        return not_accepted(str(self.message.id), outcome)

    def _attempt(self, state: AttemptState) -> Outcome:
        if self.is_journaled:
            return self.dispatcher.attempt(self.message, state, rerun=self.rerun)
        began = self.dispatcher.clock()
        try:
            return self.dispatcher.attempt(self.message, state)
        except SoftTimeLimitExceeded as error:  # between the send and its outcome: nobody knows how far it came
            return self.dispatcher.interrupted(self.message, state, began, error)

    def _cut_short(self, state: AttemptState) -> _Next:
        """Return the run that follows where nobody knows how far this one came: its claim is open until its end."""
        now, lease_s = self.dispatcher.clock(), self.dispatcher.lease_s
        following = state.with_deferral(now, now + timedelta(seconds=lease_s))
        return _Next(following, lease_s, "cut short by the soft time limit")

    def _again(self, following: _Next, state: AttemptState) -> Exception:
        """Publish the next run; return what this run has to raise."""
        if self.is_journaled:
            following = following.by_the_clock_of(self.dispatcher)
        countdown = limits_of(self.task.app).countdown(following.delay_s)
        try:
            self._publish(following, countdown)
        except Exception as error:  # noqa: BLE001  # a transport raises what it likes, and the text must not be lost
            return self._unpublished(following, state, error)
        return following.retry(countdown)

    def _publish(self, following: _Next, countdown: float) -> None:
        request = self.request
        expires = expires_of(request)
        options: dict[str, Any] = request.as_execution_options()
        headers = {**(options["headers"] or {}), **header_of(following.state)}
        signature = self.task.signature_from_request(
            request,
            countdown=countdown,
            retries=request.retries + following.counted,
            headers={**headers, EXPIRES_HEADER: expires} if expires else headers,
            expires=None,
            argsrepr=request.get("argsrepr") or "(...)",
            kwargsrepr=request.get("kwargsrepr") or "{...}",
            add_to_parent=False,  # it is the same task and not a child of it
        )
        signature.apply_async()

    def _unpublished(self, following: _Next, state: AttemptState, error: Exception) -> Exception:
        why = f"The next run of message {self.message.id} could not be published ({type(error).__name__})"
        if self.is_journaled:
            return self._left_to_the_journal(following, why, error)
        if following.state.settles_at != state.settles_at:  # this run left a doubt, and the broker knows an older state
            _log.error("%s, and its answer was lost: it ends as unknown.", why)
            return _caused(self._unknown(following.state, "its retry could not be published"), error)
        if self.task.acks_late:
            return self._handed_back(following.delay_s, why, error)
        _log.critical(
            "%s and its task is acknowledged: send it anew with state %s, or set acks_late.",
            why,
            following.state.to_dict(),
        )
        return error

    def _left_to_the_journal(self, following: _Next, why: str, error: Exception) -> Exception:
        """Return what this run has to raise where the journal knows what follows, and the broker does not."""
        if self.task.acks_late:
            return self._handed_back(following.delay_s, why, error)
        _log.error("%s and its task is acknowledged: the journal has it, and recover queues it again.", why)
        return _caused(following.retry(following.delay_s), error)

    def _handed_back(self, delay_s: float, why: str, error: Exception) -> Exception:
        """Return what hands this run back to the broker, after the wait that it could not publish, or part of it."""
        _log.error("%s: this run goes back to the broker.", why)
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(min(delay_s, _LONGEST_PAUSE_S))
        return _caused(Reject(why, requeue=True), error)

    def _unknown(self, state: AttemptState, why: str) -> NotAccepted:
        return not_accepted(str(self.message.id), self.dispatcher.abandon(self.message, state, why))


@dataclass(frozen=True, slots=True)
class _Next:
    """Hold the run that follows: its state, when, and why."""

    state: AttemptState
    delay_s: float
    why: str
    failure: Failure | None = None
    counted: bool = False

    def by_the_clock_of(self, dispatcher: Dispatcher) -> _Next:
        """Return it with a state that is due by this worker's clock: a journal's may show another time."""
        return replace(self, state=replace(self.state, due=dispatcher.clock() + timedelta(seconds=self.delay_s)))

    def retry(self, countdown: float) -> Retry:
        """Return Celery's word for it; the failure becomes the result of the task while it waits."""
        wait_s: Any = max(self.delay_s, countdown)
        if self.failure is not None:
            return Retry(exc=ProviderError(self.failure), when=wait_s)
        return Retry(f"Retry in {wait_s:.3g}s: {self.why}", when=wait_s)


def _wait_s(delay_s: float, reason: DeferReason) -> float:
    """Return how long a message that was put off waits: doubt, due time and turn are exact, others are a guess."""
    is_exact = reason in {DeferReason.IN_DOUBT, DeferReason.NOT_DUE, DeferReason.LIMITED}
    return delay_s if is_exact else max(delay_s, _LEAST_WAIT_S)


def check_message(message: object, remedy: str) -> None:
    """Raise `smsretry.InvalidMessage` where ``message`` is none, before anything is queued or sent."""
    if not isinstance(message, Message):
        raise InvalidMessage(f"{remedy}, got {type(message).__name__}. Nothing was sent.")


def refuse_autoretry(autoretry_for: Any, dont_autoretry_for: Any) -> None:
    """Raise `smsretry.ConfigurationError` where Celery would start anew what has ended."""
    spared = tuple(dont_autoretry_for)
    caught = [kind for kind in _RAISED if issubclass(kind, tuple(autoretry_for)) and not issubclass(kind, spared)]
    if caught:
        msg = (
            f"autoretry_for of this task catches {caught[0].__name__}, so Celery would send again what has ended. "
            "Remove autoretry_for: the policy retries. Or set dont_autoretry_for=(smsretry.NotAccepted, "
            "celery.exceptions.Reject)."
        )
        raise ConfigurationError(msg)


def dispatcher_of(task: Task[Any, Any], source: DispatcherSource) -> Dispatcher:
    """Return the dispatcher, made once per process where ``source`` is a function."""
    if isinstance(source, Dispatcher):
        return source
    if not callable(source):
        msg = f"dispatcher must be a Dispatcher or a function that returns one, got {type(source).__name__}."
        raise ConfigurationError(msg)
    kept: _PerProcess = vars(task).setdefault(_CACHE, _PerProcess(source))
    if kept.make != source:
        kept = vars(task)[_CACHE] = _PerProcess(source)
    return kept.dispatcher()


@dataclass(frozen=True, slots=True)
class _PerProcess:
    """Keep what a function made, one for each process, whichever thread asks first."""

    make: Callable[[], Dispatcher]
    made: dict[int, _Slot] = field(default_factory=dict)

    def dispatcher(self) -> Dispatcher:
        slot = self.made.setdefault(os.getpid(), _Slot())  # a forked child finds no lock that its parent held
        with slot.lock:
            if slot.dispatcher is None:
                slot.dispatcher = _checked(self.make())
            return slot.dispatcher


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    dispatcher: Dispatcher | None = None


def _checked(made: object) -> Dispatcher:
    if isinstance(made, Dispatcher):
        return made
    msg = f"The function that makes the dispatcher must return a Dispatcher, got {type(made).__name__}."
    raise ConfigurationError(msg)


def _check_journal(task: Task[Any, Any], dispatcher: Dispatcher) -> None:
    """Raise where messages are planned in a journal that nobody reads: `recover` would queue them for ever."""
    known = sending_of(task)
    if known is not None and known.journal is not None and dispatcher.journal is None:
        msg = (
            f"The messages of {task.name} are planned in a journal and its dispatcher has none, so nothing was sent. "
            "Make it with the same one: Dispatcher(sender, journal=store)."
        )
        raise ConfigurationError(msg)


def _running(task: object) -> Context:
    """Return the request of the running task, once for each run."""
    if not isinstance(task, Task):
        msg = (
            f"deliver needs the running task as its first argument, got {type(task).__name__}. "
            "Declare the task with @app.task(bind=True) and pass self."
        )
        raise ConfigurationError(msg)
    request = task.request
    if request.called_directly or request.id is None:
        msg = f"{task.name} was called as a plain function, so it has no queue. Call .delay() or .apply_async() on it."
        raise ConfigurationError(msg)
    if request.get(_DELIVERED):
        msg = f"{task.name} called deliver twice in one run. A retry repeats both: start one task for each message."
        raise ConfigurationError(msg)
    request.update({_DELIVERED: True})
    return request


def _caused(raised: Exception, cause: Exception) -> Exception:
    raised.__cause__ = cause
    return raised
