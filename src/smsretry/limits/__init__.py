"""Whose turn it is: rate limiters for one process and for all workers together.

`MemoryLimiter` keeps what it knows in this process; `smsretry.limits.redis` keeps it in a Redis. `Rate` says how much
one sender may carry, and `OnUnreachable` what holds while a limiter cannot be reached.
"""

from smsretry.core.limit import OnUnreachable, Turn
from smsretry.core.line import Rate
from smsretry.limits.memory import MemoryLimiter

__all__ = ["MemoryLimiter", "OnUnreachable", "Rate", "Turn"]
