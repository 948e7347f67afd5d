"""Whose turn it is under a rate, whatever the order in which everybody asks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsretry.core.limit import Turn
from smsretry.core.line import (
    MOST_CAMPAIGNS,
    NEXT,
    RECOVERY,
    SECOND,
    SLOWEST,
    Line,
    Rate,
    advance,
    new_line,
    reserve,
    slow_down,
    take_turn,
)

START = 31_536_000 * SECOND
RATES = st.builds(
    Rate,
    st.sampled_from([0.3, 1.0, 3.0, 10.0, 200.0]) | st.floats(0.05, 1_000.0),
    st.sampled_from([1.0, 2.0, 7.5, 40.0]),
)


class World:
    """One line, on a clock that the test moves; it notes what goes and when."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.now = START
        self.line = new_line(START, rate)
        self.sent: list[tuple[float, int]] = []

    def ask(self, cost: int = 1, campaign: str = "", slot: str | None = None, within_s: float = math.inf) -> Turn:
        self.line, turn = take_turn(
            self.line, self.rate, cost, self.now, campaign=campaign, slot=slot, within_s=within_s
        )
        if turn.wait_s <= 0.0:
            self.sent.append((self.now, cost))
        return turn

    def reserve(self, cost: int = 1) -> float:
        self.line, wait_s = reserve(self.line, self.rate, cost, self.now)
        self.sent.append((self.now + round(wait_s * SECOND), cost))
        return wait_s

    def refuse(self, retry_after_s: float | None = None) -> None:
        self.line = slow_down(self.line, self.rate, self.now, retry_after_s=retry_after_s)

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def beyond(self) -> float:
        """Return by how many segments the worst window holds more than rate × window + burst."""
        worst, level, last = -math.inf, 0.0, self.now
        for at, cost in sorted(self.sent):
            level = max(0.0, level - max(0.0, at - last) / SECOND * self.rate.per_s) + cost
            last, worst = at, max(worst, level - self.rate.burst)
        return worst


@dataclass(frozen=True, slots=True)
class Act:
    """What happens next: time passes, and somebody new asks, or one who was told to wait."""

    after_s: float
    does: str
    cost: int
    campaign: str
    which: int


acts = st.lists(
    st.builds(
        Act,
        after_s=st.sampled_from([0.0, 0.0, 0.001, 0.1, 1.0]) | st.floats(0.0, 20.0),
        does=st.sampled_from(["new", "new", "new", "return", "return", "reserve", "refuse"]),
        cost=st.integers(1, 7),
        campaign=st.sampled_from("abc"),
        which=st.integers(0, 100),
    ),
    max_size=80,
)


@given(RATES, acts)
def test_no_window_ever_holds_more_than_rate_times_window_and_burst(rate: Rate, acts: list[Act]) -> None:
    world, told = World(rate), list[tuple[int, str, str | None]]()
    for act in acts:
        world.wait(act.after_s)
        cost = min(act.cost, max(1, math.floor(rate.burst)))
        match act.does:
            case "reserve":
                world.reserve(cost)
            case "refuse":
                world.refuse(act.which / 10 if act.which % 2 else None)
            case "return" if told:  # too early, in time or too late, and perhaps for the second time
                cost, campaign, slot = told[act.which % len(told)]
                turn = world.ask(cost, campaign, slot)
                told.append((cost, campaign, turn.slot)) if turn.wait_s > 0.0 else None
            case _:
                turn = world.ask(cost, act.campaign)
                told.append((cost, act.campaign, turn.slot)) if turn.wait_s > 0.0 else None
    assert world.beyond() <= 1e-6


Due = list[tuple[float, int, str | None]]
comers = st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 7)), min_size=1, max_size=60)


def ask_and_come_back(world: World, due: Due, cost: int, campaign: str = "") -> float:
    turn = world.ask(cost, campaign)
    if turn.wait_s > 0.0:
        due.append((world.now + round(turn.wait_s * SECOND), cost, turn.slot))
    return turn.wait_s


def let_return(world: World, due: Due, until: float = math.inf) -> None:
    """Let everybody come back when he was told, and go."""
    while due and min(due)[0] <= until:
        at, cost, slot = due.pop(due.index(min(due)))
        world.now = at
        assert world.ask(cost, slot=slot) == Turn(0.0)


@given(RATES, comers)
def test_a_campaign_alone_is_deferred_once_and_told_what_a_reservation_would_be(
    rate: Rate, coming: list[tuple[float, int]]
) -> None:
    world, plain, due = World(rate), World(rate), Due()
    for after_s, cost in coming:
        plain.wait(after_s)
        let_return(world, due, plain.now)
        world.now = plain.now
        assert ask_and_come_back(world, due, cost) == pytest.approx(plain.reserve(cost), abs=1e-9)
    let_return(world, due)
    assert sum(cost for _, cost in world.sent) == sum(cost for _, cost in coming)


@given(RATES, comers)
def test_a_campaign_alone_leaves_nothing_of_the_rate_unused(rate: Rate, coming: list[tuple[float, int]]) -> None:
    world, due = World(rate), Due()
    for _, cost in coming:
        ask_and_come_back(world, due, cost)
    let_return(world, due)
    sent, last = sum(cost for _, cost in world.sent), world.sent[-1][1]
    unused_s = (world.now - START) / SECOND - max(0.0, sent - rate.burst) / rate.per_s
    assert unused_s <= 2e-6 * len(coming) + max(0.0, last - rate.burst) / rate.per_s


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=30)
def test_a_small_campaign_waits_for_its_own_work_times_the_campaigns_that_wait(
    large: int, small: int, cost: int
) -> None:
    world = World(Rate(10.0, burst=3.0))
    for number in range(large * 150):
        world.ask(1, f"large {number % large}")
    waits = [world.ask(cost, "small").wait_s for _ in range(small)]
    assert max(waits) <= (large + 1) * small * cost / 10.0 + 1e-5


def test_the_clock_of_a_line_runs_at_half_speed_while_two_campaigns_wait() -> None:
    world = World(Rate(10.0, burst=1.0))
    first = [world.ask(1, "first").wait_s for _ in range(11)][-1]
    assert (first, world.ask(1, "second").wait_s) == (1.0, 0.2)  # behind the token that is promised to the first
    for _ in range(20):
        world.ask(1, "second")
    world.wait(0.5)
    assert world.line.clock == START
    assert advance(world.line, world.rate, world.now).clock - START == pytest.approx(0.25 * SECOND)


def test_whoever_returns_while_another_campaign_waits_is_told_the_rest() -> None:
    world = World(Rate(10.0, burst=1.0))
    *_, last = [world.ask(1, "first") for _ in range(11)]
    for _ in range(5):
        world.ask(1, "second")
    world.wait(last.wait_s)
    rest = world.ask(1, "first", last.slot)
    assert rest.wait_s == pytest.approx(0.5, abs=0.11)  # what the second one asked for in between
    assert rest.slot == last.slot


def test_of_very_many_campaigns_the_last_ones_share_a_place() -> None:
    world = World(Rate(1.0, burst=1.0))
    for number in range(MOST_CAMPAIGNS + 50):
        world.ask(1 + number % 2, f"campaign {number}")
    assert len(world.line.ends) == MOST_CAMPAIGNS
    assert world.ask(1, "campaign 7").wait_s > 0.0


def test_who_comes_too_early_is_told_the_rest_and_who_comes_late_goes() -> None:
    world = World(Rate(10.0, burst=2.0))
    turns = [world.ask() for _ in range(5)]
    world.wait(0.1)
    assert world.ask(slot=turns[4].slot).wait_s == pytest.approx(0.2)
    world.wait(100.0)
    assert world.ask(slot=turns[4].slot) == Turn(0.0)


def test_those_that_come_late_together_do_not_go_together() -> None:
    world = World(Rate(10.0, burst=2.0))
    turns = [world.ask() for _ in range(12)]
    world.wait(100.0)
    again = [world.ask(slot=turn.slot) for turn in turns[2:]]
    assert [turn.wait_s for turn in again] == pytest.approx([0.0, 0.0, *(number / 10 for number in range(1, 9))])
    assert {turn.slot for turn in again} == {None, NEXT}


def test_a_promised_token_is_kept_from_those_that_come_for_the_first_time() -> None:
    world = World(Rate(10.0, burst=2.0))
    *_, third = [world.ask() for _ in range(3)]
    world.wait(third.wait_s)
    assert world.ask(campaign="other").wait_s == pytest.approx(0.1)
    assert world.ask(slot=third.slot) == Turn(0.0)


def test_one_that_comes_a_moment_too_early_for_his_token_waits_for_it_and_not_for_another() -> None:
    world = World(Rate(10.0, burst=1.0))
    first, second = [world.ask() for _ in range(3)][1:]
    world.wait(first.wait_s - 0.001)
    assert world.ask(slot=first.slot) == Turn(pytest.approx(0.001), NEXT)
    world.wait(0.0)
    assert world.ask(slot=NEXT).wait_s < 0.01
    assert second.wait_s == pytest.approx(0.2)


def test_a_slot_of_another_kind_of_limiter_is_none() -> None:
    world = World(Rate(10.0, burst=1.0))
    world.ask()
    assert world.ask(slot="held").slot == NEXT


def test_a_slot_outlives_what_the_limiter_knew() -> None:
    world = World(Rate(10.0, burst=1.0))
    slot = [world.ask() for _ in range(101)][-1].slot
    world.line = new_line(world.now, world.rate)
    assert world.ask(slot=slot).wait_s == pytest.approx(10.0, abs=0.11)
    world.wait(10.0)
    assert world.ask(slot=slot) == Turn(0.0)


def test_refusals_that_come_together_cut_the_rate_once_and_down_to_a_floor() -> None:
    world = World(Rate(10.0))
    for _ in range(10):
        world.refuse()
        world.wait(0.1)
    assert world.line.pace == pytest.approx(0.5, abs=0.02)
    for _ in range(10):
        world.wait(2.0)
        world.refuse()
    assert world.line.pace == SLOWEST


def test_after_a_refusal_there_is_no_burst() -> None:
    world = World(Rate(10.0, burst=10.0))
    world.refuse()
    assert [world.ask().wait_s for _ in range(3)] == pytest.approx([0.2, 0.4, 0.6], abs=0.01)


def test_the_rate_recovers_and_everyone_is_told_the_right_time_meanwhile() -> None:
    world, due = World(Rate(10.0, burst=2.0)), Due()
    for number in range(4):
        world.refuse()
        world.wait(2.0 * (number < 3))
    for _ in range(1_000):
        ask_and_come_back(world, due, 1)
    let_return(world, due)
    assert world.line.pace == 1.0
    took_s = (world.now - START) / SECOND - 6.0
    assert took_s == pytest.approx(100.0 + 24.75, abs=0.2)  # what the slow minute costs


@given(st.floats(SLOWEST, 1.0), st.floats(0.0, 200.0), st.floats(0.0, 200.0))
def test_time_that_is_cut_in_two_is_worth_the_same(pace: float, first_s: float, second_s: float) -> None:
    rate, line = Rate(1.0), replace(new_line(START, Rate(1.0)), pace=pace, tokens=-1e12)
    whole = advance(line, rate, START + round((first_s + second_s) * SECOND))
    halves = advance(advance(line, rate, START + round(first_s * SECOND)), rate, whole.at)
    assert halves.tokens == pytest.approx(whole.tokens, abs=10.0)
    assert halves.pace == pytest.approx(whole.pace)


def test_nothing_goes_before_a_hint_is_over_and_then_one_after_the_other() -> None:
    world = World(Rate(10.0, burst=5.0))
    waiting = [world.ask() for _ in range(8)][-1]
    world.refuse(30.0)
    world.refuse(10.0)
    world.wait(waiting.wait_s)
    assert world.ask(slot=waiting.slot).wait_s >= 30.0 - waiting.wait_s
    assert world.ask().wait_s > 30.0 - waiting.wait_s
    assert World.reserve(world) > 30.0 - waiting.wait_s


def test_a_full_bucket_waits_for_the_end_of_a_hint_too() -> None:
    world = World(Rate(10.0, burst=5.0))
    world.line = replace(world.line, held_until=START + 4 * SECOND)
    assert world.ask() == Turn(4.0, NEXT)
    assert world.reserve() == 4.0


def test_a_clock_that_is_set_back_gives_nothing_and_goes_on() -> None:
    world = World(Rate(1.0, burst=1.0))
    world.ask()
    world.wait(-3_600.0)
    assert world.ask().wait_s == pytest.approx(1.0)
    world.wait(1.0)
    assert world.ask(slot=NEXT) == Turn(0.0)


def test_a_caller_that_was_overtaken_changes_no_time() -> None:
    world = World(Rate(1.0, burst=1.0))
    line = advance(world.line, world.rate, START + SECOND / 2)
    assert advance(line, world.rate, START) is line


def test_a_place_that_would_come_too_late_is_not_kept() -> None:
    world = World(Rate(1.0, burst=1.0))
    world.ask()
    for _ in range(3):
        assert world.ask(within_s=0.5) == Turn(1.0, None)
    assert world.ask(within_s=1.0) == Turn(1.0, NEXT)
    assert world.ask(within_s=1.0) == Turn(2.0, None)


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        ((0,), "per_s must be more than 0 and at most 100000"),
        ((-1.0,), "per_s"),
        ((math.inf,), "per_s"),
        (("10",), "per_s"),
        ((True,), "per_s"),
        ((1.0, 0.5), "burst must be from 1"),
        ((1.0, math.nan), "burst"),
        ((1.0, "2"), "burst"),
    ],
)
def test_what_is_no_rate_is_refused(rate: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Rate(*rate)


def test_the_work_of_a_text_is_rounded_up_and_the_depth_of_the_bucket_down() -> None:
    rate = Rate(3.0, burst=2.0)
    assert (rate.work(1), rate.work(3), rate.depth) == (333_334, 1_000_000, 666_666)
    assert isinstance(new_line(START, rate), Line)
    assert RECOVERY == 60 * SECOND
