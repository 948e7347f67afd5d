"""The Huey whose consumer keeps the contract of adapters; its settings come in SMSRETRY_TEST_HUEY."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import huey as queues

from smsretry import Message
from smsretry.adapters.huey import deliver, recover_elsewhere, sms_task
from smsretry.testing.adapter_contract import Site

settings = json.loads(os.environ["SMSRETRY_TEST_HUEY"])
site = Site(settings["folder"])

huey = getattr(queues, settings["kind"])(**settings["options"])
recover_elsewhere(huey)  # the checks run it

sms_task(huey, site.dispatcher, name="contract.plain")
sms_task(huey, site.dispatcher(journaled=True), name="contract.journaled")


@huey.task(context=True)
def own(order: str, task: Any) -> str:
    message = Message.from_dict(json.loads(Path(order).read_text()))
    return deliver(task, site.dispatcher, message).provider_id
