"""The procrastinate app whose worker keeps the contract of adapters; SMSRETRY_TEST_PROCRASTINATE says where."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import procrastinate

from smsretry import Message
from smsretry.adapters.procrastinate import (
    deliver,
    deliver_async,
    recover_elsewhere,
    sms_task,
    sms_task_async,
)
from smsretry.testing.adapter_contract import Site

settings = json.loads(os.environ["SMSRETRY_TEST_PROCRASTINATE"])
site = Site(settings["folder"])

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=settings["database"]))
recover_elsewhere(app)  # the checks run it


def ordered(order: str) -> Message:
    return Message.from_dict(json.loads(Path(order).read_text()))


if settings["is_async"]:
    sms_task_async(app, site.async_dispatcher, name="contract.plain")
    sms_task_async(app, site.async_dispatcher(journaled=True), name="contract.journaled")

    @app.task(pass_context=True, name="contract.own")
    async def own_async(context: Any, order: str, smsretry_state: str | None = None) -> None:
        await deliver_async(context, site.async_dispatcher, ordered(order))

else:
    sms_task(app, site.dispatcher, name="contract.plain")
    sms_task(app, site.dispatcher(journaled=True), name="contract.journaled")

    @app.task(pass_context=True, name="contract.own")
    def own(context: Any, order: str, smsretry_state: str | None = None) -> None:
        deliver(context, site.dispatcher, ordered(order))
