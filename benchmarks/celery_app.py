"""The application whose worker `benchmarks.celery_tasks` measures: one text, sent by a bare task and by ours."""

from __future__ import annotations

import json
import os
from typing import Any

from benchmarks.provider import FROM_NUMBER, Provider
from celery import Celery
from twilio.rest import Client  # type: ignore[import-untyped]

from smsretry import Dispatcher
from smsretry.adapters.celery import sms_task
from smsretry.senders.twilio import TwilioSender

settings = json.loads(os.environ["SMSRETRY_TEST_CELERY"])
provider = Provider(**json.loads(os.environ["SMSRETRY_BENCHMARK_PROVIDER"]))

app = Celery("texts")
app.conf.update(settings["conf"])

sender = TwilioSender(
    provider.account_sid, provider.auth_token, from_number=FROM_NUMBER, base_url=provider.url, max_connections=100
)
send_ours = sms_task(app, Dispatcher(sender), name="benchmark.ours", ignore_result=True)

client = Client(provider.account_sid, provider.auth_token)
client.api.base_url = provider.url


@app.task(
    name="benchmark.bare",
    autoretry_for=(Exception,),
    retry_backoff=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
)
def send_bare(message: dict[str, Any]) -> str:
    created: Any = client.messages.create(to=message["to"], from_=FROM_NUMBER, body=message["body"])
    return str(created.sid)
