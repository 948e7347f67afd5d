"""The contract of adapters, kept by procrastinate with a real worker and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import procrastinate
import psycopg
import pytest
from tests.queues.harness import WorkerHarness, only_the_worker_sends
from tests.queues.worker_process import WorkerProcess, python
from tests.servers import empty_database

from smsretry import Message
from smsretry.adapters.procrastinate import sms_task
from smsretry.testing.adapter_contract import AdapterContract, Site, Trial

SHOWN = """
SELECT row_to_json(job)::text FROM procrastinate_jobs job
UNION ALL SELECT row_to_json(event)::text FROM procrastinate_events event
"""


class ProcrastinateHarness(WorkerHarness):
    """It keeps no results: a row says succeeded or failed, and the log says of what."""

    name = "procrastinate"
    slack_s = 2.0
    is_async: ClassVar[bool] = False

    def __init__(self, folder: Path, database: str) -> None:
        super().__init__(folder)
        self.database = database.replace("+psycopg", "", 1)
        self.app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=self.database))
        self.app.open()
        self.app.schema_manager.apply_schema()
        settings = {"folder": str(folder), "database": self.database, "is_async": self.is_async}
        options = ("worker", "--concurrency=4", "--fetch-job-polling-interval=0.1")
        self.worker = WorkerProcess(
            folder,
            *python("procrastinate", "--app=tests.queues.procrastinate_tasks.app", *options),
            is_ready=lambda log: "Starting worker on" in log,
            environment={"SMSRETRY_TEST_PROCRASTINATE": json.dumps(settings)},
        )
        self.plain = sms_task(self.app, only_the_worker_sends, name="contract.plain")
        store = Site(folder).store()
        self.journaled = sms_task(self.app, only_the_worker_sends, name="contract.journaled", journal=store)

    @property
    def versions(self) -> dict[str, str]:
        [(server,)] = self.rows("SHOW server_version")
        return {"procrastinate": version("procrastinate"), "postgresql": server.partition(" ")[0]}

    def send_own(self, message: Message) -> Any:
        return self.app.configure_task("contract.own").defer(order=self.ordered(message))

    def left(self) -> int:
        return len(self.rows("SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"))

    def visible(self) -> str:
        return "\n".join([self.worker.log(), *(row for (row,) in self.rows(SHOWN))])

    def rows(self, query: Any) -> list[Any]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(query).fetchall()


@contextlib.contextmanager
def working(harness: type[ProcrastinateHarness], postgres_url: str, folders: pytest.TempPathFactory) -> Iterator[Trial]:
    """Run a worker on a database of its own."""
    with empty_database(postgres_url) as database:
        made = harness(folders.mktemp("procrastinate"), database)
        with made.app, Trial(made) as trial:
            yield trial


@pytest.mark.integration
class TestProcrastinate(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with working(ProcrastinateHarness, postgres_url, tmp_path_factory) as cls.trial:
            yield
