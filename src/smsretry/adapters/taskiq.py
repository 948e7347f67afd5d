"""Send from taskiq: a ready task, or one call inside a task that an application has already.

Either way one run is one attempt. What follows is put on a schedule source, with its state in a label and under the
same task id, and the run ends with taskiq's ``NoResultError``. So ``taskiq scheduler --update-interval 1`` has to run
beside the workers; without that option it looks for new schedules once a minute. A ready task packs its message, so
that logs and dashboards, which show arguments, show neither number nor text.

With a journal (``AsyncDispatcher(sender, journal=store)``) neither a killed worker nor a repeated delivery loses or
doubles a text, provided that `recover_every` is called, or `smsretry.store.recover` runs elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, TypeVar, assert_never

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import AsyncDispatcher, utc_now
from smsretry.errors import ConfigurationError

try:
    import anyio
    from taskiq import AsyncBroker, AsyncTaskiqTask, Context, ScheduledTask, ScheduleSource, TaskiqDepends, TaskiqEvents
    from taskiq.decor import AsyncTaskiqDecoratedTask
    from taskiq.exceptions import NoResultError
    from taskiq.kicker import AsyncKicker
    from taskiq.message import TaskiqMessage
except ModuleNotFoundError as error:
    raise seam.missing("taskiq", "taskiq", error) from error

__all__ = ["SMSTask", "deliver", "recover_elsewhere", "recover_every", "sms_task"]

T = TypeVar("T")
_Task = AsyncTaskiqDecoratedTask[..., Any]
_DEFAULTS: Final = {"ack_type": "when_saved", "retry_on_error": False}
_LATE_S: Final = 10.0
"""A run that comes so much later than it was due is worth a warning, and so is one that nobody has queued for long."""
_OVERDUE_S: Final = 120.0


@dataclass(frozen=True, kw_only=True)
class SMSTask:
    """Queue messages for the task that sends them: what `sms_task` returns."""

    task: _Task
    """What was registered in the broker."""
    source: ScheduleSource
    sends: seam.Source[AsyncDispatcher]

    async def send(
        self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW
    ) -> AsyncTaskiqTask[dict[str, Any]]:
        """Queue ``message``, to be sent in ``delay_s`` seconds, as the job ``<name of the task>:<id of the message>``.

        ``state`` is that of a message whose attempts began elsewhere. With a journal the message is planned in it
        first, and not sent before its time by the journal's clock. Raises `smsretry.InvalidMessage`, and queues
        nothing, where the journal knows the id with another recipient or text, and in a worker for a message without
        an id: a job that runs again would queue it under another one.
        """
        in_task = self.task.broker.is_worker_process
        queued: AsyncTaskiqTask[dict[str, Any]] = await self.sends.send_async(
            message, self._publish, delay_s=delay_s, state=state, in_task=in_task
        )
        return queued

    async def _publish(self, first: seam.Again) -> AsyncTaskiqTask[Any]:
        name, broker, message = self.task.task_name, self.task.broker, first.message
        job_id = broker.id_generator() if message.id is None else f"{name}:{message.id}"
        args = [seam.packed(message)]
        job = TaskiqMessage(task_id=job_id, task_name=name, labels=self.task.labels, args=args, kwargs={})
        await _queue(job, broker, self.source, first)
        return AsyncTaskiqTask(task_id=job_id, result_backend=broker.result_backend)


def sms_task(
    broker: AsyncBroker,
    dispatcher: seam.AsyncDispatcherSource,
    *,
    name: str,
    source: ScheduleSource,
    journal: seam.CanPlan | None = None,
    **labels: Any,
) -> SMSTask:
    """Register a task called ``name`` in ``broker`` that sends what it is given.

    Call it at the top of the module that producers, workers and the scheduler import::

        texts = sms_task(broker, make_dispatcher, name="shop.send_sms", source=schedules)
        await texts.send(message, delay_s=60)

    ``source`` is where retries wait, such as taskiq-redis' ``ListRedisScheduleSource``: one that takes new schedules,
    and that the scheduler has too. ``labels`` are taskiq's, such as ``queue_name``. ``journal`` (an
    `smsretry.store.SQLStore`) is what `SMSTask.send` plans in: give it where ``dispatcher`` is a function.

    The task returns ``receipt.to_dict()``. It fails with `smsretry.SendFailed` or `smsretry.SendUnknown`, which no
    middleware repeats. Raises `smsretry.ConfigurationError` for options that would break a promise.
    """
    _check(broker, name, source, labels)
    sends = seam.Source(AsyncDispatcher, dispatcher, journal=journal)

    async def send_sms(message: str, context: Annotated[Context, TaskiqDepends()]) -> dict[str, Any]:
        """Make one attempt to send a message that was packed."""
        return (await _deliver(context, sends, seam.unpacked(message), source, rerun=False)).to_dict()

    task: Any = broker.register_task(send_sms, task_name=name, **{**_DEFAULTS, **labels})
    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, partial(_tell_at_start, task, source, sends))
    return SMSTask(task=task, source=source, sends=sends)


async def deliver(
    context: Context, dispatcher: seam.AsyncDispatcherSource, message: Message, *, source: ScheduleSource
) -> Receipt:
    """Make one attempt to send ``message`` from the body of a task, whose ``context`` is taskiq's dependency.

    Return the `smsretry.Receipt` where the text was accepted. Raise taskiq's ``NoResultError`` where another run of the
    task was put on ``source``: let it pass. Raise `smsretry.NotAccepted` where the message has ended; taskiq's retry
    middlewares then leave it alone.

    Each run repeats the whole body, so render the same text every time; with a journal the text of the first run is the
    one that is sent. A message without an id gets the task's, which its retries share. One run sends one message.
    """
    _check_source(source)
    sends = seam.kept_on(_task_of(context), AsyncDispatcher, dispatcher)
    return await _deliver(context, sends, message, source, rerun=True)


async def _deliver(
    context: Context, sends: seam.Source[AsyncDispatcher], message: Message, source: ScheduleSource, *, rerun: bool
) -> Receipt:
    seam.check_message(message, "Give deliver a smsretry.Message")
    job, task, dispatcher = context.message, _task_of(context), sends.get()
    seam.only_once(vars(context), job.task_name)
    ended = seam.end_in(job.labels)
    if ended is not None:
        return _received(job, ended)
    state, interrupts = seam.state_in(job.labels), (asyncio.CancelledError,)  # by the label timeout
    run = seam.Run.of(dispatcher, message, state, job_id=job.task_id, rerun=rerun, interrupts=interrupts)
    problems.warn(_problems_of_waiting(task, source, is_journaled=run.is_journaled))
    problems.warn(_problems_of_run(context, task, sends, run))

    def publish(again: seam.Again) -> Any:
        return _queue(job, context.broker, source, again)

    plan = await _to_its_end(seam.deliver_async(run, publish))
    problems.tell_not_set_up(task, job.task_name, plan)
    return _received(job, plan)


def _received(job: TaskiqMessage, plan: seam.Plan | seam.HandBack) -> Receipt:
    """Return the receipt, or raise what taskiq is to be told; write into ``job`` what goes with it."""
    match plan:
        case seam.Again():
            raise NoResultError from plan.unpublished
        case seam.Done():
            job.labels.update(seam.taken_written(plan))
            return plan.receipt
        case seam.Failed():
            job.labels.update(seam.taken_written(plan), retry_on_error=False)  # its retry middlewares look at that next
            return seam.ended(plan)
        case seam.HandBack():
            raise plan.error
        case _ as unreachable:
            assert_never(unreachable)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns: a timeout of taskiq interrupts it once, where it would cancel every await in it."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        working.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([working])
        return working.result()


async def _queue(job: TaskiqMessage, broker: AsyncBroker, source: ScheduleSource, again: seam.Again) -> None:
    """Queue the next run of a job, with its state; its labels keep their types."""
    labels = {**job.labels, **seam.written(again.state)}
    if again.delay_s <= 0.0:
        kicker: AsyncKicker[..., Any] = AsyncKicker(job.task_name, broker, labels)
        await kicker.with_task_id(job.task_id).kiq(*job.args, **job.kwargs)
        return
    job_id, name, at = job.task_id, job.task_name, utc_now() + timedelta(seconds=again.delay_s)
    await source.add_schedule(
        ScheduledTask(task_id=job_id, task_name=name, labels=labels, args=job.args, kwargs=job.kwargs, time=at)
    )


def recover_every(
    broker: AsyncBroker, store: seam.CanRecover, texts: seam.Requeue, every_s: float = 60.0, *, grace_s: float = 60.0
) -> None:
    """Let each worker process of ``broker`` run ``store.recover(texts)`` every ``every_s`` seconds, beside its loop.

    Call it where the task is registered. ``texts`` is what `sms_task` returned, or an async function of the id and the
    metadata of a message that queues it. What is ``grace_s`` seconds past its time is queued again; any number of
    workers may do it side by side. Raises `smsretry.ConfigurationError` where a time is not positive.
    """
    seam.Sweeper(store, texts, every_s=every_s, grace_s=grace_s)  # says what is wrong before a worker starts
    running: set[asyncio.Task[None]] = set()

    async def start(_: object) -> None:
        running.add(asyncio.create_task(seam.sweep_in_loop(store, texts, every_s=every_s, grace_s=grace_s)))

    def stop(_: object) -> None:
        while running:
            running.pop().cancel()

    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, start)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, stop)
    recover_elsewhere(broker)


def recover_elsewhere(broker: AsyncBroker) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (cron, ``smsretry recover``), so that no worker warns."""
    seam.set_recovers(broker)


def _task_of(context: Context) -> _Task:
    task = context.broker.find_task(context.message.task_name) if isinstance(context, Context) else None
    if task is None:
        raise ConfigurationError(
            f"deliver needs the context of the running task, got {type(context).__name__}. "
            "Declare the task with a parameter context: Annotated[Context, TaskiqDepends()], and pass that."
        )
    return task


def _check(broker: object, name: str, source: object, labels: dict[str, Any]) -> None:
    if not isinstance(broker, AsyncBroker):
        raise ConfigurationError(f"broker must be a taskiq broker, got {type(broker).__name__}.")
    seam.check_name(name, "shop.send_sms")
    if broker.find_task(name) is not None:
        raise ConfigurationError(f"The broker has a task called {name} already. Choose another name.")
    if labels.get("retry_on_error"):
        raise ConfigurationError("With retry_on_error taskiq would send again what has ended. Leave it out.")
    _check_source(source)


def _check_source(source: object) -> None:
    if not isinstance(source, ScheduleSource) or type(source).add_schedule is ScheduleSource.add_schedule:
        raise ConfigurationError(
            f"source must be a schedule source that takes new schedules, got {type(source).__name__}. "
            "Use ListRedisScheduleSource of taskiq-redis, and give it to the TaskiqScheduler too."
        )


async def _tell_at_start(task: Any, source: ScheduleSource, sends: seam.Source[AsyncDispatcher], _: object) -> None:
    """Warn, when a worker starts, of what can be known by then."""
    problems.warn(_problems_of_waiting(task, source, is_journaled=sends.is_journaled))
    with contextlib.suppress(Exception):  # a source that is away is told of by whoever needs it
        times = [one.time for one in await source.get_schedules() if one.task_name == task.task_name and one.time]
        problems.warn(_late(task.task_name, "waits on the schedule source", min(times, default=None), _OVERDUE_S))


def _problems_of_waiting(task: _Task, source: ScheduleSource, *, is_journaled: bool) -> Iterator[str]:
    name = task.task_name
    if is_journaled and not seam.recovers(task.broker) and problems.once(task, "recover"):
        yield problems.no_recover(name, "recover_every(broker, store, texts)", "recover_elsewhere(broker)")
    if getattr(source, "_skip_past_schedules", False) and problems.once(task, "past schedules"):
        yield (
            f"{name}: skip_past_schedules is on, so retries are lost that come due while no scheduler looks. "
            "Leave it out of the schedule source."
        )


def _problems_of_run(context: Context, task: _Task, sends: seam.Source[Any], run: seam.Run[Any]) -> Iterator[str]:
    """Say, once in a process, what is wrong with how a task is run."""
    name, dispatcher = task.task_name, run.dispatcher
    late = list(_late(name, "came", run.state.due, _LATE_S))
    yield from late if late and problems.once(task, "late") else ()
    if not problems.once(task, "run"):
        return
    yield from problems.usual(name, dispatcher, None if run.rerun else sends)
    timeout = context.message.labels.get("timeout")
    yield from problems.cut_off(name, "timeout", timeout and float(timeout), dispatcher.timeout_s)
    is_held = getattr(context, "is_ackable", True) and not getattr(context, "is_acked", False)
    if not is_held and not (run.is_journaled and seam.recovers(task.broker)):
        yield (
            f"{name}: its message is acknowledged before the text is sent, so what a killed worker held is lost. Use a "
            "broker that acknowledges, such as RedisStreamBroker, with ack_type when_saved; or a journal and recover."
        )
    idle_s, held_s = getattr(context.broker, "idle_timeout", float("inf")) / 1_000.0, problems.held_s(dispatcher)
    if idle_s <= held_s:
        yield (
            f"{name}: the broker hands a message out again after {idle_s:g} s (idle_timeout), and a worker may be at "
            f"it for {held_s:g} s. Set idle_timeout in the broker to {2_000.0 * held_s:g} (milliseconds) or more."
        )


def _late(name: str, what: str, due: datetime | None, limit_s: float) -> Iterator[str]:
    late_s = 0.0 if due is None else (utc_now() - due).total_seconds()
    if late_s > limit_s:
        yield (
            f"{name}: a run {what} {late_s:.0f} s after its time. Retries need `taskiq scheduler` to run, with "
            "--update-interval 1 (it looks for new schedules once a minute otherwise), and enough workers."
        )
