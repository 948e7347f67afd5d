"""Plan what is queued, take back what was revoked, and let `recover` run beside a worker."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from celery import Celery, Task
from celery.app.task import Context

from smsretry.core.message import Message
from smsretry.dispatcher import new_id
from smsretry.errors import ConfigurationError

_log: Final = logging.getLogger("smsretry")
_PATIENCE_S: Final = 5.0
"""How long a fork, or the end of a worker, waits for a sweep."""


@runtime_checkable
class CanPlan(Protocol):
    """Write down what will be sent before it is queued: `smsretry.store.SQLStore` can."""

    def plan(self, messages: Message, *, due_in_s: float = 0.0) -> object:
        """Write that ``messages`` will be sent, ``due_in_s`` seconds from now at the earliest."""
        ...


@runtime_checkable
class CanCancel(Protocol):
    """Take messages back."""

    def cancel(self, message_id: str) -> bool:
        """Take back a message; False where it has ended, or is not known."""
        ...


class CanRecover(Protocol):
    """Queue again what nobody works on any more: `smsretry.store.SQLStore` can."""

    def recover(self, requeue: Any, *, grace_s: float) -> object:
        """Queue again, through ``requeue``, what is ``grace_s`` seconds past its time."""
        ...


Requeue = Task[Any, Any] | Callable[[str, Mapping[str, Any]], object]
"""A ready task, or an application's own function of a message's id and metadata that queues it."""


@runtime_checkable
class CanTell(Protocol):
    """Say where a message stands."""

    def message(self, message_id: str) -> Any:
        """Return what is known of a message: its ``state`` is ``pending`` until it has ended."""
        ...


def cancel_revoked(*, sender: Any, request: Context, **_: Any) -> None:
    """Take a revoked message back in the journal of its ready task: a receiver of Celery's ``task_revoked``.

    One that may have been sent is asked about. That takes a copy under another task id, since a worker drops each task
    with the one that was revoked.
    """
    journal, message_id = sender.sends.journal, _message_id(request)
    if message_id is not None and _canceled(journal, message_id) and is_open(journal, message_id):
        copy = {**_message_in(request), "id": message_id}
        try:
            sender.apply_async((copy,), task_id=new_id())
        except Exception as error:  # noqa: BLE001  # a transport raises what it likes: recover tries it again
            _log.error("%s was revoked in doubt and not queued again (%s).", message_id, type(error).__qualname__)


def cancel_own(app: Celery, store: object) -> Callable[..., None]:
    """Return a receiver of ``task_revoked`` that takes back, in ``store``, messages with the id of their task.

    It is for the tasks of ``app`` that call `deliver`: what message they would send nobody knows before they run.
    """

    def cancel(*, sender: Any, request: Context, **_: Any) -> None:
        if sender.app is app and not hasattr(sender, "sends") and request.id is not None:
            _canceled(store, str(request.id))

    return cancel


def _canceled(journal: object, message_id: str) -> bool:
    try:
        return isinstance(journal, CanCancel) and journal.cancel(message_id)
    except Exception as error:  # noqa: BLE001  # whatever a database raises: the worker goes on
        _log.error("%s was revoked and could not be canceled (%s).", message_id, type(error).__qualname__)
        return False


def is_open(journal: object, message_id: str) -> bool:
    """Say whether a message has not ended yet: one that was taken back may have been sent."""
    record = journal.message(message_id) if isinstance(journal, CanTell) else None
    return record is not None and record.state == "pending"


def _message_id(request: Context) -> str | None:
    """Return the id of the message in a task's arguments; the task's own where it has none."""
    found = _message_in(request).get("id") or request.id
    return None if found is None else str(found)


def _message_in(request: Context) -> Mapping[str, Any]:
    args, kwargs = request.args or (), request.kwargs or {}
    message = args[0] if args else kwargs.get("message")
    return message if isinstance(message, Mapping) else {}


class Sweeper:
    """Run ``store.recover`` every ``every_s`` seconds in a thread, from `start` to `stop`.

    A process that forks while a thread works on a database or a lock leaves its child with half of it; so a fork waits
    for the sweep that is under way, and a sweep for a fork.
    """

    def __init__(self, store: CanRecover, queue: Requeue, *, every_s: float, grace_s: float) -> None:
        _check_store(store)
        _check_queue(queue)
        _check_positive("every_s", every_s)
        _check_positive("grace_s", grace_s)
        self._store, self._queue = store, queue
        self._every_s, self._grace_s = every_s, grace_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._working = _ForkGuard()

    def start(self) -> None:
        """Sweep at once, and then again and again."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._working.stand()
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="smsretry-recover", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sweep no more; wait a little for the sweep that is under way."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def sweep(self) -> None:
        """Sweep once; what goes wrong is logged, and tried again the next time."""
        with self._working:
            try:
                self._store.recover(self._queue, grace_s=self._grace_s)
            except Exception as error:  # noqa: BLE001  # whatever a database raises
                _log.error("recover failed (%s): it runs again in %g s.", type(error).__qualname__, self._every_s)

    def _run(self) -> None:
        self.sweep()
        while not self._ended.wait(self._every_s):
            self.sweep()


class _ForkGuard:
    """Keep forks of this process and a block of work apart; it works once it was told to `stand`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stands_in: int | None = None
        self._holds = False

    def stand(self) -> None:
        """Guard this process from now on."""
        if self._stands_in is None and hasattr(os, "register_at_fork"):  # Windows does not fork
            self._stands_in = os.getpid()
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._forget)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _wait(self) -> None:
        self._holds = self._lock.acquire(timeout=_PATIENCE_S)

    def _go_on(self) -> None:
        if self._holds:
            self._lock.release()

    def _forget(self) -> None:
        self._lock = threading.Lock()


def _check_store(store: object) -> None:
    if isinstance(store, type) or not callable(getattr(store, "recover", None)):
        got = "a class" if isinstance(store, type) else type(store).__name__
        raise ConfigurationError(f"store must have a method recover(queue, grace_s=...), got {got}. Use an SQLStore.")


def _check_queue(queue: Any) -> None:
    if callable(getattr(queue, "send", None)):
        return
    if isinstance(queue, Task):
        msg = f"The task {queue.name!r} was not made by sms_task. Name a function that queues it instead."
        raise ConfigurationError(msg)
    if not callable(queue):
        msg = (
            "queue must be what sms_task returned, or a function of the id and the metadata of a message that queues "
            f"it, got {type(queue).__name__}."
        )
        raise ConfigurationError(msg)


def _check_positive(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        msg = f"{name} must be more than 0 seconds, got {value!r}. Use 60."
        raise ConfigurationError(msg)
