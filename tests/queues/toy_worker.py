"""The worker of the toy queue, and an adapter for it.

python -m tests.queues.toy_worker FOLDER [async] [unjournaled]
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from pathlib import Path
from typing import Any

from tests.queues.toy_queue import Job, ToyQueue

from smsretry import Message, NotAccepted
from smsretry.adapters.generic import AsyncGenericQueue, GenericQueue, deliver, deliver_async
from smsretry.testing.adapter_contract import Site

# --- the adapter ---


class ToyTexts:
    """Send from the toy queue."""

    def __init__(self, jobs: ToyQueue, kind: str, dispatcher: Any, queue: Any = GenericQueue, **options: Any) -> None:
        self._jobs, self._kind = jobs, kind
        self._queue = queue(dispatcher, again=self._put, **options)
        self.send = self._queue.send

    def _put(self, envelope: dict[str, Any], delay_s: float) -> str:
        return self._jobs.put(self._kind, envelope, delay_s, envelope["message"].get("id"))

    def run(self, job: Job) -> Any:
        return self._queue.run(job.body, job_id=job.id)


# --- the end of the adapter ---


class Worker:
    """Run one job after the other."""

    def __init__(self, folder: Path, *, is_async: bool, has_journal: bool) -> None:
        self.jobs, self.site, self.is_async = ToyQueue(folder), Site(folder), is_async
        self.queue = AsyncGenericQueue if is_async else GenericQueue
        self.make = self.site.async_dispatcher if is_async else self.site.dispatcher
        self.dispatcher: Any = self.make()
        plain = ToyTexts(self.jobs, "plain", self.make, self.queue)
        journaled = ToyTexts(self.jobs, "journaled", self.make(journaled=has_journal), self.queue)
        self.kinds = {"plain": plain.run, "journaled": journaled.run, "own": self.run_own}

    def run_own(self, job: Job) -> Any:
        """Be a task of an application's own."""
        message = Message.from_dict(job.body["order"])
        send: Any = deliver_async if self.is_async else deliver

        def again(state: str, delay_s: float) -> None:
            self.jobs.put("own", {**job.body, "state": state}, delay_s, job.id)

        return send(self.dispatcher, message, state=job.body.get("state"), again=again)

    def run(self, job: Job) -> None:
        try:
            done = self.kinds[job.kind](job)
            receipt = self.loop.run_until_complete(done) if inspect.isawaitable(done) else done
        except NotAccepted as error:
            self.jobs.end(job.id, error)
        else:
            if receipt is not None:
                self.jobs.end(job.id, receipt.to_dict())

    def work(self) -> None:
        self.loop = asyncio.new_event_loop()
        print("ready", flush=True)
        while True:
            job = self.jobs.take()
            if job is None:
                time.sleep(0.02)
            else:
                print(f"{job.kind} {job.id}", flush=True)
                self.run(job)


if __name__ == "__main__":
    Worker(Path(sys.argv[1]), is_async="async" in sys.argv, has_journal="unjournaled" not in sys.argv).work()
