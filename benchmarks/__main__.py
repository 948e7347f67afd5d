"""Measure everything, and hold it against its targets: ``python -m benchmarks``.

Writes the table to ``benchmarks/results.md`` and, for programs, to ``build/bench.json``. Every figure is a ratio, or a
cost beside that of bare calls, within this one run.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import stamina
from benchmarks import campaign, overhead
from benchmarks.celery_tasks import TASKS, celery_rates, ratio_of
from benchmarks.limiter import RATE_PER_S, limiter_utilisation
from tests.servers import ServerMissing, running_redis

from smsretry import AsyncDispatcher, Message, Receipt

RESULTS: Final = Path(__file__).with_name("results.md")
JSON: Final = Path(__file__).parent.parent / "build" / "bench.json"
PACKAGES: Final = ("aiohttp", "celery", "redis", "SQLAlchemy", "stamina", "tenacity", "twilio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: ``ratio`` is held against ``target``; ``at_most`` says on which side of it is well."""

    name: str
    ratio: float
    target: float
    ours: float
    theirs: float
    unit: str
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def line(self) -> str:
        sign = "≤" if self.at_most else "≥"
        verdict = "met" if self.is_met else "missed"
        return (
            f"| `{self.name}` | {self.ratio:.2f} | {sign} {self.target:g} | {verdict} | {self.ours:.4g} | "
            f"{self.theirs:.4g} | {self.unit} |"
        )

    def to_dict(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name != "at_most"}


def of_campaigns() -> Iterator[Row]:
    paces = campaign.campaign_paces()

    def beside(name: str, other: str, target: float, own: str = "smsretry") -> Row:
        rates = campaign.median_rate(paces, own), campaign.median_rate(paces, other)
        ratio = campaign.median_ratio(paces, own, other)
        return Row(name=name, ratio=ratio, target=target, ours=rates[0], theirs=rates[1], unit="messages/s")

    yield beside("campaign_vs_bare_aiohttp", "bare aiohttp", 0.85)
    yield beside("campaign_vs_tenacity_async", "official async client + tenacity", 1.5)
    yield beside("campaign_vs_stamina_async", "official async client + stamina", 1.5)
    yield beside("campaign_vs_tenacity_threads", "official client + tenacity, 200 threads", 3.0)
    yield beside("journal_sqlite_vs_none", "smsretry", 0.6, "smsretry, journal on SQLite")


def of_a_faulty_campaign() -> Iterator[Row]:
    faulty = campaign.faulty_campaign()
    yield Row(
        name="campaign_faulty_vs_bound",
        ratio=faulty.makespan_s / faulty.bound_s,
        target=1.1,
        ours=faulty.makespan_s,
        theirs=faulty.bound_s,
        unit="s",
        at_most=True,
    )
    yield Row(
        name="campaign_faulty_cpu_per_attempt",
        ratio=faulty.cpu_ms_per_attempt / faulty.cpu_ms_without,
        target=1.1,
        ours=faulty.cpu_ms_per_attempt,
        theirs=faulty.cpu_ms_without,
        unit="ms of CPU",
        at_most=True,
    )


def of_memory() -> Iterator[Row]:
    few, many = campaign.memory_growth_mib()
    yield Row(name="memory_growth_mib", ratio=many - few, target=20.0, ours=many, theirs=few, unit="MiB", at_most=True)


def of_celery() -> Iterator[Row]:
    rates = celery_rates()
    own, bare = (statistics.median(rates[task]) for task in TASKS)
    yield Row(name="celery_vs_bare_task", ratio=ratio_of(rates), target=0.95, ours=own, theirs=bare, unit="texts/s")


def of_the_limiter() -> Iterator[Row]:
    with running_redis() as redis:
        found = limiter_utilisation(redis.url)
    assert found.beyond <= 0.0, f"a window held {found.beyond:.1f} segments more than it may"
    yield Row(
        name="limiter_utilisation",
        ratio=found.used,
        target=0.97,
        ours=found.used * RATE_PER_S,
        theirs=RATE_PER_S,
        unit="segments/s",
    )


def of_one_attempt() -> Iterator[Row]:
    stamina.set_testing(testing=True, attempts=4)  # its own switch for "do not wait"
    costs: dict[str, dict[str, float]] = {}
    for case, contenders in overhead.cases():
        times = {name: statistics.median(found) for name, found in overhead.measured(contenders, 200).items()}
        costs[case] = {name: found - times["bare calls"] for name, found in times.items()}
    in_a_loop_us, bare_us = async_overhead_us()
    yield cost("attempt_overhead_us_sync", costs["success"]["smsretry, one attempt"], 5.0, 0.0)
    yield cost("attempt_overhead_us_async", in_a_loop_us - bare_us, 12.0, bare_us)
    *usual, end = [beside_tenacity(case, found) for case, found in costs.items()]
    yield replace(max(usual, key=lambda row: row.ratio), name="attempt_vs_tenacity")
    yield replace(end, name="attempt_that_ends_vs_tenacity")


def beside_tenacity(case: str, costs: dict[str, float]) -> Row:
    own, theirs = costs["smsretry"], costs["tenacity"]
    return Row(name=case, ratio=own / theirs, target=0.5, ours=own, theirs=theirs, unit=f"µs, {case}", at_most=True)


def cost(name: str, own_us: float, target_us: float, theirs: float) -> Row:
    return Row(name=name, ratio=own_us, target=target_us, ours=own_us, theirs=theirs, unit="µs", at_most=True)


class Loop:
    """Be a provider in a loop that takes everything."""

    async def send(self, _: Message, /) -> Receipt:
        return overhead.RECEIPT


class LoopNotes(overhead.Notes):
    blocks = False


def async_overhead_us(rounds: int = 200) -> tuple[float, float]:
    """Return what one attempt in a loop takes, and one bare call, in µs."""

    async def run() -> tuple[float, float]:
        provider, notes = Loop(), LoopNotes()
        dispatcher = AsyncDispatcher(provider, sink=notes)
        both: tuple[list[float], list[float]] = [], []
        for _ in range(rounds):
            notes.kept.clear()
            for send, times in ((dispatcher.attempt, both[0]), (provider.send, both[1])):
                began = time.perf_counter()
                for _ in range(overhead.CALLS):
                    await send(overhead.MESSAGE)
                times.append((time.perf_counter() - began) / overhead.CALLS * 1e6)
        return statistics.median(both[0]), statistics.median(both[1])

    return asyncio.run(run())


PARTS: Final[tuple[Callable[[], Iterator[Row]], ...]] = (
    of_one_attempt,
    of_campaigns,
    of_a_faulty_campaign,
    of_memory,
    of_celery,
    of_the_limiter,
)


def machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end, Python {platform.python_version()}, {versions}."
    )


def written(rows: list[Row]) -> str:
    head = "| name | ratio | target | | ours | theirs | unit |\n|---|---|---|---|---|---|---|"
    lines = "\n".join(row.line() for row in rows)
    return (
        "# What it costs, and how fast it goes\n\n"
        "Made by `make bench`. Every figure comes from one run in which all contenders took turns; medians count.\n\n"
        f"{machine()}\n\n{head}\n{lines}\n"
    )


def main() -> int:
    rows: list[Row] = []
    for part in PARTS:
        try:
            for row in part():
                print(row.line(), flush=True)
                rows.append(row)
        except ServerMissing as missing:
            print(f"left out: {missing}")
    RESULTS.write_text(written(rows))
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps({"rows": [row.to_dict() for row in rows]}, indent=1) + "\n")
    print(f"\n{written(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
