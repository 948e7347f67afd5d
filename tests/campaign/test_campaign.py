"""A campaign of many messages, with threads and in a loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.shells import Awaited, AwaitedAsking

from smsretry import (
    AsyncDispatcher,
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    Message,
    Receipt,
    RetryPolicy,
)
from smsretry.campaign import Progress, run_campaign, run_campaign_async
from smsretry.errors import ProviderError
from smsretry.journal import MemoryJournal
from smsretry.limits import MemoryLimiter
from smsretry.ports import Found, LookUp, NotSeen
from smsretry.store import SQLStore

QUICK = RetryPolicy(first_delay_s=0.01, settle_after_s=0.0)
WITHIN_S = 30.0
BUSY = Failure.of(FailureKind.RATE_LIMITED)
REFUSED = Failure.of(FailureKind.AUTH, code=20003)


class Provider:
    """Take what it is sent, after the failures that are written down for each message; count what was taken."""

    def __init__(self, **failures: list[Failure | BaseException]) -> None:
        self.taken: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self._failures = failures
        self._lock = threading.Lock()

    def send(self, message: Message, /) -> Receipt:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self._answer(str(message.id))
        finally:
            with self._lock:
                self.at_once -= 1

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        now = datetime.now(UTC)
        taken = self.taken[str(message.id)]
        return Found(Receipt("scripted", f"SM-{message.id}", now)) if taken else NotSeen(now)

    def _answer(self, key: str) -> Receipt:
        with self._lock:
            self.posts[key] += 1
            scripted = self._failures.get(key) or self._failures.get("every")
            failure = scripted.pop(0) if scripted else None
            if failure is None or (isinstance(failure, Failure) and failure.kind is FailureKind.LOST_ANSWER):
                self.taken[key] += 1
        if isinstance(failure, BaseException):
            raise failure
        if failure is not None:
            raise ProviderError(failure)
        return Receipt("scripted", f"SM-{key}", datetime.now(UTC))


def messages(count: int) -> Iterator[Message]:
    return (Message("+15005550006", f"Table {number} is ready.", id=f"m{number}") for number in range(count))


Run = Callable[..., Progress]


def with_threads(
    source: Iterable[Any], provider: Any, *, concurrency: int = 4, journal: Any = None, **more: Any
) -> Progress:
    return run_campaign(
        source,
        Dispatcher(provider, policy=QUICK, journal=journal),
        concurrency=concurrency,
        progress_every_s=0.02,
        **more,
    )


def in_a_loop(
    source: Iterable[Any], provider: Any, *, concurrency: int = 4, journal: Any = None, **more: Any
) -> Progress:
    dispatcher = AsyncDispatcher(AwaitedAsking(provider), policy=QUICK, journal=journal)
    return run_campaign(source, dispatcher, concurrency=concurrency, progress_every_s=0.02, **more)


@pytest.fixture(params=[with_threads, in_a_loop])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def test_every_message_is_sent_once_and_counted(run):
    provider = Provider()
    progress = run(messages(300), provider)
    assert provider.taken == Counter({f"m{n}": 1 for n in range(300)})
    assert (progress.taken, progress.accepted, progress.waiting, progress.in_flight) == (300, 300, 0, 0)


def test_no_messages_are_no_campaign(run):
    progress = run([], Provider())
    assert progress.taken == progress.ended == 0


def test_individual_failures_never_stop_it(run):
    wrong = Failure.of(FailureKind.INVALID_NUMBER)
    provider = Provider(
        m1=[BUSY], m2=[wrong], m3=[BUSY] * 9, m4=[Failure.of(FailureKind.LOST_ANSWER)], m5=[ConnectionRefusedError()]
    )
    progress = run(messages(20), provider)
    assert (progress.accepted, progress.failed, progress.unknown) == (18, 2, 0)
    assert progress.retries == 6  # one of them looked m4 up, and found it
    assert provider.posts["m3"] == 4
    assert provider.posts["m4"] == provider.taken["m4"] == 1


def test_what_is_no_message_or_an_id_used_for_another_text_is_refused_and_logged(run, caplog):
    journal = MemoryJournal()
    source = [*messages(2), "hello", Message("+15005550006", "Another text.", id="m1")]
    progress = run(source, Provider(), journal=journal)
    assert (progress.taken, progress.accepted, progress.refused) == (4, 2, 2)
    assert "A campaign sends Messages, got a str" in caplog.text
    assert "Message m1 is left out: The id m1 belongs to a message with another text" in caplog.text
    assert "Another text." not in caplog.text


def test_it_sends_as_many_at_once_as_was_asked_and_no_more():
    barrier = threading.Barrier(5)

    class Meeting(Provider):
        def _answer(self, key: str) -> Receipt:
            barrier.wait(WITHIN_S)
            return super()._answer(key)

    provider = Meeting()
    with_threads(messages(20), provider, concurrency=5)
    assert provider.most_at_once == 5


def test_a_message_that_waits_holds_no_place():
    """One place, and the first message waits: the others are sent meanwhile."""
    order: list[str] = []

    class Noting(Provider):
        def _answer(self, key: str) -> Receipt:
            order.append(key)
            return super()._answer(key)

    for run in (with_threads, in_a_loop):
        order.clear()
        run(messages(4), Noting(m0=[BUSY]), concurrency=1)
        assert order.index("m1") < len(order) - 1 - order[::-1].index("m0")


def test_it_reads_no_further_than_it_sends(run):
    read: list[int] = []

    def source() -> Iterator[Message]:
        for number, message in enumerate(messages(1_000)):
            read.append(number)
            yield message

    ahead: list[int] = []

    class Behind(Provider):
        def _answer(self, key: str) -> Receipt:
            ahead.append(len(read) - int(key[1:]))
            return super()._answer(key)

    run(source(), Behind(), concurrency=4)
    assert max(ahead) <= 4 * 3


def test_a_source_that_fails_is_raised_when_what_was_read_has_been_sent(run):
    def source() -> Iterator[Message]:
        yield from messages(7)
        raise OSError("the file is gone")

    provider = Provider(m1=[BUSY])
    with pytest.raises(OSError, match="the file is gone"):
        run(source(), provider)
    assert sum(provider.taken.values()) == 7


def test_what_no_failure_can_be_stops_it_and_is_raised(run):
    class Broken(BaseException):
        pass

    with pytest.raises(Broken):
        run(messages(100), Provider(m3=[Broken()]))


def test_it_tells_how_it_goes_until_the_end(run):
    told: list[Progress] = []
    progress = run(messages(30), Provider(m0=[BUSY, BUSY]), on_progress=told.append)
    assert told[-1] == progress
    assert len(told) >= 2
    assert [one.taken for one in told] == sorted(one.taken for one in told)


def test_whoever_is_told_and_fails_does_not_stop_it(run, caplog):
    def broken(progress: Progress) -> None:
        raise RuntimeError("no terminal")

    assert run(messages(5), Provider(), on_progress=broken).accepted == 5
    assert "on_progress raised RuntimeError; the campaign goes on." in caplog.text


@pytest.mark.parametrize("journaled", [False, True])
def test_an_account_that_is_refused_puts_all_on_hold_and_says_why(journaled, caplog):
    """The hold lasts a minute, so the campaign is stopped then, and its messages are there still."""
    provider = Provider(every=[REFUSED] * 1_000)
    held = asyncio.Event()
    told: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        told.append(progress)
        if progress.on_hold is not None:
            held.set()

    journal = MemoryJournal() if journaled else None
    stopped: list[BaseException] = []

    async def until_held() -> None:
        dispatcher = AsyncDispatcher(AwaitedAsking(provider), policy=QUICK, journal=journal)
        campaign = asyncio.ensure_future(
            run_campaign_async(messages(50), dispatcher, concurrency=4, on_progress=on_progress, progress_every_s=0.01)
        )
        await held.wait()
        campaign.cancel()
        try:
            await campaign
        except asyncio.CancelledError as error:
            stopped.append(error)

    asyncio.run(until_held())
    assert stopped
    assert told[-1].on_hold == REFUSED
    assert told[-1].failed == 0
    assert told[-1].waiting == told[-1].taken
    assert sum(provider.posts.values()) <= 4
    assert "The campaign is on hold: the provider refuses the account (auth 20003)" in caplog.text


@pytest.mark.parametrize("journaled", [False, True])
def test_under_a_limit_each_waits_for_its_turn_once_and_costs_no_retry(run, journaled):
    provider = Provider()
    limiter = MemoryLimiter(100.0, burst=2.0)
    journal = MemoryJournal() if journaled else None
    progress = run(messages(30), provider, limiter=limiter, journal=journal, concurrency=10)
    assert (progress.accepted, progress.retries) == (30, 0)
    assert progress.elapsed_s >= (30 - 2) / 100.0
    assert all(count == 1 for count in provider.posts.values())


def test_run_again_it_goes_on_where_it_was_and_sends_nothing_twice(run, tmp_path):
    class Tired(BaseException):
        pass

    provider = Provider(m17=[Tired()])
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        with pytest.raises(Tired):
            run(messages(40), provider, journal=store)
        before = sum(provider.taken.values())
        assert before < 40
        known = run((one for one in messages(40) if one.id != "m17"), provider, journal=store)
        assert known.accepted == 39
    assert all(count == 1 for count in provider.taken.values())


def test_async_messages_are_read_as_they_come_and_retries_do_not_wait_for_them():
    provider = Provider(m0=[BUSY])

    async def source() -> AsyncIterator[Message]:
        for message in messages(3):
            yield message
        for _ in range(2_000):
            if provider.taken["m0"]:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the retry waits for the source")

    async def campaign() -> Progress:
        return await run_campaign_async(source(), AsyncDispatcher(Awaited(provider), policy=QUICK), concurrency=1)

    assert asyncio.run(campaign()).accepted == 3


def test_canceled_it_lets_what_is_in_flight_come_back_and_canceled_again_it_ends_at_once():
    class Slow:
        def __init__(self) -> None:
            self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()
            self.ended = 0

        async def send(self, message: Message, /) -> Receipt:
            self.has_begun.set()
            await self.may_end.wait()
            self.ended += 1
            return Receipt("slow", "SM1", datetime.now(UTC))

    async def stopped(*, patient: bool) -> int:
        sender = Slow()
        campaign = asyncio.ensure_future(run_campaign_async(messages(100), AsyncDispatcher(sender), concurrency=2))
        await sender.has_begun.wait()
        campaign.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not campaign.done()
        if patient:
            sender.may_end.set()
        else:
            campaign.cancel()
        with pytest.raises(asyncio.CancelledError):
            await campaign
        return sender.ended

    assert asyncio.run(stopped(patient=True)) == 2
    assert asyncio.run(stopped(patient=False)) == 0


def test_memory_stays_flat_however_many_there_are(run):
    class Taking:
        def send(self, message: Message, /) -> Receipt:
            return receipt

        def find(self, message: Message, /, **_: Any) -> LookUp:
            raise AssertionError

    def grown_by(count: int) -> int:
        tracemalloc.start()
        run(messages(count), Taking())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    receipt = Receipt("scripted", "SM1", datetime.now(UTC))
    grown_by(50)
    assert grown_by(3_000) < grown_by(300) + 200_000


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "10"])
def test_a_concurrency_that_cannot_be_is_refused(run, concurrency):
    with pytest.raises(ConfigurationError, match="concurrency must be a whole number of 1 or more, got"):
        run(messages(1), Provider(), concurrency=concurrency)


@pytest.mark.parametrize("every_s", [0, -1.0, None])
def test_an_interval_that_cannot_be_is_refused(every_s):
    with pytest.raises(ConfigurationError, match="progress_every_s must be more than 0, got"):
        run_campaign(messages(1), Dispatcher(Provider()), progress_every_s=every_s)


def test_a_sender_in_the_place_of_a_dispatcher_is_refused_before_anything_is_sent():
    provider: Any = Provider()
    with pytest.raises(ConfigurationError, match=r"must be a Dispatcher or an AsyncDispatcher, got Provider\. Pass D"):
        run_campaign(messages(1), provider)
    plain: Any = Dispatcher(provider)
    with pytest.raises(
        ConfigurationError, match=r"must be an AsyncDispatcher, got Dispatcher\. Pass AsyncDispatcher\("
    ):
        asyncio.run(run_campaign_async(messages(1), plain))
    assert not provider.posts


INTERRUPTED = """
import sys, time
from datetime import UTC, datetime
from smsretry import AsyncDispatcher, Dispatcher, Message, Receipt
from smsretry.campaign import run_campaign

class Slow:
    def send(self, message):
        sys.stdout.write("began\\n"); sys.stdout.flush()
        time.sleep(0.3)
        sys.stdout.write("taken\\n"); sys.stdout.flush()
        return Receipt("slow", "SM1", datetime.now(UTC))

class AsyncSlow:
    async def send(self, message):
        import asyncio
        sys.stdout.write("began\\n"); sys.stdout.flush()
        await asyncio.sleep(0.3)
        sys.stdout.write("taken\\n"); sys.stdout.flush()
        return Receipt("slow", "SM1", datetime.now(UTC))

dispatcher = Dispatcher(Slow()) if sys.argv[1] == "threads" else AsyncDispatcher(AsyncSlow())
messages = (Message("+15005550006", "Ready.", id=f"m{n}") for n in range(10_000))
try:
    run_campaign(messages, dispatcher, concurrency=3)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["threads", "loop"])
def test_ctrl_c_lets_what_is_in_flight_come_back_and_begins_nothing_more(kind: str, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(INTERRUPTED))
    process = subprocess.Popen([sys.executable, str(program), kind], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        began = os.read(process.stdout.fileno(), 1_000)
        os.kill(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
    told = (began + rest).split()
    assert told[-1] == b"interrupted"
    assert told.count(b"began") == told.count(b"taken") <= 6
