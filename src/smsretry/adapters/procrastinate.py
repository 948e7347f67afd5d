"""Send from procrastinate: a ready task, or one call inside a task that an application has already.

`sms_task` registers a task that takes what its `SMSTask.send` queues. `deliver` sends from the body of an application's
own ``@app.task(pass_context=True)``. Either way one run is one attempt. procrastinate cannot change the arguments of a
job that it retries, so the next run is a job of its own, with the state of the attempts in one more argument,
``smsretry_state``. `sms_task_async` and `deliver_async` do the same in the loop of the worker, for an
`smsretry.AsyncDispatcher`.

The argument of a ready task holds the number and the text, packed, since procrastinate logs the arguments of each job:
nobody reads them by the way, and whoever wants to can.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.adapters._seam.run import DispatcherT
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import AsyncDispatcher, Dispatcher, utc_now
from smsretry.errors import ConfigurationError, SendFailed, SendUnknown

try:
    from procrastinate import JobContext
    from procrastinate.blueprints import Blueprint
    from procrastinate.jobs import JobDeferrer
    from procrastinate.tasks import Task
except ModuleNotFoundError as error:
    raise seam.missing("procrastinate", "procrastinate", error) from error

__all__ = ["SMSTask", "deliver", "deliver_async", "recover_elsewhere", "recover_every", "sms_task", "sms_task_async"]

_ENDS: Final = tuple(kind("", "permanent", 1, {"kind": "other"}) for kind in (SendFailed, SendUnknown))


@dataclass(frozen=True, slots=True)
class SMSTask:
    """Be a task that sends one message: what `sms_task` returns."""

    task: Task[Any, Any, Any]
    """The task of procrastinate."""
    sends: seam.Source[Any]
    """What was registered; plans are written to its journal."""

    def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> int:
        """Queue ``message``, to be sent in ``delay_s`` seconds; return the id of the job.

        ``state`` is that of a message whose attempts began elsewhere. With a journal the message is planned in it
        first, and needs an id of its own. Raises `smsretry.InvalidMessage` where it has none, and where the journal
        knows its id with another recipient or text; then nothing is queued.
        """
        # procrastinate does not say whether a job runs here
        return self.sends.send(
            message, lambda first: self._job(first).defer(), delay_s=delay_s, state=state, in_task=True
        )

    async def send_async(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> int:
        """Queue ``message`` as `send` does, in a running loop."""
        job_id: int = await self.sends.send_async(
            message, lambda first: self._job(first).defer_async(), delay_s=delay_s, state=state, in_task=True
        )
        return job_id

    def _job(self, first: seam.Again) -> JobDeferrer:
        arguments: dict[str, Any] = {"message": seam.packed(first.message), **seam.written(first.state)}
        return self.task.configure(schedule_at=first.state.due, task_kwargs=arguments)


def sms_task(
    app: Blueprint,
    dispatcher: seam.DispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **task_options: Any,
) -> SMSTask:
    """Register a task called ``name`` that sends what it is given, and return it.

    Call it in the module that both producers and workers import. ``dispatcher`` is a `smsretry.Dispatcher`, or a
    function that makes one: it is called once in each process, at first use. ``journal`` is what `SMSTask.send` plans
    in; needed only where a function makes the dispatcher. ``task_options`` are those of ``app.task``, such as
    ``queue`` and ``priority``.

    The job succeeds where the text was accepted, and where its next run was queued. It fails with
    `smsretry.NotAccepted` where the message has ended. Raises `smsretry.ConfigurationError` for ``retry``, which would
    send anew what has ended.
    """
    source = seam.Source(Dispatcher, dispatcher, journal=journal)

    def send_sms(context: JobContext, message: str, **_: Any) -> dict[str, Any] | None:
        receipt = _deliver(context, source, seam.unpacked(message), rerun=False)
        return None if receipt is None else receipt.to_dict()

    return _registered(app, send_sms, source, {**task_options, "name": name})


def sms_task_async(
    app: Blueprint,
    dispatcher: seam.AsyncDispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **task_options: Any,
) -> SMSTask:
    """Register a task as `sms_task` does that sends in the loop of the worker, with an `smsretry.AsyncDispatcher`."""
    source = seam.Source(AsyncDispatcher, dispatcher, journal=journal)

    async def send_sms(context: JobContext, message: str, **_: Any) -> dict[str, Any] | None:
        receipt = await _deliver_async(context, source, seam.unpacked(message), rerun=False)
        return None if receipt is None else receipt.to_dict()

    return _registered(app, send_sms, source, {**task_options, "name": name})


def deliver(context: JobContext, dispatcher: seam.DispatcherSource, message: Message) -> Receipt | None:
    """Make one attempt to send ``message`` from the body of a task, declared with ``@app.task(pass_context=True)``.

    The task takes one more argument, ``smsretry_state=None``. Returns the `smsretry.Receipt` where the text was
    accepted, and None where the task was queued once more, with the same arguments. Raises `smsretry.NotAccepted` where
    the message has ended, and `smsretry.ConfigurationError`, before anything is sent, in a task that takes no state or
    whose ``retry`` would send anew what has ended.

    Each run repeats the whole body, so render the same text every time; with a journal the text of the first run is the
    one that is sent, and the message needs an id. One task sends one message.
    """
    return _deliver(context, _own(context, Dispatcher, dispatcher), message, rerun=True)


async def deliver_async(
    context: JobContext, dispatcher: seam.AsyncDispatcherSource, message: Message
) -> Receipt | None:
    """Make one attempt as `deliver` does, in an async task."""
    return await _deliver_async(context, _own(context, AsyncDispatcher, dispatcher), message, rerun=True)


def recover_every(
    app: Blueprint,
    store: seam.CanRecover,
    texts: seam.Requeue,
    /,
    cron: str = "* * * * *",
    *,
    grace_s: float = 60.0,
    **task_options: Any,
) -> None:
    """Let workers run ``store.recover(texts)`` as a periodic task, each minute or as ``cron`` says.

    ``texts`` is what `sms_task` returned, or a function of the id and the metadata of a message that queues it. What is
    ``grace_s`` seconds past its time is queued again. ``task_options`` are those of ``app.task``; beside a ready task
    its queue is the usual one, so that whoever sends recovers.
    """
    sweeper = seam.Sweeper(store, texts, every_s=60.0, grace_s=grace_s)
    task = texts.task if isinstance(texts, SMSTask) else None
    name = task_options.pop("name", seam.recovery_name(texts, None if task is None else task.name))
    usual = {"queueing_lock": name} if task is None else {"queueing_lock": name, "queue": task.queue}

    def sweep(timestamp: int) -> None:
        del timestamp  # procrastinate's
        sweeper.sweep()

    register: Any = app.task
    seam.set_recovers(sweep)
    app.periodic(cron=cron)(register(**{**usual, **task_options, "name": name})(sweep))


def recover_elsewhere(app: Blueprint) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (cron, ``smsretry recover``), so that no worker warns.

    ``app`` is the one that the workers run, and no blueprint in it.
    """
    seam.set_recovers(app.periodic_registry)


def _recovers(app: Blueprint) -> bool:
    """Say whether ``app``, or a blueprint that was added to it, recovers."""
    registry = app.periodic_registry
    return seam.recovers(registry) or any(seam.recovers(one.task.func) for one in registry.periodic_tasks.values())


def _registered(app: Blueprint, body: Any, source: seam.Source[Any], options: dict[str, Any]) -> SMSTask:
    seam.check_name(options["name"], "shop.send_sms")
    if options.get("retry"):
        raise ConfigurationError("retry would send anew what has ended. Leave it out: the policy retries.")
    register: Any = app.task
    return SMSTask(register(**{**options, "pass_context": True})(body), source)


def _deliver(context: JobContext, source: seam.Source[Dispatcher], message: Message, *, rerun: bool) -> Receipt | None:
    run = _run(context, source, message, rerun=rerun)
    return _told(context, seam.deliver(run, lambda again: _next(context, again).defer()))


async def _deliver_async(
    context: JobContext, source: seam.Source[AsyncDispatcher], message: Message, *, rerun: bool
) -> Receipt | None:
    # A worker that shuts down cancels what runs after its shutdown_graceful_timeout.
    run = _run(context, source, message, rerun=rerun, interrupts=(asyncio.CancelledError,))
    return _told(context, await seam.deliver_async(run, lambda again: _next(context, again).defer_async()))


def _run(context: JobContext, source: seam.Source[DispatcherT], message: Message, **said: Any) -> seam.Run[DispatcherT]:
    name, dispatcher = context.task.name, source.get()
    run = seam.Run.of(dispatcher, message, seam.state_in(context.job.task_kwargs), **said)
    seam.only_once(context.additional_context, name)
    if problems.once(context.task, "checked"):
        problems.warn(problems.usual(name, dispatcher, None if run.rerun else source))
        problems.warn(_problems(context, dispatcher))
    return run


def _next(context: JobContext, again: seam.Again) -> JobDeferrer:
    """Return what queues the next run, with the queue, the lock and the priority of this one.

    It leaves out the queueing lock: where another job has taken it, the text would be lost.
    """
    arguments = {**context.job.task_kwargs, **seam.written(again.state)}
    due = utc_now() + timedelta(seconds=again.delay_s)
    job = context.job.evolve(id=None, queueing_lock=None, scheduled_at=due, task_kwargs=arguments)
    return JobDeferrer(context.app.job_manager, job)


def _told(context: JobContext, plan: seam.Plan | seam.HandBack) -> Receipt | None:
    problems.tell_not_set_up(context.task, context.task.name, plan)
    return seam.told(plan)


def _own(context: object, kind: type[DispatcherT], dispatcher: Any) -> seam.Source[DispatcherT]:
    """Return the source of an application's own task that would neither lose its state nor send anew what has ended."""
    if not isinstance(context, JobContext):
        raise ConfigurationError(
            f"deliver needs the context of the running job, got {type(context).__name__}. "
            "Declare the task with @app.task(pass_context=True) and pass its first argument."
        )
    task, job = context.task, context.job
    try:
        inspect.signature(task.func).bind(context, **{**job.task_kwargs, seam.STATE_KEY: None})
    except TypeError as error:
        problem = f"{task.name} must take {seam.STATE_KEY}=None: the state of the attempts comes in it ({error})."
        raise ConfigurationError(problem) from error
    if any(task.get_retry_exception(end, job.evolve(attempts=0)) for end in _ENDS):
        raise ConfigurationError(
            f"retry of {task.name} would send anew what has ended. Remove it: the policy retries. "
            "Or list your own exceptions alone: RetryStrategy(retry_exceptions=…)."
        )
    return seam.kept_on(task, kind, dispatcher)


def _problems(context: JobContext, dispatcher: Any) -> Iterator[str]:
    name = context.task.name
    if dispatcher.journal is not None and not _recovers(context.app):
        yield problems.no_recover(name, "recover_every(app, store, texts)", "recover_elsewhere(app)")
    if dispatcher.journal is None and context.task.retry_strategy is not None:
        yield (
            f"{name}: retry is set, so an error of its body after deliver sends the text again. "
            "Leave it out, or use a journal: Dispatcher(sender, journal=store)."
        )
    if isinstance(dispatcher, AsyncDispatcher):
        limit_s = context.app.worker_defaults.get("shutdown_graceful_timeout")
        yield from problems.cut_off(name, "shutdown_graceful_timeout", limit_s, dispatcher.timeout_s)
