"""Check that a rate limiter keeps its promise: never too fast, never idle, and fair between campaigns.

With pytest, subclass `LimiterContract` in a test module and say how to make the limiter::

    class TestMyLimiter(LimiterContract):
        def make_limiter(self, rate_per_s, burst):
            return MyLimiter(self.server, rate_per_s, burst)

The limiter must take the time from ``now``, which moves at once here. Without pytest, call the functions of `CHECKS`.
Each check wants a limiter that knows nothing yet. What is broken raises
`smsretry.testing.sink_contract.ContractBroken`.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from smsretry.core.limit import Turn
from smsretry.ports import FairLimiter
from smsretry.testing.fakes import FakeClock
from smsretry.testing.sink_contract import ContractBroken

MakeLimiter = Callable[[float, float], FairLimiter]
"""Make a limiter for so many segments a second, and so many at once."""

KEY: Final = "+15005550006"
"""The sender that the checks use; the others are this one with another last digit."""
_THREADS: Final = 8
_SMALLEST_S: Final = 1e-5


@dataclass(order=True)
class _Asker:
    """Be one who wants to send: he comes at ``at``, and again when he was told, or a little later."""

    at: datetime
    number: int
    campaign: str = field(compare=False)
    cost: int = field(compare=False)
    came: datetime = field(compare=False)
    slot: str | None = field(default=None, compare=False)
    deferrals: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Went:
    """Hold when something was sent, and how long it had waited."""

    at: datetime
    campaign: str
    cost: int
    deferrals: int
    waited_s: float


class Crowd:
    """Let many ask a limiter for a turn, on a clock that jumps from one to the next.

    ``late`` says how many seconds each comes after the time that he was told.
    """

    def __init__(
        self,
        limiter: FairLimiter,
        *,
        key: str = KEY,
        late: Callable[[], float] = lambda: 0.0,
        clock: FakeClock | None = None,
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._late = late
        self.clock = clock or FakeClock()
        self._askers: list[_Asker] = []
        self._asked = 0

    def come(self, costs: Iterable[int], *, campaign: str = "", after_s: float = 0.0) -> None:
        """Let one come for each of ``costs`` (segments), ``after_s`` seconds from now."""
        at = self.clock() + timedelta(seconds=after_s)
        for cost in costs:
            self._asked += 1
            heapq.heappush(self._askers, _Asker(at, self._asked, campaign, cost, at))

    def run(self, until_s: float = math.inf) -> list[Went]:
        """Let time pass until everybody went, or for ``until_s`` seconds; return who went, in order."""
        went: list[Went] = []
        end = None if math.isinf(until_s) else self.clock() + timedelta(seconds=until_s)
        while self._askers and (end is None or self._askers[0].at <= end):
            one = heapq.heappop(self._askers)
            self.clock.advance(max(0.0, (one.at - self.clock()).total_seconds()))
            turn = self._limiter.take_turn(self._key, one.cost, self.clock(), campaign=one.campaign, slot=one.slot)
            if turn.wait_s <= 0.0:
                waited_s = (self.clock() - one.came).total_seconds()
                went.append(Went(self.clock(), one.campaign, one.cost, one.deferrals, waited_s))
            else:
                self._come_back(one, turn)
        return went

    def _come_back(self, one: _Asker, turn: Turn) -> None:
        at = self.clock() + timedelta(seconds=turn.wait_s + self._late())
        again = _Asker(at, one.number, one.campaign, one.cost, one.came, turn.slot, one.deferrals + 1)
        heapq.heappush(self._askers, again)


def beyond(went: Sequence[Went], rate_per_s: float, burst: float) -> float:
    """Return by how many segments the worst window holds more than rate × window + burst; below 0 where none does."""
    worst, level, last = -burst, 0.0, None
    for one in went:
        passed_s = 0.0 if last is None else (one.at - last).total_seconds()
        level, last = max(0.0, level - passed_s * rate_per_s) + one.cost, one.at
        worst = max(worst, level - burst)
    return worst


def check_a_slot_is_reserved(make_limiter: MakeLimiter) -> None:
    """Reserve more than the burst at one moment: each must get a slot of its own, at the rate."""
    limiter, now = make_limiter(10.0, 5.0), FakeClock()()
    waits = [limiter.reserve(KEY, 1, now) for _ in range(15)]
    wanted = [0.0] * 5 + [number / 10 for number in range(1, 11)]
    _holds(f"Slots follow each other at the rate, got {waits}", _close(waits, wanted))
    more = limiter.reserve(KEY, 3, now)
    _holds(f"A slot for 3 segments comes after as many, got {more}", _close([more], [1.3]))


def check_a_lone_campaign_is_deferred_once(make_limiter: MakeLimiter) -> None:
    """Let a campaign wait that is alone: everyone must be told the right time at once, and the rate be used up."""
    crowd, costs = Crowd(make_limiter(20.0, 10.0)), _costs(1, 200)
    crowd.come(costs)
    went = crowd.run()
    _holds("Nobody who is alone is deferred twice", max(one.deferrals for one in went) == 1)
    _fills("A lone campaign has the whole rate", went, 20.0, 10.0)
    _holds("Nothing goes too fast", beyond(went, 20.0, 10.0) <= _SMALLEST_S)


def check_no_window_holds_more(make_limiter: MakeLimiter) -> None:
    """Let campaigns come and go, and everyone return late: no window may hold more than rate × window + burst."""
    draw = random.Random(7)
    crowd = Crowd(make_limiter(20.0, 10.0), late=lambda: draw.random() * 0.3)
    for number in range(6):
        crowd.come(_costs(number, 40), campaign=f"campaign {number % 4}", after_s=draw.random() * 10.0)
    went = crowd.run()
    excess = beyond(went, 20.0, 10.0)
    _holds(f"No window holds more than rate × window + burst, got {excess:.3f} segments more", excess <= _SMALLEST_S)
    _holds("Everyone goes", len(went) == 240)


def check_nothing_is_wasted(make_limiter: MakeLimiter) -> None:
    """Let campaigns share the rate, and return a little late: 97 % of the rate must be used."""
    draw = random.Random(7)
    crowd = Crowd(make_limiter(50.0, 25.0), late=lambda: draw.random() * 0.05)
    for number in range(4):
        crowd.come(_costs(number, 150), campaign=f"campaign {number}")
    _fills("Campaigns that share use the whole rate", crowd.run(), 50.0, 25.0)


def check_campaigns_share(make_limiter: MakeLimiter) -> None:
    """Let a second campaign come while the first waits: from then on each must get about half."""
    crowd = Crowd(make_limiter(20.0, 2.0))
    crowd.come([1] * 600, campaign="first")
    crowd.come([1] * 300, campaign="second", after_s=5.0)
    went = [one for one in crowd.run(until_s=25.0) if (one.at - FakeClock()()).total_seconds() > 5.0]
    second = sum(one.campaign == "second" for one in went) / len(went)
    _holds(f"A campaign that comes later gets half, got {second:.0%}", 0.45 <= second <= 0.55)


def check_a_small_campaign_does_not_wait_for_a_large_one(make_limiter: MakeLimiter) -> None:
    """Let a small campaign come after a large one: it must wait for about twice its own work, not for the other's."""
    crowd = Crowd(make_limiter(20.0, 5.0))
    crowd.come([1] * 2_000, campaign="large")
    crowd.come([1] * 40, campaign="small", after_s=10.0)
    waits = [one.waited_s for one in crowd.run(until_s=30.0) if one.campaign == "small"]
    _holds(f"All of the small campaign goes, got {len(waits)} of 40", len(waits) == 40)
    _holds(f"It waits for twice its own work at most, got {max(waits):.2f} s of 4", max(waits) <= 4.0 + 1.0)


def check_senders_are_apart(make_limiter: MakeLimiter) -> None:
    """Use up one sender: another one must have its whole burst."""
    limiter, now = make_limiter(1.0, 3.0), FakeClock()()
    for _ in range(10):
        limiter.take_turn(KEY, 1, now)
    waits = [limiter.take_turn(f"{KEY[:-1]}7", 1, now).wait_s for _ in range(4)]
    _holds(f"A sender has a rate of its own, got {waits}", _close(waits, [0.0, 0.0, 0.0, 1.0]))


def check_a_refusal_slows_down(make_limiter: MakeLimiter) -> None:
    """Tell of refusals: less must go for a while, and the whole rate again after some minutes."""
    limiter, clock = make_limiter(20.0, 2.0), FakeClock()
    crowd = Crowd(limiter, clock=clock)
    for _ in range(20):  # they were on their way together
        limiter.slow_down(KEY, clock())
    crowd.come([1] * 200)
    slow = len(crowd.run(until_s=5.0))
    _holds(f"After refusals about half goes, got {slow} of 100", 30 <= slow <= 75)
    crowd.run()
    clock.advance(600.0)
    crowd.come([1] * 200)
    _fills("The rate recovers", crowd.run(), 20.0, 2.0)


def check_a_hint_is_kept(make_limiter: MakeLimiter) -> None:
    """Tell of a refusal with a hint: nothing may go before its end, and not everything at it."""
    limiter, clock = make_limiter(20.0, 10.0), FakeClock()
    limiter.slow_down(KEY, clock(), retry_after_s=30.0)
    crowd, began = Crowd(limiter, clock=clock), clock()
    crowd.come([1] * 100)
    went = crowd.run()
    first_s = (went[0].at - began).total_seconds()
    _holds(f"Nothing goes before the hint is over, got {first_s:.2f} s of 30", first_s >= 30.0)
    early = sum((one.at - began).total_seconds() < 31.0 for one in went)
    _holds(f"The end of a hint is no burst, got {early} within a second", early <= 20)


def check_a_turn_that_comes_too_late_is_not_kept(make_limiter: MakeLimiter) -> None:
    """Ask for turns that come too late: they must be told, and take nothing away."""
    limiter, now = make_limiter(1.0, 1.0), FakeClock()()
    limiter.take_turn(KEY, 1, now)
    far = [limiter.take_turn(KEY, 1, now, within_s=0.5).wait_s for _ in range(5)]
    _holds(f"A wait is told though it is too long, got {far}", _close(far, [1.0] * 5))
    _holds("What was not kept is free", _close([limiter.take_turn(KEY, 1, now, within_s=1.5).wait_s], [1.0]))


def check_threads_share_the_burst(make_limiter: MakeLimiter) -> None:
    """Ask from several threads at one moment: together they must get the burst and no more."""
    limiter, now, gate = make_limiter(1.0, 20.0), FakeClock()(), threading.Barrier(_THREADS)
    waits: list[float] = []

    def ask() -> None:
        gate.wait()
        waits.extend([limiter.take_turn(KEY, 1, now).wait_s for _ in range(5)])

    threads = [threading.Thread(target=ask) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [0.0] * 20 + [float(number) for number in range(1, 21)]
    _holds(f"Threads share one burst and get different slots, got {sorted(waits)}", _close(sorted(waits), wanted))


CHECKS: Final[tuple[Callable[[MakeLimiter], None], ...]] = (
    check_a_slot_is_reserved,
    check_a_lone_campaign_is_deferred_once,
    check_no_window_holds_more,
    check_nothing_is_wasted,
    check_campaigns_share,
    check_a_small_campaign_does_not_wait_for_a_large_one,
    check_senders_are_apart,
    check_a_refusal_slows_down,
    check_a_hint_is_kept,
    check_a_turn_that_comes_too_late_is_not_kept,
    check_threads_share_the_burst,
)
"""Every check: call each with a function that makes a limiter which knows nothing yet."""


class LimiterContract(ABC):
    """Run every check as a test of pytest; a subclass, named ``Test…``, says what to check."""

    @abstractmethod
    def make_limiter(self, rate_per_s: float, burst: float) -> FairLimiter:
        """Return a limiter that knows nothing yet."""

    def test_a_slot_is_reserved(self) -> None:
        """Run `check_a_slot_is_reserved`."""
        check_a_slot_is_reserved(self.make_limiter)

    def test_a_lone_campaign_is_deferred_once(self) -> None:
        """Run `check_a_lone_campaign_is_deferred_once`."""
        check_a_lone_campaign_is_deferred_once(self.make_limiter)

    def test_no_window_holds_more(self) -> None:
        """Run `check_no_window_holds_more`."""
        check_no_window_holds_more(self.make_limiter)

    def test_nothing_is_wasted(self) -> None:
        """Run `check_nothing_is_wasted`."""
        check_nothing_is_wasted(self.make_limiter)

    def test_campaigns_share(self) -> None:
        """Run `check_campaigns_share`."""
        check_campaigns_share(self.make_limiter)

    def test_a_small_campaign_does_not_wait_for_a_large_one(self) -> None:
        """Run `check_a_small_campaign_does_not_wait_for_a_large_one`."""
        check_a_small_campaign_does_not_wait_for_a_large_one(self.make_limiter)

    def test_senders_are_apart(self) -> None:
        """Run `check_senders_are_apart`."""
        check_senders_are_apart(self.make_limiter)

    def test_a_refusal_slows_down(self) -> None:
        """Run `check_a_refusal_slows_down`."""
        check_a_refusal_slows_down(self.make_limiter)

    def test_a_hint_is_kept(self) -> None:
        """Run `check_a_hint_is_kept`."""
        check_a_hint_is_kept(self.make_limiter)

    def test_a_turn_that_comes_too_late_is_not_kept(self) -> None:
        """Run `check_a_turn_that_comes_too_late_is_not_kept`."""
        check_a_turn_that_comes_too_late_is_not_kept(self.make_limiter)

    def test_threads_share_the_burst(self) -> None:
        """Run `check_threads_share_the_burst`."""
        check_threads_share_the_burst(self.make_limiter)


def _costs(seed: int, count: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(1, 3) for _ in range(count)]


def _fills(promise: str, went: Sequence[Went], rate_per_s: float, burst: float) -> None:
    took_s = (went[-1].at - went[0].at).total_seconds()
    used = (sum(one.cost for one in went) - burst) / (took_s * rate_per_s)
    _holds(f"{promise}, got {used:.1%}", used >= 0.97)


def _close(got: Sequence[float], wanted: Sequence[float]) -> bool:
    return len(got) == len(wanted) and all(
        math.isclose(one, other, abs_tol=_SMALLEST_S) for one, other in zip(got, wanted, strict=True)
    )


def _holds(promise: str, fact: object) -> None:
    if not fact:
        msg = f"{promise}: it does not hold."
        raise ContractBroken(msg)
