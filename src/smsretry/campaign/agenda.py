"""Keep what a campaign has to do: who is ready, who waits until when, and what came of the others. Nothing waits here.

Times are seconds of a clock that never jumps.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final, assert_never

from smsretry.core.failure import Failure
from smsretry.core.message import Message
from smsretry.core.outcome import (
    Accepted,
    AttemptState,
    DeferReason,
    Deferred,
    GaveUp,
    GiveUpReason,
    Outcome,
    RetryAfter,
)

MOST_WAITING: Final = 5_000
"""So many messages may wait before no further one is read, or four for each that is sent at once, if that is more."""
_NEW: Final = AttemptState()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Count what became of the messages of a campaign, at one moment of one run.

    Every message that was taken is counted once::

        taken = accepted + failed + expired + canceled + unknown + refused + waiting + in_flight

    At the end of a run that was not stopped, nothing waits and nothing is in flight.
    """

    taken: int
    """Messages that were read."""
    accepted: int
    """The provider took them; with a journal, in an earlier run too."""
    failed: int
    expired: int
    canceled: int
    unknown: int
    """Nobody can say whether the provider took them."""
    refused: int
    """No message at all, or an id that the journal knows with another recipient or text: not sent, and logged."""
    waiting: int
    """For a retry, for a look-up, or for their turn."""
    in_flight: int
    """At the provider at this moment."""
    retries: int
    elapsed_s: float
    """Seconds since the run began."""
    on_hold: Failure | None = None
    """Why nothing is sent at present: the provider refuses the account. It is asked again every minute."""
    next_in_s: float | None = None
    """Seconds until the next message's turn, where nothing can be done before: it is seen that nothing hangs."""

    @property
    def ended(self) -> int:
        """Return how many messages have ended, however."""
        return self.taken - self.waiting - self.in_flight


@dataclass(frozen=True, slots=True)
class Job:
    """Hold a message and what its last attempt left."""

    message: Message
    state: AttemptState = _NEW


class Agenda:
    """Say whose turn it is; not for several threads at once.

    ``now_s`` is when the run began; ``concurrency`` is how many are sent at once, and as many more are kept ready.
    """

    def __init__(self, concurrency: int, now_s: float) -> None:
        self._most_ready = concurrency
        self._most_waiting = max(MOST_WAITING, 4 * concurrency)
        self._began_s = now_s
        self._ready: deque[Job] = deque()
        self._waiting: list[tuple[float, int, Job]] = []
        self._order = 0
        self._ends: Counter[str] = Counter()
        self._taken = self._retries = self._in_flight = 0
        self._hold: Failure | None = None
        self._hold_until_s = 0.0
        self._probe: Job | None = None
        self._is_closed = self._is_stopped = False

    @property
    def has_room(self) -> bool:
        """Say whether one more message may be put on it."""
        return len(self._ready) < self._most_ready and len(self._waiting) < self._most_waiting

    @property
    def wants_more(self) -> bool:
        """Say whether it is worth while to read on: several at a time."""
        return self.has_room and len(self._ready) <= self._most_ready // 2

    @property
    def is_over(self) -> bool:
        """Say whether nothing is left to do, or to be done before a stop."""
        left = 0 if self._is_stopped else len(self._ready) + len(self._waiting)
        return not self._in_flight and not left and (self._is_closed or self._is_stopped)

    @property
    def is_stopped(self) -> bool:
        """Say whether `stop` was called."""
        return self._is_stopped

    def put(self, message: Message) -> None:
        """Take one more message, to be sent in its turn."""
        self._taken += 1
        self._ready.append(Job(message))

    def refuse(self, job: Job | None = None) -> None:
        """Count what cannot be sent: ``job``, which was taken from here, or something that was no message."""
        if job is None:
            self._taken += 1
        else:
            self._done(job)
        self._ends["refused"] += 1

    def put_back(self, job: Job) -> None:
        """Leave ``job``, which was taken from here, as one that waits: nobody knows what its attempt led to."""
        self._done(job)
        self._ready.appendleft(job)

    def close(self) -> None:
        """Note that no message follows."""
        self._is_closed = True

    def stop(self) -> None:
        """Let nothing begin any more; what waits is left."""
        self._is_stopped = True

    def has_turn(self, now_s: float) -> bool:
        """Say whether it is anybody's turn."""
        if self._is_stopped or (self._hold is not None and (self._probe is not None or now_s < self._hold_until_s)):
            return False
        return bool(self._ready) or self._has_due(now_s)

    def take(self, now_s: float) -> Job | None:
        """Return whose turn it is; None where nobody's is before `wait_s` is over or something has changed."""
        if not self.has_turn(now_s):
            return None
        job = heapq.heappop(self._waiting)[2] if self._has_due(now_s) else self._ready.popleft()
        self._in_flight += 1
        if self._hold is not None:
            self._probe = job
        return job

    def wait_s(self, now_s: float) -> float | None:
        """Return for how many seconds nobody's turn comes by itself; None where only a change brings one."""
        if self._is_stopped or self._probe is not None:
            return None
        if self._hold is not None:
            return max(0.0, self._hold_until_s - now_s)
        return max(0.0, self._waiting[0][0] - now_s) if self._waiting else None

    def settle(self, job: Job, outcome: Outcome, now_s: float) -> None:
        """Note what an attempt of ``job``, which was taken from here, led to."""
        probed = self._done(job)
        match outcome:
            case Accepted():
                self._ends["accepted"] += 1
            case GaveUp():
                self._ends[_ENDS.get(outcome.reason, "failed")] += 1
            case RetryAfter(delay_s):
                self._retries += 1
                self._wait(Job(job.message, outcome.state), now_s + delay_s)
            case Deferred(delay_s):
                self._wait(Job(job.message, outcome.state), now_s + delay_s)
            case _ as unreachable:
                assert_never(unreachable)
        if isinstance(outcome, Deferred) and outcome.reason is DeferReason.ON_HOLD and outcome.failure is not None:
            self._hold, self._hold_until_s = outcome.failure, now_s + outcome.delay_s
        elif isinstance(outcome, Accepted) or (probed and not _is_unsent(outcome)):
            self._hold = None

    def progress(self, now_s: float) -> Progress:
        """Return the figures of this moment."""
        ends = {name: self._ends[name] for name in ("accepted", "failed", "expired", "canceled", "unknown", "refused")}
        return Progress(
            taken=self._taken,
            waiting=len(self._ready) + len(self._waiting),
            in_flight=self._in_flight,
            retries=self._retries,
            elapsed_s=now_s - self._began_s,
            on_hold=self._hold,
            next_in_s=None if self._in_flight or self.has_turn(now_s) else self.wait_s(now_s),
            **ends,
        )

    def _has_due(self, now_s: float) -> bool:
        return bool(self._waiting) and self._waiting[0][0] <= now_s

    def _wait(self, job: Job, due_s: float) -> None:
        self._order += 1
        heapq.heappush(self._waiting, (due_s, self._order, job))

    def _done(self, job: Job) -> bool:
        """Note that ``job`` is not in flight any more; return whether it was the probe of a hold."""
        self._in_flight -= 1
        probed = job is self._probe
        if probed:
            self._probe = None
        return probed


def _is_unsent(outcome: Outcome) -> bool:
    """Say whether the rate limiter had the message wait: then nobody asked whether the account is served again."""
    return isinstance(outcome, Deferred) and outcome.reason in {DeferReason.LIMITED, DeferReason.LIMITER_AWAY}


_ENDS: Final = {
    GiveUpReason.EXPIRED: "expired",
    GiveUpReason.CANCELED: "canceled",
    GiveUpReason.OUTCOME_UNKNOWN: "unknown",
}
