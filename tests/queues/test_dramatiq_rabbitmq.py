"""The contract of adapters, kept by Dramatiq with a real worker on RabbitMQ; its results are in a Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pika
import pytest
from tests.queues.test_dramatiq import DramatiqHarness

from smsretry.testing.adapter_contract import AdapterContract, NotOffered, Trial


class RabbitmqHarness(DramatiqHarness):
    name = "dramatiq-rabbitmq"

    @property
    def versions(self) -> dict[str, str]:
        with contextlib.closing(pika.BlockingConnection(self.broker.parameters)) as connection:
            server: Any = connection._impl.server_properties
        return {"dramatiq": version("dramatiq"), "rabbitmq": server["version"]}

    def left(self) -> int:
        raise NotOffered("RabbitMQ does not count what a worker holds back until it is due")


@pytest.mark.integration
class TestDramatiqOnRabbitmq(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory, rabbitmq_url: str, redis_url: str) -> Iterator[None]:
        with Trial(RabbitmqHarness(tmp_path_factory.mktemp("dramatiq"), rabbitmq_url, redis_url)) as cls.trial:
            yield
