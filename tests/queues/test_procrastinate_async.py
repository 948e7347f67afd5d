"""The contract of adapters, kept by procrastinate with tasks that run in the worker's loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.queues.test_procrastinate import ProcrastinateHarness, working

from smsretry.testing.adapter_contract import AdapterContract


class AsyncProcrastinateHarness(ProcrastinateHarness):
    name = "procrastinate-async"
    is_async = True


@pytest.mark.integration
class TestAsyncProcrastinate(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with working(AsyncProcrastinateHarness, postgres_url, tmp_path_factory) as cls.trial:
            yield
