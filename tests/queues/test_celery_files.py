"""The contract of adapters, kept by Celery with threads on a broker of files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.celery_workers import on_files
from tests.queues.celery_harness import CeleryHarness, without_body

from smsretry.testing.adapter_contract import AdapterContract, Trial


class OnFiles(CeleryHarness):
    name = "celery-files"
    pool = "threads"
    slack_s = 2.0
    """On files Celery's timer looks only once a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, on_files(folder))

    def broker(self) -> dict[str, str]:
        return {"broker": "files"}

    def headers(self) -> Iterator[str]:
        for file in (self.folder / "queue").glob("*.msg"):
            with contextlib.suppress(FileNotFoundError):  # the worker has taken it
                yield without_body(json.loads(file.read_text()))


@pytest.mark.integration
class TestCeleryOnFiles(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(OnFiles(tmp_path_factory.mktemp("celery"))) as cls.trial:
            yield
