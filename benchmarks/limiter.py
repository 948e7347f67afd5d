"""Measure how much of a rate four processes use that share a Redis: ``python -m benchmarks.limiter``.

Each process has a heap of texts that wait, as a campaign runner has, and asks for the next one when its time has come.
Two campaigns share the sender. *Used* is what went beyond the burst, of what the rate allowed from the first text to
the last; *beyond* is by how many segments the worst of all windows held more than rate × window + burst, by the
server's clock.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from smsretry.limits.redis import RedisLimiter
from smsretry.testing.limiter_contract import Went, beyond

KEY: Final = "+15005550006"
PROCESSES: Final = 4
RATE_PER_S: Final = 200.0
SECONDS: Final = 8.0
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NOW: Final = datetime.now(UTC)
"""A limiter in Redis does not look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process is to do: ``texts`` of each campaign, from ``begin_at`` on."""

    url: str
    prefix: str
    rate_per_s: float
    texts: int
    begin_at: float


@dataclass(frozen=True, slots=True)
class Utilisation:
    """What was measured; ``deferrals`` is how often a text was put off, on average and at most."""

    used: float
    beyond: float
    texts: int
    took_s: float
    deferrals: float
    most_deferrals: int


class NotingLimiter(RedisLimiter):
    """Note when, by the server's clock, each question was decided."""

    decided_at: float = 0.0

    def _run(self, asked: dict[str, Any]) -> Any:
        script = self._script()
        with script.registered_client.pipeline(transaction=True) as together:
            script(client=together, **asked)
            together.hget(asked["keys"][0], "at")
            answer, at = together.execute()
        self.decided_at = float(at) / 1e6
        return answer


def limiter_utilisation(url: str, *, rate_per_s: float = RATE_PER_S, seconds: float = SECONDS) -> Utilisation:
    """Let four processes send as much as takes ``seconds`` beyond the burst, and return what was measured."""
    texts = round((seconds + 1.0) * rate_per_s / 2 / PROCESSES / 2)  # 2 segments on average, two campaigns
    job = Job(url=url, prefix=f"{uuid.uuid4().hex}:", rate_per_s=rate_per_s, texts=texts, begin_at=time.time() + 1.5)
    command = [sys.executable, "-m", "benchmarks.limiter", json.dumps(asdict(job))]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    try:
        told = [process.communicate(timeout=seconds * 3 + 30.0)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return measured(_went(told), rate_per_s)


def measured(went: Sequence[Went], rate_per_s: float) -> Utilisation:
    took_s = (went[-1].at - went[0].at).total_seconds()
    segments = sum(one.cost for one in went)
    return Utilisation(
        used=(segments - rate_per_s) / (rate_per_s * took_s),
        beyond=beyond(went, rate_per_s, rate_per_s),
        texts=len(went),
        took_s=took_s,
        deferrals=sum(one.deferrals for one in went) / len(went),
        most_deferrals=max(one.deferrals for one in went),
    )


def _went(told: Sequence[str]) -> list[Went]:
    """Return what all processes told, in the order in which the server let it go."""
    lines = sorted(json.loads(line) for text in told for line in text.splitlines())
    return [
        Went(_EPOCH + timedelta(seconds=at), campaign, cost, deferrals, 0.0) for at, campaign, cost, deferrals in lines
    ]


def went_in_this_process(job: Job) -> Iterator[tuple[float, str, int, int]]:
    """Send everything of one process; say when, of which campaign, how many segments, and how often it was put off."""
    limiter = NotingLimiter(job.url, rate_per_s=job.rate_per_s, prefix=job.prefix)
    waiting: list[tuple[float, int, str | None, int]] = [
        (job.begin_at, number, None, 0) for number in range(2 * job.texts)
    ]
    while waiting:
        due, number, slot, deferrals = heapq.heappop(waiting)
        time.sleep(max(0.0, due - time.time()))
        campaign, cost = ("spring", "summer")[number % 2], number // 2 % 3 + 1
        turn = limiter.take_turn(KEY, cost, _NOW, campaign=campaign, slot=slot)
        if turn.wait_s <= 0.0:
            yield limiter.decided_at, campaign, cost, deferrals
        else:
            heapq.heappush(waiting, (time.time() + turn.wait_s, number, turn.slot, deferrals + 1))
    limiter.close()


def main() -> None:
    from tests.servers import running_redis

    with running_redis() as server:
        found = limiter_utilisation(server.url)
    print(f"{PROCESSES} processes on one Redis, {RATE_PER_S:g} segments/s, burst {RATE_PER_S:g}, two campaigns")
    print(f"  used of the rate             {found.used:>9.1%}   (target: 97 % or more)")
    print(f"  beyond rate × window + burst {found.beyond:>9.3f}   segments in the worst window (target: 0 or less)")
    print(f"  put off                      {found.deferrals:>9.2f}   times a text, {found.most_deferrals} at most")
    print(f"  {found.texts} texts in {found.took_s:.2f} s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for line in went_in_this_process(Job(**json.loads(sys.argv[1]))):
            print(json.dumps(line))
    else:
        main()
