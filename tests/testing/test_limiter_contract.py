"""The contract kit of limiters names what a broken one breaks, and needs no pytest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from smsretry.limits import MemoryLimiter, Turn
from smsretry.testing import limiter_contract as kit
from smsretry.testing.limiter_contract import CHECKS, LimiterContract
from smsretry.testing.sink_contract import ContractBroken


class Careless(MemoryLimiter):
    """Let everybody go at once."""

    def take_turn(self, key: str, cost: int, now: Any, /, **more: Any) -> Turn:
        return Turn(0.0)


class Trusting(MemoryLimiter):
    """Let everybody go who has a slot, however late he comes."""

    def take_turn(self, key: str, cost: int, now: Any, /, **more: Any) -> Turn:
        return Turn(0.0) if more.get("slot") else super().take_turn(key, cost, now, **more)


class Unfair(MemoryLimiter):
    """Know no campaigns: who came first goes first."""

    def take_turn(self, key: str, cost: int, now: Any, /, **more: Any) -> Turn:
        return super().take_turn(key, cost, now, **{**more, "campaign": ""})


class Hasty(MemoryLimiter):
    """Keep a place for whoever would come too late."""

    def take_turn(self, key: str, cost: int, now: Any, /, **more: Any) -> Turn:
        more.pop("within_s", None)
        return super().take_turn(key, cost, now, **more)


class Stubborn(MemoryLimiter):
    """Hear of no refusal."""

    def slow_down(self, key: str, now: datetime | float, /, *, retry_after_s: float | None = None) -> None:
        pass


class Common(MemoryLimiter):
    """Count all senders as one."""

    def take_turn(self, key: str, cost: int, now: Any, /, **more: Any) -> Turn:
        return super().take_turn("all", cost, now, **more)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Careless, kit.check_no_window_holds_more),
        (Trusting, kit.check_no_window_holds_more),
        (Unfair, kit.check_campaigns_share),
        (Unfair, kit.check_a_small_campaign_does_not_wait_for_a_large_one),
        (Hasty, kit.check_a_turn_that_comes_too_late_is_not_kept),
        (Stubborn, kit.check_a_refusal_slows_down),
        (Stubborn, kit.check_a_hint_is_kept),
        (Common, kit.check_senders_are_apart),
        (Careless, kit.check_threads_share_the_burst),
    ],
)
def test_a_broken_limiter_is_caught(broken: type[MemoryLimiter], check: Callable[[Any], None]) -> None:
    with pytest.raises(ContractBroken):
        check(lambda rate_per_s, burst: broken(rate_per_s, burst=burst))


def test_a_limiter_that_is_too_slow_is_caught() -> None:
    with pytest.raises(ContractBroken, match="whole rate"):
        kit.check_nothing_is_wasted(lambda rate_per_s, burst: MemoryLimiter(rate_per_s * 0.9, burst=burst))


def test_a_limiter_that_gives_one_slot_twice_is_caught() -> None:
    class Twice(MemoryLimiter):
        def reserve(self, key: str, cost: int, now: Any, /) -> float:
            return super().reserve(key, cost, now) // 1

    with pytest.raises(ContractBroken, match="Slots follow each other"):
        kit.check_a_slot_is_reserved(lambda rate_per_s, burst: Twice(rate_per_s, burst=burst))


def test_every_check_is_a_test_of_the_base_class() -> None:
    tests = {name.removeprefix("test_") for name in vars(LimiterContract) if name.startswith("test_")}
    assert tests == {check.__name__.removeprefix("check_") for check in CHECKS}


def test_the_kit_needs_no_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import smsretry.testing.limiter_contract"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
