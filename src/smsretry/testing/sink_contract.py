"""Check that an analytics sink keeps its promise: every event counts, and counts once.

With pytest, subclass `SinkContract` in a test module and say how to make the sink and how to read its figures::

    class TestMySink(SinkContract):
        def make_sink(self):
            return MySink(self.database)

        def read_counts(self, campaign):
            return SinkCounts(sent=..., failed=..., retried=...)

Without pytest, call the functions of `CHECKS`. Each check wants a storage of its own that is empty, apart from the
campaigns in `CAMPAIGNS` where an application keeps a row per campaign. What is broken raises `ContractBroken`.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Receipt
from smsretry.core.outcome import DeferReason, GiveUpReason
from smsretry.ports import AnalyticsSink

CAMPAIGNS: Final = ("contract-a", "contract-b")
"""The campaigns that the checks use."""

_BEGAN: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_THREADS: Final = 4
_MESSAGES_PER_THREAD: Final = 6


class ContractBroken(AssertionError):
    """Say which promise a sink broke, what was expected and what was got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkCounts:
    """Hold what a sink counted for one campaign; a figure that it does not keep is None and is not checked."""

    sent: int | None = None
    """Messages that the provider took."""
    failed: int | None = None
    """Messages that failed for good, expired ones included, unknown ones not."""
    unknown: int | None = None
    """Messages of which nobody can say whether the provider took them."""
    retried: int | None = None
    """Retries scheduled."""
    deferred: int | None = None
    """Times that a message was put off."""


ReadCounts = Callable[[str], SinkCounts]
MakeSink = Callable[[], AnalyticsSink]


def check_every_event_is_taken(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record one event of each type, with and without a campaign, with metadata; none may be refused."""
    del read_counts
    sink = make_sink()
    for campaign in (CAMPAIGNS[0], None):
        for event in _every_type(f"taken-{campaign}", campaign):
            try:
                sink.record(event)
            except Exception as error:
                msg = f"Every event must be taken, but {event.type!r} (campaign {campaign!r}) raised {error!r}."
                raise ContractBroken(msg) from error


def check_each_message_counts(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record the whole way of several messages: each must be in the figures."""
    _record(make_sink(), _lives("counts"))
    _expect("Each message counts", _LIVES_COUNTED, read_counts(CAMPAIGNS[0]))


def check_a_repeated_event_counts_once(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record every event three times, at once and once more at the end: it must count once."""
    sink, events = make_sink(), _lives("repeated")
    _record(sink, itertools.chain.from_iterable((event, event) for event in events))
    _record(sink, events)
    _expect("An event that comes again counts once", _LIVES_COUNTED, read_counts(CAMPAIGNS[0]))


def check_a_new_sink_remembers(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record the same events with two sinks on one storage, as two workers do: each must count once."""
    events = _lives("remembered")
    _record(make_sink(), events)
    _record(make_sink(), events)
    _expect("An event that another worker recorded counts once", _LIVES_COUNTED, read_counts(CAMPAIGNS[0]))


def check_order_does_not_matter(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record the events of several messages last to first: the figures must be the same."""
    _record(make_sink(), reversed(_lives("reversed")))
    _expect("Events may come in any order", _LIVES_COUNTED, read_counts(CAMPAIGNS[0]))


def check_unknown_is_not_failed(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record a message whose outcome is unknown: it must not count as failed, nor as sent."""
    _record(make_sink(), [_failed("unknown", 1, GiveUpReason.OUTCOME_UNKNOWN)])
    _expect("Unknown is not failed", SinkCounts(sent=0, failed=0, unknown=1), read_counts(CAMPAIGNS[0]))


def check_an_unknown_message_may_turn_out_sent(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record that an unknown message was taken after all: it must move, and not count in both."""
    _record(make_sink(), [_failed("late", 1, GiveUpReason.OUTCOME_UNKNOWN), _accepted("late", 1)])
    wanted = SinkCounts(sent=1, failed=0, unknown=0)
    _expect("Unknown, then sent, is one message that was sent", wanted, read_counts(CAMPAIGNS[0]))


def check_campaigns_are_kept_apart(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record messages of two campaigns: each must count in its own."""
    first, second = CAMPAIGNS
    events = [_accepted("apart-1", 1), _accepted("apart-2", 1, second), _accepted("apart-3", 1, second)]
    _record(make_sink(), events)
    _expect(f"Campaign {first!r} has its own figures", SinkCounts(sent=1, failed=0), read_counts(first))
    _expect(f"Campaign {second!r} has its own figures", SinkCounts(sent=2, failed=0), read_counts(second))


def check_threads_lose_nothing(make_sink: MakeSink, read_counts: ReadCounts) -> None:
    """Record from several threads at once, own messages and a common one: the figures must be exact."""
    sink, gate = make_sink(), threading.Barrier(_THREADS)
    errors: list[Exception] = []

    def work(number: int) -> None:
        events = [_accepted("common", 1), *_many(f"thread-{number}")]
        gate.wait()
        try:
            _record(sink, events)
        except Exception as error:  # noqa: BLE001  # told below, in the thread that checks
            errors.append(error)

    _run_together([threading.Thread(target=work, args=(number,)) for number in range(_THREADS)])
    if errors:
        msg = f"A sink must serve several threads, but one of {_THREADS} got {errors[0]!r}."
        raise ContractBroken(msg) from errors[0]
    each = _THREADS * _MESSAGES_PER_THREAD
    wanted = SinkCounts(sent=each + 1, failed=0, unknown=0, retried=each)
    _expect("Threads lose and double nothing", wanted, read_counts(CAMPAIGNS[0]))


CHECKS: Final[tuple[Callable[[MakeSink, ReadCounts], None], ...]] = (
    check_every_event_is_taken,
    check_each_message_counts,
    check_a_repeated_event_counts_once,
    check_a_new_sink_remembers,
    check_order_does_not_matter,
    check_unknown_is_not_failed,
    check_an_unknown_message_may_turn_out_sent,
    check_campaigns_are_kept_apart,
    check_threads_lose_nothing,
)
"""Every check: call each with a function that makes the sink and one that reads its figures for a campaign."""


class SinkContract(ABC):
    """Run every check as a test of pytest; a subclass, named ``Test…``, says what to check.

    Prepare the empty storage where pytest does it for each test: in ``setup_method`` or an autouse fixture.
    """

    @abstractmethod
    def make_sink(self) -> AnalyticsSink:
        """Return a sink on the storage of this test; another call stands for another worker on the same storage."""

    @abstractmethod
    def read_counts(self, campaign: str) -> SinkCounts:
        """Return what was counted for ``campaign``, read from the storage."""

    def test_every_event_is_taken(self) -> None:
        """Run `check_every_event_is_taken`."""
        check_every_event_is_taken(self.make_sink, self.read_counts)

    def test_each_message_counts(self) -> None:
        """Run `check_each_message_counts`."""
        check_each_message_counts(self.make_sink, self.read_counts)

    def test_a_repeated_event_counts_once(self) -> None:
        """Run `check_a_repeated_event_counts_once`."""
        check_a_repeated_event_counts_once(self.make_sink, self.read_counts)

    def test_a_new_sink_remembers(self) -> None:
        """Run `check_a_new_sink_remembers`."""
        check_a_new_sink_remembers(self.make_sink, self.read_counts)

    def test_order_does_not_matter(self) -> None:
        """Run `check_order_does_not_matter`."""
        check_order_does_not_matter(self.make_sink, self.read_counts)

    def test_unknown_is_not_failed(self) -> None:
        """Run `check_unknown_is_not_failed`."""
        check_unknown_is_not_failed(self.make_sink, self.read_counts)

    def test_an_unknown_message_may_turn_out_sent(self) -> None:
        """Run `check_an_unknown_message_may_turn_out_sent`."""
        check_an_unknown_message_may_turn_out_sent(self.make_sink, self.read_counts)

    def test_campaigns_are_kept_apart(self) -> None:
        """Run `check_campaigns_are_kept_apart`."""
        check_campaigns_are_kept_apart(self.make_sink, self.read_counts)

    def test_threads_lose_nothing(self) -> None:
        """Run `check_threads_lose_nothing`."""
        check_threads_lose_nothing(self.make_sink, self.read_counts)


_LIVES_COUNTED: Final = SinkCounts(sent=2, failed=3, unknown=1, retried=6, deferred=1)


def _lives(name: str) -> tuple[Event, ...]:
    """Return the events of seven messages: two sent, one put off, three failed (one of them too late), one unknown."""
    return (
        _accepted(f"{name}-sent", 1),
        *(_retry(f"{name}-later", attempt) for attempt in (1, 2)),
        _accepted(f"{name}-later", 3),
        _deferred(f"{name}-waiting", 0),
        _failed(f"{name}-refused", 1, GiveUpReason.PERMANENT),
        *(_retry(f"{name}-exhausted", attempt) for attempt in (1, 2, 3)),
        _failed(f"{name}-exhausted", 4, GiveUpReason.RETRIES_EXHAUSTED),
        _retry(f"{name}-expired", 1),
        _failed(f"{name}-expired", 1, GiveUpReason.EXPIRED),
        _failed(f"{name}-unknown", 1, GiveUpReason.OUTCOME_UNKNOWN),
    )


def _many(name: str) -> list[Event]:
    ids = [f"{name}-{number}" for number in range(_MESSAGES_PER_THREAD)]
    return [event for message_id in ids for event in (_retry(message_id, 1), _accepted(message_id, 2))]


def _every_type(message_id: str, campaign: str | None) -> tuple[Event, ...]:
    retry, deferred = _retry(message_id, 1, campaign), _deferred(message_id, 1, campaign)
    ends = [_failed(f"{message_id}-{reason}", 2, reason, campaign) for reason in GiveUpReason]
    return (retry, deferred, _accepted(message_id, 2, campaign), *ends)


def _accepted(message_id: str, attempt: int, campaign: str | None = CAMPAIGNS[0]) -> MessageAccepted:
    about = _about(message_id, attempt, campaign)
    return MessageAccepted(**about, receipt=Receipt("contract", f"SM-{message_id}", about["at"], 1, "queued"))


def _retry(message_id: str, attempt: int, campaign: str | None = CAMPAIGNS[0]) -> RetryScheduled:
    about, delay_s = _about(message_id, attempt, campaign), 2.0**attempt
    due = about["at"] + timedelta(seconds=delay_s)
    return RetryScheduled(**about, failure=_FAILURE, delay_s=delay_s, due=due)


def _deferred(message_id: str, attempt: int, campaign: str | None = CAMPAIGNS[0]) -> MessageDeferred:
    about = _about(message_id, attempt, campaign)
    due = about["at"] + timedelta(seconds=1)
    return MessageDeferred(**about, reason=DeferReason.IN_DOUBT, delay_s=1.0, due=due, deferral=1)


def _failed(message_id: str, attempt: int, reason: GiveUpReason, campaign: str | None = CAMPAIGNS[0]) -> MessageFailed:
    return MessageFailed(**_about(message_id, attempt, campaign), failure=_FAILURE, reason=reason)


_FAILURE: Final = Failure.of(FailureKind.RATE_LIMITED, code=20429, http_status=429, detail="too many requests")


def _about(message_id: str, attempt: int, campaign: str | None) -> dict[str, Any]:
    began = _BEGAN + timedelta(seconds=2.0**attempt)
    return {
        "message_id": message_id,
        "campaign": campaign,
        "metadata": {"order": 17, "tags": ["a", "b"]},
        "round": 1,
        "started_at": began,
        "at": began + timedelta(milliseconds=250),
        "attempt": attempt,
    }


def _record(sink: AnalyticsSink, events: Iterable[Event]) -> None:
    for event in events:
        sink.record(event)


def _run_together(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _expect(promise: str, wanted: SinkCounts, got: SinkCounts) -> None:
    for name in (one.name for one in fields(SinkCounts)):
        expected, counted = getattr(wanted, name), getattr(got, name)
        if expected is not None and counted is not None and expected != counted:
            msg = f"{promise}: {name} must be {expected}, got {counted}. Compare {got} with {wanted}."
            raise ContractBroken(msg)
