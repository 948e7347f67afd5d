"""Whose turn it is in a campaign: figures that add up, a hold that lets one through, and nothing that waits in vain."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    Accepted,
    AttemptState,
    Deferred,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    Outcome,
    Receipt,
    RetryAfter,
)
from smsretry.campaign.agenda import MOST_WAITING, Agenda, Job, Progress
from smsretry.core.outcome import DeferReason

BUSY = Failure.of(FailureKind.RATE_LIMITED)
REFUSED = Failure.of(FailureKind.AUTH, code=20003)
STATE = AttemptState(retries=1)
ACCEPTED = Accepted(Receipt("scripted", "SM1", datetime(2026, 1, 1, tzinfo=UTC)))
HOLD = Deferred(60.0, DeferReason.ON_HOLD, STATE, REFUSED)

outcomes: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        ACCEPTED,
        HOLD,
        *(RetryAfter(delay_s, BUSY, STATE) for delay_s in (0.0, 2.0, 8.0)),
        *(Deferred(delay_s, DeferReason.IN_DOUBT, STATE) for delay_s in (0.0, 30.0)),
        *(GaveUp(BUSY, reason, 1) for reason in GiveUpReason),
    ]
)


def message(number: int = 0) -> Message:
    return Message("+15005550006", "Your table is ready.", id=f"booking-{number}")


def sum_of(progress: Progress) -> int:
    ends = progress.accepted + progress.failed + progress.expired + progress.canceled
    return ends + progress.unknown + progress.refused + progress.waiting + progress.in_flight


def taken(agenda: Agenda, now_s: float) -> Job:
    job = agenda.take(now_s)
    assert job is not None
    return job


class Life:
    """Do to an agenda what may be done to it, and count with it."""

    def __init__(self) -> None:
        self.agenda = Agenda(concurrency=3, now_s=0.0)
        self.now_s = 0.0
        self.in_flight: list[Job] = []
        self.put_count = self.ended = 0

    def put(self) -> None:
        if self.agenda.has_room:
            self.put_count += 1
            self.agenda.put(message(self.put_count))

    def junk(self) -> None:
        self.agenda.refuse()
        self.ended += 1

    def take(self) -> None:
        if (job := self.agenda.take(self.now_s)) is not None:
            self.in_flight.append(job)

    def refuse(self) -> None:
        if self.in_flight:
            self.agenda.refuse(self.in_flight.pop())
            self.ended += 1

    def settle(self, outcome: Outcome) -> None:
        if self.in_flight:
            self.agenda.settle(self.in_flight.pop(), outcome, self.now_s)
            self.ended += isinstance(outcome, (Accepted, GaveUp))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def end(self) -> None:
        self.agenda.close()
        while not self.agenda.is_over:
            self.take()
            if self.in_flight:
                self.settle(ACCEPTED)
                continue
            wait_s = self.agenda.wait_s(self.now_s)
            assert wait_s is not None, "something is left to do, and nobody's turn ever comes"
            self.wait(wait_s)

    def check(self) -> None:
        progress = self.agenda.progress(self.now_s)
        assert sum_of(progress) == progress.taken
        assert progress.in_flight == len(self.in_flight)
        assert progress.ended == self.ended


steps = st.one_of(
    *(st.just((name,)) for name in ("put", "junk", "take", "refuse")),
    st.tuples(st.just("settle"), outcomes),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 30.0])),
)


@given(steps=st.lists(steps, max_size=80))
def test_the_figures_add_up_at_any_moment_and_every_message_has_its_turn(steps):
    life = Life()
    for name, *values in steps:
        getattr(life, name)(*values)
        life.check()
    life.end()
    life.check()
    assert life.agenda.progress(life.now_s).ended == life.agenda.progress(life.now_s).taken


def test_a_message_that_waits_for_its_retry_holds_no_place_and_comes_before_new_ones():
    agenda = Agenda(concurrency=1, now_s=0.0)
    agenda.put(message(1))
    agenda.settle(taken(agenda, 0.0), RetryAfter(2.0, BUSY, STATE), now_s=0.0)
    agenda.put(message(2))
    second = taken(agenda, 1.9)
    agenda.put(message(3))
    agenda.settle(second, ACCEPTED, 1.95)
    again = taken(agenda, 2.0)
    assert (again.message.id, again.state) == ("booking-1", STATE)
    assert taken(agenda, 2.0).message.id == "booking-3"


def test_no_more_is_read_than_may_be_ready_or_wait():
    agenda = Agenda(concurrency=2, now_s=0.0)
    assert agenda.wants_more
    agenda.put(message(1))
    agenda.put(message(2))
    assert not agenda.has_room
    taken(agenda, 0.0)
    assert agenda.has_room
    assert agenda.wants_more
    waiting = Agenda(concurrency=2, now_s=0.0)
    for number in range(MOST_WAITING):
        waiting.put(message(number))
        waiting.settle(taken(waiting, 0.0), RetryAfter(9.0, BUSY, STATE), 0.0)
    assert not waiting.has_room


def test_while_the_account_is_refused_one_message_a_minute_is_sent():
    agenda = Agenda(concurrency=4, now_s=0.0)
    for number in range(4):
        agenda.put(message(number))
    first, second = taken(agenda, 0.0), taken(agenda, 0.0)
    agenda.settle(first, HOLD, 0.0)
    agenda.settle(second, HOLD, 1.0)
    assert agenda.progress(1.0).on_hold == REFUSED
    assert agenda.take(60.9) is None
    assert agenda.wait_s(1.0) == 60.0
    probe = taken(agenda, 61.0)
    assert agenda.take(61.0) is None, "one at a time"
    assert agenda.wait_s(61.0) is None
    agenda.settle(probe, HOLD, 61.0)
    probe = taken(agenda, 121.0)
    agenda.settle(probe, RetryAfter(2.0, BUSY, STATE), 121.0)
    assert agenda.progress(121.0).on_hold is None
    assert agenda.has_turn(121.0)


@pytest.mark.parametrize("reason", [DeferReason.LIMITED, DeferReason.LIMITER_AWAY])
def test_a_probe_that_the_rate_limiter_has_wait_asked_nothing_and_leaves_the_hold(reason: DeferReason) -> None:
    agenda = Agenda(concurrency=3, now_s=0.0)
    agenda.put(message())
    agenda.settle(taken(agenda, 0.0), HOLD, 0.0)
    agenda.settle(taken(agenda, 60.0), Deferred(5.0, reason, STATE), 60.0)
    assert agenda.progress(60.0).on_hold == REFUSED
    agenda.settle(taken(agenda, 65.0), ACCEPTED, 65.0)
    assert agenda.progress(65.0).on_hold is None


def test_an_acceptance_ends_a_hold():
    agenda = Agenda(concurrency=2, now_s=0.0)
    agenda.put(message(1))
    agenda.put(message(2))
    refused, late = taken(agenda, 0.0), taken(agenda, 0.0)
    agenda.settle(refused, HOLD, 0.0)
    agenda.settle(late, ACCEPTED, 0.1)
    assert agenda.progress(0.1).on_hold is None


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (GiveUpReason.PERMANENT, "failed"),
        (GiveUpReason.RETRIES_EXHAUSTED, "failed"),
        (GiveUpReason.UNRECOVERABLE, "failed"),
        (GiveUpReason.EXPIRED, "expired"),
        (GiveUpReason.CANCELED, "canceled"),
        (GiveUpReason.OUTCOME_UNKNOWN, "unknown"),
    ],
)
def test_each_end_has_its_figure(reason, name):
    agenda = Agenda(concurrency=1, now_s=0.0)
    agenda.put(message())
    agenda.settle(taken(agenda, 0.0), GaveUp(BUSY, reason, 1), 0.0)
    progress = agenda.progress(5.0)
    assert getattr(progress, name) == progress.ended == 1
    assert progress.elapsed_s == 5.0


def test_after_a_stop_nothing_begins_and_what_waits_is_left():
    agenda = Agenda(concurrency=2, now_s=0.0)
    agenda.put(message(1))
    agenda.put(message(2))
    job = taken(agenda, 0.0)
    agenda.stop()
    assert agenda.is_stopped
    assert agenda.take(0.0) is None
    assert agenda.wait_s(0.0) is None
    assert not agenda.is_over
    agenda.settle(job, ACCEPTED, 0.0)
    assert agenda.is_over
    assert agenda.progress(0.0).waiting == 1


def test_what_waits_says_when_the_next_one_comes_unless_something_is_to_be_done() -> None:
    agenda = Agenda(concurrency=2, now_s=0.0)
    assert agenda.progress(0.0).next_in_s is None
    agenda.put(message())
    assert agenda.progress(0.0).next_in_s is None
    job = taken(agenda, 0.0)
    assert agenda.progress(0.0).next_in_s is None
    agenda.settle(job, RetryAfter(8.0, BUSY, STATE), 1.0)
    assert agenda.progress(2.0).next_in_s == 7.0
    assert agenda.progress(9.0).next_in_s is None


def test_a_hold_says_when_the_account_is_asked_again() -> None:
    agenda = Agenda(concurrency=2, now_s=0.0)
    for number in range(2):
        agenda.put(message(number))
    agenda.settle(taken(agenda, 0.0), HOLD, 0.0)
    assert agenda.progress(10.0).next_in_s == 50.0
