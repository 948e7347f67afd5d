"""A ready task, and one attempt inside an actor of an application's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

import dramatiq
from dramatiq import Actor, Broker
from dramatiq.broker import MessageProxy
from dramatiq.errors import Retry
from dramatiq.message import Message as Queued
from dramatiq.middleware import Interrupt
from dramatiq.results import ResultFailure

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.adapters.dramatiq.watch import check_once, job_of, refuse, running, setting, watch_of
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import Dispatcher
from smsretry.errors import InvalidMessage, NotAccepted, ProviderError, SendFailed, SendUnknown

_PACKED: Final = "smsretry_message"
_DEFAULTS: Final[Mapping[str, Any]] = {
    "throws": (NotAccepted, InvalidMessage),
    "retry_when": None,
    "max_age": None,
    "store_results": True,
}


@dataclass(frozen=True, slots=True)
class SMSTask:
    """Queue messages for an actor that sends them: what `sms_task` returns."""

    actor: Actor[[], dict[str, Any] | None]
    """Dramatiq's own."""
    sends: seam.Source[Dispatcher]
    """What was registered; plans are written to its journal."""

    def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> Queued[Any]:
        """Queue ``message``, to be sent in ``delay_s`` seconds; return Dramatiq's message, whose result can be asked.

        ``state`` is that of a message whose attempts began elsewhere. With a journal the message is planned in it
        first. Raises `smsretry.InvalidMessage`, and queues nothing, where the journal knows its id with another
        recipient or text, and for a message without an id that is queued inside an actor.
        """
        in_task = running.get() is not None
        return self.sends.send(message, self._publish, delay_s=delay_s, state=state, in_task=in_task)

    def _publish(self, first: seam.Again) -> Queued[Any]:
        options: dict[str, Any] = {_PACKED: seam.packed(first.message), **seam.written(first.state)}
        delay = _milliseconds(first.delay_s) if first.delay_s > 0.0 else None
        return self.actor.send_with_options(delay=delay, **options)


def sms_task(
    broker: Broker,
    dispatcher: seam.DispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **actor_options: Any,
) -> SMSTask:
    """Register an actor called ``name`` that sends what it is given, and return what queues for it.

    Call it at the top of the module that producers and workers import, after the broker got its middleware. A function
    that makes the ``dispatcher`` is called once in each process, at first use. ``journal`` is what `SMSTask.send`
    plans in; needed only beside such a function. ``actor_options`` are those of ``dramatiq.actor``. The result is
    ``receipt.to_dict()``, where the broker keeps results; `end_of` reads a failed one.

    Raises `smsretry.ConfigurationError` for options that would break a promise.
    """
    seam.check_name(name, "send_sms")
    sends, watch = seam.Source(Dispatcher, dispatcher, journal=journal), watch_of(broker)

    def send_sms() -> dict[str, Any] | None:
        message = seam.unpacked(job_of(texts.actor).options.get(_PACKED, ""))
        receipt = _sent(texts.actor, sends, message, rerun=False)
        return receipt.to_dict() if setting(texts.actor, "store_results") else None

    known = {option: value for option, value in _DEFAULTS.items() if option in broker.actor_options}
    options: dict[str, Any] = {**known, **actor_options}
    actor = dramatiq.actor(broker=broker, actor_name=name, **options)(send_sms)
    texts = SMSTask(actor, sends)
    refuse(actor)
    watch.tasks.append((actor, sends))
    return texts


def deliver(actor: Actor[..., Any], dispatcher: seam.DispatcherSource, message: Message) -> Receipt:
    """Make one attempt to send ``message`` from the body of ``actor``, which runs.

    Return the `smsretry.Receipt` where the text was accepted. Raise Dramatiq's ``Retry`` where another run follows, and
    `smsretry.NotAccepted` where the message has ended. A body that catches ``Exception`` needs ``except Retry: raise``
    before it, or no run follows. Each run repeats the whole body, so render the same text every time; with a journal
    the text of the first run is sent. A message without an id gets that of Dramatiq's message.

    Raises `smsretry.ConfigurationError`, before anything is sent, outside of a running actor, where the broker lacks
    `SMSMiddleware`, for a second call in one run, and in an actor without ``throws=NotAccepted``.
    """
    seam.check_message(message, "Give deliver a smsretry.Message")
    job_of(actor)
    return _sent(actor, seam.kept_on(actor, Dispatcher, dispatcher), message, rerun=True)


def end_of(failure: ResultFailure) -> NotAccepted | None:
    """Return how a message has ended, from what ``get_result()`` raised; None where the actor failed of something else.

    Dramatiq keeps the words of an exception, and the last line of ours says all.
    """
    return seam.end_read(failure.orig_exc_msg)


class _Told(NotAccepted):
    """Say everything in words."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{seam.end_told(self)}"


_TOLD: Final[Mapping[type[BaseException], type[NotAccepted]]] = {
    kind: type(kind.__name__, (_Told, kind), {}) for kind in (SendFailed, SendUnknown)
}


def _sent(actor: Actor[..., Any], source: seam.Source[Dispatcher], message: Message, *, rerun: bool) -> Receipt:
    """Make one attempt, and say Dramatiq's word for what follows."""
    job = job_of(actor)
    seam.only_once(vars(job), actor.actor_name)
    refuse(actor)
    plan = seam.end_in(job.options) or _attempted(actor, job, source, message, rerun=rerun)
    match plan:
        case seam.Done(receipt):
            job.options.update(seam.taken_written(plan))
            return receipt
        case seam.Failed(error):
            job.options.update(seam.taken_written(plan))
            raise seam.with_notes(_TOLD[type(error)](*error.args), error) from error.__cause__
        case seam.Again():
            raise _retry(job, plan)
        case _ as unreachable:
            assert_never(unreachable)


def _attempted(
    actor: Actor[..., Any], job: MessageProxy, source: seam.Source[Dispatcher], message: Message, *, rerun: bool
) -> seam.Plan:
    dispatcher, state, job_id = source.get(), seam.state_in(job.options), job.message_id
    check_once(actor, None if rerun else source, dispatcher)
    run = seam.Run.of(dispatcher, message, state, job_id=job_id, rerun=rerun, interrupts=(Interrupt,))
    plan = seam.attempt(run)
    problems.tell_not_set_up(actor, actor.actor_name, plan)
    return plan


def _retry(job: MessageProxy, again: seam.Again) -> Retry:
    """Return Dramatiq's word for another run, whose state is in the options of ``job`` by then."""
    # Dramatiq counts each Retry: this one is not to use up those of the actor's own errors.
    job.options.update(seam.written(again.state), retries=job.options.get("retries", 0) - 1)
    job.fail()  # until the next run is queued: see SMSMiddleware
    why = again.why if again.failure is None else str(ProviderError(again.failure))
    return Retry(why, delay=_milliseconds(again.delay_s))


def _milliseconds(delay_s: float) -> int:
    return math.ceil(delay_s * 1000)
