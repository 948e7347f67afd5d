"""The contract of adapters, kept by Celery with forked children on a real Redis."""

from __future__ import annotations

import gc
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.integration.celery_workers import on_redis
from tests.queues.celery_harness import CeleryHarness, inspected, without_body

from smsretry.testing.adapter_contract import AdapterContract, Trial


class OnRedis(CeleryHarness):
    name = "celery-redis"
    pool = "prefork"

    def __init__(self, folder: Path, url: str) -> None:
        self.prefix = f"{uuid.uuid4().hex}:"
        super().__init__(folder, on_redis(url, visibility_timeout=5, global_keyprefix=self.prefix))
        self.server: Any = redis.Redis.from_url(url)

    def stop(self) -> None:
        super().stop()
        self.server.close()

    def broker(self) -> dict[str, str]:
        return {"redis": self.server.info("server")["redis_version"]}

    def left(self) -> int:
        return int(self.server.llen(f"{self.prefix}celery")) + int(self.server.hlen(f"{self.prefix}unacked"))

    def headers(self) -> Iterator[str]:
        waiting = map(json.loads, self.server.lrange(f"{self.prefix}celery", 0, -1))
        held = (json.loads(message)[0] for message in self.server.hvals(f"{self.prefix}unacked"))
        yield from map(without_body, (*waiting, *held))
        yield from inspected(self.app)


@pytest.mark.integration
class TestCeleryOnRedis(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(OnRedis(tmp_path_factory.mktemp("celery"), redis_url)) as cls.trial:
            yield
        gc.collect()  # a result that is collected later looks for its Redis
