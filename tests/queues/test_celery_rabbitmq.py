"""The contract of adapters, kept by Celery on quorum queues of a real RabbitMQ, which holds what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Queue
from tests.integration.celery_workers import on_quorum_queues
from tests.queues.celery_harness import CeleryHarness, inspected

from smsretry.testing.adapter_contract import AdapterContract, Trial


class OnQuorumQueues(CeleryHarness):
    name = "celery-rabbitmq"
    pool = "prefork"
    slack_s = 2.0
    """Waits are whole seconds here, rounded up."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, on_quorum_queues(url, folder))

    def start(self) -> None:
        super().start()
        with self.app.connection_for_write() as connection:  # a copy of whatever is queued, at once or for later
            self.tap(connection).declare()
            self.tap(connection).bind_to("celery_delayed_27", "#")

    def tap(self, connection: Any) -> Queue:
        exchange = self.app.amqp.default_exchange
        return Queue(f"{exchange.name}-tap", exchange, routing_key="#")(connection.default_channel)

    def broker(self) -> dict[str, str]:
        with self.app.connection_for_write() as connection:
            return {"rabbitmq": connection.connection.server_properties["version"]}

    def headers(self) -> Iterator[str]:
        with self.app.connection_for_read() as connection:
            while (message := self.tap(connection).get(no_ack=True)) is not None:
                yield json.dumps([message.headers, message.properties, message.delivery_info], default=str)
        yield from inspected(self.app)


@pytest.mark.integration
class TestCeleryOnQuorumQueues(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, rabbitmq_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(OnQuorumQueues(tmp_path_factory.mktemp("celery"), rabbitmq_url)) as cls.trial:
            yield
