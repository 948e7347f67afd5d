"""The worker of Temporal that runs what the page of the docs shows.

python -m tests.queues.temporal_tasks FOLDER ADDRESS TASK_QUEUE
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

from smsretry import Message
from smsretry.testing.adapter_contract import Site

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "temporal.md"


def recipe() -> dict[str, Any]:
    """Return what the first Python block of the page defines."""
    block = PAGE.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(block, names)
    return names


@workflow.defn(sandboxed=False)
class Send:
    @workflow.run
    async def run(self, name: str, argument: Any) -> Any:
        return await workflow.execute_activity(
            name,
            argument,
            start_to_close_timeout=timedelta(seconds=4),
            retry_policy=RetryPolicy(maximum_attempts=0),
        )


def activities(site: Site) -> list[Any]:
    deliver = recipe()["deliver"]
    plain, journaled = site.async_dispatcher(), site.async_dispatcher(journaled=True)

    @activity.defn(name="plain")
    async def send_plain(message: dict[str, Any]) -> Any:
        return await deliver(plain, Message.from_dict(message))

    @activity.defn(name="journaled")
    async def send_journaled(message: dict[str, Any]) -> Any:
        return await deliver(journaled, Message.from_dict(message))

    @activity.defn(name="own")
    async def own(order: str) -> Any:
        return await deliver(plain, rendered(order))

    return [send_plain, send_journaled, own]


def rendered(order: str) -> Message:
    return Message.from_dict(json.loads(Path(order).read_text()))


async def main(folder: str, address: str, task_queue: str) -> None:
    client = await Client.connect(address)
    site = Site(folder, settle_after_s=4.0)  # a wait may last a second longer
    worker = Worker(client, task_queue=task_queue, workflows=[Send], activities=activities(site))
    print("ready", flush=True)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
