"""The contract of adapters, kept by the recipe for arq with a real worker and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.looped import LoopThread
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.worker_process import WorkerProcess, python

from smsretry import Message
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial

pytest.importorskip("arq", reason="No arq: pip install 'arq>=0.25,<0.26' (later ones need redis < 6).")

from tests.queues.arq_tasks import arq_page
from tests.queues.recipes import recipe


class ArqHarness(WorkerHarness):
    name = "arq"
    slack_s = 1.5
    """arq looks twice a second."""

    def __init__(self, folder: Path, url: str, loop: LoopThread) -> None:
        super().__init__(folder)
        self.worker = WorkerProcess(
            folder,
            *python("arq", "tests.queues.arq_tasks.WorkerSettings"),
            is_ready=lambda log: "Starting worker" in log,
            environment={"SMSRETRY_TEST_ARQ_FOLDER": str(folder), "SMSRETRY_TEST_ARQ_URL": url},
        )
        self.loop = loop
        self.plain = arq_page(url, "plain", only_the_worker_sends)
        self.journaled = arq_page(url, "journaled", only_the_worker_sends, journal=Site(folder).store())
        self.redis = self.plain["redis"]

    @property
    def versions(self) -> dict[str, str]:
        return {"arq": version("arq"), "redis": self.loop.run(self.redis.info())["redis_version"]}

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        page = self.journaled if journaled else self.plain
        self.loop.run(page["texts"].send(message, delay_s=delay_s))
        return message.id

    def send_own(self, message: Message) -> Any:
        return self.loop.run(self.redis.enqueue_job("notify_customer", self.ordered(message)))

    def result(self, job: str) -> object:
        """Return the end of a message, by its id: each retry is a job of its own."""
        kept = self.loop.run(self.redis.all_job_results())
        ends = [one.result for one in kept if job in repr(one.result)]
        return ends[0] if ends else None

    def left(self) -> int:
        return len(self.loop.run(self.redis.queued_jobs()))

    def visible(self) -> str:
        jobs = self.loop.run(self.redis.queued_jobs())
        return "\n".join([self.worker.log(), *map(repr, jobs)])

    async def close(self) -> None:
        for page in (self.plain, self.journaled):
            await page["redis"].aclose()


@pytest.mark.integration
class TestArq(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with LoopThread() as loop:
            harness = ArqHarness(tmp_path_factory.mktemp("arq"), redis_url, loop)
            with Trial(harness) as cls.trial:
                yield
            loop.run(harness.close())


@pytest.mark.integration
def test_the_recover_of_the_page_queues_what_was_lost(redis_url: str, tmp_path: Path) -> None:
    url = ("sqlite:///sms.db", f"sqlite:///{tmp_path / 'sms.db'}")
    soon = ("store.recover, FromThread()", "store.recover, FromThread(), grace_s=0.001")
    page = recipe("arq", ("redis://localhost", redis_url), ('"send_sms"', '"recovered"'), url, soon)
    redis, store = page["redis"], page["store"]

    async def queued() -> list[str]:
        await asyncio.to_thread(store.plan, Message("+14155550101", "Your table is ready.", id="booking-1"))
        await asyncio.sleep(0.01)
        await page["recover"]({})
        jobs = await redis.queued_jobs()
        await redis.aclose()
        return [job.function for job in jobs]

    with store:
        assert "recovered" in asyncio.run(queued())
