"""The fakes that applications test with are real objects that do what they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from tests.core.test_events import EVENTS

from smsretry import Failure, FailureKind, Message, Receipt, SMSSender
from smsretry.errors import ProviderError
from smsretry.ports import AnalyticsSink, CanLookUp, CannotTell, Clock, Found, NotSeen
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender

MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")
BUSY = Failure.of(FailureKind.RATE_LIMITED)
RECEIPT = Receipt("scripted", "SM1", datetime(2026, 1, 1, tzinfo=UTC))


def test_the_fakes_are_what_the_ports_ask_for() -> None:
    sender: SMSSender = ScriptedSender()
    sink: AnalyticsSink = RecordingSink()
    clock: Clock = FakeClock()
    assert isinstance(sender, CanLookUp)
    assert sink is not None
    assert clock() is not None


# The clock


def test_a_fake_clock_moves_only_when_told_to() -> None:
    clock = FakeClock()
    began = clock()
    assert clock() == clock.now() == began
    clock.advance(1.5)
    assert clock() - began == timedelta(seconds=1.5)


def test_a_fake_clock_notes_every_wait() -> None:
    clock = FakeClock()
    began = clock.now()
    clock.sleep(2)
    clock.sleep(0.0)
    assert clock.sleeps == [2, 0.0]
    assert clock.now() - began == timedelta(seconds=2)


def test_a_fake_clock_starts_where_it_is_told_and_tells_utc() -> None:
    clock = FakeClock(datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=1))))
    assert clock() == datetime(2026, 1, 1, tzinfo=UTC)
    assert clock().tzinfo is UTC


def test_a_fake_clock_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="now must be an aware datetime"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001


def test_nobody_sleeps_backwards() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="seconds must be 0 or more"):
        clock.sleep(-0.1)
    assert clock.sleeps == []


# The sender


def test_a_scripted_sender_answers_in_order_and_then_accepts() -> None:
    sender = ScriptedSender([RECEIPT, OSError("down"), BUSY])
    assert sender.send(MESSAGE) is RECEIPT
    with pytest.raises(OSError, match="down"):
        sender.send(MESSAGE)
    with pytest.raises(ProviderError) as caught:
        sender.send(MESSAGE)
    assert caught.value.failure == BUSY
    assert [sender.send(MESSAGE).provider_id for _ in range(2)] == ["S4", "S5"]
    assert sender.sent == [MESSAGE] * 5


def test_a_scripted_sender_may_repeat_its_last_answer() -> None:
    sender = ScriptedSender([RECEIPT, BUSY], repeat=True)
    sender.send(MESSAGE)
    for _ in range(3):
        with pytest.raises(ProviderError):
            sender.send(MESSAGE)


def test_an_exception_that_is_raised_again_does_not_gather_tracebacks() -> None:
    error = OSError()
    sender = ScriptedSender([error], repeat=True)
    depths = []
    for _ in range(3):
        with pytest.raises(OSError) as caught:  # noqa: PT011  # it is this very one
            sender.send(MESSAGE)
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def test_look_ups_are_answered_in_order_and_then_not_seen() -> None:
    clock = FakeClock()
    sender = ScriptedSender(finds=[CannotTell("503"), Found(RECEIPT)], clock=clock)
    answers = [sender.find(MESSAGE, since=clock.now()) for _ in range(3)]
    assert answers == [CannotTell("503"), Found(RECEIPT), NotSeen(clock.now())]
    assert sender.looked_up == [MESSAGE] * 3


def test_without_a_fake_clock_the_sender_tells_the_real_time() -> None:
    before = datetime.now(UTC)
    assert before <= ScriptedSender().send(MESSAGE).accepted_at <= datetime.now(UTC)


# The sink


def test_a_recording_sink_keeps_every_event_in_order() -> None:
    sink = RecordingSink()
    for event in EVENTS:
        sink.record(event)
    assert sink.events == EVENTS
