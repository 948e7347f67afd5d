"""A Celery task that is ready to send messages, and what keeps them from being lost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from celery import Celery, Task
from celery.result import AsyncResult
from celery.signals import task_revoked

from smsretry.adapters import _seam as seam
from smsretry.adapters.celery.delivery import deliver_in, refuse_autoretry
from smsretry.adapters.celery.envelope import held, shown
from smsretry.adapters.celery.hand_over import cancel_own, cancel_revoked
from smsretry.adapters.celery.settings import source_of, watch_of
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import Dispatcher, utc_now
from smsretry.errors import ConfigurationError, InvalidMessage, NotAccepted

_TASK_ID: Final = re.compile(r"[^/\\]{1,155}")
"""What the result backends take as a key: 155 characters is the column of Celery's database backend."""
_DEFAULTS: Final[Mapping[str, Any]] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "max_retries": None,
    "throws": (NotAccepted,),
    "shared": False,
}

if TYPE_CHECKING:
    _Base = Task[[dict[str, Any]], dict[str, Any]]
else:
    _Base = Task  # older releases of Celery 5 know no subscript


class SMSTask(_Base):
    """Be a task that sends one message: what `sms_task` returns.

    However it is called, the message in its arguments is shown to events, logs and ``celery inspect`` without its
    number and text, and a wait longer than the broker bears is cut into hops. ``app.send_task(name, ...)`` and a
    signature in a process that has not imported the task do not call it: Celery then shows the arguments as they are.
    """

    abstract = True
    Request = "smsretry.adapters.celery.request:Request"
    sends: seam.Source[Dispatcher]
    """What was registered; plans are written to its journal."""

    def send(
        self,
        message: Message,
        *,
        delay_s: float = 0.0,
        state: AttemptState = seam.NEW,
        countdown: float | None = None,
    ) -> AsyncResult[dict[str, Any]]:
        """Queue ``message``, to be sent in ``delay_s`` seconds.

        ``state`` is that of a message whose attempts began elsewhere; it is not sent before ``state.due``.
        ``countdown``, Celery's word for ``delay_s``, overrules that. The message's id, where it has one, becomes the
        task's id, so that ``app.AsyncResult(message.id)`` finds it (unless it holds a slash or more than 155
        characters, which result backends refuse).

        With a journal the message is planned in it first: it ends, even where the queue loses it, and is not sent
        before its time by the journal's clock. Raises `smsretry.InvalidMessage`, and queues nothing, where the journal
        knows the id with another recipient or text, and for a message without an id that is queued inside a task: a
        repeated task would queue it again under another one. Where the queue takes nothing and raises, a message with
        an id of its own stays planned; one without is taken back, so that it may be sent again.
        """
        if countdown is not None and isinstance(state, AttemptState):
            delay_s, state = countdown, replace(state, due=None)
        in_task, is_eager = _is_inside(self.app), bool(self.app.conf.task_always_eager)
        return self.sends.send(message, self._publish, delay_s=delay_s, state=state, in_task=in_task, is_eager=is_eager)

    def _publish(self, first: seam.Again) -> AsyncResult[dict[str, Any]]:
        message, headers = first.message, seam.written(first.state)
        task_id = _task_id(message)
        return self.apply_async((message.to_dict(),), task_id=task_id, countdown=first.delay_s, headers=headers)

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> AsyncResult[Any]:
        """Queue the message in ``args`` or ``kwargs`` (``message.to_dict()``), with Celery's own options.

        With a journal `smsretry.InvalidMessage` is raised, as by `send`, inside a task for a message without an id,
        unless a ``task_id`` stands for it.
        """
        arguments = (*(args or ()), *(kwargs or {}).values())
        if any(isinstance(one, Message) for one in arguments):
            raise InvalidMessage("A queue carries no Message. Use send(message), or delay(message.to_dict()).")
        if options.get("task_id", *more[:1]) is None:
            self._refuse_without_id(arguments)
        options["argsrepr"] = repr(tuple(shown(one) for one in args or ()))
        options["kwargsrepr"] = repr({name: shown(one) for name, one in (kwargs or {}).items()})
        if not self.app.conf.task_always_eager:
            options = held(options, self.app, utc_now())
        return super().apply_async(args, kwargs, *more, **options)

    def _refuse_without_id(self, arguments: Iterable[object]) -> None:
        """Raise where a journal would know a message by the id of a task that is new each time."""
        source = source_of(self)
        if source is not None and source.is_journaled and _is_inside(self.app):
            for one in arguments:
                if isinstance(one, Mapping) and one.get("id") is None:
                    seam.refuse_without_id()


def sms_task(
    app: Celery,
    dispatcher: seam.DispatcherSource,
    *,
    name: str,
    journal: seam.CanPlan | None = None,
    **task_options: Any,
) -> SMSTask:
    """Register a task called ``name`` that sends what it is given, and return it.

    Call it at the top of the module that both producers and workers import::

        send_sms = sms_task(app, make_dispatcher, name="shop.send_sms")
        send_sms.delay(message.to_dict())
        send_sms.send(message, countdown=60)

    ``dispatcher`` is a `smsretry.Dispatcher`, or a function that makes one: it is called once in each process, at first
    use, so that the process that only queues needs no credentials. ``task_options`` are those of ``app.task``; by
    default ``acks_late=True``, ``reject_on_worker_lost=True``, ``max_retries=None`` (the policy counts) and
    ``throws=(NotAccepted,)``: a text that has ended is no fault of the worker, so it is logged without a traceback.

    ``journal`` (an `smsretry.store.SQLStore`) is what `SMSTask.send` plans in: give it where ``dispatcher`` is a
    function, which must then make dispatchers with the same journal. That of a `smsretry.Dispatcher` is used by itself.
    A task that is revoked before it was sent is canceled in it.

    The task returns ``receipt.to_dict()``. It fails with `smsretry.SendFailed` or `smsretry.SendUnknown`.

    Raises `smsretry.ConfigurationError` for options that would break a promise.
    """
    sends = seam.Source(Dispatcher, dispatcher, journal=journal)
    _register(app, name)
    refuse_autoretry(task_options.get("autoretry_for", ()), task_options.get("dont_autoretry_for", ()))
    options: dict[str, Any] = {**_DEFAULTS, **task_options, "bind": True, "name": name, "sends": sends}
    options["base"] = _based_on(options.get("base") or app.Task)

    def send_sms(self: SMSTask, message: dict[str, Any]) -> dict[str, Any]:
        """Make one attempt to send a message (``message.to_dict()``)."""
        return deliver_in(self, sends, Message.from_dict(message), rerun=False).to_dict()

    task = cast("SMSTask", app.task(**options)(send_sms))
    task_revoked.connect(cancel_revoked, sender=task, weak=False)
    watch_of(app)
    return task


def recover_every(
    app: Celery, store: seam.CanRecover, texts: SMSTask | seam.Requeue, every_s: float = 60.0, *, grace_s: float = 60.0
) -> None:
    """Let each worker of ``app`` run ``store.recover(texts)`` every ``every_s`` seconds, in a thread of its own.

    Call it at the top of the module that workers import, after the task was registered. ``texts`` is what `sms_task`
    returned, or a function that gets the id and the metadata of a message and queues it, for a task that calls
    `deliver`. What is ``grace_s`` seconds past its time is queued again; any number of workers may do it side by side,
    and none is sent twice for it. A process that only queues starts no thread. A task that calls `deliver` and is
    revoked before it runs takes back the message with the task's id, where there is one.

    Raises `smsretry.ConfigurationError` where a time is not positive, and for a task that `sms_task` has not made.
    """
    if isinstance(texts, Task) and not callable(getattr(texts, "send", None)):
        msg = f"The task {texts.name!r} was not made by sms_task. Name a function that queues it instead."
        raise ConfigurationError(msg)
    watch_of(app).sweepers.append(seam.Sweeper(store, texts, every_s=every_s, grace_s=grace_s))
    task_revoked.connect(cancel_own(app, store), weak=False)


def _register(app: Celery, name: str) -> None:
    """Keep ``name``; raise where a task of this name sends already: Celery would leave this one out."""
    seam.check_name(name, "shop.send_sms")
    names = watch_of(app).names
    if name in names:
        raise ConfigurationError(f"A task called {name} sends already, and would stay. Choose another name.")
    names.add(name)


def _is_inside(app: Celery) -> bool:
    """Say whether a task of ``app`` runs here, which a worker may run again."""
    return app.current_worker_task is not None


def _based_on(base: type[Task[Any, Any]]) -> type[SMSTask]:
    """Keep what an application's own task class does, such as opening its context."""
    return base if issubclass(base, SMSTask) else type("SMSTask", (SMSTask, base), {"abstract": True})


def _task_id(message: Message) -> str | None:
    return message.id if message.id is not None and _TASK_ID.fullmatch(message.id) else None
