"""How long one wait in a queue may be; a longer one is cut into hops, each of which finds that it is not due yet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smsretry.core.mask import shown
from smsretry.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Hold what a broker allows of one wait; a longer one is cut into hops."""

    longest_wait_s: float = math.inf
    whole_seconds: bool = False
    """True where waits are whole numbers of seconds, such as in RabbitMQ's quorum queues, where a countdown between 0
    and 1 is refused, or a lost message."""

    def __post_init__(self) -> None:
        given: object = self.longest_wait_s
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if not is_number or not (self.longest_wait_s >= 1.0 if self.whole_seconds else self.longest_wait_s > 0.0):
            raise ConfigurationError(
                f"longest_wait_s must be {'1 or more' if self.whole_seconds else 'more than 0'} seconds, "
                f"got {shown(given)}. Leave it out where the queue bears any wait."
            )

    def countdown(self, delay_s: float) -> float:
        """Return the seconds of the first of the equal hops that make up ``delay_s``; 0 where it is past."""
        if delay_s <= 0.0:
            return 0.0
        if not self.whole_seconds:
            return delay_s / max(1, math.ceil(delay_s / self.longest_wait_s))
        longest_s = self.longest_wait_s if math.isinf(self.longest_wait_s) else math.floor(self.longest_wait_s)
        return float(max(1, math.ceil(delay_s / max(1, math.ceil(delay_s / longest_s)))))
