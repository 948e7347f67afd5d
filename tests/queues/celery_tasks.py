"""The Celery application whose worker keeps the contract of adapters; its settings come in SMSRETRY_TEST_CELERY."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery

from smsretry import Message
from smsretry.adapters.celery import deliver, recover_elsewhere, sms_task
from smsretry.testing.adapter_contract import Site

settings = json.loads(os.environ["SMSRETRY_TEST_CELERY"])
site = Site(settings["folder"], settle_after_s=2.5)  # more than a broker adds to a wait

app = Celery("contract")
app.conf.update(settings["conf"])
recover_elsewhere(app)  # the checks run it

sms_task(app, site.dispatcher, name="contract.plain")
sms_task(app, site.dispatcher(journaled=True), name="contract.journaled")


@app.task(bind=True, name="contract.own")
def own(self: Any, order: str) -> str:
    message = Message.from_dict(json.loads(Path(order).read_text()))
    return deliver(self, site.dispatcher, message).provider_id
