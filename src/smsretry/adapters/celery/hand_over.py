"""Take back, in the journal, what Celery has revoked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from celery.app.task import Context

from smsretry.adapters import _seam as seam
from smsretry.dispatcher import new_id


def cancel_revoked(*, sender: Any, request: Context, **_: Any) -> None:
    """Take a revoked message back in the journal of its ready task: a receiver of Celery's ``task_revoked``.

    One that may have been sent is asked about. That takes a copy under another task id, since a worker drops each task
    with the one that was revoked.
    """
    message_id = _message_id(request)
    if message_id is not None:
        copy = {**_message_in(request), "id": message_id}
        seam.revoked(sender.sends.journal, message_id, lambda: sender.apply_async((copy,), task_id=new_id()))


def cancel_own(app: Celery, store: object) -> Callable[..., None]:
    """Return a receiver of ``task_revoked`` that takes back, in ``store``, messages with the id of their task.

    It is for the tasks of ``app`` that call `deliver`: what message they would send nobody knows before they run.
    """

    def cancel(*, sender: Any, request: Context, **_: Any) -> None:
        if sender.app is app and not hasattr(sender, "sends") and request.id is not None:
            seam.taken_back(store, str(request.id))

    return cancel


def _message_id(request: Context) -> str | None:
    """Return the id of the message in a task's arguments; the task's own where it has none."""
    found = _message_in(request).get("id") or request.id
    return None if found is None else str(found)


def _message_in(request: Context) -> Mapping[str, Any]:
    args, kwargs = request.args or (), request.kwargs or {}
    message = args[0] if args else kwargs.get("message")
    return message if isinstance(message, Mapping) else {}
