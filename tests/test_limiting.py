"""A dispatcher under a rate limit: whoever must wait is put off once, and nothing else changes."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from smsretry import (
    Accepted,
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Deferred,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    MessageDeferred,
    OnUnknown,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
)
from smsretry.core.outcome import DeferReason
from smsretry.journal import MemoryJournal
from smsretry.limits import MemoryLimiter, OnUnreachable, Turn
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender
from tests.shells import SHELLS, AnyShell

MESSAGE = Message("+15005550001", "Your table is ready.", id="m0", campaign="spring", sender_id="+15005550006")
BUSY = Failure.of(FailureKind.RATE_LIMITED, http_status=429)
LOST = Failure.of(FailureKind.LOST_ANSWER)
shells = pytest.mark.parametrize("shell", SHELLS)


@dataclass
class Asked:
    """Be a limiter that gives the answers it is told to, and notes what it is asked."""

    answers: list[Turn | Exception] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[tuple[str, float | None]] = field(default_factory=list)
    blocks = False

    def take_turn(self, key: str, cost: int, now: datetime, /, **more: Any) -> Turn:
        self.turns.append({"key": key, "cost": cost, "now": now, **more})
        answer: Turn | Exception = self.answers.pop(0) if self.answers else Turn(0.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None = None) -> None:
        self.refusals.append((key, retry_after_s))
        if self.answers and isinstance(answer := self.answers.pop(0), Exception):
            raise answer

    def reserve(self, key: str, cost: int, now: datetime, /) -> float:
        raise NotImplementedError


class Desk:
    """Hold a dispatcher under a limiter, on a clock that is told."""

    def __init__(self, shell: AnyShell, limiter: Any, *script: Receipt | Exception | Failure, **options: Any) -> None:
        self.clock = FakeClock()
        self.sender = ScriptedSender(script, clock=self.clock)
        self.sink = RecordingSink()
        options = {"sink": self.sink, "clock": self.clock, "draw": lambda: 0.0, **options}
        self.dispatcher = shell(options.pop("sender", self.sender), limiter=limiter, **options)

    def attempt(self, message: Message = MESSAGE, after: Outcome | None = None) -> Outcome:
        """Make an attempt with what the last outcome carried, through JSON."""
        state = after.state if isinstance(after, RetryAfter | Deferred) else AttemptState()
        return self.dispatcher.attempt(message, AttemptState.from_dict(json.loads(json.dumps(state.to_dict()))))

    def come_back(self, after: Outcome, message: Message = MESSAGE) -> Outcome:
        """Wait as long as was said, and make the next attempt."""
        assert isinstance(after, RetryAfter | Deferred)
        self.clock.advance(after.delay_s)
        return self.attempt(message, after)


def put_off(outcome: Outcome, reason: DeferReason = DeferReason.LIMITED) -> Deferred:
    assert isinstance(outcome, Deferred)
    assert outcome.reason is reason
    return outcome


def numbered(count: int) -> Iterable[Message]:
    return (replace(MESSAGE, id=f"m{number}") for number in range(count))


# Turns -----------------------------------------------------------------------------------------------------------


@shells
def test_a_message_over_the_limit_is_put_off_once_and_uses_up_no_retry(shell: AnyShell) -> None:
    desk = Desk(shell, MemoryLimiter(2.0, burst=3.0))
    first = {str(message.id): desk.attempt(message) for message in numbered(10)}
    waits = [put_off(first[f"m{number}"]).delay_s for number in range(3, 10)]
    assert waits == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    began = desk.clock()
    for number in range(3, 10):
        deferred = put_off(first[f"m{number}"])
        desk.clock.advance((began - desk.clock()).total_seconds() + deferred.delay_s)
        ended = desk.attempt(replace(MESSAGE, id=f"m{number}"), deferred)
        assert isinstance(ended, Accepted)
        assert ended.attempts == 1
    assert len(desk.sender.sent) == 10


@shells
def test_a_deferral_by_the_limiter_is_told_to_the_sinks(shell: AnyShell) -> None:
    desk = Desk(shell, Asked([Turn(7.0, "here")]))
    desk.attempt()
    event = desk.sink.events[0]
    assert isinstance(event, MessageDeferred)
    assert (event.reason, event.delay_s, event.attempt, event.deferral) == (DeferReason.LIMITED, 7.0, 0, 1)
    assert event.due == desk.clock() + timedelta(seconds=7)


@shells
def test_the_limiter_is_asked_by_sender_segments_and_campaign_and_gets_its_slot_back(shell: AnyShell) -> None:
    limiter = Asked([Turn(7.0, "here"), Turn(1.0, "there")])
    desk, text = Desk(shell, limiter), replace(MESSAGE, body="ш" * 71)
    again = desk.come_back(desk.come_back(desk.attempt(text), text), text)
    assert isinstance(again, Accepted)
    assert [turn["slot"] for turn in limiter.turns] == [None, "here", "there"]
    assert {(turn["key"], turn["cost"], turn["campaign"]) for turn in limiter.turns} == {("+15005550006", 2, "spring")}


@shells
def test_a_text_with_media_counts_as_one_segment(shell: AnyShell) -> None:
    limiter = Asked()
    Desk(shell, limiter).attempt(replace(MESSAGE, body="ш" * 500, media_urls=("https://example.com/a.png",)))
    assert limiter.turns[0]["cost"] == 1


class Named(ScriptedSender):
    rate_key = "MG1"
    account_key = "account"


class Booked(ScriptedSender):
    account_key = "account"


@shells
@pytest.mark.parametrize(("sender", "key"), [(Named(), "MG1"), (Booked(), "account"), (ScriptedSender(), None)])
def test_without_a_sender_id_the_senders_default_counts_else_the_account(
    shell: AnyShell, sender: ScriptedSender, key: str | None
) -> None:
    limiter = Asked()
    Desk(shell, limiter, sender=sender).attempt(replace(MESSAGE, sender_id=None))
    assert key is None or limiter.turns[0]["key"] == key
    assert limiter.turns[0]["key"]


@shells
def test_a_retry_asks_for_a_turn_of_its_own_and_does_not_wait_behind_its_campaign(shell: AnyShell) -> None:
    limiter = Asked([Turn(3.0, "here")])
    desk = Desk(shell, limiter, Failure.of(FailureKind.TEMPORARY))
    failed = desk.come_back(desk.attempt())
    assert isinstance(failed, RetryAfter)
    assert failed.state.slot is None
    desk.come_back(failed)
    assert [turn["slot"] for turn in limiter.turns] == [None, "here", None]
    assert limiter.turns[2]["campaign"] not in {"spring", ""}


@shells
def test_a_campaign_that_came_first_does_not_keep_another_one_waiting(shell: AnyShell) -> None:
    desk = Desk(shell, MemoryLimiter(10.0, burst=2.0))
    for message in numbered(500):
        desk.attempt(message)
    code = put_off(desk.attempt(Message("+15005550001", "Your code is 1234.", id="otp", sender_id="+15005550006")))
    assert code.delay_s <= 0.3
    assert isinstance(
        desk.come_back(code, Message("+15005550001", "1234", id="otp", sender_id="+15005550006")), Accepted
    )


# Too late --------------------------------------------------------------------------------------------------------


@shells
def test_a_turn_that_would_come_after_send_before_ends_the_message_at_once_and_is_not_kept(shell: AnyShell) -> None:
    limiter = MemoryLimiter(1.0, burst=1.0)
    desk = Desk(shell, limiter)
    desk.attempt()
    hurry = replace(MESSAGE, id="m1", send_before=desk.clock() + timedelta(seconds=0.5))
    ended = desk.attempt(hurry)
    assert isinstance(ended, GaveUp)
    assert (ended.reason, ended.attempts) == (GiveUpReason.EXPIRED, 0)
    assert "turn under the rate limit" in ended.failure.detail
    assert put_off(desk.attempt(replace(MESSAGE, id="m2"))).delay_s == 1.0


@shells
def test_a_turn_at_send_before_is_in_time(shell: AnyShell) -> None:
    desk = Desk(shell, MemoryLimiter(1.0, burst=1.0))
    desk.attempt()
    hurry = replace(MESSAGE, id="m1", send_before=desk.clock() + timedelta(seconds=1.0))
    assert isinstance(desk.come_back(desk.attempt(hurry), hurry), Accepted)


@shells
def test_without_a_deadline_a_message_waits_for_its_turn_as_long_as_the_policy_says(shell: AnyShell) -> None:
    policy = RetryPolicy(max_deferral_s=100.0)
    desk = Desk(shell, Asked([Turn(90.0, "a"), Turn(20.0, "b")]), policy=policy)
    ended = desk.come_back(put_off(desk.attempt()))
    assert isinstance(ended, GaveUp)
    assert ended.reason is GiveUpReason.EXPIRED
    assert isinstance(Desk(shell, Asked([Turn(100.1)]), policy=policy).attempt(), GaveUp)


@shells
def test_a_message_in_doubt_is_asked_about_before_it_asks_for_a_turn_and_before_it_ends(shell: AnyShell) -> None:
    limiter = Asked([Turn(0.0), Turn(5.0, "here"), Turn(10.0**6)])
    desk = Desk(shell, limiter, LOST, policy=RetryPolicy(settle_after_s=0.0))
    waiting = put_off(desk.come_back(desk.attempt()))
    assert waiting.state.doubt_since is not None
    assert (len(desk.sender.looked_up), len(desk.sender.sent)) == (1, 1)
    ended = desk.come_back(waiting)
    assert isinstance(ended, GaveUp)
    assert ended.reason is GiveUpReason.EXPIRED
    assert (len(desk.sender.looked_up), len(desk.sender.sent)) == (3, 1)  # before its turn, and before its end


@shells
def test_a_message_in_doubt_that_nobody_can_settle_ends_as_unknown_where_its_turn_comes_too_late(
    shell: AnyShell,
) -> None:
    desk = Desk(shell, Asked([Turn(0.0), Turn(10.0**6)]), LOST, policy=RetryPolicy(on_unknown=OnUnknown.RESEND))
    retried = desk.attempt()
    late = desk.come_back(retried)
    while isinstance(late, Deferred):
        late = desk.come_back(late)
    assert isinstance(late, GaveUp)
    assert late.reason is GiveUpReason.EXPIRED
    assert desk.sender.looked_up


# Refusals --------------------------------------------------------------------------------------------------------


@shells
def test_a_refusal_as_too_fast_is_told_to_the_limiter_with_its_hint(shell: AnyShell) -> None:
    limiter = Asked()
    hints = [replace(BUSY, retry_after_s=hint_s) for hint_s in (None, 30.0, 10.0**6)]
    desk = Desk(shell, limiter, *hints, Failure.of(FailureKind.TEMPORARY))
    for message in numbered(4):
        desk.attempt(message)
    assert limiter.refusals == [("+15005550006", None), ("+15005550006", 30.0), ("+15005550006", 3_600.0)]


@shells
def test_after_a_refusal_less_goes_and_then_more_again(shell: AnyShell) -> None:
    desk = Desk(shell, MemoryLimiter(10.0, burst=1.0), BUSY)
    desk.attempt()
    slow = put_off(desk.attempt(replace(MESSAGE, id="m1"))).delay_s
    desk.clock.advance(600.0)
    desk.attempt(replace(MESSAGE, id="m2"))
    assert slow == pytest.approx(0.2, abs=0.01)
    assert put_off(desk.attempt(replace(MESSAGE, id="m3"))).delay_s == 0.1


# A limiter that is away ------------------------------------------------------------------------------------------


@shells
def test_while_the_limiter_is_away_messages_are_held_and_the_log_says_so_once(
    shell: AnyShell, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = Asked([ConnectionError("no route"), ConnectionError("no route")])
    desk = Desk(shell, limiter)
    with caplog.at_level(logging.WARNING, "smsretry"):
        first = put_off(desk.attempt(), DeferReason.LIMITER_AWAY)
        others = [put_off(desk.attempt(message), DeferReason.LIMITER_AWAY) for message in numbered(5)]
        assert len(limiter.turns) == 1  # nobody waits for its time-outs one after the other
        desk.clock.advance(5.0)
        second = put_off(desk.attempt(MESSAGE, first), DeferReason.LIMITER_AWAY)
        desk.clock.advance(5.0)
        assert isinstance(desk.attempt(MESSAGE, second), Accepted)
    assert (first.delay_s, second.delay_s, {one.delay_s for one in others}) == (1.0, 2.0, {1.0})
    assert [record.message for record in caplog.records] == [
        "The rate limiter cannot be reached (ConnectionError): messages are held.",
        "The rate limiter answers again.",
    ]


@shells
def test_messages_that_shall_go_on_are_sent_while_the_limiter_is_away(shell: AnyShell) -> None:
    limiter = Asked([ConnectionError()])
    desk = Desk(shell, limiter, limiter_away=OnUnreachable.GO_ON)
    assert all(isinstance(desk.attempt(message), Accepted) for message in numbered(3))
    assert len(limiter.turns) == 1


@shells
def test_a_held_message_keeps_its_slot_and_ends_when_its_time_is_over(shell: AnyShell) -> None:
    desk = Desk(shell, Asked([Turn(1.0, "here"), ConnectionError(), ConnectionError()]))
    hurry = replace(MESSAGE, send_before=desk.clock() + timedelta(seconds=2.5))
    held = put_off(desk.come_back(desk.attempt(hurry), hurry), DeferReason.LIMITER_AWAY)
    assert (held.delay_s, held.state.slot) == (1.5, "here")
    ended = desk.come_back(held, hurry)
    assert isinstance(ended, GaveUp)
    assert ended.reason is GiveUpReason.EXPIRED


@shells
def test_a_limiter_that_fails_when_it_is_told_of_a_refusal_changes_nothing(shell: AnyShell) -> None:
    limiter = Asked([Turn(0.0), ConnectionError()])
    desk = Desk(shell, limiter, BUSY, BUSY, limiter_away=OnUnreachable.GO_ON)
    assert isinstance(desk.attempt(), RetryAfter)
    assert isinstance(desk.attempt(), RetryAfter)
    assert len(limiter.refusals) == 1


@shells
@pytest.mark.parametrize("answer", [None, 0.0, Turn(float("nan")), Turn(-1.0)])
def test_an_answer_that_is_no_turn_counts_as_none(shell: AnyShell, answer: Any) -> None:
    put_off(Desk(shell, Asked([answer])).attempt(), DeferReason.LIMITER_AWAY)


# Limiters of other kinds -----------------------------------------------------------------------------------------


class Plain:
    """Reserve slots and nothing else."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)

    def reserve(self, key: str, cost: int, now: datetime, /) -> float:
        return self.waits.pop(0)


class PlainAwaited(Plain):
    async def reserve(self, key: str, cost: int, now: datetime, /) -> float:  # type: ignore[override]
        return super().reserve(key, cost, now)


class Slowed(Plain):
    refused = 0

    def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None = None) -> None:
        self.refused += 1


class SlowedAwaited(PlainAwaited):
    refused = 0

    async def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None = None) -> None:
        self.refused += 1


def awaited(limiter: Any, *script: Failure) -> tuple[list[Outcome], RecordingSender]:
    """Make two attempts of one message in a loop, without waiting in between."""
    sender = RecordingSender(*script)

    async def attempts() -> list[Outcome]:
        dispatcher = AsyncDispatcher(sender, limiter=limiter)
        first = await dispatcher.attempt(MESSAGE)
        state = first.state if isinstance(first, Deferred | RetryAfter) else AttemptState()
        return [first, await dispatcher.attempt(MESSAGE, state)]

    return asyncio.run(attempts()), sender


class RecordingSender:
    def __init__(self, *script: Failure) -> None:
        self._inner = ScriptedSender(script)
        self.sent = self._inner.sent

    async def send(self, message: Message, /) -> Receipt:
        return self._inner.send(message)


def test_a_limiter_that_can_only_reserve_is_asked_once_for_each_message() -> None:
    limiter = Plain(2.5)
    desk = Desk(Dispatcher, limiter, BUSY)
    deferred = put_off(desk.attempt())
    assert deferred.delay_s == 2.5
    assert isinstance(desk.come_back(deferred), RetryAfter)
    assert limiter.waits == []


def test_one_that_can_be_slowed_down_is_told() -> None:
    limiter = Slowed(0.0)
    Desk(Dispatcher, limiter, BUSY).attempt()
    assert limiter.refused == 1


@pytest.mark.parametrize("kind", [Plain, PlainAwaited])
def test_in_a_loop_it_is_asked_once_too(kind: type[Plain]) -> None:
    (first, second), sender = awaited(kind(2.5))
    assert put_off(first).delay_s == 2.5
    assert isinstance(second, Accepted)
    assert len(sender.sent) == 1


@pytest.mark.parametrize("kind", [Slowed, SlowedAwaited])
def test_in_a_loop_one_that_can_be_slowed_down_is_told(kind: type[Slowed | SlowedAwaited]) -> None:
    limiter = kind(0.0, 0.0)
    awaited(limiter, BUSY)
    assert limiter.refused == 1


def test_in_a_loop_a_limiter_that_blocks_is_asked_in_a_thread() -> None:
    asked_in = list[threading.Thread]()

    class Blocking(Asked):
        blocks = True

        def take_turn(self, key: str, cost: int, now: datetime, /, **more: Any) -> Turn:
            asked_in.append(threading.current_thread())
            return super().take_turn(key, cost, now, **more)

    awaited(Blocking([Turn(1.0, "here")]))
    assert threading.main_thread() not in asked_in
    assert len(asked_in) == 2


def test_in_a_loop_a_fair_limiter_may_be_async() -> None:
    slots = list[str | None]()

    class Awaited:
        async def take_turn(self, key: str, cost: int, now: datetime, /, *, slot: str | None, **_: Any) -> Turn:
            slots.append(slot)
            return Turn(0.0) if slot else Turn(1.0, "here")

    (first, second), _ = awaited(Awaited())
    put_off(first)
    assert isinstance(second, Accepted)
    assert slots == [None, "here"]


@pytest.mark.parametrize(
    ("limiter", "told"),
    [
        (object(), r"limiter must have a method reserve\(key, cost, now\), got object"),
        (MemoryLimiter, "got the class MemoryLimiter"),
        (PlainAwaited(), "PlainAwaited.reserve must be a plain function"),
    ],
)
def test_what_is_no_limiter_is_refused(limiter: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Dispatcher(ScriptedSender(), limiter=limiter)


# With a journal --------------------------------------------------------------------------------------------------


class Journaled(Desk):
    def __init__(self, shell: AnyShell, limiter: Any, *script: Receipt | Failure, **options: Any) -> None:
        self.journal = options.pop("journal", None) or MemoryJournal(lambda: self.clock())
        super().__init__(
            shell, limiter, *script, journal=self.journal, elapsed=lambda: self.clock().timestamp(), **options
        )

    @property
    def entry(self) -> Any:
        return self.journal._kept["m0"].entry


@shells
def test_with_a_journal_the_slot_and_the_time_are_in_the_row_and_nothing_is_in_doubt(shell: AnyShell) -> None:
    desk = Journaled(shell, Asked([Turn(30.0, "here")]))
    deferred = put_off(desk.attempt())
    entry = desk.entry
    assert (entry.state.slot, entry.state.due) == ("here", desk.clock() + timedelta(seconds=30))
    assert (entry.claimed_until, entry.sending_since, entry.state.retries) == (None, None, 0)
    ended = desk.come_back(deferred)
    assert isinstance(ended, Accepted)
    assert ended.attempts == 1
    assert desk.sender.looked_up == []


@shells
def test_with_a_journal_the_row_knows_the_slot_though_the_queue_lost_it(shell: AnyShell) -> None:
    limiter = Asked([Turn(30.0, "here")])
    desk = Journaled(shell, limiter)
    desk.attempt()
    desk.clock.advance(30.0)
    assert isinstance(desk.attempt(), Accepted)
    assert [turn["slot"] for turn in limiter.turns] == [None, "here"]


@shells
def test_with_a_journal_a_copy_of_a_message_that_waits_for_its_turn_reserves_nothing(shell: AnyShell) -> None:
    limiter = Asked([Turn(30.0, "here")])
    desk = Journaled(shell, limiter)
    desk.attempt()
    put_off(desk.attempt(), DeferReason.NOT_DUE)
    assert len(limiter.turns) == 1


@shells
def test_with_a_journal_a_retry_has_no_slot_in_the_row(shell: AnyShell) -> None:
    desk = Journaled(shell, Asked([Turn(3.0, "here")]), BUSY)
    assert isinstance(desk.come_back(desk.attempt()), RetryAfter)
    assert desk.entry.state.slot is None


@shells
def test_a_deferral_that_the_journal_could_not_write_is_no_doubt(shell: AnyShell) -> None:
    class Shaky(MemoryJournal):
        fails = True

        def finish(self, claim: Any, /, outcome: Any, event: Any) -> Any:
            if self.fails:
                self.fails = False
                raise ConnectionError
            return super().finish(claim, outcome, event)

    clock: list[FakeClock] = []
    journal = Shaky(lambda: clock[0]())
    desk = Journaled(shell, Asked([Turn(30.0, "here")]), journal=journal, clock=(made := FakeClock()))
    clock.append(made)
    desk.clock = made
    unwritten = put_off(desk.attempt(), DeferReason.JOURNAL_AWAY)
    assert unwritten.delay_s < 30.0
    assert isinstance(desk.come_back(unwritten), Accepted)
    assert desk.sender.looked_up == []


@shells
def test_a_look_up_does_not_ask_for_a_turn(shell: AnyShell) -> None:
    limiter = Asked()
    desk = Journaled(shell, limiter, LOST)
    in_doubt = put_off(desk.come_back(desk.attempt()), DeferReason.IN_DOUBT)
    desk.come_back(in_doubt)
    assert (len(desk.sender.looked_up), len(limiter.turns)) == (2, 1)
