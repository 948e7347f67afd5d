"""Let `smsretry.store.recover` run beside a worker, and take back what a queue has dropped."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, runtime_checkable

from smsretry.core.message import Message
from smsretry.errors import ConfigurationError, reason_of

if TYPE_CHECKING:
    import asyncio

_log: Final = logging.getLogger("smsretry")
_RECOVERS: Final = "_smsretry_recovers"
_PATIENCE_S: Final = 5.0
"""How long a fork, or the end of a worker, waits for a sweep."""
_LOOK_S: Final = 0.2
"""How often a thread that waits for a loop looks whether it still runs."""


class CanSend(Protocol):
    """Queue a message: a ready task can, and its ``send`` may be an async one."""

    def send(self, message: Message, /) -> Any:
        """Queue ``message``."""
        ...


Requeue = CanSend | Callable[[str, Mapping[str, Any]], object]
"""What queues again: a ready task, or an application's own function of the id and the metadata of a message."""


class CanRecover(Protocol):
    """Queue again what nobody works on any more: `smsretry.store.SQLStore` can."""

    def recover(self, requeue: Any, *, grace_s: float) -> object:
        """Queue again, through ``requeue``, what is ``grace_s`` seconds past its time."""
        ...


@runtime_checkable
class CanCancel(Protocol):
    """Take messages back."""

    def cancel(self, message_id: str) -> bool:
        """Take back a message; False where it has ended, or is not known."""
        ...


@runtime_checkable
class CanTell(Protocol):
    """Say where a message stands."""

    def message(self, message_id: str) -> Any:
        """Return what is known of a message: its ``state`` is ``pending`` until it has ended."""
        ...


def taken_back(journal: object, message_id: str) -> bool:
    """Cancel a message in its journal because its job was revoked; False where that was not possible.

    What goes wrong is logged. One that may have been sent already is open still: see `is_open`.
    """
    try:
        return isinstance(journal, CanCancel) and journal.cancel(message_id)
    except Exception as error:  # noqa: BLE001  # whatever a database raises: the worker goes on
        _log.error("%s was revoked and could not be canceled (%s).", message_id, reason_of(error))
        return False


def revoked(journal: object, message_id: str, ask: Callable[[], object]) -> None:
    """Take a message back in its journal because its job was revoked.

    ``ask`` queues one that may have been sent, so that it is asked about; what goes wrong is logged.
    """
    try:
        if taken_back(journal, message_id) and is_open(journal, message_id):
            ask()
    except Exception as error:  # noqa: BLE001  # a transport raises what it likes: recover tries it again
        _log.error("%s was revoked in doubt and not queued again (%s).", message_id, type(error).__qualname__)


def is_open(journal: object, message_id: str) -> bool:
    """Say whether a message has not ended yet: one that was taken back may have been sent."""
    record = journal.message(message_id) if isinstance(journal, CanTell) else None
    return record is not None and record.state == "pending"


def recovers(holder: object) -> bool:
    """Say whether `recover` is known to run for ``holder``, a queue."""
    return bool(vars(holder).get(_RECOVERS))


def set_recovers(holder: object) -> None:
    """Keep that `recover` runs for ``holder``, a queue, so that its workers do not warn."""
    vars(holder)[_RECOVERS] = True


def recovery_name(texts: object, task_name: str | None) -> str:
    """Return a name for the job that recovers for ``texts``: a ready task called ``task_name``, or a function."""
    return f"{task_name or getattr(texts, '__name__', 'smsretry')}.recover"


class Sweeper:
    """Run ``store.recover`` every ``every_s`` seconds in a thread, from `start` to `stop`.

    A process that forks while a thread works on a database or a lock leaves its child with half of it; so a fork waits
    for the sweep that is under way, and a sweep for a fork.
    """

    def __init__(self, store: CanRecover, queue: Requeue, *, every_s: float, grace_s: float) -> None:
        check_recovery(store, queue, grace_s=grace_s)
        _check_positive("every_s", every_s)
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
                _log.error("recover failed (%s): it runs again in %g s.", reason_of(error), self._every_s)

    def _run(self) -> None:
        self.sweep()
        while not self._ended.wait(self._every_s):
            self.sweep()


class Recovery:
    """Keep what lets `recover` run beside the workers of one application, and whether it runs at all."""

    def __init__(self) -> None:
        self.sweepers: list[Sweeper] = []
        self.is_elsewhere = False
        """True where the application says that it runs elsewhere, such as in cron."""

    @property
    def is_running(self) -> bool:
        """Say whether `recover` is known to run, here or elsewhere."""
        return self.is_elsewhere or bool(self.sweepers)

    def start(self) -> None:
        """Start every sweeper: a worker begins."""
        for sweeper in self.sweepers:
            sweeper.start()

    def stop(self) -> None:
        """Stop every sweeper: a worker ends."""
        for sweeper in self.sweepers:
            sweeper.stop()


async def sweep_in_loop(store: CanRecover, queue: Requeue, *, every_s: float, grace_s: float) -> None:
    """Run ``store.recover`` every ``every_s`` seconds in a thread, until canceled; see `recover_in_loop`."""
    import asyncio  # only whoever runs a loop pays for it

    with _Bridge(asyncio.get_running_loop()) as bridge:
        sweeper = Sweeper(store, bridge.from_thread(queue), every_s=every_s, grace_s=grace_s)
        while True:
            await asyncio.to_thread(sweeper.sweep)
            await asyncio.sleep(every_s)


async def recover_in_loop(store: CanRecover, queue: Requeue, *, grace_s: float) -> object:
    """Run ``store.recover`` once, in a thread, and return what it counts; what ``queue`` does is awaited in this loop.

    ``queue`` is a ready task with an async ``send``, or an async function of the id and the metadata of a message.
    """
    import asyncio

    with _Bridge(asyncio.get_running_loop()) as bridge:
        return await asyncio.to_thread(store.recover, bridge.from_thread(queue), grace_s=grace_s)


class _Bridge:
    """Let a thread wait for what is done in a loop, until whoever awaits that thread ends.

    That may be because the loop ends, and an interpreter that ends waits for its threads: they must not wait for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True

    def from_thread(self, queue: Any) -> Any:
        """Return ``queue``, a ready task or a function, for a thread."""
        send = getattr(queue, "send", None)
        return partial(self._wait_for, queue) if send is None else SimpleNamespace(send=partial(self._wait_for, send))

    def _wait_for(self, call: Callable[..., Awaitable[object]], *args: Any) -> object:
        import asyncio
        import concurrent.futures

        async def awaited() -> object:
            return await call(*args)

        if self._ended or not self._loop.is_running():
            raise _LoopEnded
        waiting = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        while not concurrent.futures.wait([waiting], timeout=_LOOK_S).done:
            if self._ended or not self._loop.is_running():
                waiting.cancel()
                raise _LoopEnded
        if waiting.cancelled():
            raise _LoopEnded
        return waiting.result()


class _LoopEnded(BaseException):
    """Say that a sweep has to end, and its messages wait for the next one: no fault of theirs."""


def check_recovery(store: object, queue: object, *, grace_s: float) -> None:
    """Raise `smsretry.ConfigurationError` for what cannot be recovered with."""
    _check_store(store)
    _check_queue(queue)
    _check_positive("grace_s", grace_s)


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


def _check_queue(queue: object) -> None:
    if not callable(getattr(queue, "send", None)) and not callable(queue):
        raise ConfigurationError(
            "queue must be a ready task, or a function of the id and the metadata of a message that queues it, "
            f"got {type(queue).__name__}."
        )


def _check_positive(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        msg = f"{name} must be more than 0 seconds, got {value!r}. Use 60."
        raise ConfigurationError(msg)
