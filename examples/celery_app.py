"""Text a campaign from Celery, with the ready task.

Run it in the folder above this one, with a Redis and an account at Twilio (or ``smsretry simulate``)::

    export TWILIO_ACCOUNT_SID=AC... TWILIO_AUTH_TOKEN=... TWILIO_FROM_NUMBER=+1...
    celery -A examples.celery_app worker
    python -m examples.celery_app spring +14155550101 +14155550102

``smsretry show spring:1`` tells afterwards what happened to the first text, and why.
"""

from __future__ import annotations

import os
import sys

from celery import Celery

from smsretry import Dispatcher, Message
from smsretry.adapters.celery import sms_task
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"))
app.conf.task_ignore_result = True  # the store knows how each text has ended


def make_dispatcher() -> Dispatcher:
    """Say how texts are sent: called once in each worker process, and never where they are only queued."""
    store = SQLStore(os.environ.get("SMSRETRY_DATABASE_URL", "sqlite:///sms.db"))
    return Dispatcher(TwilioSender.from_env(timeout_s=5.0), sink=store)


send_sms = sms_task(app, make_dispatcher, name="shop.send_sms")


def queue_campaign(campaign: str, numbers: list[str]) -> list[str]:
    """Queue one text for each number; return their ids, which are the same whenever this runs again."""
    texts = [
        Message(number, "The spring sale begins today.", id=f"{campaign}:{customer}", campaign=campaign)
        for customer, number in enumerate(numbers, start=1)
    ]
    return [str(send_sms.send(text).id) for text in texts]


if __name__ == "__main__":
    print(*queue_campaign(sys.argv[1], sys.argv[2:]))
