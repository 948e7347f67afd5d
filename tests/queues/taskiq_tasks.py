"""The taskiq broker whose worker and scheduler keep the contract of adapters; settings come in SMSRETRY_TEST_TASKIQ."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from taskiq import Context, TaskiqDepends, TaskiqScheduler
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from smsretry import Message
from smsretry.adapters.taskiq import deliver, recover_elsewhere, sms_task
from smsretry.testing.adapter_contract import Site


def broker_on(url: str, name: str) -> RedisStreamBroker:
    broker = RedisStreamBroker(url, queue_name=name, consumer_group_name=name, idle_timeout=7_000)
    return broker.with_result_backend(RedisAsyncResultBackend(url, prefix_str=name))


def schedules_on(url: str, name: str) -> ListRedisScheduleSource:
    return ListRedisScheduleSource(url, prefix=name)


def rendered(order: str) -> Message:
    return Message.from_dict(json.loads(Path(order).read_text()))


if settings := json.loads(os.environ.get("SMSRETRY_TEST_TASKIQ", "{}")):
    site = Site(settings["folder"], settle_after_s=6.0)  # a retry may come seconds late
    broker = broker_on(settings["url"], settings["name"])
    schedules = schedules_on(settings["url"], settings["name"])
    scheduler = TaskiqScheduler(broker, [schedules])
    recover_elsewhere(broker)  # the checks run it

    sms_task(broker, site.async_dispatcher, name="contract.plain", source=schedules)
    sms_task(broker, site.async_dispatcher(journaled=True), name="contract.journaled", source=schedules)

    @broker.task("contract.own", tenant=17)
    async def own(order: str, context: Annotated[Context, TaskiqDepends()]) -> str:
        assert context.message.labels["tenant"] == 17
        message = rendered(order)
        return (await deliver(context, site.async_dispatcher, message, source=schedules)).provider_id
