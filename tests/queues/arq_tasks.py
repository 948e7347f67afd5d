"""What the arq worker runs that keeps the contract of adapters: the recipe of docs/how-to/arq.md.

Only the dispatchers and the message are another's. Settings come in the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from arq import func
from tests.queues.recipes import recipe

from smsretry import Message
from smsretry.adapters.generic import AsyncGenericQueue
from smsretry.testing.adapter_contract import Site


def arq_page(url: str, name: str, dispatcher: Any, **options: Any) -> dict[str, Any]:
    """Return what the page defines, for a task called ``name`` that sends with ``dispatcher``."""
    page = recipe("arq", ("redis://localhost", url), ('"send_sms"', f'"{name}"'))
    page["texts"] = AsyncGenericQueue(dispatcher, again=page["put"], **options)
    return page


def message_of(*_: str, **named: str) -> Message:
    """Read the message of the check from the file that is the customer's id."""
    return Message.from_dict(json.loads(Path(named["id"].removeprefix("table:")).read_text()))


def worker_settings() -> Any:
    site, url = Site(os.environ["SMSRETRY_TEST_ARQ_FOLDER"]), os.environ["SMSRETRY_TEST_ARQ_URL"]
    plain = arq_page(url, "plain", site.async_dispatcher)
    journaled = arq_page(url, "journaled", site.async_dispatcher(journaled=True))
    notify, settings = plain["notify_customer"], plain["WorkerSettings"]
    notify.__globals__.update(dispatcher=site.async_dispatcher(), Message=message_of)
    settings.job_completion_wait = 0
    settings.functions = [
        func(plain["send_sms"], name="plain"),
        func(journaled["send_sms"], name="journaled"),
        func(notify, name="notify_customer"),
    ]
    return settings


if "SMSRETRY_TEST_ARQ_FOLDER" in os.environ:
    WorkerSettings = worker_settings()
