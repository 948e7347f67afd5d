"""The Celery application whose messages wait longer, or shorter, than brokers like."""

from __future__ import annotations

import json
import os
from pathlib import Path

from celery import Celery

from smsretry import Dispatcher, Jitter, RetryPolicy
from smsretry.adapters.celery import recover_every, sms_task
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore

settings = json.loads(os.environ["SMSRETRY_TEST_CELERY"])

app = Celery("texts")
app.conf.update(settings["conf"])

sender = TwilioSender.from_env(timeout_s=3.0)
policies = {
    "jittered": RetryPolicy(max_retries=3, first_delay_s=1.0, max_delay_s=1.0, jitter=Jitter.FULL),
    "patient": RetryPolicy(max_retries=1, first_delay_s=float(os.environ["SMSRETRY_TEST_DELAY_S"])),
}
for kind, policy in policies.items():
    sms_task(app, Dispatcher(sender, policy=policy), name=f"texts.{kind}")
    # recover hands over whatever is overdue in a store: each kind has its own
    store = SQLStore(f"sqlite:///{Path(settings['folder']) / f'{kind}.db'}")
    journaled = sms_task(app, Dispatcher(sender, policy=policy, journal=store), name=f"texts.{kind}.journaled")
    recover_every(app, store, journaled, every_s=1.0, grace_s=5.0)
