"""Say what is sent, and what each message meets at the provider: the same for every program, by the seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from smsretry import Message
from smsretry.testing import TwilioSimulator
from smsretry.testing.simulator import Closed, Cut, Delayed, Fault, Hang, RateLimited, Reset, ServerError

CAMPAIGN: Final = "chaos"
MOST_FAULTS: Final = 2
"""Of one message: every program tries four times, so that each message ought to arrive."""
FAULTY: Final = 0.3
"""The share of the POSTs that meet a fault, up to that many."""
LATEST_TAKE_S: Final = 2.0
LIST_LAG_S: Final = 1.0
LATENCY_S: Final = 0.05
SETTLE_AFTER_S: Final = 8.0
"""Above the latest take, the list lag and the longest freeze together, as the promise asks for; 120 by default."""

WEIGHTS: Final[Mapping[Fault, int]] = MappingProxyType(
    {
        RateLimited(): 24,
        ServerError(status=503): 10,
        ServerError(status=500, taken=True): 8,
        ServerError(status=502, taken=True, taken_after_s=LATEST_TAKE_S): 4,
        Reset(taken=False): 12,
        Reset(taken=True): 12,
        Reset(taken=True, taken_after_s=LATEST_TAKE_S): 8,
        Closed(taken=True): 6,
        Cut(): 6,
        Delayed(delay_s=1.5, taken_after_s=1.0): 8,
        Hang(taken=True, taken_after_s=1.0): 2,
    }
)
"""How often a fault is of each kind."""
LOOK_UP_RATES: Final[Mapping[str | Fault, float]] = MappingProxyType(
    {"rate_limited": 0.04, "unavailable": 0.04, "lost_before_taken": 0.02}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Hold the messages, and the faults that each meets first, under its number."""

    seed: int
    messages: tuple[Message, ...]
    faults: Mapping[str, tuple[Fault, ...]]

    @classmethod
    def drawn(cls, count: int, seed: int) -> Load:
        """Return ``count`` messages to as many numbers, with the faults that ``seed`` draws."""
        chance = Random(f"load {seed}")
        messages = tuple(message(number, seed) for number in range(count))
        return cls(seed=seed, messages=messages, faults={one.to: drawn_faults(chance) for one in messages})

    def simulator(self) -> TwilioSimulator:
        """Return a provider, not yet started, that treats this load as was drawn."""
        simulator = TwilioSimulator(
            seed=self.seed, look_up_rates=LOOK_UP_RATES, latency_s=LATENCY_S, list_lag_s=LIST_LAG_S
        )
        for number, faults in self.faults.items():
            simulator.script(*faults, to=number)
        return simulator


def message(number: int, seed: int) -> Message:
    """Return message ``number`` of the load."""
    return Message(
        f"+1555{number:07d}", f"Hello {number}, your table is ready.", id=f"chaos:{seed}:{number}", campaign=CAMPAIGN
    )


def drawn_faults(chance: Random) -> tuple[Fault, ...]:
    """Return what the first POSTs of one message meet."""
    faults: list[Fault] = []
    while len(faults) < MOST_FAULTS and chance.random() < FAULTY:
        faults += chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
    return tuple(faults)
