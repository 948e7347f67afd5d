"""Make one attempt inside a running task, and publish what follows."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Final, assert_never

from celery import Task
from celery.app.task import Context
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam.problems import once, tell_not_set_up
from smsretry.adapters.celery.delays import limits_of
from smsretry.adapters.celery.envelope import EXPIRES_HEADER, expires_of, with_deadline
from smsretry.adapters.celery.settings import check_once
from smsretry.core.message import Message, Receipt
from smsretry.dispatcher import Dispatcher
from smsretry.errors import ConfigurationError, ProviderError, SendFailed, SendUnknown

_log: Final = logging.getLogger("smsretry")
_RAISED: Final = (SendFailed, SendUnknown, Reject)


def deliver(task: Task[Any, Any], dispatcher: seam.DispatcherSource, message: Message) -> Receipt:
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


def deliver_in(
    task: Task[Any, Any], source: seam.Source[Dispatcher] | seam.DispatcherSource, message: Message, *, rerun: bool
) -> Receipt:
    """Do what `deliver` does; ``rerun`` says whether a body rendered the text, and may have rendered it anew."""
    seam.check_message(message, "Give deliver a smsretry.Message")
    request = _running(task)
    _refuse_aloud(task)
    state = seam.state_in(request.headers)
    message = with_deadline(message, request, task.app)
    dispatcher = (source if isinstance(source, seam.Source) else seam.kept_on(task, Dispatcher, source)).get()
    interrupts = (SoftTimeLimitExceeded,)
    run = seam.Run.of(dispatcher, message, state, job_id=str(request.id), rerun=rerun, interrupts=interrupts)
    if request.is_eager:
        return _obeyed(task, seam.at_once(run), wait_s=0.0)
    check_once(task, dispatcher)
    publish = _Publish(task, request)
    return _obeyed(task, seam.deliver(run, publish, hands_back=bool(task.acks_late)), wait_s=publish.countdown)


@dataclass(slots=True)
class _Publish:
    """Publish the next run of a task, as Celery's ``retry`` does."""

    task: Task[Any, Any]
    request: Context
    countdown: float = 0.0
    """What the broker was asked to wait, in seconds."""

    def __call__(self, again: seam.Again) -> None:
        """Publish it; its state is in a header."""
        self.countdown = limits_of(self.task.app).countdown(again.delay_s)
        expires = expires_of(self.request)
        options: dict[str, Any] = self.request.as_execution_options()
        headers = {**(options["headers"] or {}), **seam.written(again.state)}
        signature = self.task.signature_from_request(
            self.request,
            countdown=self.countdown,
            retries=self.request.retries + again.counted,
            headers={**headers, EXPIRES_HEADER: expires} if expires else headers,
            expires=None,
            argsrepr=self.request.get("argsrepr") or "(...)",
            kwargsrepr=self.request.get("kwargsrepr") or "{...}",
            add_to_parent=False,  # it is the same task and not a child of it
        )
        signature.apply_async()


def _obeyed(task: Task[Any, Any], plan: seam.Plan | seam.HandBack, *, wait_s: float) -> Receipt:
    """Return the receipt, or raise Celery's word for what follows."""
    tell_not_set_up(task, task.name, plan)
    match plan:
        case seam.Done() | seam.Failed():
            return seam.ended(plan)
        case seam.Again():
            raise _retry(plan, wait_s) from plan.unpublished
        case seam.HandBack():
            with contextlib.suppress(SoftTimeLimitExceeded):
                time.sleep(plan.pause_s)
            raise Reject(plan.why, requeue=True) from plan.error
        case _ as unreachable:
            assert_never(unreachable)


def _retry(again: seam.Again, countdown: float) -> Retry:
    """Return Celery's word for another run; the failure becomes the result of the task while it waits."""
    wait_s: Any = max(again.delay_s, countdown)
    if again.failure is not None:
        return Retry(exc=ProviderError(again.failure), when=wait_s)
    return Retry(f"Retry in {wait_s:.3g}s: {again.why}", when=wait_s)


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


def _refuse_aloud(task: Task[Any, Any]) -> None:
    """Refuse the ``autoretry_for`` of ``task`` in the log too: it may catch the refusal itself, for minutes."""
    try:
        refuse_autoretry(getattr(task, "autoretry_for", ()), getattr(task, "dont_autoretry_for", ()))
    except ConfigurationError as error:
        if once(task, "autoretry"):
            _log.error("%s: %s", task.name, error)
        raise


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
    seam.only_once(request, task.name)
    return request
