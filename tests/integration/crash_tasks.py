"""The Celery application whose workers fall, each at the point that the id of its message names, once.

An id is ``how:point``, such as ``kill:after_claim``. Falling is a SIGKILL or a SIGSTOP that the process gives itself;
who fell is in ``fallen.jsonl``, and which runs came to their end in ``runs.jsonl``.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import after_task_publish, task_postrun
from tests.integration.celery_sender import note

from smsretry import Dispatcher, Message, Receipt, RetryPolicy
from smsretry.adapters.celery import recover_every, sms_task
from smsretry.core.claims import Begun, Busy, Claim, Ended
from smsretry.core.events import Event
from smsretry.core.outcome import Outcome
from smsretry.senders.twilio import TwilioSender, http
from smsretry.store import SQLStore

__all__ = ["app", "http"]  # the client is imported before the fork, or each child spends a second on it

settings = json.loads(os.environ["SMSRETRY_TEST_CELERY"])
folder = Path(settings["folder"])
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def fall(message_id: str | None, point: str) -> None:
    """Fall, where this is the point of this message and nobody has fallen there yet."""
    how, _, wanted = str(message_id).partition(":")
    if wanted != point:
        return
    try:
        (folder / f"{how}-{point}.fell").touch(exist_ok=False)
    except FileExistsError:
        return
    note(folder / "fallen.jsonl", {"id": message_id})
    os.kill(os.getpid(), SIGNALS[how])


class FallingStore(SQLStore):
    """Be the journal, and let the process fall around it."""

    def begin(self, message: Message, /, **asked: Any) -> Begun:
        fall(message.id, "before_claim")
        begun = super().begin(message, **asked)
        if isinstance(begun, Claim):
            fall(message.id, "after_claim")
        return begun

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        instead = super().finish(claim, outcome, event)
        fall(claim.message.id, "after_finish")
        return instead


class FallingSender(TwilioSender):
    """Send, say by whom, and let the process fall when the answer is there."""

    def send(self, message: Message) -> Receipt:
        note(folder / "sending.jsonl", {"id": message.id})
        receipt = super().send(message)
        fall(message.id, "after_answer")
        return receipt


app = Celery("texts")
app.conf.update(settings["conf"])
store = FallingStore(os.environ["SMSRETRY_TEST_STORE"])
dispatcher = Dispatcher(
    FallingSender.from_env(timeout_s=2.0),
    policy=RetryPolicy(first_delay_s=0.2, settle_after_s=1.0),
    journal=store,
    lease_s=4.0,
)
send_sms = sms_task(app, dispatcher, name="texts.send")
recover_every(app, store, send_sms, every_s=0.5, grace_s=1.0)


@after_task_publish.connect(sender="texts.send")
def published(headers: dict[str, Any], **_: Any) -> None:
    if app.current_worker_task is not None:  # a run publishes its retry; recover publishes outside of any
        fall(headers["id"], "after_publish")


@task_postrun.connect(sender=send_sms)
def ran(task_id: str, **_: Any) -> None:
    fall(task_id, "before_ack")
    note(folder / "runs.jsonl", {"id": task_id})
