"""The async dispatcher decides as the plain one does, and keeps its loop free."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    Accepted,
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Deferred,
    Event,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    MessageDeferred,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
)
from smsretry.core.outcome import DeferReason
from smsretry.journal import MemoryJournal
from smsretry.ports import CannotTell, Found, LookUp, NotSeen
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender
from tests.shells import SHELLS, AnyShell
from tests.strategies import draws, failures, moments, policies

MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")
BUSY = Failure.of(FailureKind.RATE_LIMITED)
EXPIRED_TOKEN = Failure.of(FailureKind.AUTH, code=20003)
RECEIPT = Receipt("scripted", "SM1", datetime(2026, 1, 1, tzinfo=UTC))

answers = failures() | st.just(RECEIPT) | st.just(ConnectionRefusedError())
look_ups: st.SearchStrategy[LookUp] = (
    st.just(Found(RECEIPT)) | st.just(CannotTell("busy")) | st.builds(NotSeen, moments)
)


class Polite:
    """An async sender that lets others go on while it sends."""

    def __init__(self, expected: int = 1) -> None:
        self.began: list[Message] = []
        self.have_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self._expected = expected

    async def send(self, message: Message, /) -> Receipt:
        self.began.append(message)
        if len(self.began) == self._expected:
            self.have_begun.set()
        await self.may_end.wait()
        return RECEIPT


class Quick:
    async def send(self, message: Message, /) -> Receipt:
        return RECEIPT


def lived(
    shell: AnyShell,
    script: Sequence[Any],
    finds: Sequence[LookUp],
    policy: RetryPolicy,
    draw: float,
    *,
    journaled: bool,
) -> tuple[list[Outcome], list[Event], int, int]:
    """Return all that can be seen of one message's life."""
    clock = FakeClock()
    sender, sink = ScriptedSender(script, finds=finds, clock=clock), RecordingSink()
    journal = MemoryJournal(clock) if journaled else None
    parts: dict[str, Any] = {"elapsed": lambda: clock().timestamp(), "journal": journal} if journaled else {}
    dispatcher = shell(sender, policy=policy, sink=sink, clock=clock, draw=lambda: draw, **parts)
    outcomes: list[Outcome] = []
    state = AttemptState()
    for _ in range(40):
        outcome = dispatcher.attempt(MESSAGE, state)
        outcomes.append(outcome)
        if isinstance(outcome, (Accepted, GaveUp)):
            break
        state = AttemptState.from_dict(json.loads(json.dumps(outcome.state.to_dict())))
        clock.sleep(outcome.delay_s)
    return (
        [
            replace(one, state=replace(one.state, claim=None)) if isinstance(one, (RetryAfter, Deferred)) else one
            for one in outcomes
        ],
        sink.events,
        len(sender.sent),
        len(sender.looked_up),
    )


@given(
    script=st.lists(answers, max_size=6),
    finds=st.lists(look_ups, max_size=6),
    policy=policies(),
    draw=draws,
    journaled=st.booleans(),
)
def test_plain_and_async_lead_every_message_through_the_same_life(script, finds, policy, draw, journaled):
    plain, in_a_loop = (lived(shell, script, finds, policy, draw, journaled=journaled) for shell in SHELLS)
    assert plain == in_a_loop


def test_a_message_without_an_id_keeps_the_one_that_it_was_given():
    class Failing:
        async def send(self, message: Message, /) -> Receipt:
            ids.append(message.id)
            raise ConnectionRefusedError

    async def twice() -> None:
        dispatcher = AsyncDispatcher(Failing())
        outcome = await dispatcher.attempt(replace(MESSAGE, id=None))
        assert isinstance(outcome, RetryAfter)
        await dispatcher.attempt(replace(MESSAGE, id=None), outcome.state)

    ids: list[str | None] = []
    asyncio.run(twice())
    assert ids[0] is not None
    assert ids[0] == ids[1]


def test_attempts_go_on_side_by_side():
    async def run() -> list[Outcome]:
        sender = Polite(expected=50)
        dispatcher = AsyncDispatcher(sender)
        attempts = [asyncio.ensure_future(dispatcher.attempt(replace(MESSAGE, id=f"b{n}"))) for n in range(50)]
        await sender.have_begun.wait()
        sender.may_end.set()
        return await asyncio.gather(*attempts)

    assert all(isinstance(outcome, Accepted) for outcome in asyncio.run(run()))


class Where:
    """A sink that notes the thread in which it is called."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def record(self, event: Event, /) -> None:
        self.threads.append(threading.get_ident())


class WhereItBelongs(Where):
    blocks = False


class WhereItIsAwaited(Where):
    async def record(self, event: Event, /) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().record(event)


@pytest.mark.parametrize(("kind", "in_the_loop"), [(Where, False), (WhereItBelongs, True), (WhereItIsAwaited, True)])
def test_a_sink_that_may_block_is_kept_out_of_the_loop(kind, in_the_loop):
    sink = kind()
    asyncio.run(AsyncDispatcher(Quick(), sink=sink).attempt(MESSAGE))
    [thread] = sink.threads
    assert (thread == threading.get_ident()) is in_the_loop


def test_a_journal_that_may_block_is_kept_out_of_the_loop():
    class Noting(MemoryJournal):
        blocks = True

        def begin(self, *values: Any, **options: Any) -> Any:
            threads.append(threading.get_ident())
            return super().begin(*values, **options)

    threads: list[int] = []
    outcome = asyncio.run(AsyncDispatcher(Quick(), journal=Noting()).attempt(MESSAGE))
    assert isinstance(outcome, Accepted)
    assert threads[0] != threading.get_ident()


class Failing:
    def record(self, event: Event, /) -> None:
        raise OSError("the disk is full")


class FailingLater:
    async def record(self, event: Event, /) -> None:
        raise OSError("the disk is full")


@pytest.mark.parametrize("kind", [Failing, FailingLater])
def test_a_sink_that_fails_is_logged_and_starves_no_other(kind, caplog):
    heard = RecordingSink()
    outcome = asyncio.run(AsyncDispatcher(Quick(), sink=[kind(), heard]).attempt(MESSAGE))
    assert isinstance(outcome, Accepted)
    assert len(heard.events) == 1
    assert f"lost event {heard.events[0].event_id}: OSError" in caplog.text


def test_a_canceled_attempt_ends_at_once_and_tells_nobody_an_end():
    async def run() -> None:
        sender = Polite()
        attempt = asyncio.ensure_future(AsyncDispatcher(sender, sink=heard).attempt(MESSAGE))
        await sender.have_begun.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert len(sender.began) == 1

    heard = RecordingSink()
    asyncio.run(run())
    assert heard.events == []


def test_a_canceled_attempt_is_a_doubt_in_the_journal_and_not_sent_again_unasked():
    class Asked(Polite):
        async def find(self, message: Message, /, **_: Any) -> LookUp:
            return Found(RECEIPT)

    async def run() -> None:
        sender, clock = Asked(), FakeClock()
        journal = MemoryJournal(clock)
        dispatcher = AsyncDispatcher(sender, journal=journal, clock=clock, elapsed=lambda: clock().timestamp())
        attempt = asyncio.ensure_future(dispatcher.attempt(MESSAGE))
        await sender.have_begun.wait()
        attempt.cancel()
        with suppress(asyncio.CancelledError):
            await attempt
        held = await dispatcher.attempt(MESSAGE)
        assert isinstance(held, Deferred)
        assert held.reason is DeferReason.BUSY
        clock.advance(held.delay_s)
        outcome: Outcome = held
        while not isinstance(outcome, (Accepted, GaveUp)):
            clock.advance(outcome.delay_s)
            outcome = await dispatcher.attempt(MESSAGE)
        assert isinstance(outcome, Accepted)
        assert outcome.looked_up
        assert len(sender.began) == 1

    asyncio.run(run())


def test_an_abandoned_doubt_ends_as_unknown_and_is_told():
    heard = RecordingSink()
    state = AttemptState(retries=1, doubt_since=datetime(2026, 1, 1, tzinfo=UTC))
    ended = asyncio.run(AsyncDispatcher(Quick(), sink=heard).abandon(MESSAGE, state, "nobody waits"))
    assert ended.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert len(heard.events) == 1


def test_closing_closes_the_sender():
    class Closed(Quick):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    sender = Closed()
    asyncio.run(AsyncDispatcher(sender).close())
    asyncio.run(AsyncDispatcher(Quick()).close())
    assert sender.closed == 1


def test_a_sender_that_would_block_the_loop_is_refused():
    sender: Any = ScriptedSender()
    with pytest.raises(ConfigurationError, match=r"ScriptedSender\.send must be an async function"):
        AsyncDispatcher(sender)


@pytest.mark.parametrize("shell", SHELLS)
def test_one_that_holds_puts_off_what_an_account_refused_until_it_has_waited_as_long_as_it_may(shell):
    clock, heard = FakeClock(), RecordingSink()
    policy = RetryPolicy(max_deferral_s=150.0)
    dispatcher = shell(ScriptedSender([EXPIRED_TOKEN], repeat=True), policy=policy, clock=clock, sink=heard)
    holding = dispatcher.that_holds()
    state, waits = AttemptState(), []
    while True:
        outcome = holding.attempt(MESSAGE, state)
        if isinstance(outcome, GaveUp):
            break
        assert outcome.reason is DeferReason.ON_HOLD
        assert outcome.failure == EXPIRED_TOKEN
        waits.append(outcome.delay_s)
        clock.sleep(outcome.delay_s)
        state = outcome.state
    assert waits == [60.0, 60.0, 60.0]
    assert state.retries == 0
    assert outcome.reason is GiveUpReason.PERMANENT
    assert [type(event) for event in heard.events[:3]] == [MessageDeferred] * 3
    assert isinstance(dispatcher.attempt(MESSAGE), GaveUp), "the one that it was made from does not hold"


def test_messages_that_give_up_leave_nothing_for_the_garbage_collector():
    class Refusing:
        async def send(self, message: Message, /) -> Receipt:
            raise ConnectionRefusedError

    async def live(dispatcher: AsyncDispatcher) -> None:
        outcome = await dispatcher.attempt(MESSAGE)
        assert isinstance(outcome, RetryAfter)
        assert isinstance(await dispatcher.attempt(MESSAGE, outcome.state), GaveUp)

    async def run() -> None:
        dispatcher = AsyncDispatcher(Refusing(), policy=RetryPolicy(max_retries=1), clock=FakeClock())
        await live(dispatcher)
        gc.collect()
        gc.disable()
        try:
            for _ in range(lives):
                await live(dispatcher)
            assert gc.collect() < lives / 2  # what others leave meanwhile does not grow with it
        finally:
            gc.enable()

    lives = 2_000
    asyncio.run(run())


def test_nothing_is_sent_after_its_time():
    clock = FakeClock()
    held = asyncio.run(
        AsyncDispatcher(Quick(), clock=clock).attempt(replace(MESSAGE, send_before=clock.now() - timedelta(seconds=1)))
    )
    assert isinstance(held, GaveUp)
    assert held.reason is GiveUpReason.EXPIRED
