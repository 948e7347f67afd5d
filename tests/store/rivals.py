"""Send the same messages from several processes: ``python -m tests.store.rivals SCENARIO URL PREFIX FOLDER``.

The texts that were sent stand in the file ``texts`` of the folder, one line each. All processes are forked from one,
since importing SQLAlchemy takes longer than the work.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.store.counted import counted_in, differing, rows_and_counters
from tests.store.journeys import claimed, message
from tests.store.processes import in_child, wait_for

from smsretry import Dispatcher, FailureKind, Message, Receipt, RetryPolicy
from smsretry.core.delivery import DeliveryReport, DeliveryRetries, DeliveryStatus, Mark
from smsretry.core.outcome import AttemptState, Deferred
from smsretry.ports import mark_of_send
from smsretry.store import SQLStore

WORKERS = 8
MESSAGES = 500
BEGINS = 200
DELIVERED = 60
STEPS = 120
WORDS = (
    (DeliveryStatus.QUEUED, None),
    (DeliveryStatus.SENT, None),
    (DeliveryStatus.UNDELIVERED, "30003"),
    (DeliveryStatus.UNDELIVERED, "30003"),
    (DeliveryStatus.DELIVERED, None),
)


class TextFile:
    """Take every text, and write a line for it that no other process's line can be mixed with."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def send(self, one: Message, /) -> Receipt:
        os.write(self._file, f"{one.id}\n".encode())
        return Receipt("file", f"SM-{one.id}-{os.getpid()}", datetime.now(UTC))


def same_messages(store: SQLStore, folder: Path) -> Iterator[Callable[[], None]]:
    """Let each process be given all messages, each in an order of its own."""
    for number in range(WORKERS):
        yield partial(send_all, store, folder, number)


def send_all(store: SQLStore, folder: Path, number: int) -> None:
    dispatcher = Dispatcher(TextFile(folder / "texts"), journal=store)
    waiting = deque(message(f"m{one}", to=f"+1500555{one:04}") for one in range(MESSAGES))
    random.Random(number).shuffle(waiting)
    while waiting:
        one = waiting.popleft()
        if isinstance(dispatcher.attempt(one, AttemptState()), Deferred):
            waiting.append(one)
            time.sleep(0.005)  # another process has it, and is about to finish


def many_begins(store: SQLStore, folder: Path) -> Iterator[Callable[[], None]]:
    """Let each process begin messages of its own, as fast as it can."""
    del folder
    for number in range(WORKERS):
        yield partial(begin_all, store, number)


def begin_all(store: SQLStore, number: int) -> None:
    for one in range(BEGINS):
        claimed(store, message(f"m{number}-{one}", to=f"+15005{number}{one:05}"))


class Reporting(TextFile):
    """Write for every text the id of its message, its own id, and the mark of the send."""

    def send(self, one: Message, /) -> Receipt:
        mark = mark_of_send()
        sid = f"SM-{one.id}-{mark}"
        os.write(self._file, f"{one.id} {sid} {mark}\n".encode())
        return Receipt("file", sid, datetime.now(UTC))


def deliveries(store: SQLStore, folder: Path) -> Iterator[Callable[[], None]]:
    """Let processes send, report, ask, plan and cancel at once, and one count all the while."""
    for number in range(WORKERS - 2):
        yield partial(deliver, store, folder, number)
    yield partial(keep_house, store, folder)
    yield partial(count, store, folder)


def some_message(dice: random.Random) -> Message:
    number = dice.randrange(DELIVERED)
    return message(f"m{number}", to=f"+1500555{number:04}")


def deliver(store: SQLStore, folder: Path, number: int) -> None:
    try:
        attempt_and_report(store, folder / "texts", random.Random(number))
    finally:
        (folder / f"done-{number}").touch()


def attempt_and_report(store: SQLStore, sent: Path, dice: random.Random) -> None:
    dispatcher = Dispatcher(Reporting(sent), journal=store)
    for _ in range(STEPS):
        if dice.random() < 0.4:
            dispatcher.attempt(some_message(dice))
        elif texts := sent.read_text().splitlines():
            name, sid, mark = dice.choice(texts).split()
            status, code = dice.choice(WORDS)
            ours: dict[str, Any] = {"message_id": name, "mark": Mark.parse(mark)} if dice.random() < 0.7 else {}
            store.receive(report_of(sid, status, code=code, **ours))


def report_of(sid: str, status: DeliveryStatus, **more: Any) -> DeliveryReport:
    return DeliveryReport(provider_id=sid, status=status, provider="file", received_at=datetime.now(UTC), **more)


def keep_house(store: SQLStore, folder: Path) -> None:
    """Do what moves many messages at once, until all have delivered."""
    dice = random.Random(0)
    while not all_done(folder):
        ask_soon(store)
        for one in store.unreported(limit=dice.randrange(1, 20)):
            if dice.random() < 0.3:
                store.receive(report_of(one.provider_id, DeliveryStatus.SENT, message_id=one.message_id))
        store.plan([some_message(dice) for _ in range(20)])
        store.overdue(limit=20)
        store.mended("spring", FailureKind.AUTH)
        store.cancel(str(some_message(dice).id))
        store.purge(timedelta(days=365))


def ask_soon(store: SQLStore) -> None:
    """Let those who have no last word be asked about now."""
    messages = store._schema.messages

    def move(connection: sa.Connection) -> None:
        waiting = sa.select(messages.c.id).where(messages.c.next_fetch.is_not(None)).with_for_update(skip_locked=True)
        ids = connection.scalars(waiting).all()
        long_ago = datetime.now(UTC) - timedelta(days=1)
        connection.execute(sa.update(messages).where(messages.c.id.in_(ids)).values(next_fetch=long_ago))

    store._database.write(move)


def count(store: SQLStore, folder: Path) -> None:
    """Hold the counters against the rows, again and again."""
    while not all_done(folder):
        rows, counters = rows_and_counters(store)
        assert differing(counters, counted_in(rows.values())) == {}


def all_done(folder: Path) -> bool:
    return all((folder / f"done-{number}").exists() for number in range(WORKERS - 2))


SCENARIOS = {"same": same_messages, "begins": many_begins, "deliveries": deliveries}

if __name__ == "__main__":
    scenario, url, prefix, folder = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)  # a database for tests need not wait for the disk
    retries = DeliveryRetries(codes=frozenset({"30003"}), policy=RetryPolicy(max_retries=2, first_delay_s=1.0))
    with SQLStore(url, table_prefix=prefix, delivery_retries=retries) as store:
        for child in [in_child(work) for work in SCENARIOS[scenario](store, Path(folder))]:
            wait_for(child)
