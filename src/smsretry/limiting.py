"""Ask a rate limiter before a send, and tell it what the provider refused as too fast."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast

from smsretry.core.failure import Failure
from smsretry.core.limit import OnUnreachable, Turn
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState, DeferReason
from smsretry.core.segments import segments
from smsretry.ports import Clock, FairLimiter
from smsretry.steps import AskLimiter, Steps

ASKED_AGAIN_S: Final = 5.0
"""How long a limiter that could not be reached is left alone."""
_SLOWEST: Final = 5
"""A message that is held again and again comes back after ``2**5`` seconds at the latest."""
_RETRIES: Final = "\0retries"
"""What is sent again waits apart: behind the rest of its campaign its delay would be lost among hours."""
_NOW: Final = Turn(0.0)
_HELD: Final = "held"


@dataclass(slots=True, kw_only=True)
class Limiting:
    """Ask for turns, at the time of ``clock``; ``sender`` says under which key a message counts.

    What holds while the limiter is away is said by ``on_unreachable``, and told once in the log.
    """

    sender: object
    clock: Clock
    on_unreachable: OnUnreachable
    _away_since: datetime | None = field(default=None, init=False)

    def turn(self, message: Message, state: AttemptState, longest_s: float) -> Steps[tuple[DeferReason, Turn]]:
        """Ask for a turn within ``longest_s`` seconds; where nobody answers, return what holds then."""
        now, key, cost = self.clock(), self.key_of(message), cost_of(message)
        campaign = (message.campaign or "") + (_RETRIES if state.retries else "")
        if not self._is_away(now):
            try:
                answer = yield AskLimiter(
                    lambda limiter: limiter.take_turn(
                        key, cost, now, campaign=campaign, slot=state.slot, within_s=longest_s
                    )
                )
                return DeferReason.LIMITED, self._heard(answer)
            except Exception as error:  # noqa: BLE001  # whatever a limiter raises: nothing was sent
                self._lost(now, error)
        return DeferReason.LIMITER_AWAY, self._instead(state, longest_s)

    def slow_down(self, message: Message, failure: Failure, longest_hint_s: float) -> Steps[None]:
        """Tell the limiter that the provider refused ``message`` as too fast; follow its hint so far."""
        now, key = self.clock(), self.key_of(message)
        retry_after_s = None if failure.retry_after_s is None else min(failure.retry_after_s, longest_hint_s)
        if self._is_away(now):
            return
        try:
            yield AskLimiter(lambda limiter: limiter.slow_down(key, now, retry_after_s=retry_after_s))
        except Exception as error:  # noqa: BLE001  # the next refusal says it again
            self._lost(now, error)

    def key_of(self, message: Message) -> str:
        """Return by what the rate of a message is counted: its sender, the default one, else the account."""
        if message.sender_id is not None:
            return message.sender_id
        own = getattr(self.sender, "rate_key", None) or getattr(self.sender, "account_key", None)
        return str(own or type(self.sender).__qualname__)

    def _is_away(self, now: datetime) -> bool:
        since = self._away_since
        return since is not None and timedelta() <= now - since < timedelta(seconds=ASKED_AGAIN_S)

    def _heard(self, answer: object) -> Turn:
        if not isinstance(answer, Turn) or not answer.wait_s >= 0.0:
            msg = f"take_turn() must return a Turn with a wait of 0 or more, got {answer!r}."
            raise TypeError(msg)
        if self._away_since is not None:
            self._away_since = None
            _log("warning", "The rate limiter answers again.")
        return answer

    def _lost(self, now: datetime, error: Exception) -> None:
        if self._away_since is None:
            what = "held" if self.on_unreachable is OnUnreachable.HOLD else "sent without a limit"
            _log("error", "The rate limiter cannot be reached (%s): messages are %s.", type(error).__qualname__, what)
        self._away_since = now

    def _instead(self, state: AttemptState, longest_s: float) -> Turn:
        if self.on_unreachable is OnUnreachable.GO_ON:
            return _NOW
        wait_s = 2.0 ** min(state.deferrals, _SLOWEST)
        return Turn(wait_s if longest_s <= 0.0 else min(wait_s, longest_s), state.slot)


def cost_of(message: Message) -> int:
    """Return how many segments a message counts: a text with media is one message to the network."""
    return 1 if message.media_urls else segments(message.body)


def as_fair(limiter: Any) -> FairLimiter:
    """Return ``limiter``, made to answer as a fair one where it can only reserve."""
    fair: Any = limiter
    if not callable(getattr(limiter, "take_turn", None)):
        fair = (_AwaitedReserving if inspect.iscoroutinefunction(limiter.reserve) else _Reserving)(limiter)
    return cast("FairLimiter", fair)


class _Reserving:
    """Answer as a fair limiter for one that can only reserve: a slot belongs to whoever got it."""

    def __init__(self, limiter: Any) -> None:
        self._limiter = limiter
        self.blocks = getattr(limiter, "blocks", True)

    def take_turn(self, key: str, cost: int, now: datetime, /, *, slot: str | None, **_: object) -> Turn:
        return _NOW if slot == _HELD else _turn(self._limiter.reserve(key, cost, now))

    def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None) -> None:
        if hasattr(self._limiter, "slow_down"):
            self._limiter.slow_down(key, now, retry_after_s=retry_after_s)


class _AwaitedReserving:
    """Do the same for one whose verbs are awaited."""

    def __init__(self, limiter: Any) -> None:
        self._limiter = limiter

    async def take_turn(self, key: str, cost: int, now: datetime, /, *, slot: str | None, **_: object) -> Turn:
        return _NOW if slot == _HELD else _turn(await self._limiter.reserve(key, cost, now))

    async def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None) -> None:
        if hasattr(self._limiter, "slow_down"):
            await self._limiter.slow_down(key, now, retry_after_s=retry_after_s)


def _turn(wait_s: float) -> Turn:
    return Turn(wait_s, _HELD if wait_s > 0.0 else None)


def _log(level: str, text: str, *values: object) -> None:
    import logging

    getattr(logging.getLogger("smsretry"), level)(text, *values)
