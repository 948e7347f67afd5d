"""The Celery application of the delivery job: a ready task whose texts are reported on."""

from __future__ import annotations

import json
import os

from celery import Celery
from tests.integration.delivery_job import opened

from smsretry import Dispatcher, RetryPolicy
from smsretry.adapters.celery import recover_every, sms_task
from smsretry.senders.twilio import TwilioSender

app = Celery("shop")
app.conf.update(json.loads(os.environ["SMSRETRY_TEST_CELERY"])["conf"])

store = opened(os.environ["SMSRETRY_TEST_STORE"])
sender = TwilioSender.from_env(timeout_s=3.0, status_callback_url=os.environ["SMSRETRY_TEST_CALLBACKS"])
policy = RetryPolicy(first_delay_s=0.5, settle_after_s=2.0)
dispatcher = Dispatcher(sender, policy=policy, journal=store, suppression=store)
send_sms = sms_task(app, dispatcher, name="shop.send_sms")
recover_every(app, store, send_sms, every_s=2.0, grace_s=2.0)
