"""Find the settings of a Celery application that would break a promise, and name each in one warning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from celery import Celery, Task, bootsteps

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.adapters.celery.delays import broker_of, handed_out_again, limits_of
from smsretry.dispatcher import Dispatcher
from smsretry.errors import ConfigurationError


class Watch(seam.Recovery):
    """Keep what was registered for the workers of one application."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        """The names of the ready tasks."""


class WatchStep(bootsteps.StartStopStep):
    """Warn when a worker starts, and let `recover` run beside it; it stands in ``app.steps["worker"]``.

    It starts after the pool, whose children are forked by then.
    """

    requires = ("celery.worker.components:Pool",)
    watch: Watch

    def __init__(self, parent: Any, **_: Any) -> None:
        super().__init__(parent)

    def start(self, parent: Any) -> None:
        """Warn, and let `recover` run."""
        problems.warn(problems_of_app(parent.app, parent))
        self.watch.start()

    def stop(self, parent: Any) -> None:
        """Let `recover` end."""
        del parent
        self.watch.stop()

    terminate = stop


def watch_of(app: Celery) -> Watch:
    """Return what is kept for the workers of ``app``; the first call sees to it that they look at it.

    Raise `smsretry.ConfigurationError` for what is no application.
    """
    if not isinstance(app, Celery):
        msg = f"app must be a Celery app, got {type(app).__name__}. Pass the one that your workers run."
        raise ConfigurationError(msg)
    steps: set[Any] = app.steps["worker"]
    for step in steps:
        if isinstance(step, type) and issubclass(step, WatchStep):
            return step.watch
    watch = Watch()
    steps.add(type("WatchStep", (WatchStep,), {"__module__": __name__, "watch": watch}))
    return watch


def recover_elsewhere(app: Celery) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (beat, cron, ``smsretry recover``), so that no worker warns."""
    watch_of(app).is_elsewhere = True


_TIME_LIMITS: Final = {"time_limit": "--time-limit", "soft_time_limit": "--soft-time-limit"}


def check_once(task: Task[Any, Any], dispatcher: Dispatcher) -> None:
    """Warn, at the first run of ``task`` in a process, of what could not be known when the worker started."""
    if not problems.once(task, "checked"):
        return
    known = source_of(task)
    if known is not None and known.dispatcher is not None:
        return
    if dispatcher.journal is not None and (known is None or not known.is_journaled):
        if known is not None:
            problems.warn(problems.plans_nothing(task.name, known, dispatcher))
        problems.warn(_unless_recovered(task.app, [task]))
    problems.warn(_problems_of_sending(task, dispatcher))


def source_of(task: Task[Any, Any]) -> seam.Source[Dispatcher] | None:
    """Return what was registered with a ready task; None for an application's own."""
    source = getattr(task, "sends", None)
    return source if isinstance(source, seam.Source) else None


def problems_of_app(app: Celery, worker: object = None) -> Iterator[str]:
    """Say what is wrong when ``worker`` starts, each with its remedy."""
    tasks = {task: sends for task in app.tasks.values() if (sends := source_of(task)) is not None}
    if tasks and app.conf.result_extended:
        yield (
            "result_extended is on: the result backend stores the arguments of each task, number and text among them. "
            "Set result_extended to False."
        )
    journaled = [task for task, sends in tasks.items() if sends.is_journaled]
    yield from _unless_recovered(app, journaled)
    if len(journaled) < len(tasks) or not watch_of(app).is_running:
        yield from _unconfirmed(app)
    for task, sends in tasks.items():
        if sends.dispatcher is not None:
            yield from _problems_of_sending(task, sends.dispatcher)
            yield from _cut_off_by(worker, task, sends.dispatcher)


def _cut_off_by(worker: object, task: Task[Any, Any], dispatcher: Dispatcher) -> Iterator[str]:
    """Say where a limit that ``worker`` was started with, for every task, may end a send."""
    for limit, option in _TIME_LIMITS.items():
        limit_s = getattr(worker, limit, None)
        if limit_s != task.app.conf[f"task_{limit}"] and not getattr(task, limit):
            yield from problems.cut_off(task.name, option, limit_s, dispatcher.timeout_s)


def _unless_recovered(app: Celery, tasks: Sequence[Task[Any, Any]]) -> Iterator[str]:
    """Say what is lost of the messages of ``tasks``, which a journal knows, where nobody queues them again."""
    if not tasks or watch_of(app).is_running:
        return
    names = ", ".join(sorted(task.name for task in tasks))
    yield problems.no_recover(names, "recover_every(app, store, texts)", "recover_elsewhere(app)")
    for task in tasks:
        yield from _lost_with_a_worker(task)


def _problems_of_sending(task: Task[Any, Any], dispatcher: Dispatcher) -> Iterator[str]:
    yield from problems.forgotten(task.name, dispatcher)
    yield from _dropped(task)
    if dispatcher.timeout_s is not None:
        for option in _TIME_LIMITS:
            limit_s = getattr(task, option) or task.app.conf[f"task_{option}"]  # older Celery has only the latter
            yield from problems.cut_off(task.name, option, limit_s, dispatcher.timeout_s)
    option, again_s = handed_out_again(*broker_of(task.app))
    held_s = problems.held_s(dispatcher)
    yield from problems.handed_out_again(task.name, option, again_s, held_s, "broker_transport_options")


def _unconfirmed(app: Celery) -> Iterator[str]:
    if limits_of(app).whole_seconds and not broker_of(app)[1].get("confirm_publish"):
        yield (
            "confirm_publish is off, and quorum queues hold what waits: a text with a countdown that is queued before "
            "the first worker has run is lost without an error. Set confirm_publish to True in "
            "broker_transport_options."
        )


def _dropped(task: Task[Any, Any]) -> Iterator[str]:
    if task.expires:
        yield (
            f"{task.name}: expires is set, and a text that comes to a worker after it is dropped, on RabbitMQ without "
            "a word. Leave it out and set send_before on the message, which then ends as expired."
        )


def _lost_with_a_worker(task: Task[Any, Any]) -> Iterator[str]:
    if not task.acks_late:
        yield (
            f"{task.name}: acks_late is off and no recover runs, so what a killed worker held is lost. "
            "Set acks_late=True and reject_on_worker_lost=True, or run recover."
        )
    elif not (task.reject_on_worker_lost or getattr(task, "retry_on_worker_lost", False)):
        yield (
            f"{task.name}: reject_on_worker_lost is off and no recover runs, so what a killed child process held is "
            "lost. Set reject_on_worker_lost=True, or run recover."
        )
