"""Send from Dramatiq: a ready task, or one call inside an actor that an application has already.

One run is one attempt. What follows is decided by the dispatcher's policy, and asked of Dramatiq with its own
``Retry``; the state rides in the options of Dramatiq's message, and ``max_retries`` counts an actor's own errors only.
What a ready task sends rides in the options too, packed, since Dramatiq writes arguments to its log.

With a journal (``Dispatcher(sender, journal=store)``) neither a killed worker nor a repeated delivery loses or doubles
a text, provided that `recover_every` is called, or `smsretry.store.recover` runs elsewhere.
"""

from __future__ import annotations

from smsretry.adapters import _seam as seam

try:
    from smsretry.adapters.dramatiq.task import SMSTask, deliver, end_of, sms_task
    from smsretry.adapters.dramatiq.watch import SMSMiddleware, recover_elsewhere, recover_every
except ModuleNotFoundError as error:
    raise seam.missing("Dramatiq", "dramatiq", error) from error

__all__ = ["SMSMiddleware", "SMSTask", "deliver", "end_of", "recover_elsewhere", "recover_every", "sms_task"]
