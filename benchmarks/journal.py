"""Measure what a journal costs an attempt: ``python -m benchmarks.journal``.

The same messages go through the same sender, which answers after ``LATENCY_S`` seconds as a provider does, without a
journal and with one on SQLite and on PostgreSQL, from threads and from processes as a queue's workers have them. Both
databases are on this machine and write every commit to its disk. All take turns in one run, so that a slow moment of
the machine meets all; the medians count. *Of the bare rate* is the throughput beside that of the same attempts without
a journal, turn by turn; the messages are new to the journal, which is the dearest case, or were planned before. *CPU*
is what the sending process itself uses for one message: where many share a core, that is the limit, not the waiting.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.servers import ServerMissing, running_postgres

from smsretry import Accepted, Dispatcher, Message, Receipt
from smsretry.store import SQLStore

LATENCY_S: Final = 0.05
ROUNDS: Final = 5
SECONDS: Final = 1.0
"""How long one turn lasts where nothing but the latency counts."""
WARMING: Final = 2
"""So many messages each thread sends before its time counts."""
PATIENCE_S: Final = 120.0

_fork: Final = multiprocessing.get_context("fork")
_ids: Final = itertools.count()


class Provider:
    """Take every text, after ``LATENCY_S`` seconds."""

    def send(self, message: Message, /) -> Receipt:
        time.sleep(LATENCY_S)
        return Receipt("benchmark", f"SM{message.id}", datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Workers:
    """Be so many processes of so many threads."""

    processes: int
    threads: int

    def __str__(self) -> str:
        processes = f"{self.processes} process{'es' * (self.processes > 1)}"
        return f"{processes} of {self.threads} thread{'s' * (self.threads > 1)}"

    @property
    def at_once(self) -> int:
        """Return how many messages are on their way at once."""
        return self.processes * self.threads


WORKERS: Final = (Workers(1, 1), Workers(8, 1), Workers(1, 8), Workers(1, 32))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one turn went: messages a second, and the time on a core that each of them took."""

    rate: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to send."""

    name: str
    store: SQLStore | None
    planned: bool = False

    def pace(self, workers: Workers) -> Pace:
        """Let ``workers`` send new messages."""
        each = round(workers.threads * SECONDS / LATENCY_S)
        shares = [new_messages(each + WARMING * workers.threads) for _ in range(workers.processes)]
        if self.planned and self.store is not None:
            self.store.plan(itertools.chain.from_iterable(shares))
        told = in_processes([Share(self, workers.threads, share) for share in shares])
        messages = each * workers.processes
        return Pace(messages / max(took_s for took_s, _ in told), sum(cpu_s for _, cpu_s in told) / messages * 1e3)


@dataclass(frozen=True, slots=True)
class Share:
    """What one process sends."""

    contender: Contender
    threads: int
    messages: Sequence[Message]

    def work(self, begin: Any, told: Any) -> None:
        """Send all of them, and tell how long it took; the first few only open connections."""
        dispatcher, few = Dispatcher(Provider(), journal=self.contender.store), WARMING * self.threads
        with ThreadPoolExecutor(self.threads) as pool:
            check(pool.map(dispatcher.attempt, self.messages[:few]))
            begin.wait(PATIENCE_S)
            began_s, cpu_s = time.perf_counter(), time.process_time()
            check(pool.map(dispatcher.attempt, self.messages[few:]))
            told.send((time.perf_counter() - began_s, time.process_time() - cpu_s))


def check(outcomes: Any) -> None:
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), "an attempt was not accepted"


def in_processes(shares: Sequence[Share]) -> list[tuple[float, float]]:
    """Let a process work on each share, all at once, and return how long each took, and on a core."""
    begin, pipes = _fork.Barrier(len(shares)), [_fork.Pipe(duplex=False) for _ in shares]
    children = [
        _fork.Process(target=share.work, args=(begin, told)) for share, (_, told) in zip(shares, pipes, strict=True)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
        assert child.exitcode == 0, "a worker failed"
    return [heard.recv() for heard, _ in pipes]


def new_messages(count: int) -> list[Message]:
    """Return messages that no turn had before, each to a number of its own."""
    return [new_message(number) for number in itertools.islice(_ids, count)]


def new_message(number: int) -> Message:
    return Message(f"+1500{number:07}", "Your table is ready.", id=f"m{number}", campaign="spring")


@contextlib.contextmanager
def contenders() -> Generator[list[Contender], None, None]:
    """Lend every way to send; PostgreSQL is left out where there is none."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stores = {"SQLite": stack.enter_context(SQLStore(f"sqlite:///{Path(folder) / 'sms.db'}"))}
        try:
            server = stack.enter_context(running_postgres(durable=True))
            stores["PostgreSQL"] = stack.enter_context(SQLStore(server.url))
        except ServerMissing as missing:
            print(f"{missing}\n")
        yield [Contender("no journal", None), *journaled(stores)]


def journaled(stores: dict[str, SQLStore]) -> Generator[Contender, None, None]:
    for name, store in stores.items():
        store.create_tables()
        yield Contender(name, store)
        yield Contender(f"{name}, planned before", store, planned=True)


def measured(ways: list[Contender], workers: Workers, rounds: int) -> dict[str, list[Pace]]:
    """Return the pace of each contender, turn by turn; a first turn warms everything up."""
    paces: dict[str, list[Pace]] = {way.name: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways:
            pace = way.pace(workers)
            if turn:
                paces[way.name].append(pace)
    return paces


def table(workers: Workers, paces: dict[str, list[Pace]]) -> str:
    head = f"{workers!s:<26}{'messages/s':>12}{'of the bare rate':>18}{'ms more each':>14}{'ms of CPU':>11}"
    return "\n".join([head, *(line(name, workers, own, paces["no journal"]) for name, own in paces.items())])


def line(name: str, workers: Workers, own: list[Pace], bare: list[Pace]) -> str:
    rate, cpu_ms = statistics.median(one.rate for one in own), statistics.median(one.cpu_ms for one in own)
    turns = list(zip(own, bare, strict=True))
    ratio = statistics.median(one.rate / beside.rate for one, beside in turns)
    more_ms = statistics.median(1 / one.rate - 1 / beside.rate for one, beside in turns) * 1e3 * workers.at_once
    return f"  {name:<24}{rate:>12.1f}{ratio:>17.0%}{more_ms:>15.1f}{cpu_ms:>11.2f}"


def main(rounds: int = ROUNDS, show: Callable[[str], None] = print) -> None:
    show(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, provider latency "
        f"{LATENCY_S * 1e3:.0f} ms, medians of {rounds} turns\n"
    )
    with contenders() as ways:
        for workers in WORKERS:
            show(f"{table(workers, measured(ways, workers, rounds))}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
