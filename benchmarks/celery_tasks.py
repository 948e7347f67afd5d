"""Measure what our Celery task costs beside a bare one that makes the same call: ``python -m benchmarks.celery_tasks``.

One real worker, with forked children on a real Redis, runs both; each turn queues as many texts for one of them and
waits until the simulator has all. The bare task is the one that people write: ``autoretry_for=(Exception,)``, late
acknowledgement and Twilio's own client.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.provider import Provider, messages, running_provider
from tests.integration.celery_workers import Worker, on_redis, running_worker
from tests.servers import running_redis

LATENCY_S = 0.05
CHILDREN = 16
MESSAGES = 600
ROUNDS = 5
PATIENCE_S = 120.0
TASKS = ("benchmark.ours", "benchmark.bare")


def rate(worker: Worker, provider: Provider, task: str) -> float:
    """Queue new texts for ``task``, and return how many a second arrive."""
    provider.forget()
    wanted = [message.to_dict() for message in messages(MESSAGES)]
    queued: Any = worker.app
    began_s = time.perf_counter()
    for one in wanted:
        queued.send_task(task, (one,))
    while provider.counts()["texts"] < MESSAGES:
        assert time.perf_counter() - began_s < PATIENCE_S, worker.log()[-2_000:]
        time.sleep(0.01)
    return MESSAGES / (time.perf_counter() - began_s)


def celery_rates(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Let both tasks take turns in one worker; a first turn warms everything up."""
    rates: dict[str, list[float]] = {task: [] for task in TASKS}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_redis() as redis,
        running_provider(latency_s=LATENCY_S) as provider,
        running_worker(
            "benchmarks.celery_app",
            on_redis(redis.url),
            Path(folder),
            "--pool=prefork",
            f"--concurrency={CHILDREN}",
            environment={"SMSRETRY_BENCHMARK_PROVIDER": json.dumps(asdict(provider))},
        ) as worker,
    ):
        for turn in range(rounds + 1):
            for task in TASKS:
                found = rate(worker, provider, task)
                if turn:
                    rates[task].append(found)
    return rates


def ratio_of(rates: dict[str, list[float]]) -> float:
    """Return the rate of our task beside the bare one's, as the median of the turns."""
    own, bare = TASKS
    return statistics.median(one / other for one, other in zip(rates[own], rates[bare], strict=True))


def main(rounds: int = ROUNDS) -> None:
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    rates = celery_rates(rounds)
    for task, found in rates.items():
        print(f"  {task:<20}{statistics.median(found):>8.0f} texts/s")
    print(f"  ours beside the bare one: {ratio_of(rates):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
