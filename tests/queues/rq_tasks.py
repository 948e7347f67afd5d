"""What the RQ worker runs that keeps the contract of adapters; its settings come in SMSRETRY_TEST_RQ."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue, get_current_job

from smsretry import Message
from smsretry.adapters.rq import deliver, sms_task
from smsretry.testing.adapter_contract import Site

settings = json.loads(os.environ["SMSRETRY_TEST_RQ"])
site = Site(settings["folder"], settle_after_s=4.0)  # waits are whole seconds, and up to one more
queue = Queue(settings["queue"], connection=Redis.from_url(settings["redis"]))

plain = sms_task(queue, site.dispatcher, name="tests.queues.rq_tasks.plain")
journaled = sms_task(queue, site.dispatcher(journaled=True), name="tests.queues.rq_tasks.journaled")


def own(order: str) -> Any:
    message = Message.from_dict(json.loads(Path(order).read_text()))
    return deliver(get_current_job(), site.dispatcher, message)
