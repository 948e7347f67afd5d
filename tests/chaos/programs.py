"""Name the programs under test, and say what each knows of its own messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final, Protocol

from celery import Celery

from smsretry import Dispatcher, Message
from smsretry.adapters.celery import sms_task
from smsretry.core.outcome import GiveUpReason
from smsretry.store import SQLStore
from smsretry.store.moves import MessageState
from tests.chaos.load import CAMPAIGN
from tests.chaos.settings import GRACE_S, RECOVER_EVERY_S, TASK, Settings


@unique
class ProgramName(StrEnum):
    """Name the programs that get the load."""

    OWN = "smsretry"
    AUTORETRY = "celery-autoretry"
    TENACITY = "celery-tenacity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Hold the ids of what a program itself says of its messages."""

    refused: frozenset[str] = frozenset()
    """Failed for a permanent reason."""
    unknown: frozenset[str] = frozenset()
    """Nobody can say whether they were sent."""
    open: frozenset[str] = frozenset()
    """Not at their end."""


class Program(Protocol):
    """Put messages into the queue of an application, and say what became of them."""

    module: str
    """The application that the workers run."""
    beside: tuple[str, ...]
    """The command, with its options, that runs beside them; empty for none."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Queue every message."""
        ...

    def open_count(self) -> int | None:
        """Count the messages that are not at their end; None where nobody keeps account."""
        ...

    def word(self) -> Word:
        """Say what is known at the end."""
        ...

    def history(self, message_id: str) -> Iterable[tuple[datetime, str]]:
        """Say what is known of one message."""
        ...


class Plain:
    """Be a task without a record of its own."""

    beside: tuple[str, ...] = ()

    def __init__(self, module: str, app: Celery) -> None:
        self.module = module
        self._app = app

    def publish(self, messages: Sequence[Message]) -> None:
        """Queue every message under its id."""
        for message in messages:
            self._app.send_task(TASK, args=(message.to_dict(),), task_id=message.id)

    def open_count(self) -> None:
        """Say nothing: there is nobody to ask."""

    def word(self) -> Word:
        """Say nothing."""
        return Word()

    def history(self, message_id: str) -> tuple[()]:
        """Say nothing."""
        return ()


class Own:
    """Be the task of this library, with its store as the journal."""

    module = "tests.chaos.apps.own"

    def __init__(self, app: Celery, store: SQLStore, beside: tuple[str, ...]) -> None:
        self.beside = beside
        self._task = sms_task(app, _only_the_worker_sends, name=TASK, journal=store)
        self._store = store
        self._planned = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """Plan all messages at once, and then queue every one."""
        self._planned += self._store.plan(messages)
        for message in messages:
            self._task.apply_async((message.to_dict(),), task_id=message.id)

    def open_count(self) -> int:
        """Count what is pending; raise AssertionError where the counters do not add up to what was planned."""
        counted = self._store.campaign_summary(CAMPAIGN)
        if counted.planned != self._planned:
            raise AssertionError(f"{self._planned} messages were planned, and the counters do not add up: {counted}.")
        return counted.pending

    def word(self) -> Word:
        """Say what the store knows."""
        states = self._states()
        return Word(
            refused=frozenset(id_ for id_, (_, reason) in states.items() if reason == GiveUpReason.PERMANENT),
            unknown=frozenset(id_ for id_, (state, _) in states.items() if state == MessageState.UNKNOWN),
            open=frozenset(id_ for id_, (state, _) in states.items() if state == MessageState.PENDING),
        )

    def history(self, message_id: str) -> Iterator[tuple[datetime, str]]:
        """Say where a message stands, and what its attempts came to."""
        stands = self._store.message(message_id)
        if stands is not None:
            yield stands.decided_at, f"store: {stands}"
        for attempt in self._store.history(message_id):
            yield attempt.started_at, f"store: {attempt.outcome} {attempt}"

    def _states(self) -> dict[str, tuple[str, str]]:
        exported = io.StringIO()
        self._store.export_csv(exported, CAMPAIGN)
        exported.seek(0)
        return {row["message_id"]: (row["state"], row["reason"]) for row in csv.DictReader(exported)}


_PLAIN_MODULES: Final[Mapping[ProgramName, str]] = MappingProxyType(
    {
        ProgramName.AUTORETRY: "tests.chaos.apps.celery_autoretry",
        ProgramName.TENACITY: "tests.chaos.apps.celery_tenacity",
    }
)


@contextmanager
def program_for(name: ProgramName, settings: Settings) -> Iterator[Program]:
    """Lend a program as a process sees it that only queues."""
    app = Celery("chaos", set_as_current=False)
    app.conf.update(settings.celery)
    with closing(app), SQLStore(settings.store_url) as store:
        beside = () if settings.recovers_in_workers else _recover(settings)
        yield Own(app, store, beside) if name is ProgramName.OWN else Plain(_PLAIN_MODULES[name], app)


def _recover(settings: Settings) -> tuple[str, ...]:
    times = ("--every", str(RECOVER_EVERY_S), "--grace", str(GRACE_S))
    return ("recover", "--store", settings.store_url, "--app", Own.module, "--task", TASK, *times)


def _only_the_worker_sends() -> Dispatcher:
    raise NotImplementedError
