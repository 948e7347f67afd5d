"""Send from Huey: a ready task, or one call inside a task that an application has already.

Either way one run is one attempt, and Huey's ``RetryTask`` asks for the next one, under the same job id. A message that
has ended raises `smsretry.NotAccepted`, which is a ``CancelExecution`` to Huey: it is not repeated, whatever the task's
``retries``. Huey forgets a job when a worker takes it, so that what a killed worker held is lost, unless there is a
journal (``Dispatcher(sender, journal=store)``) and `recover_every`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import Dispatcher, new_id
from smsretry.errors import ConfigurationError, InvalidMessage, NotAccepted, SendFailed, SendUnknown

try:
    from huey import CancelExecution, Huey, RetryTask, crontab
    from huey.api import Result, Task, TaskWrapper
    from huey.exceptions import TaskException, TaskTimeout
    from huey.signals import SIGNAL_REVOKED
except ImportError as error:
    raise seam.missing("Huey 3.5 or newer", "huey", error) from error

__all__ = ["SMSTask", "deliver", "end_of", "recover_elsewhere", "recover_every", "sms_task"]

_INTERRUPTS: Final = (TaskTimeout, KeyboardInterrupt)
"""What Huey raises in a run whose ``timeout`` is over, and in a worker process that has to stop at once."""


class Carried(dict[str, Any]):
    """Be the keyword arguments of a job, with what rides beside them, unseen by bodies, logs and monitors.

    Queued jobs hold this class by its name.
    """

    def __init__(self, kwargs: Mapping[str, Any], beside: Mapping[str, Any]) -> None:
        super().__init__(kwargs)
        self.beside = dict(beside)


class _Final(CancelExecution):  # type: ignore[misc]  # Huey has no types
    """Be an end that Huey does not repeat."""

    def __init__(self, *args: Any) -> None:
        super().__init__(retry=False)
        self.args = args

    def __repr__(self) -> str:
        return f"{type(self).__name__.removeprefix('_')}{self.args!r}"


class _SendFailed(SendFailed, _Final): ...


class _SendUnknown(SendUnknown, _Final): ...


@dataclass(frozen=True, slots=True)
class SMSTask:
    """Queue messages for a task that sends them: what `sms_task` returns."""

    task: TaskWrapper
    """Huey's own task, such as for ``task.revoke()``."""
    sends: seam.Source[Dispatcher]
    """What was registered; plans are written to its journal."""

    def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> Result | None:
        """Queue ``message``, to be sent in ``delay_s`` seconds; return Huey's ``Result``, None with ``results=False``.

        The message's id, where it has one, becomes the job's, so that ``huey.result(message.id)`` finds it. ``state``
        is that of a message whose attempts began elsewhere. With a journal the message is planned in it first, and
        needs an id. Raises `smsretry.InvalidMessage`, and queues nothing, where it has none, and where the journal
        knows its id with another recipient or text.
        """
        return self.sends.send(
            message, self._publish, delay_s=delay_s, state=state, in_task=True, is_eager=self.task.huey.immediate
        )

    def _publish(self, first: seam.Again) -> Result | None:
        job = self.task.s(id=first.message.id, delay=first.delay_s or None)
        job.kwargs = Carried({}, {"message": first.message.to_dict(), **seam.written(first.state)})
        if self.sends.is_journaled and self.task.huey.is_revoked(job):
            job.id = new_id()  # consumers drop each job with the id that was revoked, and this text is in doubt
        return self.task.huey.enqueue(job)

    def take_back(self, _: str, job: Task) -> None:
        """Take back, in the journal, the message of a job that was revoked; one that may have been sent is asked about.

        It is a receiver of Huey's signals.
        """
        if not isinstance(job, self.task.task_class):
            return
        again = seam.Again(delay_s=0.0, message=_message_in(job).with_id(job.id), state=seam.NEW)
        # Where the whole task is revoked, a copy would be dropped too.
        seam.revoked(self.sends.journal, str(again.message.id), lambda: self.task.is_revoked() or self._publish(again))


def sms_task(
    huey: Huey,
    dispatcher: seam.DispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **task_options: Any,
) -> SMSTask:
    """Register a task called ``name`` that sends what it is given, and return what queues it.

    Call it at the top of the module that producers and consumers import. A function that makes the ``dispatcher`` is
    called once in each process, at first use. ``journal`` is what `SMSTask.send` plans in, and a revoked job is
    canceled in; needed only beside such a function. ``task_options`` are those of ``huey.task``. The result is
    ``receipt.to_dict()``; `end_of` reads a failed one. In immediate mode all attempts follow each other at once.
    """
    if not isinstance(huey, Huey):
        raise ConfigurationError(f"huey must be a Huey, got {type(huey).__name__}. Pass the one that consumers run.")
    seam.check_name(name, "shop.send_sms")
    sends = seam.Source(Dispatcher, dispatcher, journal=journal)

    def send_sms(*, task: Task) -> dict[str, Any]:
        return _sent(task, sends, _message_in(task), rerun=False, is_eager=huey.immediate).to_dict()

    def check() -> None:
        if sends.is_journaled and not seam.recovers(huey) and problems.once(wrapper, "recover"):
            problems.warn([problems.no_recover(name, "recover_every(huey, store, texts)", "recover_elsewhere(huey)")])
        if sends.dispatcher is not None:
            _check_once(wrapper.s(), sends.dispatcher, sends)

    wrapper = huey.task(context=True, name=name, **task_options)(send_sms)
    huey.on_startup(f"smsretry {name}")(check)
    texts = SMSTask(wrapper, sends)
    huey.signal(SIGNAL_REVOKED)(texts.take_back)
    return texts


def deliver(task: Task, dispatcher: seam.DispatcherSource, message: Message) -> Receipt:
    """Make one attempt to send ``message`` from the body of ``task``, the running job of ``@huey.task(context=True)``.

    Return the `smsretry.Receipt` where the text was accepted. Raise Huey's ``RetryTask`` where another run follows, and
    `smsretry.NotAccepted` where the message has ended. A body that catches ``Exception`` needs ``except RetryTask:
    raise`` before it, or no run follows. Each run repeats the whole body, so render the same text every time; with a
    journal the text of the first run is sent. A message without an id gets the job's. One job sends one message.
    """
    if not isinstance(task, Task):
        got = type(task).__name__
        raise ConfigurationError(
            f"deliver needs the running job, got {got}. Declare @huey.task(context=True), pass task."
        )
    source = seam.kept_on(type(task).execute, Dispatcher, dispatcher)
    return _sent(task, source, message, rerun=True, is_eager=False)


def end_of(error: TaskException) -> NotAccepted | None:
    """Return how a message has ended, from what ``result.get()`` raised; None where the job failed of something else.

    Huey keeps the traceback of an exception, and the note of ours in it says all.
    """
    return seam.end_read(error.metadata.get("traceback"))


def recover_every(
    huey: Huey,
    store: seam.CanRecover,
    texts: seam.Requeue,
    when: Callable[..., bool] | None = None,
    *,
    grace_s: float = 60.0,
) -> None:
    """Let consumers run ``store.recover(texts)`` as a periodic task, each minute or at ``when`` (a ``crontab(…)``).

    ``texts`` is what `sms_task` returned, or a function of the id and the metadata of a message that queues it. What is
    ``grace_s`` seconds past its time is queued again.
    """
    sweeper = seam.Sweeper(store, texts, every_s=60.0, grace_s=grace_s)
    name = seam.recovery_name(texts, texts.task.name if isinstance(texts, SMSTask) else None)
    huey.periodic_task(when or crontab(), name=name)(sweeper.sweep)
    recover_elsewhere(huey)


def recover_elsewhere(huey: Huey) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (cron, ``smsretry recover``), so that no consumer warns."""
    seam.set_recovers(huey)


def _sent(task: Task, source: seam.Source[Dispatcher], message: Message, *, rerun: bool, is_eager: bool) -> Receipt:
    """Make one attempt, and say Huey's word for what follows."""
    beside, dispatcher = _beside(task), source.get()
    run = seam.Run.of(dispatcher, message, seam.state_in(beside), job_id=task.id, rerun=rerun, interrupts=_INTERRUPTS)
    seam.only_once(vars(task), task.name)
    _check_once(task, dispatcher, None if rerun else source)
    plan = seam.at_once(run) if is_eager else seam.attempt(run)
    problems.tell_not_set_up(type(task).execute, task.name, plan)
    match plan:
        case seam.Done(receipt):
            return receipt
        case seam.Failed(error):
            final = (_SendUnknown if isinstance(error, SendUnknown) else _SendFailed)(*error.args)
            seam.with_notes(final, error).add_note(seam.end_told(error))
            raise final from error.__cause__
        case seam.Again():
            task.kwargs = Carried(task.kwargs, {**beside, **seam.written(plan.state)})
            raise RetryTask(delay=plan.delay_s)
        case _ as unreachable:
            assert_never(unreachable)


def _beside(job: Task) -> dict[str, Any]:
    return job.kwargs.beside if isinstance(job.kwargs, Carried) else {}


def _message_in(job: Task) -> Message:
    """Return the message of a ready task's job."""
    message = _beside(job).get("message")
    if message is None:
        raise InvalidMessage(f"This job of {job.name} holds no message. Queue it with send(message).")
    return Message.from_dict(message)


def _check_once(job: Task, dispatcher: Dispatcher, source: seam.Source[Dispatcher] | None = None) -> None:
    """Warn, once in a process, of the settings of a task that would break a promise."""
    if problems.once(type(job).execute, "checked"):
        problems.warn(problems.usual(job.name, dispatcher, source))
        problems.warn(problems.cut_off(job.name, "timeout", job.timeout or None, dispatcher.timeout_s))
        problems.warn(_dropped_or_doubled(job, dispatcher))


def _dropped_or_doubled(job: Task, dispatcher: Dispatcher) -> Iterator[str]:
    if job.expires:
        yield (
            f"{job.name}: expires is set, and Huey drops a retry that wakes after it without a word. "
            "Leave it out and set send_before on the message."
        )
    if job.retries and dispatcher.journal is None:
        yield (
            f"{job.name}: retries is {job.retries}, so an error of its body after deliver sends the text again. "
            "Set it to 0 (the policy retries), or use a journal: Dispatcher(sender, journal=store)."
        )
