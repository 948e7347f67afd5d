"""An async sender keeps its connections to one loop and one process, and ends a call when it is told to."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic

import aiohttp
import pytest
from tests.senders.twilio_servers import ACCOUNT_SID, AUTH_TOKEN, FROM, TO, clerk, http, refusing_port
from yarl import URL

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted
from smsretry.dispatcher import AsyncDispatcher
from smsretry.errors import ConfigurationError, ProviderError
from smsretry.journal import MemoryJournal
from smsretry.ports import LAST_CHECK_ASYNC, AsyncCanLookUp, Found
from smsretry.senders.twilio import AsyncTwilioSender
from smsretry.senders.twilio.account import Account, Settings
from smsretry.testing import FakeClock, TwilioSimulator
from smsretry.testing.simulator import FAULTS, Hang, Reset

MESSAGE = Message(TO, "Your parcel is on its way.", id="parcel-1")
CREATED = {"sid": "SM" + "1" * 32, "status": "queued", "num_segments": "1"}


@pytest.fixture
def simulator() -> Iterator[TwilioSimulator]:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as running:
        yield running


def sender_to(url: str, **options: float) -> AsyncTwilioSender:
    return AsyncTwilioSender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=url, **options)  # type: ignore[arg-type]


def messages(count: int) -> list[Message]:
    return [Message(TO, f"Text {number}", id=f"text-{number}") for number in range(count)]


async def failure_of(sender: AsyncTwilioSender, message: Message = MESSAGE) -> Failure:
    try:
        await sender.send(message)
    except Exception as error:
        return sender.classify(error)
    raise AssertionError("it was accepted")


def test_the_sender_can_be_asked() -> None:
    assert isinstance(AsyncTwilioSender.from_env({}), AsyncCanLookUp)


def test_many_texts_are_on_their_way_at_once(simulator: TwilioSimulator) -> None:
    async def send_all() -> list[Receipt]:
        async with sender_to(simulator.url) as sender:
            return await asyncio.gather(*map(sender.send, messages(200)))

    receipts = asyncio.run(send_all())
    assert {receipt.provider_id for receipt in receipts} == {text.sid for text in simulator.texts}
    assert simulator.posts == 200
    assert simulator.texts_doubled == 0


@pytest.mark.parametrize("limit", [1, 3])
def test_there_are_never_more_connections_than_asked_for(limit: int) -> None:
    async def send_all() -> None:
        async with sender_to(server.url, max_connections=limit) as sender:
            await asyncio.gather(*map(sender.send, messages(30)))

    with clerk(http(201, CREATED)) as server:
        asyncio.run(send_all())
    assert len(server.heads) == 30
    assert len(set(server.client_ports)) == limit


def test_a_call_that_finds_no_free_connection_in_time_sent_nothing(simulator: TwilioSimulator) -> None:
    now = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)
    simulator.script(Hang())

    async def send_two() -> Failure:
        sender = sender_to(simulator.url, max_connections=1, timeout_s=30.0, clock=FakeClock(now))  # type: ignore[arg-type]
        first = asyncio.create_task(sender.send(MESSAGE))
        await asyncio.to_thread(simulator.wait_for, lambda: simulator.posts == 1)
        failure = await failure_of(sender, Message(TO, "in a hurry", send_before=now + timedelta(seconds=1)))
        first.cancel()
        await sender.close()
        return failure

    failure = asyncio.run(send_two())
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert "ConnectionTimeoutError" in failure.detail
    assert simulator.posts == 1


def test_a_cancellation_ends_a_call_at_once_and_its_connection_with_it() -> None:
    async def cancel_one() -> float:
        async with sender_to(server.url) as sender:
            task = asyncio.create_task(sender.send(MESSAGE))
            while not server.heads:  # noqa: ASYNC110  # it fills in another thread
                await asyncio.sleep(0.01)
            began_s = monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            took_s = monotonic() - began_s
            await sender.send(MESSAGE)
            return took_s

    with clerk(b"", http(201, CREATED)) as server:
        assert asyncio.run(cancel_one()) < 0.5
    assert len(server.heads) == len(set(server.client_ports)) == 2


def test_a_call_that_is_out_of_time_does_not_give_its_connection_on() -> None:
    async def send_two() -> Failure:
        async with sender_to(server.url, timeout_s=0.3) as sender:
            failure = await failure_of(sender)
            await sender.send(MESSAGE)
            return failure

    with clerk(b"", http(201, CREATED)) as server:
        assert asyncio.run(send_two()).maybe_sent
    assert len(server.heads) == len(set(server.client_ports)) == 2


def test_a_connection_idle_for_long_is_not_used_again() -> None:
    from smsretry.senders.twilio.async_http import Session

    account = Account.checked(
        Settings(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, base_url="http://127.0.0.1:1"), from_env=False
    )

    async def ports(idle_s: float) -> int:
        with clerk(http(201, CREATED)) as server:
            reachable = Account(**{**_fields(account), "base_url": server.url})
            session = Session(reachable, {}, max_connections=5, connect_s=3.0, idle_s=idle_s)
            await session.open()
            for _ in range(2):
                await session.create({"To": TO}, total_s=3.0)
                await asyncio.sleep(0.06)
            await session.close()
        return len(set(server.client_ports))

    assert asyncio.run(ports(0.05)) == 2
    assert asyncio.run(ports(30.0)) == 1


def _fields(account: Account) -> dict[str, object]:
    return {name: getattr(account, name) for name in ("account_sid", "username", "password", "sender")}


def test_cookies_are_not_kept() -> None:
    async def send_two() -> None:
        async with sender_to(server.url) as sender:
            await sender.send(MESSAGE)
            await sender.send(MESSAGE)

    with clerk(http(201, CREATED, ["Set-Cookie: who=you"])) as server:
        asyncio.run(send_two())
    assert "cookie:" not in "".join(server.heads).lower()


def test_each_loop_has_connections_of_its_own_and_takes_them_along_when_it_ends() -> None:
    with clerk(http(201, CREATED)) as server:
        sender = sender_to(server.url)
        for _ in range(3):
            asyncio.run(sender.send(MESSAGE))
            gc.collect()
            assert server.closed.acquire(timeout=10), "the end of a loop closes its connections"
    assert len(set(server.client_ports)) == 3


CLOSING = """
import asyncio, gc
from smsretry import Message
from smsretry.senders.twilio import AsyncTwilioSender
sender = AsyncTwilioSender({sid!r}, {token!r}, from_number={from_!r}, base_url={url!r})
loop = asyncio.new_event_loop()
loop.run_until_complete(sender.send(Message({to!r}, "hello")))
loop.close()
asyncio.run(sender.send(Message({to!r}, "hello")))
del sender, loop
gc.collect()
"""


def test_a_loop_that_was_closed_without_ending_its_generators_is_let_go_of() -> None:
    with clerk(http(201, CREATED)) as server:
        program = CLOSING.format(sid=ACCOUNT_SID, token=AUTH_TOKEN, from_=FROM, to=TO, url=server.url)
        command = [sys.executable, "-W", "always", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert len(set(server.client_ports)) == 2
    assert "Unclosed client session" not in done.stderr
    assert "Unclosed connector" not in done.stderr


def test_a_sender_that_is_forgotten_closes_its_connections() -> None:
    async def send_and_forget() -> bool:
        await sender_to(server.url).send(MESSAGE)
        gc.collect()
        return await asyncio.to_thread(server.closed.acquire, timeout=10)

    with clerk(http(201, CREATED)) as server:
        assert asyncio.run(send_and_forget())


def test_loops_in_several_threads_share_one_sender(simulator: TwilioSimulator) -> None:
    sender = sender_to(simulator.url)

    async def send_some(thread: int) -> None:
        texts = [Message(TO, f"Text {thread}-{number}", id=f"{thread}-{number}") for number in range(20)]
        await asyncio.gather(*map(sender.send, texts))
        await sender.close()

    threads = [threading.Thread(target=lambda each=each: asyncio.run(send_some(each))) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert simulator.posts == 80
    assert simulator.texts_doubled == 0


FORKING = """
import asyncio, os, sys
from smsretry import Message
from smsretry.senders.twilio import AsyncTwilioSender
sender = AsyncTwilioSender({sid!r}, {token!r}, from_number={from_!r}, base_url={url!r})
runner = asyncio.Runner()
send = lambda: runner.run(sender.send(Message({to!r}, "hello", id=str(os.getpid()))))
send()
child = os.fork()
if child == 0:
    runner = asyncio.Runner()
    send()
    send()
    runner.close()
    os._exit(0)
send()
_, status = os.waitpid(child, 0)
send()
runner.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_gets_connections_of_its_own_and_leaves_those_of_its_parent_alone() -> None:
    with clerk(http(201, CREATED)) as server:
        program = FORKING.format(sid=ACCOUNT_SID, token=AUTH_TOKEN, from_=FROM, to=TO, url=server.url)
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
    uses = sorted(server.client_ports.count(port) for port in set(server.client_ports))
    assert uses == [2, 3], "the parent keeps its connection, the child opens one"


def test_closing_ends_what_is_on_its_way_and_what_waits_for_a_connection(simulator: TwilioSimulator) -> None:
    simulator.script(Hang())

    async def close_early() -> list[Failure]:
        sender = sender_to(simulator.url, timeout_s=30.0, max_connections=1)
        sending = asyncio.create_task(failure_of(sender))
        await asyncio.to_thread(simulator.wait_for, lambda: simulator.posts == 1)
        waiting = asyncio.create_task(failure_of(sender))
        await asyncio.sleep(0.01)
        await sender.close()
        return [await sending, await waiting]

    assert [failure.maybe_sent for failure in asyncio.run(close_early())] == [True, False]
    assert simulator.posts == 1


def checked_by(sender: AsyncTwilioSender, check: object) -> Receipt:
    async def send() -> Receipt:
        LAST_CHECK_ASYNC.set(check)  # type: ignore[arg-type]
        async with sender:
            await sender.send(MESSAGE)
            return await sender.send(MESSAGE)

    return asyncio.run(send())


def test_what_is_no_longer_ours_is_not_written_to_a_connection(simulator: TwilioSimulator) -> None:
    async def refuse() -> None:
        raise ProviderError(Failure.of(FailureKind.TEMPORARY, detail="the claim was lost"))

    with pytest.raises(ProviderError, match="the claim was lost"):
        checked_by(sender_to(simulator.url), refuse)
    assert simulator.posts == 0


def test_what_is_ours_is_checked_and_sent_on_new_and_used_connections(simulator: TwilioSimulator) -> None:
    posts: list[int] = []

    async def look() -> None:
        await asyncio.sleep(0.01)
        posts.append(simulator.posts)

    checked_by(sender_to(simulator.url), look)
    assert posts == [0, 1]
    assert simulator.posts == 2


def test_nothing_is_checked_before_there_is_a_connection() -> None:
    checks: list[None] = []

    async def look() -> None:
        checks.append(None)

    with refusing_port() as address, pytest.raises(aiohttp.ClientConnectorError):
        checked_by(sender_to(f"http://{address}"), look)
    assert checks == []


def test_a_check_that_takes_all_the_time_leaves_nothing_sent(simulator: TwilioSimulator) -> None:
    async def wait() -> None:
        await asyncio.sleep(30)

    sender = sender_to(simulator.url, timeout_s=0.2)
    with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
        checked_by(sender, wait)
    assert not sender.classify(caught.value).maybe_sent
    assert simulator.posts == 0


def test_a_message_under_a_journal_is_sent_and_a_lost_one_found(simulator: TwilioSimulator) -> None:
    clock = FakeClock(datetime.now(UTC))

    async def send_both() -> tuple[object, object]:
        async with sender_to(simulator.url, clock=clock) as sender:  # type: ignore[arg-type]
            dispatcher = AsyncDispatcher(sender, clock=clock, journal=MemoryJournal(clock=clock))
            sent = await dispatcher.attempt(MESSAGE)
            simulator.script(Reset(taken=True))
            lost = Message(TO, "And another one.", id="parcel-2")
            outcome = await dispatcher.attempt(lost)
            while not isinstance(outcome, Accepted) and clock() < datetime.now(UTC) + timedelta(hours=1):
                clock.advance(getattr(outcome, "delay_s", 3600.0))
                outcome = await dispatcher.attempt(lost)
            return sent, outcome

    sent, found = asyncio.run(send_both())
    assert isinstance(sent, Accepted)
    assert isinstance(found, Accepted)
    assert found.looked_up
    assert (simulator.posts, simulator.text_count) == (2, 2)


def test_a_look_up_is_canceled_at_once(simulator: TwilioSimulator) -> None:
    from smsretry.testing.simulator import Call

    simulator.script(FAULTS["hang"], on=Call.LOOK_UP)

    async def cancel_one() -> None:
        async with sender_to(simulator.url) as sender:
            asking = asyncio.create_task(sender.find(MESSAGE, since=datetime.now(UTC)))
            await asyncio.to_thread(simulator.wait_for, lambda: simulator.gets == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(cancel_one())


def test_only_one_of_many_equal_texts_finds_the_only_candidate(simulator: TwilioSimulator) -> None:
    simulator.script(Reset(taken=True))

    async def ask_all() -> int:
        async with sender_to(simulator.url) as sender:
            assert (await failure_of(sender)).maybe_sent
            since = datetime.now(UTC) - timedelta(seconds=300)
            alike = [Message(TO, MESSAGE.body, id=f"alike-{number}") for number in range(6)]
            answers = await asyncio.gather(*(sender.find(each, since=since) for each in alike))
            return sum(isinstance(answer, Found) for answer in answers)

    assert asyncio.run(ask_all()) == 1


def test_region_and_edge_are_those_of_the_environment() -> None:
    from smsretry.senders.twilio.async_http import _root_of

    account = Account.checked(Settings(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN), from_env=False)
    assert _root_of(account, {"OTHER": "x"}) == URL("https://api.twilio.com")
    assert _root_of(account, {"TWILIO_REGION": "ie1", "TWILIO_EDGE": "dublin"}) == URL(
        "https://api.dublin.ie1.twilio.com"
    )


def test_a_socks_proxy_is_told_at_the_first_send(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="must be an http or https one, got socks5"):
        asyncio.run(sender_to("http://twilio.invalid").send(MESSAGE))


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("from smsretry.senders.twilio import TwilioSender; TwilioSender.from_env({})", "asyncio aiohttp twilio"),
        ("from smsretry.senders.twilio import AsyncTwilioSender; AsyncTwilioSender.from_env({})", "aiohttp twilio"),
    ],
)
def test_a_sender_at_module_level_loads_no_client(statement: str, unwanted: str) -> None:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not set(done.stdout.split()) & set(unwanted.split())


@pytest.mark.parametrize("missing", ["aiohttp", "twilio"])
def test_without_the_clients_installed_the_extra_is_named(missing: str) -> None:
    program = (
        "import asyncio, sys\n"
        f"sys.modules[{missing!r}] = None\n"  # what an environment without the package looks like to an import
        "from smsretry import ConfigurationError, Message\n"
        "from smsretry.senders.twilio import AsyncTwilioSender\n"
        f"sender = AsyncTwilioSender('AC1', 'x', from_number={FROM!r})\n"
        "try:\n"
        f"    asyncio.run(sender.send(Message({TO!r}, 'hello')))\n"
        "except ConfigurationError as error:\n"
        "    print(error, sender.classify(error).maybe_sent)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert f"({missing} is missing)" in done.stdout
    assert "pip install 'smsretry[aio]'" in done.stdout
    assert done.stdout.strip().endswith("False")
