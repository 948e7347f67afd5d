"""The Celery application of the demo: the few lines that an application has in its own tasks module."""

from __future__ import annotations

import json
import os
from pathlib import Path

import sqlalchemy as sa
from celery import Celery

from smsretry import Dispatcher, RetryPolicy
from smsretry.adapters.celery import sms_task
from smsretry.cli.demo import SETTINGS_VARIABLE, SETTLE_AFTER_S
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore
from smsretry.testing.folder_broker import folder_broker

settings = json.loads(os.environ[SETTINGS_VARIABLE])
app = Celery("smsretry-demo")
app.conf.update(folder_broker(Path(settings["folder"]) / "queue"))
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 0  # a retry must not queue behind the campaign before its wait even begins

database = sa.URL.create("sqlite", database=str(Path(settings["folder"]) / "sms.db"))
sender = TwilioSender(
    settings["account_sid"],
    settings["auth_token"],
    from_number="+15005550006",
    base_url=settings["twilio_url"],
    max_connections=settings["concurrency"],
    timeout_s=3.0,
)
dispatcher = Dispatcher(
    sender,
    policy=RetryPolicy(settle_after_s=SETTLE_AFTER_S),
    sink=SQLStore(database),
)
send_sms = sms_task(app, dispatcher, name="demo.send_sms")
