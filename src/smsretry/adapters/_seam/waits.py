"""How long one wait in a queue may be; a longer one is cut into hops, each of which finds that it is not due yet."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Hold what a broker allows of one wait; a longer one is cut into hops."""

    longest_wait_s: float = math.inf
    whole_seconds: bool = False
    """True where waits are whole numbers of seconds, such as in RabbitMQ's quorum queues, where a countdown between 0
    and 1 is refused, or a lost message."""

    def countdown(self, delay_s: float) -> float:
        """Return the seconds of the first of the equal hops that make up ``delay_s``; 0 where it is past."""
        if delay_s <= 0.0:
            return 0.0
        hop_s = delay_s / max(1, math.ceil(delay_s / self.longest_wait_s))
        return float(max(1, math.ceil(hop_s))) if self.whole_seconds else hop_s
