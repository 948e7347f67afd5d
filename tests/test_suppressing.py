"""Whoever must not be texted is not: with and without a journal, plain and in a loop."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from smsretry import (
    AttemptState,
    ConfigurationError,
    Deferred,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    RetryPolicy,
)
from smsretry.core.lookup import NotSeen
from smsretry.core.outcome import Accepted, DeferReason
from smsretry.core.suppression import Suppression
from smsretry.dispatcher import AsyncDispatcher
from smsretry.store import SQLStore
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender

TO = "+14155550123"
MESSAGE = Message(TO, "Hello.", id="m", sender_id="+15005550006")
OPTED_OUT = Failure.of(FailureKind.OPTED_OUT, code=21610, http_status=400)
LOST = Failure.of(FailureKind.LOST_ANSWER)


class List:
    """Be the list, and go away when told to."""

    def __init__(self, *entries: Suppression, away: bool = False) -> None:
        self.entries = {(entry.to, entry.sender): entry for entry in entries}
        self.away = away

    def suppressed(self, to: str, sender: str, /) -> Suppression | None:
        if self.away:
            raise OSError
        return self.entries.get((to, "")) or self.entries.get((to, sender))

    def suppress(self, entry: Suppression, /) -> None:
        if self.away:
            raise OSError
        self.entries[entry.to, entry.sender] = entry

    def lift(self, to: str, sender: str, /) -> bool:
        return self.entries.pop((to, sender), None) is not None


class Awaited(ScriptedSender):
    async def send(self, message: Message, /) -> Any:  # type: ignore[override]
        return super().send(message)

    async def find(self, message: Message, /, **asked: Any) -> Any:  # type: ignore[override]
        return super().find(message, **asked)


@pytest.fixture(params=["plain", "awaited"])
def attempt(request: pytest.FixtureRequest) -> Any:
    """Lend a function that makes one attempt with a sender's script, a list, and other parts."""

    def make(known: Any, *script: Any, state: AttemptState = AttemptState(), finds: Any = (), **parts: Any) -> Any:  # noqa: B008
        if request.param == "plain":
            sender: Any = ScriptedSender(script, finds=finds)
            outcome = Dispatcher(sender, suppression=known, **parts).attempt(MESSAGE, state)
        else:
            sender = Awaited(script, finds=finds)
            outcome = asyncio.run(AsyncDispatcher(sender, suppression=known, **parts).attempt(MESSAGE, state))
        return outcome, sender

    return make


@pytest.mark.parametrize("sender", ["", "+15005550006"])
def test_a_number_on_the_list_is_not_texted(attempt: Any, sender: str) -> None:
    sink = RecordingSink()
    outcome, sent = attempt(List(Suppression(to=TO, sender=sender, code="21610")), sink=sink)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.attempts, outcome.failure.code) == (GiveUpReason.SUPPRESSED, 0, "21610")
    assert outcome.failure.kind is FailureKind.OPTED_OUT
    assert sent.sent == []
    assert [event.type for event in sink.events] == ["failed"]


def test_other_numbers_and_other_senders_are(attempt: Any) -> None:
    known = List(Suppression(to=TO, sender="MG1"), Suppression(to="+14155550199"))
    outcome, _ = attempt(known)
    assert isinstance(outcome, Accepted)


def test_who_opted_out_as_the_provider_says_is_put_on_the_list(attempt: Any) -> None:
    known = List()
    outcome, sent = attempt(known, OPTED_OUT)
    assert (outcome.reason, len(sent.sent)) == (GiveUpReason.PERMANENT, 1)
    assert known.entries == {(TO, "+15005550006"): Suppression(to=TO, sender="+15005550006", code="21610")}
    again, sent = attempt(known)
    assert (again.reason, sent.sent) == (GiveUpReason.SUPPRESSED, [])


def test_a_sender_whose_key_is_too_long_for_the_list_changes_no_outcome() -> None:
    class Long(ScriptedSender):
        rate_key = "k" * 65

    message, known = Message(TO, "Hello.", id="m"), List()
    outcome = Dispatcher(Long([OPTED_OUT]), suppression=known).attempt(message)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, known.entries) == (GiveUpReason.PERMANENT, {})


def test_who_said_stop_is_not_texted_by_a_sender_that_does_not_say_from_where() -> None:
    with SQLStore("sqlite://") as store:
        store.suppress(Suppression(to=TO, sender="MG1"))
        sender = ScriptedSender()
        outcome = Dispatcher(sender, suppression=store).attempt(Message(TO, "Hello.", id="m"))
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, sender.sent) == (GiveUpReason.SUPPRESSED, [])


def test_while_the_list_is_away_messages_wait_and_do_not_fail(attempt: Any, caplog: pytest.LogCaptureFixture) -> None:
    known, clock = List(away=True), FakeClock()
    outcome, sent = attempt(known, clock=clock)
    assert isinstance(outcome, Deferred)
    assert (outcome.reason, outcome.delay_s, outcome.state.retries) == (DeferReason.LIST_AWAY, 1.0, 0)
    assert sent.sent == []
    clock.advance(1.0)
    again, _ = attempt(known, state=outcome.state, clock=clock)
    assert again.delay_s == 2.0
    known.away = False
    clock.advance(2.0)
    assert isinstance(attempt(known, state=again.state, clock=clock)[0], Accepted)
    assert "cannot be read (OSError)" in caplog.text
    assert TO not in caplog.text


def test_a_list_that_stays_away_ends_a_message_as_expired(attempt: Any) -> None:
    clock = FakeClock()
    outcome, _ = attempt(List(away=True), clock=clock)
    clock.advance(86_401.0)
    end, sent = attempt(List(away=True), state=outcome.state, clock=clock)
    assert (end.reason, sent.sent) == (GiveUpReason.EXPIRED, [])


def test_a_refusal_that_cannot_be_noted_changes_no_outcome(attempt: Any) -> None:
    class HalfAway(List):
        def suppressed(self, to: str, sender: str, /) -> Suppression | None:
            return None

    outcome, _ = attempt(HalfAway(away=True), OPTED_OUT)
    assert outcome.reason is GiveUpReason.PERMANENT


def test_a_doubt_is_settled_before_a_message_ends_as_suppressed(attempt: Any) -> None:
    clock, policy = FakeClock(), RetryPolicy(settle_after_s=10.0)
    outcome, _ = attempt(List(), LOST, clock=clock, policy=policy)
    clock.advance(60.0)
    known = List(Suppression(to=TO))
    end, sent = attempt(
        known, state=outcome.state, clock=clock, policy=policy, finds=[NotSeen(clock()), NotSeen(clock())]
    )
    assert (end.reason, sent.sent) == (GiveUpReason.SUPPRESSED, [])


def test_a_journal_counts_who_was_not_texted(attempt: Any) -> None:
    with SQLStore("sqlite://") as store:
        store.suppress(Suppression(to=TO))
        outcome, sent = attempt(store, journal=store)
        assert (outcome.reason, sent.sent) == (GiveUpReason.SUPPRESSED, [])
        assert attempt(store, journal=store)[0] == outcome
        summary = store.campaign_summary(None)
        assert (summary.suppressed, summary.planned) == (1, 1)
        record = store.message("m")
        assert record is not None
        assert record.state == "suppressed"


@pytest.mark.parametrize("known", [object(), List, "no list"])
def test_a_list_that_is_none_is_refused(known: Any) -> None:
    with pytest.raises(ConfigurationError, match="suppression must have a method suppressed"):
        Dispatcher(ScriptedSender(), suppression=known)


def test_the_deadline_holds_also_where_the_list_takes_its_time() -> None:
    clock = FakeClock()

    class Slow(List):
        def suppressed(self, to: str, sender: str, /) -> Suppression | None:
            clock.advance(10.0)
            return None

    message = Message(TO, "Hello.", id="m", send_before=clock() + timedelta(seconds=5))
    sender = ScriptedSender()
    outcome = Dispatcher(sender, suppression=Slow(), clock=clock).attempt(message)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, sender.sent) == (GiveUpReason.EXPIRED, [])
