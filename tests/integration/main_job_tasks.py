"""The Celery application of the main job: what a shop has in its own tasks module."""

from __future__ import annotations

import json
import os

from celery import Celery

from smsretry import Dispatcher, RetryPolicy
from smsretry.adapters.celery import sms_task
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore

app = Celery("shop")
app.conf.update(json.loads(os.environ["SMSRETRY_TEST_CELERY"])["conf"])

# At module level, before the worker forks: nothing is opened here.
dispatcher = Dispatcher(
    TwilioSender.from_env(timeout_s=3.0),
    policy=RetryPolicy(first_delay_s=0.2, settle_after_s=1.0),
    sink=SQLStore(os.environ["SMSRETRY_TEST_STORE"]),
)
send_sms = sms_task(app, dispatcher, name="shop.send_sms")
