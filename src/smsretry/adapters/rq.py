"""Send from RQ: a ready task, or one call inside a job that an application has already.

Either way one run is one attempt. What follows is decided by the dispatcher's policy, and asked of RQ with its own
``rq.Retry``, which the job returns: RQ puts the job on its schedule, with the new state in ``job.meta``, in the
transaction that ends the run. A job that published its next run by itself could be killed in between, and then there
would be two. Waits are whole seconds and need a worker with a scheduler (``rq worker --with-scheduler``).

What a killed worker held ends in RQ's ``FailedJobRegistry``; with a journal (``Dispatcher(sender, journal=store)``) and
`smsretry.store.recover` it ends as one text.
"""

from __future__ import annotations

import contextlib
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final, assert_never

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import Dispatcher, utc_now
from smsretry.errors import ConfigurationError, NotAccepted

try:
    from redis import RedisError
    from rq import Queue, Retry, cron, get_current_job
    from rq.exceptions import ShutDownImminentException
    from rq.job import Job
    from rq.scheduler import RQScheduler
    from rq.timeouts import JobTimeoutException
except ModuleNotFoundError as error:
    raise seam.missing("RQ", "rq", error) from error

__all__ = ["SMSTask", "deliver", "end_of", "recover_elsewhere", "recover_every", "sms_task"]

_INTERRUPTS: Final = (JobTimeoutException, ShutDownImminentException)
_NO_CAP: Final = 2**31 - 1
"""RQ gives a job up after so many retries; the policy does so before."""
_QUIET_S: Final = 3600
"""How long all workers together are silent on what one has warned of: each job may have a process of its own."""
_REFUSED: Final = {
    "ttl": "RQ drops a job that waits for longer, without a word. Give the message send_before",
    "repeat": "RQ would send again what was accepted. Queue a message for each text",
    "job_id": "RQ keeps one job for an id, so a copy would overwrite it. Give the message an id",
    **dict.fromkeys(("args", "kwargs", "meta"), "they carry the message and its state. Use the message's metadata"),
}


class SMSTask:
    """Be a task that sends one message: what `sms_task` returns; a worker finds it by its name, and calls it."""

    def __init__(self, queue: Queue, sends: seam.Source[Dispatcher], name: str, options: dict[str, Any]) -> None:
        self.queue, self.sends, self.name, self.options = queue, sends, name, options

    def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> Job:
        """Queue ``message``, to be sent in ``delay_s`` seconds, rounded up to a whole second; return RQ's job.

        ``state`` is that of a message whose attempts began elsewhere. With a journal the message is planned in it
        first, and needs an id where it is queued inside a job. Raises `smsretry.InvalidMessage` where it has none, and
        where the journal knows its id with another recipient or text; then nothing is queued.
        """
        _check_place(self, self.name)
        in_task, is_eager = get_current_job() is not None, not self.queue.is_async
        return self.sends.send(message, self._publish, delay_s=delay_s, state=state, in_task=in_task, is_eager=is_eager)

    def _publish(self, first: seam.Again) -> Job:
        carried = {"args": (seam.packed(first.message),), "meta": seam.written(first.state)}
        options = {"description": f"{self.name}({first.message!r})", **self.options, **carried}
        if first.delay_s <= 0.0:
            return self.queue.enqueue(self.name, **options)
        _tell(self.queue.connection, _no_scheduler(self.queue.connection, self.queue.name))
        job: Job = self.queue.enqueue_in(timedelta(seconds=_whole_s(first.delay_s)), self.name, **options)
        return job

    def __call__(self, packed: str) -> dict[str, Any] | Retry:
        """Make one attempt, in the worker."""
        return _delivered(get_current_job(), self.sends, seam.unpacked(packed), task=self)


def sms_task(
    queue: Queue,
    dispatcher: seam.DispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **job_options: Any,
) -> SMSTask:
    """Return a task that sends what it is given through ``queue``.

    ``name`` is where a worker finds it: the module, a dot, and the variable that this is assigned to::

        send_sms = sms_task(queue, make_dispatcher, name="shop.texts.send_sms")     # in shop/texts.py
        send_sms.send(message, delay_s=60)

    ``dispatcher`` is a `smsretry.Dispatcher`, or a function that makes one: it is called once in each process, at first
    use. ``journal`` is what `SMSTask.send` plans in; needed only beside such a function. ``job_options`` are those of
    ``queue.enqueue``, such as ``job_timeout``.

    The job returns ``receipt.to_dict()``, or fails with `smsretry.NotAccepted`: `end_of` reads it. Raises
    `smsretry.ConfigurationError` for options that would break a promise.
    """
    _check(queue, name, "shop.texts.send_sms")
    for option in _REFUSED.keys() & job_options.keys():
        raise ConfigurationError(f"{name}: {option} cannot be set: {_REFUSED[option]}.")
    return SMSTask(queue, seam.Source(Dispatcher, dispatcher, journal=journal), name, job_options)


def deliver(job: Job | None, dispatcher: seam.DispatcherSource, message: Message) -> dict[str, Any] | Retry:
    """Make one attempt to send ``message`` from the body of ``job``, the running one; the body returns what this does.

    ::

        def remind(customer_id):
            return deliver(get_current_job(), dispatcher, render(customer_id))

    That is ``receipt.to_dict()`` where the text was accepted, and ``rq.Retry`` where another run follows: there is none
    unless the body returns it. Raise `smsretry.NotAccepted` where the message has ended, which RQ's own ``retry=`` does
    not repeat. Each run repeats the whole body, so render the same text every time; with a journal the text of the
    first run is sent. A message without an id gets the job's. One job sends one message.
    """
    seam.check_message(message, "Give deliver a smsretry.Message")
    return _delivered(job, dispatcher, message)


def end_of(job: Job) -> NotAccepted | None:
    """Return how the message of a failed job has ended; None where it has not, or the job failed of something else."""
    result = job.latest_result()
    return seam.end_read(result.exc_string if result is not None else None)


def recover_every(
    queue: Queue,
    store: seam.CanRecover,
    texts: seam.Requeue,
    every_s: float = 60.0,
    *,
    name: str,
    grace_s: float = 60.0,
    **job_options: Any,
) -> Callable[[], None]:
    """Return a job that runs ``store.recover(texts)``, and give it to ``rq cron``, which queues it every ``every_s``.

    ``name`` is where a worker finds it, as for `sms_task`, and the module is what ``rq cron`` is given::

        recover_texts = recover_every(queue, store, send_sms, name="shop.texts.recover_texts")    # rq cron shop.texts

    ``texts`` is what `sms_task` returned, or a function of the id and the metadata of a message that queues it. What is
    ``grace_s`` seconds past its time is queued again. ``job_options`` are those of ``rq.cron.register``.
    """
    _check(queue, name, "shop.texts.recover_texts")
    sweeper = seam.Sweeper(store, texts, every_s=every_s, grace_s=grace_s)

    def recover() -> None:
        sweeper.sweep()

    recover.__module__, _, recover.__name__ = name.rpartition(".")  # what RQ calls the job
    recover.__qualname__ = recover.__name__
    cron.register(recover, queue.name, interval=math.ceil(every_s), **job_options)
    recover_elsewhere(queue)
    return recover


def recover_elsewhere(queue: Queue) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (cron, ``smsretry recover``), so that no worker warns."""
    seam.set_recovers(queue)


def _delivered(
    job: Job | None,
    source: seam.Source[Dispatcher] | seam.DispatcherSource,
    message: Message,
    *,
    task: SMSTask | None = None,
) -> dict[str, Any] | Retry:
    """Make one attempt, and return RQ's word for what follows; ``task`` is the ready one."""
    if not isinstance(job, Job):
        got = type(job).__name__
        raise ConfigurationError(f"A text is sent by a running job, got {got}. Queue it, and pass get_current_job().")
    name = str(job.func_name)
    seam.only_once(vars(job), name)
    sends = source if isinstance(source, seam.Source) else seam.kept_on(job.func, Dispatcher, source)
    plan = seam.end_in(job.meta) or _attempted(job, sends.get(), message, task)
    return _word_for(plan, job)


def _attempted(job: Job, dispatcher: Dispatcher, message: Message, task: SMSTask | None) -> seam.Plan:
    state = seam.state_in(job.meta)
    run = seam.Run.of(dispatcher, message, state, job_id=job.id, rerun=task is None, interrupts=_INTERRUPTS)
    _tell(job.connection, _problems_of(job, dispatcher, task))
    plan = seam.at_once(run) if _is_eager(job) else seam.attempt(run)
    problems.tell_not_set_up(job, str(job.func_name), plan)
    return plan


def _is_eager(job: Job) -> bool:
    return bool(job.worker_name == "sync")


def _word_for(plan: seam.Plan, job: Job) -> dict[str, Any] | Retry:
    """Return RQ's word for ``plan``, and write into ``job`` what goes with it."""
    match plan:
        case seam.Done(receipt):
            job.meta.update(seam.taken_written(plan))
            return receipt.to_dict()
        case seam.Failed(error):
            job.meta.update(seam.taken_written(plan))
            job.retries_left = 0  # what RQ would repeat of its own
            error.add_note(seam.end_told(error))
            raise error
        case seam.Again() if _is_eager(job):
            raise ConfigurationError(f"Message {plan.message.id} has to wait ({plan.why}): let a worker run the queue.")
        case seam.Again():
            job.meta.update(seam.written(plan.state))
            if plan.delay_s > 0.0:
                _tell(job.connection, _no_scheduler(job.connection, job.origin))
            return Retry(max=_NO_CAP, interval=_whole_s(plan.delay_s))
        case _ as unreachable:
            assert_never(unreachable)


def _whole_s(delay_s: float) -> int:
    """Return the seconds to ask RQ for: it drops the fraction of the time at which a job is due."""
    now_s = utc_now().timestamp()
    return math.ceil(now_s + delay_s) - math.floor(now_s) if delay_s > 0.0 else 0


def _tell(connection: Any, found: Iterable[str]) -> None:
    """Warn of what no worker has warned of for a while; a Redis that is away for it keeps no text from being sent."""
    with contextlib.suppress(RedisError):
        for problem in found:
            if connection.set(f"smsretry:told:{zlib.crc32(problem.encode()):08x}", 1, nx=True, ex=_QUIET_S):
                problems.warn([problem])


def _check(queue: object, name: object, example: str) -> None:
    if not isinstance(queue, Queue):
        raise ConfigurationError(f"queue must be an rq.Queue, got {type(queue).__name__}. Pass that of your workers.")
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")) or "." not in name:
        raise ConfigurationError(f"name must be a module and a variable such as {example!r}, got {name!r}.")


def _check_place(task: object, name: str) -> None:
    module, _, variable = name.rpartition(".")
    if getattr(sys.modules.get(module), variable, task) is not task:
        raise ConfigurationError(f"{name} is not this task, and a worker would run it. Name it by its place.")


def _problems_of(job: Job, dispatcher: Dispatcher, task: SMSTask | None) -> Iterator[str]:
    name, limit_s = str(job.func_name), job.timeout or Queue.DEFAULT_TIMEOUT
    yield from problems.usual(name, dispatcher, None if task is None else task.sends)
    if task is not None and dispatcher.journal is not None and not seam.recovers(task.queue):
        yield problems.no_recover(name, "recover_every(queue, store, texts, name=…)", "recover_elsewhere(queue)")
    yield from problems.cut_off(name, "job_timeout", limit_s if limit_s > 0 else None, dispatcher.timeout_s)
    if job.ttl is not None:
        yield f"{name}: ttl is {job.ttl} s. {_REFUSED['ttl']}, and leave ttl out."


def _no_scheduler(connection: Any, queue: str) -> Iterator[str]:
    if not connection.exists(RQScheduler.get_locking_key(queue)):
        yield (
            f"No scheduler works on the queue {queue!r}, so what has to wait, as each retry does, waits for ever. "
            "Start its workers with rq worker --with-scheduler."
        )
