"""Measure what a journal costs an attempt: ``python -m benchmarks.journal``.

The same messages go through the same sender, which answers after ``LATENCY_S`` seconds as a provider does, without a
journal and with one on SQLite and on PostgreSQL, each from 8 and from 32 threads of one process. Both databases are on
this machine and write every commit to its disk. All take turns in one run, so that a slow moment of the machine meets
all; the medians count. *Of the bare rate* is the throughput beside the same attempts without a journal; the messages
are new to the journal, which is the dearest case, or were planned before.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.servers import ServerMissing, running_postgres

from smsretry import Accepted, Dispatcher, Message, Receipt
from smsretry.store import SQLStore

LATENCY_S: Final = 0.05
THREADS: Final = (8, 32)
ROUNDS: Final = 5
SECONDS: Final = 2.0
"""How long one round lasts where nothing but the latency counts."""

_ids: Final = itertools.count()


class Provider:
    """Take every text, after ``LATENCY_S`` seconds."""

    def send(self, message: Message, /) -> Receipt:
        time.sleep(LATENCY_S)
        return Receipt("benchmark", f"SM{message.id}", datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to send."""

    name: str
    store: SQLStore | None
    planned: bool = False

    def rate(self, threads: int) -> float:
        """Return how many messages a second ``threads`` threads send."""
        dispatcher = Dispatcher(Provider(), journal=self.store)
        messages = new_messages(round(threads * SECONDS / LATENCY_S))
        if self.planned and self.store is not None:
            self.store.plan(messages)
        with ThreadPoolExecutor(threads) as pool:
            began_s = time.perf_counter()
            outcomes = list(pool.map(dispatcher.attempt, messages))
            took_s = time.perf_counter() - began_s
        assert all(isinstance(outcome, Accepted) for outcome in outcomes), "an attempt was not accepted"
        return len(messages) / took_s


def new_messages(count: int) -> list[Message]:
    """Return messages that no round had before, each to a number of its own."""
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
        yield Contender(name, store)
        yield Contender(f"{name}, planned before", store, planned=True)


def measured(ways: list[Contender], threads: int, rounds: int) -> dict[str, float]:
    """Return the median rates, by contender; a first round warms everything up."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways:
            rate = way.rate(threads)
            if turn:
                rates[way.name].append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


def table(threads: int, rates: dict[str, float]) -> str:
    bare = rates["no journal"]
    lines = [f"{f'{threads} threads':<28}{'messages/s':>12}{'of the bare rate':>18}{'ms more each':>14}"]
    for name, rate in rates.items():
        more_ms = (threads / rate - threads / bare) * 1e3
        lines.append(f"  {name:<26}{rate:>12.1f}{rate / bare:>17.0%}{more_ms:>15.1f}")
    return "\n".join(lines)


def main(rounds: int = ROUNDS, show: Callable[[str], None] = print) -> None:
    show(f"Python {sys.version.split()[0]}, provider latency {LATENCY_S * 1e3:.0f} ms, medians of {rounds} rounds\n")
    with contenders() as ways:
        for threads in THREADS:
            show(f"{table(threads, measured(ways, threads, rounds))}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
