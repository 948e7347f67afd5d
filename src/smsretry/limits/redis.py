"""A rate limiter in a Redis: for all workers together.

It does what `smsretry.core.line` says, in one script that the server runs by its own clock.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, Required, TypedDict, Unpack
from weakref import WeakKeyDictionary

from smsretry.core.limit import Turn
from smsretry.core.line import SECOND, Rate
from smsretry.errors import ConfigurationError
from smsretry.limits.rates import Moment, Rates, checked_cost

try:
    import redis
    import redis.asyncio
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as ConnectionLost
    from redis.retry import Retry
except ImportError as error:
    msg = (
        f"smsretry.limits.redis needs the redis package ({error.name} is missing). Run: pip install 'smsretry[limits]'"
    )
    raise ConfigurationError(msg) from error

PREFIX: Final = "smsretry:limit:"
TIMEOUT_S: Final = 1.0
"""How long a Redis may take to connect, and to answer."""


@cache
def program() -> str:
    """Return the script."""
    return files("smsretry.limits").joinpath("line.lua").read_text("utf-8")


class LimiterOptions(TypedDict, total=False):
    """Name what a limiter in a Redis takes beside the server."""

    rate_per_s: Required[float]
    burst: float
    rates: Mapping[str, float | Rate] | None
    prefix: str
    timeout_s: float


class _Asking:
    """Know the rates and the server, and put what is asked into words of the script."""

    def __init__(
        self,
        redis: str | Any,
        *,
        rate_per_s: float,
        burst: float = 0.0,
        rates: Mapping[str, float | Rate] | None = None,
        prefix: str = PREFIX,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._redis = redis
        self._rates = Rates.checked(rate_per_s, burst, rates or {})
        self._prefix = prefix
        self._timeout_s = timeout_s

    def _named(self, key: str) -> str:
        return f"{self._prefix}{key}"

    def _asked(  # noqa: PLR0917  # one line for each verb
        self,
        verb: str,
        key: str,
        cost: int,
        now: Moment,
        campaign: str = "",
        slot: str | None = None,
        within_s: float = math.inf,
        retry_after_s: float = 0.0,
    ) -> dict[str, Any]:
        rate = self._rates.of(key)
        within = "" if math.isinf(within_s) else repr(within_s * SECOND)
        numbers = (rate.work(checked_cost(cost)), rate.depth)
        words = (campaign, slot or "", within, retry_after_s * SECOND, self._time(now))
        return {"keys": [self._named(key)], "args": [verb, *numbers, *words]}

    def _time(self, now: Moment) -> str:
        """Return the time that counts: nothing for the server's own."""
        del now
        return ""


class RedisLimiter(_Asking):
    """Let each sender carry ``rate_per_s`` segments a second, and ``burst`` at once, over all workers together.

    ``redis`` is the URL of a server, or a client of your own. ``rates`` names senders with a rate of their own, as for
    `smsretry.limits.MemoryLimiter`. Every worker must be given the same rates. The server's clock counts, and ``now``
    is not looked at. Its keys begin with ``prefix`` and end when nobody waits. ``timeout_s`` bounds connecting, and
    each answer.

    Constructing it opens nothing; every process makes its own connections at its first call. Raises the exceptions of
    redis where the server cannot be reached: what holds then is said by the dispatcher's ``limiter_away``.

    Needs the extra ``limits``.
    """

    def __init__(self, redis: str | Any, **options: Unpack[LimiterOptions]) -> None:
        super().__init__(redis, **options)
        self._scripts: dict[int, Any] = {}

    def take_turn(
        self,
        key: str,
        cost: int,
        now: Moment,
        /,
        *,
        campaign: str = "",
        slot: str | None = None,
        within_s: float = math.inf,
    ) -> Turn:
        """Ask for a turn to send ``cost`` segments: see `smsretry.ports.FairLimiter`."""
        return _turn(self._run(self._asked("take_turn", key, cost, now, campaign, slot, within_s)))

    def reserve(self, key: str, cost: int, now: Moment, /) -> float:
        """Reserve a slot for ``cost`` segments: see `smsretry.ports.RateLimiter`."""
        return _turn(self._run(self._asked("reserve", key, cost, now))).wait_s

    def slow_down(self, key: str, now: Moment, /, *, retry_after_s: float | None = None) -> None:
        """Note that the provider refused a text of ``key`` as too fast: see `smsretry.ports.FairLimiter`."""
        self._run(self._asked("slow_down", key, 1, now, retry_after_s=retry_after_s or 0.0))

    def clear(self, key: str) -> None:
        """Forget every place that was given under ``key``: for a queue that was emptied by hand."""
        self._script().registered_client.delete(self._named(key))

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones. A client of your own stays open."""
        script = self._scripts.pop(os.getpid(), None)
        if script is not None and script.registered_client is not self._redis:
            script.registered_client.close()

    def _run(self, asked: dict[str, Any]) -> Any:
        return self._script()(**asked)

    def _script(self) -> Any:
        script = self._scripts.get(os.getpid())
        if script is None:
            client = self._redis
            if isinstance(client, str):
                once_more = Retry(NoBackoff(), 1, (ConnectionLost,))  # a connection that was idle for long may be dead
                client = redis.Redis.from_url(client, retry=once_more, **_timeouts(self._timeout_s))
            script = self._scripts.setdefault(os.getpid(), client.register_script(program()))
        return script


class AsyncRedisLimiter(_Asking):
    """Do what `RedisLimiter` does, in a running loop: ``redis`` is a URL, or a client of ``redis.asyncio``.

    Every loop makes its own connections at its first call, and closes them by `aclose`.
    """

    def __init__(self, redis: str | Any, **options: Unpack[LimiterOptions]) -> None:
        super().__init__(redis, **options)
        self._scripts: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    async def take_turn(
        self,
        key: str,
        cost: int,
        now: Moment,
        /,
        *,
        campaign: str = "",
        slot: str | None = None,
        within_s: float = math.inf,
    ) -> Turn:
        """Ask for a turn to send ``cost`` segments: see `smsretry.ports.FairLimiter`."""
        return _turn(await self._run(self._asked("take_turn", key, cost, now, campaign, slot, within_s)))

    async def reserve(self, key: str, cost: int, now: Moment, /) -> float:
        """Reserve a slot for ``cost`` segments: see `smsretry.ports.RateLimiter`."""
        return _turn(await self._run(self._asked("reserve", key, cost, now))).wait_s

    async def slow_down(self, key: str, now: Moment, /, *, retry_after_s: float | None = None) -> None:
        """Note that the provider refused a text of ``key`` as too fast: see `smsretry.ports.FairLimiter`."""
        await self._run(self._asked("slow_down", key, 1, now, retry_after_s=retry_after_s or 0.0))

    async def clear(self, key: str) -> None:
        """Forget every place that was given under ``key``: for a queue that was emptied by hand."""
        await self._script().registered_client.delete(self._named(key))

    async def aclose(self) -> None:
        """Close the connections of this loop; the next call opens new ones. A client of your own stays open."""
        script = self._scripts.pop(asyncio.get_running_loop(), None)
        if script is not None and script.registered_client is not self._redis:
            await script.registered_client.aclose()

    async def _run(self, asked: dict[str, Any]) -> Any:
        return await self._script()(**asked)

    def _script(self) -> Any:
        loop = asyncio.get_running_loop()
        script = self._scripts.get(loop)
        if script is None:
            client = self._redis
            if isinstance(client, str):
                once_more = AsyncRetry(NoBackoff(), 1, (ConnectionLost,))
                client = redis.asyncio.Redis.from_url(client, retry=once_more, **_timeouts(self._timeout_s))
            script = self._scripts.setdefault(loop, client.register_script(program()))
        return script


def _timeouts(timeout_s: float) -> dict[str, Any]:
    return {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


def _turn(answer: Any) -> Turn:
    wait, slot = answer
    text = slot.decode() if isinstance(slot, bytes) else str(slot)
    return Turn(int(wait) / SECOND, text or None)
