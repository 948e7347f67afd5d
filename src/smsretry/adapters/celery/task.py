"""A Celery task that is ready to send messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from celery import Celery, Task
from celery.result import AsyncResult

from smsretry.adapters.celery.delivery import DispatcherSource, deliver, refuse_autoretry
from smsretry.adapters.celery.envelope import header_of, held, seconds_until, shown, utc_now
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import Dispatcher
from smsretry.errors import ConfigurationError, NotAccepted

_NEW: Final = AttemptState()
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
    number and text, and a wait longer than the broker bears is cut into hops.
    """

    abstract = True
    Request = "smsretry.adapters.celery.request:Request"

    def send(
        self, message: Message, *, state: AttemptState = _NEW, countdown: float | None = None
    ) -> AsyncResult[dict[str, Any]]:
        """Queue ``message``, to be sent now or in ``countdown`` seconds.

        ``state`` is that of a message whose attempts began elsewhere; without a ``countdown`` it is waited for
        ``state.due``. The message's id, where it has one, becomes the task's id, so that
        ``app.AsyncResult(message.id)`` finds it (unless it holds a slash or more than 155 characters, which result
        backends refuse).
        """
        if countdown is None:
            countdown = seconds_until(state.due, utc_now())
        else:
            state = replace(state, due=None)
        return self.apply_async(
            (message.to_dict(),), task_id=_task_id(message), countdown=countdown, headers=header_of(state)
        )

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> AsyncResult[Any]:
        """Queue the message in ``args`` or ``kwargs`` (``message.to_dict()``), with Celery's own options."""
        options["argsrepr"] = repr(tuple(shown(one) for one in args or ()))
        options["kwargsrepr"] = repr({name: shown(one) for name, one in (kwargs or {}).items()})
        if not self.app.conf.task_always_eager:
            options = held(options, self.app, utc_now())
        return super().apply_async(args, kwargs, *more, **options)


def sms_task(app: Celery, dispatcher: DispatcherSource, *, name: str, **task_options: Any) -> SMSTask:
    """Register a task called ``name`` that sends what it is given, and return it.

    Call it at the top of the module that both producers and workers import::

        send_sms = sms_task(app, make_dispatcher, name="shop.send_sms")
        send_sms.delay(message.to_dict())
        send_sms.send(message, countdown=60)

    ``dispatcher`` is a `smsretry.Dispatcher`, or a function that makes one: it is called once in each process, at first
    use, so that the process that only queues needs no credentials. ``task_options`` are those of ``app.task``; by
    default ``acks_late=True``, ``reject_on_worker_lost=True``, ``max_retries=None`` (the policy counts) and
    ``throws=(NotAccepted,)``: a text that has ended is no fault of the worker, so it is logged without a traceback.

    The task returns ``receipt.to_dict()``. It fails with `smsretry.SendFailed` or `smsretry.SendUnknown`.

    Raises `smsretry.ConfigurationError` for options that would break a promise.
    """
    if not isinstance(dispatcher, Dispatcher) and not callable(dispatcher):
        msg = f"dispatcher must be a Dispatcher or a function that returns one, got {type(dispatcher).__name__}."
        raise ConfigurationError(msg)
    refuse_autoretry(task_options.get("autoretry_for", ()), task_options.get("dont_autoretry_for", ()))
    options: dict[str, Any] = {**_DEFAULTS, **task_options, "bind": True, "name": name}
    options["base"] = _based_on(options.get("base") or app.Task)

    def send_sms(self: SMSTask, message: dict[str, Any]) -> dict[str, Any]:
        """Make one attempt to send a message (``message.to_dict()``)."""
        return deliver(self, dispatcher, Message.from_dict(message)).to_dict()

    return cast("SMSTask", app.task(**options)(send_sms))


def _based_on(base: type[Task[Any, Any]]) -> type[SMSTask]:
    """Keep what an application's own task class does, such as opening its context."""
    return base if issubclass(base, SMSTask) else type("SMSTask", (SMSTask, base), {"abstract": True})


def _task_id(message: Message) -> str | None:
    return message.id if message.id is not None and _TASK_ID.fullmatch(message.id) else None
