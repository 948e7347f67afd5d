"""Text a campaign of which killed workers and repeated deliveries neither lose nor double a text.

Run it in the folder above this one, with a Redis and an account at Twilio (or ``smsretry simulate``)::

    export TWILIO_ACCOUNT_SID=AC... TWILIO_AUTH_TOKEN=... TWILIO_FROM_NUMBER=+1...
    celery -A examples.journal_app worker
    python -m examples.journal_app spring +14155550101 +14155550102

Kill the worker with ``kill -9`` in between, and start another one: it finds what the first one left, asks Twilio what
became of it, and goes on. Run the last line twice: it is the same campaign, so nobody gets a second text.
"""

from __future__ import annotations

import os
import sys

from celery import Celery

from smsretry import Dispatcher, Message
from smsretry.adapters.celery import recover_every, sms_task
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"))
app.conf.task_ignore_result = True  # the journal knows how each text has ended

store = SQLStore(os.environ.get("SMSRETRY_DATABASE_URL", "sqlite:///sms.db"))
dispatcher = Dispatcher(TwilioSender.from_env(timeout_s=5.0), journal=store)
send_sms = sms_task(app, dispatcher, name="shop.send_sms")
recover_every(app, store, send_sms)  # each worker looks once a minute for what nobody works on any more


def queue_campaign(campaign: str, numbers: list[str]) -> None:
    """Plan one text for each number, and queue them: a process that dies half-way leaves the rest to `recover`."""
    texts = [
        Message(number, "The spring sale begins today.", id=f"{campaign}:{customer}", campaign=campaign)
        for customer, number in enumerate(numbers, start=1)
    ]
    store.plan(texts)
    for text in texts:
        send_sms.send(text)


if __name__ == "__main__":
    queue_campaign(sys.argv[1], sys.argv[2:])
    print(store.campaign_summary(sys.argv[1]))
