"""Measure how fast a campaign goes, beside what people write by hand: ``python -m benchmarks.campaign``.

Every contender sends new messages to the same simulator, in a process of its own, that answers after ``LATENCY_S``
seconds. All take turns in one run, so that a slow moment of the machine meets all; a ratio is that of one turn, and the
medians count.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import stamina
import tenacity
from benchmarks.provider import FROM_NUMBER, Provider, messages, running_provider
from twilio.http.async_http_client import AsyncTwilioHttpClient  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]

from smsretry import AsyncDispatcher, Message, Receipt, RetryPolicy
from smsretry.campaign import Progress, run_campaign_async
from smsretry.senders.twilio import AsyncTwilioSender
from smsretry.store import SQLStore

LATENCY_S = 0.05
IN_FLIGHT = 1_000
THREADS = 200
ROUNDS = 5
MESSAGES = 5_000
SLOW_MESSAGES = 1_000
"""Of those that send less than a thousand a second."""
FAULTY = 0.2
"""The share of the POSTs that are told to come again."""
MEMORY_MESSAGES = (10_000, 300_000)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one turn went: messages a second, and the time on a core that each of them took."""

    rate: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to send ``messages`` messages; ``send`` returns when all were accepted."""

    name: str
    send: Callable[[Provider, Iterator[Message]], Any]
    messages: int = MESSAGES

    def pace(self, provider: Provider) -> Pace:
        """Send new messages, and look whether the simulator has each of them."""
        provider.forget()
        gc.collect()
        began_s, cpu_s = time.perf_counter(), time.process_time()
        self.send(provider, messages(self.messages))
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        taken = provider.counts()["texts"]
        assert taken == self.messages, f"{self.name} sent {taken} of {self.messages} texts"
        return Pace(self.messages / took_s, cpu_s / self.messages * 1e3)


async def with_ours(provider: Provider, them: Iterator[Message], store: SQLStore | None = None) -> Progress:
    sender = AsyncTwilioSender(
        provider.account_sid,
        provider.auth_token,
        from_number=FROM_NUMBER,
        base_url=provider.url,
        max_connections=IN_FLIGHT,
    )
    async with sender:
        return await run_campaign_async(them, AsyncDispatcher(sender, journal=store), concurrency=IN_FLIGHT)


def ours(provider: Provider, them: Iterator[Message]) -> None:
    asyncio.run(with_ours(provider, them))


def ours_with(store: SQLStore) -> Callable[[Provider, Iterator[Message]], None]:
    def send(provider: Provider, them: Iterator[Message]) -> None:
        asyncio.run(with_ours(provider, them, store))

    return send


def bare(provider: Provider, them: Iterator[Message]) -> None:
    """POST each message and read the answer, and nothing else: what no library can beat by much."""
    authorization = aiohttp.encode_basic_auth(provider.account_sid, provider.auth_token)

    async def send(session: aiohttp.ClientSession) -> None:
        for message in them:
            form = {"To": message.to, "From": FROM_NUMBER, "Body": message.body}
            async with session.post(provider.create_url, data=form) as answer:
                assert (await answer.json())["sid"]

    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": authorization}) as session:
            await asyncio.gather(*(send(session) for _ in range(IN_FLIGHT)))

    asyncio.run(run())


def official_async(retrying: Callable[[Any], Any]) -> Callable[[Provider, Iterator[Message]], None]:
    """Send through Twilio's async client, each send wrapped by ``retrying``."""

    def send_all(provider: Provider, them: Iterator[Message]) -> None:
        async def run() -> None:
            async with AsyncTwilioHttpClient() as http:
                client = client_of(provider, http_client=http)

                @retrying
                async def send(message: Message) -> str:
                    created = await client.messages.create_async(to=message.to, from_=FROM_NUMBER, body=message.body)
                    sid: str = created.sid
                    return sid

                async def work() -> None:
                    for message in them:
                        await send(message)

                await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

        asyncio.run(run())

    return send_all


def official_threads(provider: Provider, them: Iterator[Message]) -> None:
    """Send through Twilio's plain client with tenacity, on threads."""
    client = client_of(provider)
    client.http_client.session.mount("http://", _adapter())

    @with_tenacity
    def send(message: Message) -> str:
        sid: str = client.messages.create(to=message.to, from_=FROM_NUMBER, body=message.body).sid
        return sid

    with ThreadPoolExecutor(THREADS) as pool:
        for sid in pool.map(send, list(them)):
            assert sid


def client_of(provider: Provider, **options: Any) -> Any:
    client = Client(provider.account_sid, provider.auth_token, **options)
    client.api.base_url = provider.url
    return client


def _adapter() -> Any:
    from requests.adapters import HTTPAdapter

    return HTTPAdapter(pool_maxsize=THREADS)  # else its pool of ten would be the limit


with_tenacity = tenacity.retry(stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_exponential(multiplier=2))
with_stamina = stamina.retry(on=Exception, attempts=4, wait_jitter=0.0, wait_initial=2.0, timeout=None)


def turns(contenders: list[Contender], rounds: int) -> dict[str, list[Pace]]:
    """Return the pace of each contender, turn by turn; a first turn warms everything up."""
    paces: dict[str, list[Pace]] = {one.name: [] for one in contenders}
    with running_provider(latency_s=LATENCY_S) as provider:
        for turn in range(rounds + 1):
            for one in contenders:
                pace = one.pace(provider)
                if turn:
                    paces[one.name].append(pace)
    return paces


def median_ratio(paces: dict[str, list[Pace]], own: str, beside: str) -> float:
    """Return how much faster ``own`` was, as the median of the turns."""
    return statistics.median(one.rate / other.rate for one, other in zip(paces[own], paces[beside], strict=True))


def median_rate(paces: dict[str, list[Pace]], name: str) -> float:
    return statistics.median(one.rate for one in paces[name])


@contextlib.contextmanager
def own_store() -> Iterator[SQLStore]:
    with tempfile.TemporaryDirectory() as folder, SQLStore(f"sqlite:///{Path(folder) / 'sms.db'}") as store:
        store.create_tables()
        yield store


def campaign_paces(rounds: int = ROUNDS) -> dict[str, list[Pace]]:
    """Let all ways of sending a campaign take turns."""
    with own_store() as store:
        return turns(
            [
                Contender("smsretry", ours),
                Contender("bare aiohttp", bare),
                Contender("smsretry, journal on SQLite", ours_with(store)),
                Contender("official async client + tenacity", official_async(with_tenacity)),
                Contender("official async client + stamina", official_async(with_stamina)),
                Contender("official client + tenacity, 200 threads", official_threads, SLOW_MESSAGES),
            ],
            rounds,
        )


@dataclass(frozen=True, slots=True)
class Faulty:
    """What a campaign took of which a part is told to come again."""

    makespan_s: float
    bound_s: float
    """What it has to take at least: all attempts at the rate without faults, and the longest schedule."""
    cpu_ms_per_attempt: float
    cpu_ms_without: float


def faulty_campaign(count: int = 3 * MESSAGES) -> Faulty:
    """Send a campaign without faults and one with them, and compare the latter with its bound."""
    policy = RetryPolicy()
    with running_provider(latency_s=LATENCY_S) as provider:
        Contender("warm", ours).pace(provider)
        without = Contender("smsretry", ours, count).pace(provider)
    with running_provider(latency_s=LATENCY_S, rates={"rate_limited": FAULTY}) as provider:
        gc.collect()
        began_s, cpu_s = time.perf_counter(), time.process_time()
        progress = asyncio.run(with_ours(provider, messages(count)))
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        posts = provider.counts()["posts"]
    assert progress.accepted + progress.failed == count
    return Faulty(
        makespan_s=took_s,
        bound_s=posts / without.rate + sum(policy.schedule()),
        cpu_ms_per_attempt=cpu_s / posts * 1e3,
        cpu_ms_without=without.cpu_ms,
    )


class Instant:
    """Take every text, but one in twenty at its second attempt only."""

    def __init__(self) -> None:
        self._count = itertools.count()

    async def send(self, message: Message, /) -> Receipt:
        await asyncio.sleep(0)
        if next(self._count) % 20 == 0:
            raise ConnectionRefusedError
        return Receipt("benchmark", f"SM{message.id}", datetime.now(UTC))


def peak_mib_of(count: int) -> float:
    """Send ``count`` messages in this process, and return the most memory that it ever had."""
    dispatcher = AsyncDispatcher(Instant(), policy=RetryPolicy(first_delay_s=0.05))
    asyncio.run(run_campaign_async(messages(count), dispatcher, concurrency=IN_FLIGHT))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def memory_growth_mib() -> tuple[float, float]:
    """Return the peak of a small campaign and of a large one, each in a process of its own."""
    few, many = (
        float(subprocess.check_output([sys.executable, "-m", "benchmarks.campaign", "memory", str(count)], text=True))
        for count in MEMORY_MESSAGES
    )
    return few, many


def main(rounds: int = ROUNDS) -> None:
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    paces = campaign_paces(rounds)
    print(f"\n{'':<42}{'messages/s':>12}{'smsretry is':>13}{'ms of CPU':>11}")
    for name, own in paces.items():
        ratio = median_ratio(paces, "smsretry", name)
        cpu_ms = statistics.median(one.cpu_ms for one in own)
        print(f"  {name:<40}{median_rate(paces, name):>12.0f}{ratio:>12.2f}x{cpu_ms:>11.3f}")
    faulty = faulty_campaign()
    print(f"\n{FAULTY:.0%} of the POSTs come again: {faulty.makespan_s:.1f} s, bound {faulty.bound_s:.1f} s")
    print(f"CPU per attempt: {faulty.cpu_ms_per_attempt:.3f} ms, without faults {faulty.cpu_ms_without:.3f} ms")
    few, many = memory_growth_mib()
    print(f"peak memory: {few:.0f} MiB for {MEMORY_MESSAGES[0]}, {many:.0f} MiB for {MEMORY_MESSAGES[1]} messages")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print(json.dumps(peak_mib_of(int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
