"""One log line for each event, with everything in it that a log may hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from tests.core.test_events import ABOUT, EVENTS

from smsretry import (
    Dispatcher,
    Event,
    Failure,
    FailureKind,
    GiveUpReason,
    Message,
    MessageAccepted,
    MessageDeferred,
    MessageFailed,
    RetryScheduled,
)
from smsretry.adapters.callables import send_with_retry
from smsretry.errors import SendFailed
from smsretry.sinks.log import LogSink
from smsretry.testing import FakeClock, ScriptedSender

MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")


class Lines(logging.Handler):
    """Keep every record."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def told(self) -> list[str]:
        return [f"{record.levelname} {record.getMessage()}" for record in self.records]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, handler = logging.getLogger("smsretry.events"), Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def test_every_event_is_one_line_on_the_level_that_fits(lines: Lines) -> None:
    sink = LogSink()
    for event in EVENTS:
        sink.record(event)
    assert lines.told == [
        "INFO spring:4711: accepted as SM1 at attempt 2",
        "INFO spring:4711: accepted as SM1 at attempt 2, as a look-up showed",
        "WARNING spring:4711: attempt 2 failed (rate_limited), next in 4 s",
        "INFO spring:4711: put off for 2 s (in_doubt)",
        "INFO spring:4711: put off for 2 s (in_doubt) after attempt 2 failed (rate_limited)",
        "ERROR spring:4711: failed for good after 2 attempt(s): retries_exhausted, rate_limited",
    ]


def test_a_line_names_the_providers_code(lines: Lines) -> None:
    failure = Failure.of(FailureKind.RATE_LIMITED, code=20429)
    LogSink().record(RetryScheduled(**ABOUT, failure=failure, delay_s=0.25, due=ABOUT["at"]))
    assert lines.told == ["WARNING spring:4711: attempt 2 failed (rate_limited 20429), next in 0.25 s"]


@pytest.mark.parametrize(("code", "named"), [(None, "opted_out"), (21610, "opted_out 21610")])
def test_a_text_that_must_not_be_sent_is_no_failure(lines: Lines, code: int | None, named: str) -> None:
    failure = Failure.of(FailureKind.OPTED_OUT, code=code)
    LogSink().record(MessageFailed(**ABOUT, failure=failure, reason=GiveUpReason.SUPPRESSED))
    assert lines.told == [f"INFO spring:4711: not sent: suppressed ({named})"]


def test_the_whole_event_is_in_the_record(lines: Lines) -> None:
    LogSink().record(EVENTS[2])
    told: Any = lines.records[0]
    assert told.smsretry == EVENTS[2].to_dict()


def test_an_event_that_is_not_logged_costs_nothing() -> None:
    class Silent(MessageAccepted):
        def to_dict(self) -> dict[str, Any]:
            raise AssertionError

    logging.getLogger("tests.quiet").setLevel(logging.CRITICAL)
    LogSink(logging.getLogger("tests.quiet")).record(Silent.of(dict(vars(EVENTS[0]))))


def test_a_logger_of_ones_own_may_be_used() -> None:
    logger, handler = logging.getLogger("tests.mine"), Lines()
    logger.addHandler(handler)
    LogSink(logger).record(EVENTS[2])
    assert len(handler.records) == 1


def test_an_event_that_is_not_known_yet_is_logged_too(lines: Lines) -> None:
    class Delivered(Event):
        type: ClassVar[str] = "delivered"

    LogSink().record(Delivered(**ABOUT))
    assert lines.told == ["INFO spring:4711: delivered"]


def test_no_line_holds_number_or_text(lines: Lines) -> None:
    clock = FakeClock()
    sender = ScriptedSender([OSError("+15005550006: Your table is ready.")], repeat=True, clock=clock)
    dispatcher = Dispatcher(sender, sink=LogSink(), clock=clock)
    with pytest.raises(SendFailed):
        send_with_retry(dispatcher, MESSAGE, sleep=clock.sleep)
    written = "\n".join(f"{record.getMessage()} {vars(record)}" for record in lines.records)
    assert lines.records
    assert "5005550006" not in written
    assert "table" not in written
    assert {type(event) for event in EVENTS} >= {MessageDeferred, MessageFailed}
