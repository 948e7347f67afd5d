"""What every limiter promises, and that memory and Redis do the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.limits.told import timed

from smsretry import ConfigurationError
from smsretry.limits import MemoryLimiter, Rate, Turn
from smsretry.testing import FakeClock
from smsretry.testing.limiter_contract import KEY, LimiterContract

NOW = FakeClock()()


class TestMemoryLimiter(LimiterContract):
    def make_limiter(self, rate_per_s: float, burst: float) -> MemoryLimiter:
        return MemoryLimiter(rate_per_s, burst=burst)


class TestRedisLimiter(LimiterContract):
    @pytest.fixture(autouse=True)
    def start(self, redis_url: str) -> Iterator[None]:
        self.url, self.made = redis_url, []
        yield
        for limiter in self.made:
            limiter.close()

    def make_limiter(self, rate_per_s: float, burst: float) -> Any:
        self.made.append(timed(self.url, rate_per_s, burst))
        return self.made[-1]


@dataclass(frozen=True, slots=True)
class Ask:
    """One call, after a while: a new turn, the turn of an earlier asker, a reservation or a refusal."""

    after_s: float
    verb: str
    cost: int
    campaign: str
    which: int
    limit_s: float


asks = st.lists(
    st.builds(
        Ask,
        after_s=st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.3, 2.0, 40.0, -0.2, -5.0]),
        verb=st.sampled_from(["new", "new", "new", "again", "again", "reserve", "slow_down"]),
        cost=st.integers(1, 4),
        campaign=st.sampled_from(["", "a", "b", "c"]),
        which=st.integers(0, 1_000),
        limit_s=st.sampled_from([1e9, 1e9, 3.0]),
    ),
    max_size=60,
)


def answers(limiter: Any, calls: list[Ask]) -> Iterator[tuple[Ask, Turn]]:
    """Make the calls one after the other; each limiter gets the slots that it gave."""
    now, waiting = NOW, list[tuple[int, str, str | None]]()
    for call in calls:
        now += timedelta(seconds=call.after_s)
        if call.verb == "reserve":
            yield call, Turn(limiter.reserve(KEY, call.cost, now))
            continue
        if call.verb == "slow_down":
            limiter.slow_down(KEY, now, retry_after_s=None if call.cost > 2 else call.cost * 1.5)
            continue
        cost, campaign, slot = call.cost, call.campaign, None
        if call.verb == "again" and waiting:
            cost, campaign, slot = waiting.pop(call.which % len(waiting))
        turn = limiter.take_turn(KEY, cost, now, campaign=campaign, slot=slot, within_s=call.limit_s)
        if turn.wait_s > 0.0 and turn.slot is not None:
            waiting.append((cost, campaign, turn.slot))
        yield call, turn


def kind_of(turn: Turn) -> str:
    return str(turn.slot) if turn.slot in {None, "next"} else "place"


@given(calls=asks, rate=st.sampled_from([(3.0, 2.0), (200.0, 20.0), (1.0, 1.0), (7.0, 30.0)]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_answers_as_memory_does(redis_url: str, calls: list[Ask], rate: tuple[float, float]) -> None:
    kept, alone = timed(redis_url, *rate), MemoryLimiter(rate[0], burst=rate[1])
    try:
        for (_, ours), (call, theirs) in zip(answers(alone, calls), answers(kept, calls), strict=True):
            assert ours.wait_s == pytest.approx(theirs.wait_s, abs=5e-6), call
            assert kind_of(ours) == kind_of(theirs), call
    finally:
        kept.clear(KEY)
        kept.close()


def test_a_sender_may_have_a_rate_of_its_own() -> None:
    limiter = MemoryLimiter(1.0, burst=1.0, rates={"fast": 10.0, "steady": Rate(10.0, burst=1.0)})
    waits = {key: [limiter.reserve(key, 1, NOW) for _ in range(12)][-1] for key in ("usual", "fast", "steady")}
    assert waits == {"usual": 11.0, "fast": 0.2, "steady": 1.1}


def test_a_burst_is_a_seconds_worth_and_at_least_two() -> None:
    assert (Rate(10.0).burst, Rate(0.5).burst, Rate(10.0, burst=1.0).burst) == (10.0, 2.0, 1.0)


def test_seconds_on_any_clock_will_do() -> None:
    limiter = MemoryLimiter(2.0, burst=1.0)
    assert [limiter.reserve(KEY, 1, now) for now in (0.0, 0.0, 0.5, 10.0)] == [0.0, 0.5, 0.5, 0.0]


def test_what_was_given_is_forgotten_when_a_queue_was_emptied_by_hand() -> None:
    limiter = MemoryLimiter(1.0)
    for _ in range(1_000):
        limiter.take_turn(KEY, 1, NOW)
    limiter.clear(KEY)
    limiter.clear("nobody")
    assert limiter.take_turn(KEY, 1, NOW) == Turn(0.0)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MemoryLimiter(0.0), "per_s must be more than 0"),
        (lambda: MemoryLimiter(float("nan")), "per_s must be more than 0"),
        (lambda: MemoryLimiter(True), "per_s must be more than 0"),
        (lambda: MemoryLimiter(1.0, burst=0.5), "burst must be from 1"),
        (lambda: MemoryLimiter(1.0, rates={KEY: -1.0}), "per_s must be more than 0"),
        (lambda: MemoryLimiter(1.0).reserve(KEY, 0, NOW), "cost must be a whole number of 1 or more"),
        (lambda: MemoryLimiter(1.0).take_turn(KEY, True, NOW), "cost must be a whole number of 1 or more"),
        (lambda: MemoryLimiter(1.0).reserve(KEY, 1, float("inf")), "now must be a finite number"),
    ],
)
def test_what_is_no_rate_cost_or_time_is_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="now must be an aware datetime"):
        MemoryLimiter(1.0).reserve(KEY, 1, datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_text_of_more_segments_than_the_burst_goes_when_the_bucket_is_full() -> None:
    limiter = MemoryLimiter(1.0, burst=2.0)
    assert [limiter.reserve(KEY, cost, NOW) for cost in (5, 5, 1)] == [0.0, 5.0, 9.0]
