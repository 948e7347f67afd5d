"""Measure what a journal costs an attempt: ``python -m benchmarks.journal``.

The same messages go through the same sender, which answers after ``LATENCY_S`` seconds as a provider does, without a
journal and with one on SQLite and on PostgreSQL, from threads and from processes as a queue's workers have them. Both
databases are on this machine and write every commit to its disk. All take turns in one run, so that a slow moment of
the machine meets all; the medians count. *Of the bare rate* is the throughput beside that of the same attempts without
a journal, turn by turn; the messages are new to the journal, which is the dearest case, or were planned before.
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
class Contender:
    """One way to send."""

    name: str
    store: SQLStore | None
    planned: bool = False

    def rate(self, workers: Workers) -> float:
        """Return how many messages a second ``workers`` send."""
        each = round(workers.threads * SECONDS / LATENCY_S)
        shares = [new_messages(each + WARMING * workers.threads) for _ in range(workers.processes)]
        if self.planned and self.store is not None:
            self.store.plan(itertools.chain.from_iterable(shares))
        took_s = slowest_s([Share(self, workers.threads, share) for share in shares])
        return each * workers.processes / took_s


@dataclass(frozen=True, slots=True)
class Share:
    """What one process sends."""

    contender: Contender
    threads: int
    messages: Sequence[Message]

    def work(self, begin: Any, took_s: Any) -> None:
        """Send all of them, and tell how long it took; the first few only open connections."""
        dispatcher, few = Dispatcher(Provider(), journal=self.contender.store), WARMING * self.threads
        with ThreadPoolExecutor(self.threads) as pool:
            check(pool.map(dispatcher.attempt, self.messages[:few]))
            begin.wait(PATIENCE_S)
            began_s = time.perf_counter()
            check(pool.map(dispatcher.attempt, self.messages[few:]))
            took_s.send(time.perf_counter() - began_s)


def check(outcomes: Any) -> None:
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), "an attempt was not accepted"


def slowest_s(shares: Sequence[Share]) -> float:
    """Let a process work on each share, all at once, and return how long the slowest took."""
    begin, pipes = _fork.Barrier(len(shares)), [_fork.Pipe(duplex=False) for _ in shares]
    children = [
        _fork.Process(target=share.work, args=(begin, told)) for share, (_, told) in zip(shares, pipes, strict=True)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
        assert child.exitcode == 0, "a worker failed"
    return max(heard.recv() for heard, _ in pipes)


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


def measured(ways: list[Contender], workers: Workers, rounds: int) -> dict[str, list[float]]:
    """Return the rates, by contender and turn; a first turn warms everything up."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways:
            rate = way.rate(workers)
            if turn:
                rates[way.name].append(rate)
    return rates


def table(workers: Workers, rates: dict[str, list[float]]) -> str:
    bare = rates["no journal"]
    lines = [f"{workers!s:<28}{'messages/s':>12}{'of the bare rate':>18}{'ms more each':>14}"]
    for name, own in rates.items():
        ratio = statistics.median(rate / beside for rate, beside in zip(own, bare, strict=True))
        more_ms = statistics.median(1 / rate - 1 / beside for rate, beside in zip(own, bare, strict=True)) * 1e3
        lines.append(f"  {name:<26}{statistics.median(own):>12.1f}{ratio:>17.0%}{more_ms * workers.at_once:>15.1f}")
    return "\n".join(lines)


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
