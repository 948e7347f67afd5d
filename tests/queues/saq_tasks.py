"""What the SAQ worker runs that keeps the contract of adapters; its settings come in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from saq import Queue

from smsretry import Message
from smsretry.adapters.saq import deliver, recover_elsewhere, sms_task
from smsretry.testing.adapter_contract import Site

site = Site(os.environ["SMSRETRY_TEST_SAQ_FOLDER"])
queue = Queue.from_url(os.environ["SMSRETRY_TEST_SAQ_URL"], name=os.environ["SMSRETRY_TEST_SAQ_QUEUE"])
recover_elsewhere(queue)  # the checks run it

plain = sms_task(queue, site.async_dispatcher, name="contract.plain")
journaled = sms_task(queue, site.async_dispatcher(journaled=True), name="contract.journaled")
dispatcher = site.async_dispatcher()


def message_of(order: str) -> Message:
    return Message.from_dict(json.loads(Path(order).read_text()))


async def own(ctx: dict[str, Any], *, order: str) -> str:
    receipt = await deliver(ctx, dispatcher, message_of(order))
    return receipt.provider_id


settings = {
    "queue": queue,
    "functions": [plain.function, journaled.function, ("contract.own", own)],
    "concurrency": 20,
    "shutdown_grace_period_s": 2,
}
