"""See which message runs, keep what could not be queued, and name the settings that would break a promise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from dramatiq import Actor, Broker, Middleware
from dramatiq.broker import MessageProxy

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.dispatcher import Dispatcher
from smsretry.errors import ConfigurationError, NotAccepted

running: Final[ContextVar[MessageProxy | None]] = ContextVar("smsretry_running", default=None)
"""What a worker's thread is at, or was at last."""
_log: Final = logging.getLogger("smsretry")


class SMSMiddleware(Middleware):
    """Tell `deliver` which message runs, and warn when a worker starts; `sms_task` adds it by itself.

    A message whose next run Dramatiq could not queue goes to the dead letters, and is not acknowledged.
    """

    def __init__(self) -> None:
        self.tasks: list[tuple[Actor[..., Any], seam.Source[Dispatcher]]] = []
        self.recovery = seam.Recovery()

    def before_worker_boot(self, *_: Any, **__: Any) -> None:
        """Warn, and let `recover` run."""
        for actor, sends in self.tasks:
            if sends.dispatcher is not None:
                check_once(actor, sends, sends.dispatcher)
        self.recovery.start()

    def before_worker_shutdown(self, *_: Any, **__: Any) -> None:
        """Let `recover` end."""
        self.recovery.stop()

    def before_process_message(self, broker: Any, message: MessageProxy) -> None:
        """Keep the message that runs."""
        del broker
        running.set(message)

    def after_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        """Let the run be acknowledged whose next run is queued."""
        del broker, delay
        job = running.get()
        if job is not None and job.message_id == message.message_id:
            job.failed = False

    def after_process_message(
        self, broker: Any, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Say where a body has kept the ``Retry`` of `deliver` to itself."""
        del broker, result
        if exception is None and message.failed:
            name, job_id = message.actor_name, message.message_id
            _log.error("%s caught the Retry of deliver: message %s is a dead letter. Let Retry pass.", name, job_id)


def recover_every(
    broker: Broker, store: seam.CanRecover, texts: seam.Requeue, every_s: float = 60.0, *, grace_s: float = 60.0
) -> None:
    """Let each worker process of ``broker`` run ``store.recover(texts)`` every ``every_s`` seconds, in a thread.

    ``texts`` is what `sms_task` returned, or a function of the id and the metadata of a message that queues it. What is
    ``grace_s`` seconds past its time is queued again; any number of workers may do it side by side.
    """
    watch_of(broker).recovery.sweepers.append(seam.Sweeper(store, texts, every_s=every_s, grace_s=grace_s))


def recover_elsewhere(broker: Broker) -> None:
    """Say that `smsretry.store.recover` runs elsewhere (cron, ``smsretry recover``), so that no worker warns."""
    watch_of(broker).recovery.is_elsewhere = True


def watch_of(broker: Broker) -> SMSMiddleware:
    """Return the middleware of ``broker``, added where there is none."""
    if not isinstance(broker, Broker):
        got = type(broker).__name__
        raise ConfigurationError(f"broker must be a Dramatiq broker, got {got}. Pass the one that your workers run.")
    for one in broker.middleware:
        if isinstance(one, SMSMiddleware):
            return one
    watch = SMSMiddleware()
    broker.add_middleware(watch)
    return watch


def job_of(actor: Actor[..., Any]) -> MessageProxy:
    """Return the message that ``actor`` runs for."""
    job = running.get()
    if not isinstance(actor, Actor) or job is None or job.actor_name != actor.actor_name:
        raise ConfigurationError(
            "deliver needs the actor that runs: deliver(remind, …) in the body of remind, queued with remind.send(…), "
            "on a broker that tells which message runs: broker.add_middleware(SMSMiddleware())."
        )
    return job


def refuse(actor: Actor[..., Any]) -> None:
    """Raise `smsretry.ConfigurationError` where Dramatiq would not retry as it is told, or repeat what has ended."""
    name = actor.actor_name
    if "throws" not in actor.broker.actor_options:
        raise ConfigurationError(f"{name}: its broker has no Retries middleware, so nothing is retried. Add Retries().")
    if not issubclass(NotAccepted, actor.options.get("throws") or ()):
        raise ConfigurationError(f"{name}: Dramatiq would repeat what has ended. Set throws=NotAccepted on the actor.")
    if setting(actor, "retry_when") is not None:
        raise ConfigurationError(f"{name}: retry_when would end the policy's retries. Set it to None.")


def check_once(actor: Actor[..., Any], sends: seam.Source[Dispatcher] | None, dispatcher: Dispatcher) -> None:
    """Warn, once in a process, of what would break a promise; ``sends`` is that of a ready task."""
    if not problems.once(actor, "checked"):
        return
    name, limit_ms = actor.actor_name, setting(actor, "time_limit")
    limit_s = None if limit_ms is None else limit_ms / 1000
    problems.warn(problems.cut_off(name, "time_limit", limit_s, dispatcher.timeout_s, per_s=1000))
    problems.warn(problems.usual(name, dispatcher, sends))
    problems.warn(_lost(actor, dispatcher))


def _lost(actor: Actor[..., Any], dispatcher: Dispatcher) -> Iterator[str]:
    name, broker, watch = actor.actor_name, actor.broker, watch_of(actor.broker)
    if setting(actor, "max_age"):
        yield (
            f"{name}: max_age is set, and Dramatiq drops a text that has waited for longer, a retry too. "
            "Set max_age=None on the actor, and send_before on the message."
        )
    if dispatcher.journal is not None:
        if not watch.recovery.is_running:
            yield problems.no_recover(name, "recover_every(broker, store, texts)", "recover_elsewhere(broker)")
    elif getattr(broker, "maintenance_chance", 1) == 0:
        yield f"{name}: maintenance_chance is 0, so what a killed worker held is lost. Set it to 1000 or more."
    elif not getattr(broker, "confirm_delivery", True):
        yield (
            f"{name}: confirm_delivery is off, so a retry that RabbitMQ has not taken is lost without a word. "
            "Make it RabbitmqBroker(confirm_delivery=True)."
        )


def setting(actor: Actor[..., Any], option: str) -> Any:
    """Return an option of ``actor``, else that of the middleware that knows it."""
    for one in actor.broker.middleware:
        if option in one.actor_options:
            return actor.options.get(option, getattr(one, option, None))
    return None
