"""The contract of adapters, kept by `generic` in a worker that runs a loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.queues.test_generic import ToyHarness

from smsretry.testing.adapter_contract import AdapterContract, Trial


class AsyncToyHarness(ToyHarness):
    name = "generic-async"
    options = ("async",)


@pytest.mark.integration
class TestAsyncGenericQueue(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(AsyncToyHarness(tmp_path_factory.mktemp("toy"))) as cls.trial:
            yield
