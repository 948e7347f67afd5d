"""Send from SAQ: a ready task, or one call inside a task that an application has already.

Either way one run of the job is one attempt: what follows is decided by the dispatcher's policy. For another run the
job gets its delay and, in ``job.meta``, the state, and `Retry` is raised: SAQ moves the job in one step. The message is
packed, so that neither SAQ's web page nor its logs show number or text.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import AsyncDispatcher, utc_now
from smsretry.errors import ConfigurationError, NotAccepted, ProviderError

try:
    from saq import CronJob, Job, Queue
except ModuleNotFoundError as error:
    raise seam.missing("SAQ", "saq", error) from error

__all__ = ["Retry", "SMSTask", "deliver", "end_of", "recover_elsewhere", "recover_job", "sms_task"]

_DEFAULTS: Final[dict[str, Any]] = {"timeout": 30, "retries": 1_000_000}
_RERUNS: Final = {"retry_delay": 1.0, "retry_backoff": 60.0}
"""How long a job waits, in seconds and at most, that a worker could not begin: it lacks the function, say."""
_OPTIONS: Final = frozenset({"timeout", "heartbeat", "retries", "ttl", "priority", "group_key"})


class Retry(Exception):
    """Say that the message goes on, and that SAQ has to run the job again: let it pass."""


class SMSTask:
    """Be a task that sends one message: what `sms_task` returns."""

    def __init__(self, queue: Queue, name: str, sends: seam.Source[AsyncDispatcher], **options: Any) -> None:
        self.queue, self.name, self.sends, self._options = queue, name, sends, options

    @property
    def function(self) -> tuple[str, Callable[..., Awaitable[dict[str, Any]]]]:
        """Return what belongs into the ``functions`` of SAQ's worker."""
        return self.name, self._run

    async def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> Job | None:
        """Queue ``message``, to be sent in ``delay_s`` seconds; None where SAQ has a job of its id that goes on.

        The message's id becomes the job's key: ``await queue.job(message.id)`` finds it. ``state`` is that of a message
        whose attempts began elsewhere. With a journal the message is planned in it first, and needs an id of its own;
        one that SAQ has already is queued under another key, since its worker may be dead. Raises
        `smsretry.InvalidMessage`, and queues nothing, without that id, and where the journal knows the id with another
        recipient or text.
        """
        job: Job | None = await self.sends.send_async(
            message, self._publish, delay_s=delay_s, state=state, in_task=True
        )
        return job

    async def _publish(self, first: seam.Again) -> Job | None:
        scheduled = math.ceil(utc_now().timestamp() + first.delay_s) if first.delay_s > 0.0 else 0
        options = {**_RERUNS, **self._options, "meta": seam.written(first.state), "scheduled": scheduled}
        enqueue = partial(self.queue.enqueue, self.name, message=seam.packed(first.message), **options)
        queued = await (enqueue() if first.message.id is None else enqueue(key=first.message.id))
        return await enqueue() if queued is None and self.sends.is_journaled else queued

    async def _run(self, ctx: dict[str, Any], *, message: str) -> dict[str, Any]:
        job = _running(ctx)
        retries, job.retries = job.retries, job.attempts  # whatever is raised but Retry fails the job for good
        receipt = await _deliver(ctx, self, self.sends, seam.unpacked(message), retries=retries, rerun=False)
        return receipt.to_dict()


def sms_task(
    queue: Queue,
    dispatcher: seam.AsyncDispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **job_options: Any,
) -> SMSTask:
    """Return a task called ``name`` that sends through ``queue``; its ``function`` belongs into SAQ's worker.

    ``dispatcher`` is an `smsretry.AsyncDispatcher`, or a function that makes one. ``journal`` is what `SMSTask.send`
    plans in: needed only where a function makes the dispatcher, which must then have the same one. ``job_options`` are
    SAQ's ``timeout`` (30), ``heartbeat``, ``retries``, ``ttl``, ``priority`` and ``group_key``. ``retries`` bounds how
    often SAQ runs a job again whose worker was killed, and not the policy; by default it does not.

    The job's result is ``receipt.to_dict()``; `end_of` reads a failed one. Raises `smsretry.ConfigurationError`.
    """
    seam.check_name(name, "send_sms")
    if not isinstance(queue, Queue):
        raise ConfigurationError(f"queue must be a saq.Queue, got {type(queue).__name__}. Use Queue.from_url(…).")
    if unknown := job_options.keys() - _OPTIONS:
        known = ", ".join(sorted(_OPTIONS))
        raise ConfigurationError(f"{min(unknown)} is no option of a ready task. Set {known}; the policy says the rest.")
    return SMSTask(queue, name, seam.Source(AsyncDispatcher, dispatcher, journal=journal), **_DEFAULTS | job_options)


async def deliver(ctx: dict[str, Any], dispatcher: seam.AsyncDispatcherSource, message: Message) -> Receipt:
    """Make one attempt to send ``message`` from a task's own body, whose first argument is ``ctx``.

    Return the `smsretry.Receipt` where the text was accepted. Raise `Retry` where SAQ has to run the job again, and
    `smsretry.NotAccepted` where the message has ended. Let `Retry` pass: a body that catches ``Exception`` needs
    ``except Retry: raise`` before it. Each run repeats the whole body, so render the same text every time; once the
    message has ended, a further run of the job is told so and sends nothing. A message without an id gets the job's
    key. Raises `smsretry.ConfigurationError` outside of a job, and when called twice in one run.
    """
    job = _running(ctx)
    function = ctx["worker"].functions[job.function]
    source = seam.kept_on(function, AsyncDispatcher, dispatcher)
    return await _deliver(ctx, function, source, message, retries=job.retries, rerun=True)


def end_of(job: Job) -> NotAccepted | None:
    """Return how the message of a failed job has ended; None where it has not, or the job failed of something else.

    SAQ keeps a text of an exception, ``job.error``, and ours is in ``job.meta``.
    """
    end = seam.end_in(job.meta)
    return end.error if isinstance(end, seam.Failed) and isinstance(end.error, NotAccepted) else None


def recover_job(
    store: seam.CanRecover, texts: seam.Requeue, *, cron: str = "* * * * *", grace_s: float = 60.0
) -> CronJob[Any]:
    """Return a job for the ``cron_jobs`` of SAQ's worker that runs ``store.recover``, by default every minute.

    ``texts`` is what `sms_task` returned, or an async function that gets the id and the metadata of a message and
    queues it, for a task that calls `deliver`. What is ``grace_s`` seconds past its time is queued again.
    """
    seam.check_recovery(store, texts, grace_s=grace_s)

    async def recover(_: Any) -> None:
        await seam.recover_in_loop(store, texts, grace_s=grace_s)

    name = texts.name if isinstance(texts, SMSTask) else None
    recover.__qualname__ = seam.recovery_name(texts, name)  # what SAQ calls the job
    seam.set_recovers(recover)
    return CronJob(recover, cron=cron, timeout=60)


def recover_elsewhere(queue: Queue) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (cron, a loop of yours), so that no worker warns."""
    seam.set_recovers(queue)


def _running(ctx: Any) -> Job:
    """Return the job that runs, once for each run."""
    job = ctx.get("job") if isinstance(ctx, dict) else None
    if not isinstance(job, Job):
        got = type(ctx).__name__
        raise ConfigurationError(f"deliver needs the context of a running job, got {got}. Pass ctx, as SAQ gives it.")
    seam.only_once(ctx, job.function)
    return job


async def _deliver(
    ctx: dict[str, Any],
    holder: object,
    source: seam.Source[AsyncDispatcher],
    message: Message,
    *,
    retries: int,
    rerun: bool,
) -> Receipt:
    """Make one attempt; ``holder`` keeps what was told already, ``rerun`` says whether a body rendered the text."""
    job: Job = ctx["job"]
    plan: seam.Plan | None = seam.end_in(job.meta)
    if plan is None:
        dispatcher = source.get()
        if problems.once(holder, "checked"):
            problems.warn(problems.usual(job.function, dispatcher, None if rerun else source))
            problems.warn(_problems(ctx["worker"], job, dispatcher, retries))
        interrupts = (asyncio.CancelledError,)  # by the job's timeout, or the end of the worker
        state = seam.state_in(job.meta)
        run = seam.Run.of(dispatcher, message, state, job_id=job.key, rerun=rerun, interrupts=interrupts)
        plan = await seam.attempt_async(run)
        problems.tell_not_set_up(holder, job.function, plan)
    return _received(plan, job, retries)


def _received(plan: seam.Plan, job: Job, retries: int) -> Receipt:
    """Return the receipt, or raise SAQ's word for ``plan``; write into ``job`` what goes with it."""
    if isinstance(plan, seam.Again):
        job.meta |= seam.written(plan.state)
        job.retries, job.retry_delay, job.retry_backoff = max(retries, job.attempts) + 1, plan.delay_s, False
        why = plan.why if plan.failure is None else ProviderError(plan.failure)
        raise Retry(f"Again in {plan.delay_s:.3g} s: {why}") from None
    job.meta |= seam.end_written(plan)
    job.retries = job.attempts if isinstance(plan, seam.Failed) else retries
    return seam.ended(plan)


def _problems(worker: Any, job: Job, dispatcher: AsyncDispatcher, retries: int) -> Iterator[str]:
    """Say which settings of a job or its worker would break a promise, each with its remedy."""
    name = job.function
    # A worker that is asked to stop cancels its jobs after that time.
    grace_s = getattr(worker, "_shutdown_grace_period_s", 0) or 0
    limits = {"timeout": job.timeout or None, "heartbeat": job.heartbeat or None, "shutdown_grace_period_s": grace_s}
    for option, limit_s in limits.items():
        yield from problems.cut_off(name, option, limit_s, dispatcher.timeout_s)
    recovers = seam.recovers(worker.queue) or any(seam.recovers(cron.function) for cron in worker.cron_jobs)
    if dispatcher.journal is not None and not recovers:
        yield problems.no_recover(
            name, "recover_job(store, texts) for the worker's cron_jobs", "recover_elsewhere(queue)"
        )
    if not job.timeout and not job.heartbeat:
        yield f"{name}: timeout is 0, so the job of a killed worker is never run again. Set timeout, in seconds."
    elif retries <= job.attempts and (dispatcher.journal is None or not recovers):
        yield f"{name}: retries is {retries}, so the job of a killed worker is aborted. Set retries to 2 or more."
