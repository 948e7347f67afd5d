"""Send from Celery: a ready task, or one call inside a task that an application has already.

`sms_task` registers a task that takes ``message.to_dict()``. `deliver` sends from the body of an application's own
``@app.task(bind=True)``. Either way one run of the task is one attempt: what follows is decided by the dispatcher's
policy, the retry is published by this adapter with its state in a header, and the run ends with Celery's own ``Retry``.
Celery's ``max_retries`` and ``autoretry_for`` have no part in it.

With a journal (``Dispatcher(sender, journal=store)``) neither a killed worker nor a repeated delivery loses or doubles
a text, provided that `recover_every` is called, or `smsretry.store.recover` runs elsewhere.

Without a journal a message that the broker delivers twice is sent twice: a crash between an attempt and its
acknowledgement, or between the publishing of a retry and the acknowledgement of the run before it.

Celery's ``result_extended`` stores the arguments of a task, number and text, in the result backend; leave it off.
"""

from __future__ import annotations

from smsretry.adapters import _seam as seam

try:
    from smsretry.adapters.celery.delivery import deliver
    from smsretry.adapters.celery.settings import recover_elsewhere
    from smsretry.adapters.celery.task import SMSTask, recover_every, sms_task
except ModuleNotFoundError as error:
    raise seam.missing("Celery", "celery", error) from error

__all__ = ["SMSTask", "deliver", "recover_elsewhere", "recover_every", "sms_task"]
