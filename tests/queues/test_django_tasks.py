"""The contract of adapters, kept by the recipe of docs/how-to/django-tasks.md with a real worker of Django's tasks."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.queues.harness import WorkerHarness
from tests.queues.worker_process import ROOT, WorkerProcess, python

from smsretry import Message
from smsretry.testing.adapter_contract import AdapterContract, NotOffered, Trial

pytest.importorskip(
    "django_tasks_db", reason="No Django tasks: pip install django-tasks-db (before Django 6 [compat])."
)


class DjangoHarness(WorkerHarness):
    """The site has no admin, whose page of a task would show its arguments."""

    name = "django-tasks"
    slack_s = 3.0
    """One worker runs one task at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from tests.queues.django_site import set_up

        set_up(folder)
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        self.worker = WorkerProcess(
            folder,
            *python("tests.queues.django_site", str(folder)),
            is_ready=lambda log: "Starting worker" in log,
        )

    @property
    def versions(self) -> dict[str, str]:
        names = ("django", "django-tasks-db")
        return {**{name: version(name) for name in names}, "sqlite": sqlite3.sqlite_version}

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        from tests.queues.django_texts import plain, texts

        return (texts if journaled else plain).send(message, delay_s=delay_s)

    def send_own(self, message: Message) -> Any:
        from tests.queues.django_texts import remind

        return remind.enqueue(self.ordered(message))

    def result(self, job: Any) -> object:
        raise NotOffered("the backend keeps the class and the traceback of an exception, not what it holds")

    def left(self) -> int:
        from django_tasks_db.models import DBTaskResult

        return DBTaskResult.objects.filter(status__in=["READY", "RUNNING"]).count()

    def visible(self) -> str:
        from django_tasks_db.models import DBTaskResult

        columns = [field.name for field in DBTaskResult._meta.fields if field.name != "args_kwargs"]
        return "\n".join([self.worker.log(), *map(repr, DBTaskResult.objects.values_list(*columns))])


@pytest.mark.integration
class TestDjangoTasks(AdapterContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def at_work(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with Trial(DjangoHarness(tmp_path_factory.mktemp("django"))) as cls.trial:
            yield

    def test_the_page_shows_what_is_run_here(self) -> None:
        from tests.queues import django_texts

        page = (ROOT / "docs/how-to/django-tasks.md").read_text("utf-8")
        for function in (django_texts.send_sms.func, django_texts.again, django_texts.remind.func):
            assert inspect.getsource(function) in page
