"""Run tasks as a worker does, in this process, on kombu's in-memory broker."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any, cast

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from tests.adapters.texts import MESSAGE

from smsretry import AttemptState, Dispatcher, Failure, FailureKind
from smsretry.testing import ScriptedSender

NOBODY = "amqp://127.0.0.1:9//"
LOST = Failure.of(FailureKind.LOST_ANSWER)


def celery_app(**settings: Any) -> Celery:
    app = Celery("texts", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = uuid.uuid4().hex
    app.conf.update(settings)
    return app


def published(app: Celery) -> list[Any]:
    """Take all waiting messages out of the queue."""
    found: list[Any] = []
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        with contextlib.closing(queue), contextlib.suppress(queue.Empty):
            while True:
                found.append(queue.get_nowait())
    return found


def state_of(message: Any) -> AttemptState:
    return AttemptState.from_dict(json.loads(message.headers["smsretry_state"]))


@contextlib.contextmanager
def running(task: Task[Any, Any], **request: Any) -> Iterator[None]:
    """Put ``task`` in the place that a worker puts it while it runs."""
    usual: dict[str, Any] = {
        "id": "task-1",
        "args": (MESSAGE.to_dict(),),
        "kwargs": {},
        "called_directly": False,
        "is_eager": False,
        "delivery_info": {"exchange": "", "routing_key": task.app.conf.task_default_queue, "priority": None},
        "argsrepr": "(<hidden>,)",
        "kwargsrepr": "{}",
    }
    task.push_request(**{**usual, **request})
    try:
        yield
    finally:
        task.pop_request()


def own_task(app: Celery, **options: Any) -> Task[Any, Any]:
    """Register a task as an application has it, for `deliver` to run in."""

    def own(self, message):
        raise NotImplementedError

    usual = {"bind": True, "name": "texts.own", "acks_late": True, "shared": False}
    task: Any = cast("Any", app).task(**{**usual, **options})(own)
    app.finalize()  # as a worker does before it starts
    return task


def sending(script: Any = (), **options: Any) -> tuple[ScriptedSender, Dispatcher]:
    sender = ScriptedSender(script)
    return sender, Dispatcher(sender, **options)


def unreachable_app(**options: Any) -> Task[Any, Any]:
    at_once = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app = celery_app(broker_url=NOBODY, task_publish_retry=False, broker_transport_options=at_once)
    return own_task(app, **options)


def out_of_time() -> float:
    raise SoftTimeLimitExceeded(5)
