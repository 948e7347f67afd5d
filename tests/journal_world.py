"""A world in which three workers, a queue, a journal and a provider fail in every order.

Each attempt runs the real dispatcher in a thread of its own, which stops at every point where a process could die or
freeze, and goes on when told to: one thread runs at a time. Killed, it never goes on. Time is the world's, for the
journal too; a worker that is not told to go on while time passes is frozen. What is promised is checked as it happens.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from random import Random
from typing import Any, Final, Protocol, assert_never

from smsretry import (
    Accepted,
    AttemptState,
    Deferred,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    OnUnknown,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
)
from smsretry.core.claims import Claim
from smsretry.core.events import Event
from smsretry.errors import ProviderError
from smsretry.ports import CannotTell, Journal, LookUp
from smsretry.senders.twilio.lookup import ListedMessage, verdict
from tests.shells import DrivenDispatcher

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
LEASE_S: Final = 60.0
TIMEOUT_S: Final = 10.0
SETTLE_S: Final = 40.0
SETTLE_ERROR_S: Final = 25.0
MOST_LATE_S: Final = 15.0
"""How long after a request left the provider takes its text at the latest."""
MOST_LAG_S: Final = 20.0
"""How long after it was taken a text is listed at the latest."""
LONGEST_GAP_S: Final = 19.0
"""How long a process freezes between its last look at the lease and the write: 15 s of the lease are left at least, the
doubt settles ``SETTLE_S`` after that, and by then the text must be taken and listed."""
STEP_S: Final = 0.01
MOST_STEPS_TO_END: Final = 30_000


class Killed(BaseException):
    """End the thread of a worker where it stands, as SIGKILL does."""


class Violation(AssertionError):
    """A promise was broken."""


class JournalAway(Exception):
    """The database cannot be reached, or its answer was lost."""


class Point(Enum):
    """Where a worker stands."""

    BEFORE_JOURNAL = auto()
    AFTER_JOURNAL = auto()
    BEFORE_WRITE = auto()
    """It has looked at its lease for the last time, and the request has not left."""
    IN_SEND = auto()
    """The request has left, the answer has not come."""
    BEFORE_ASKING = auto()
    AFTER_ASKING = auto()
    BEFORE_PUBLISH = auto()
    BEFORE_ACK = auto()


class Reach(Enum):
    """What a call of the journal meets, decided before it and after it."""

    FINE = auto()
    AWAY = auto()
    """Before the call: it fails and writes nothing. After it: it wrote, and the answer is lost."""


class Answer(Enum):
    """What a send meets; a text is taken where the name says so."""

    TAKEN = auto()
    RATE_LIMITED = auto()
    REFUSED_CONNECTION = auto()
    WRONG_NUMBER = auto()
    LOST = auto()
    LOST_BUT_TAKEN = auto()
    STATED_ERROR = auto()
    STATED_ERROR_BUT_TAKEN = auto()


class Submission(Enum):
    """How a message comes."""

    PLANNED = auto()
    LOST = auto()
    """Planned, and lost by the queue at once."""
    BARE = auto()
    """Queued only: nobody knows of it before its first begin, so the queue must not lose it."""


class Listing(Enum):
    """What a look-up meets."""

    COMPLETE = auto()
    FORBIDDEN = auto()
    RATE_LIMITED = auto()


BLINDLY: Final = frozenset({OnUnknown.RESEND, OnUnknown.LOOK_UP_OR_RESEND})
"""Whoever chooses one of these may double a text."""
OPENS_DOUBT: Final = frozenset(Answer) - {
    Answer.TAKEN,
    Answer.RATE_LIMITED,
    Answer.REFUSED_CONNECTION,
    Answer.WRONG_NUMBER,
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What a worker meets between the point where it stands and the next."""

    reach: Reach = Reach.FINE
    answer: Answer = Answer.TAKEN
    listing: Listing = Listing.COMPLETE
    late: float = 0.0
    """When the provider takes the text: a share of the longest that it may take."""
    lag: float = 0.0
    """When it is listed: a share of the longest lag."""


WELL: Final = Fate()


class Recoverable(Protocol):
    """Be a journal that this world can run on."""

    def journal(self, world: World) -> Journal: ...

    def plan(self, message: Message) -> None:
        """Note that it will be sent, where the journal can."""

    def recover(self, world: World) -> None:
        """Queue again what nobody works on."""

    def has_ended(self, message_id: str) -> bool:
        """Say whether the journal holds an end that nobody may have told."""
        ...

    def cancel(self, message_id: str) -> bool:
        """Take it back, where the journal can."""
        ...

    def mend(self, world: World) -> None:
        """Send once more what failed because the account was refused."""

    def check(self, world: World, *, at_end: bool) -> None:
        """Check what the journal counts."""


@dataclass(slots=True, kw_only=True)
class Delivery:
    """A message in the queue, as JSON."""

    message_id: str
    body: str
    due_s: float


@dataclass(slots=True, kw_only=True)
class Text:
    """A text that the provider takes, now or soon."""

    sid: str
    message_id: str
    round: int
    to: str
    body: str
    taken_s: float
    listed_s: float


@dataclass(slots=True)
class Tracked:
    """What the world knows of a message."""

    message: Message
    end: Accepted | GaveUp | None = None
    sends: Counter[int] = field(default_factory=Counter)
    is_disturbed: bool = False
    """True once a worker died or froze over it, an answer was lost or the journal was away: that explains a doubt."""
    is_bare: bool = False
    is_proven: bool = False
    """True once the journal was told the provider's id: from then on nothing but accepted is true."""
    canceled_at: datetime | None = None
    doubted: set[int] = field(default_factory=set)
    """In which rounds a send may have been taken although nobody said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a world is set up."""

    choice: OnUnknown = OnUnknown.LOOK_UP
    retries: int = 3
    settle_s: float = SETTLE_S
    lag_s: float = MOST_LAG_S
    longest_deferral_s: float = 1_500.0
    looks: int = 6
    counts_frozen_time: bool = True
    """False where the clock that the workers measure leases with stands still: rule 6 broken."""
    listing_at_last: Listing = Listing.COMPLETE
    refuses_at_last: bool = False
    """True where the account stays refused for ever."""

    def policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_retries=self.retries,
            on_unknown=self.choice,
            settle_after_s=self.settle_s,
            settle_after_error_s=min(SETTLE_ERROR_S, self.settle_s),
            max_deferral_s=self.longest_deferral_s,
            max_looks=self.looks,
        )


class World:
    """Hold the time, the queue, the provider and the workers, and check what is promised."""

    def __init__(self, keeper: Recoverable, setting: Setting = Setting(), *, sender: type[Line] | None = None) -> None:
        self.now_s = 0.0
        self.setting = setting
        self.keeper = keeper
        self.queue: list[Delivery] = []
        self.known: dict[str, Tracked] = {}
        self.provider = Provider(self)
        self.broken: list[str] = []
        self.steps = 0
        self.journal = keeper.journal(self)
        self.workers = [Worker(self, offset_s, sender or Line) for offset_s in (-40.0, 0.0, 40.0)]
        self.recovered_s = 0.0

    # What happens ------------------------------------------------------------------------------------------------

    def submit(self, message: Message, how: Submission) -> None:
        """Plan a message and queue it, or one of the two."""
        self.known[str(message.id)] = Tracked(message, is_bare=how is Submission.BARE)
        if how is not Submission.BARE:
            self.keeper.plan(message)
        if how is not Submission.LOST:
            self.send(message)

    def send(self, message: Message, /) -> None:
        """Queue a message anew: what recover calls."""
        self.publish(message, AttemptState(), 0.0)

    def publish(self, message: Message, state: AttemptState, delay_s: float) -> None:
        body = json.dumps({"message": message.to_dict(), "state": state.to_dict()})
        self.queue.append(Delivery(message_id=str(message.id), body=body, due_s=self.now_s + delay_s))

    def start(self, worker: Worker, pick: int, *, early: bool = False) -> None:
        """Let an idle worker take any delivery that is due, or any at all: a queue reorders."""
        due = [one for one in self.queue if early or one.due_s <= self.now_s]
        if worker.is_idle and not worker.is_frozen and due:
            delivery = due[pick % len(due)]
            self.queue.remove(delivery)
            worker.start(delivery)
            self._check()

    def go_on(self, worker: Worker, fate: Fate = WELL) -> None:
        """Let a worker go on to its next point."""
        if not (worker.is_idle or worker.is_frozen):
            self.now_s += STEP_S
            self.steps += 1
            worker.resume(fate)
            self._check()

    def finish(self, worker: Worker, fate: Fate = WELL) -> None:
        """Let a worker go on until its attempt is over."""
        while not (worker.is_idle or worker.is_frozen):
            self.go_on(worker, fate)

    def freeze(self, worker: Worker, seconds: float) -> None:
        """Stop a worker where it stands for some time, the others go on."""
        worker.frozen_until_s = self.now_s + seconds

    def kill(self, worker: Worker, *, redelivered: bool) -> None:
        """End a worker where it stands; its delivery comes back, or was acknowledged early."""
        if not worker.is_idle:
            delivery = worker.kill()
            self.known[delivery.message_id].is_disturbed = True
            if redelivered or self.known[delivery.message_id].is_bare:
                self.queue.append(replace(delivery, due_s=self.now_s))

    def wait(self, seconds: float) -> None:
        """Let time pass; a process at the write itself freezes no longer than the promise allows."""
        self.wait_until(self.now_s + seconds)

    def wait_until(self, until_s: float) -> None:
        while (soonest := min((one.must_write_s for one in self.workers), default=until_s)) < until_s:
            self.now_s = max(self.now_s, soonest)
            writes = next(one for one in self.workers if one.must_write_s == soonest)
            writes.frozen_until_s = 0.0
            self.go_on(writes)
        self.now_s = max(self.now_s, until_s)
        for worker in self.workers:
            if worker.delivery is not None and self.now_s >= worker.lease_ends_s:
                self.known[worker.delivery.message_id].is_disturbed = True

    def wait_for_work(self) -> None:
        """Let time pass until a delivery is due, or somebody thaws; a minute where neither is to come."""
        moments = [one.due_s for one in self.queue] + [one.frozen_until_s for one in self.workers]
        self.wait_until(min((one for one in moments if one > self.now_s), default=self.now_s + 60.0))

    def repeat(self, pick: int) -> None:
        """Deliver something again that waits or is being worked on."""
        at_work = [one.delivery for one in self.workers if one.delivery is not None]
        if there := [*self.queue, *at_work]:
            self.queue.append(replace(there[pick % len(there)], due_s=self.now_s))

    def recover(self) -> None:
        self.recovered_s = self.now_s
        self.keeper.recover(self)
        self._check()

    def cancel(self, pick: int) -> None:
        """Take back a message that may be in the queue or in the hands of a worker."""
        if self.known:
            key = list(self.known)[pick % len(self.known)]
            if self.keeper.cancel(key):
                self.known[key].canceled_at = self.clock()
            self._check()

    def mend(self) -> None:
        """Send once more what failed for the account's sake, while nobody holds an end that he has yet to tell."""
        if all(worker.is_idle for worker in self.workers):
            self.keeper.mend(self)
            self._check()

    def begin_anew(self, message: Message) -> None:
        """Note that a message has a new round, and queue it."""
        self.known[str(message.id)].end = None
        self.send(message)

    def settle_down(self) -> None:
        """Let all faults stop, and every message end."""
        self.provider.refuses_until_s = math.inf if self.setting.refuses_at_last else 0.0
        well = Fate(listing=self.setting.listing_at_last)
        most = self.steps + MOST_STEPS_TO_END
        while still := [key for key, one in self.known.items() if one.end is None and not self.keeper.has_ended(key)]:
            if self.steps > most:
                raise Violation(f"{still} never ended")
            for worker in self.workers:
                self.start(worker, 0)
                self.finish(worker, well)
            if not self.able:
                self.steps += 1
                self.wait_for_work()
            if self.now_s >= self.recovered_s + 60.0:
                self.steps += 1
                self.recover()
        self.check_ends()

    @property
    def able(self) -> list[Worker]:
        """Return the workers that could do something now."""
        has_work = any(one.due_s <= self.now_s for one in self.queue)
        return [one for one in self.workers if not one.is_frozen and (has_work or not one.is_idle)]

    def close(self) -> None:
        """End the threads that still stand somewhere."""
        for worker in self.workers:
            if not worker.is_idle:
                worker.kill()

    # What is promised --------------------------------------------------------------------------------------------

    def clock(self) -> datetime:
        """Return the present moment by the journal's clock."""
        return START + timedelta(seconds=self.now_s)

    def elapsed(self) -> float:
        return self.now_s if self.setting.counts_frozen_time else 0.0

    def violated(self, what: str) -> None:
        """Note it for the thread that drives: one that is raised here would be taken for a fault of a sender."""
        self.broken.append(f"{what} (at {self.now_s:.2f} s)")

    def claimed(self, claim: Claim) -> None:
        key = str(claim.message.id)
        if claim.dead_since is not None and not self.known[key].is_disturbed:
            self.violated(f"{key}: a claim that sent nothing became a doubt")

    def begins_to_send(self, message: Message) -> None:
        if message.send_before is not None and self.clock() > message.send_before:
            self.violated(f"{message.id}: sent after send_before")

    def left(self, message: Message, claim: Claim, *, asked: bool) -> None:
        """Check a request that has left for an account that is served."""
        tracked, this = self.known[str(message.id)], claim.state.round
        if tracked.canceled_at is not None and claim.now > tracked.canceled_at:
            self.violated(f"{message.id}: sent after it was canceled")
        if this in tracked.doubted and not asked and self.setting.choice is not OnUnknown.RESEND:
            self.violated(f"{message.id}: sent unasked after a send in doubt")
        tracked.sends[this] += 1
        if tracked.sends[this] > self.setting.retries + 1:
            self.violated(f"{message.id}: more sends than the policy allows")

    def took(self, text: Text) -> None:
        copies = [one for one in self.provider.texts if (one.message_id, one.round) == (text.message_id, text.round)]
        if len(copies) > 1 and self.setting.choice not in BLINDLY:
            self.violated(f"{text.message_id}: texted {len(copies)} times in round {text.round}")

    def ended(self, message_id: str, end: Accepted | GaveUp) -> None:
        """Check an end against what the provider has."""
        tracked = self.known[message_id]
        self._check_end(message_id, tracked, end)
        if not isinstance(tracked.end, Accepted):  # an unknown end may be told after it turned out to be none
            tracked.end = end

    def _check_end(self, key: str, tracked: Tracked, end: Accepted | GaveUp) -> None:
        texts = [one.sid for one in self.provider.texts if one.message_id == key]
        match end:
            case Accepted(receipt) if receipt.provider_id not in texts:
                self.violated(f"{key}: accepted, and the provider has {texts or 'nothing'}")
            case GaveUp() if _is_known(end) and texts:
                self.violated(f"{key}: {end.reason}, and the provider has {texts}")
            case GaveUp() if not _is_known(end) and not tracked.is_disturbed:
                self.violated(f"{key}: unknown, and nothing had happened")
            case _:
                pass

    def given_up(self, message_id: str, end: Accepted | GaveUp) -> None:
        """Note that a copy was given up for want of the journal, which goes on with it; a bare one comes again."""
        tracked = self.known[message_id]
        self._check_end(message_id, tracked, end)
        if tracked.is_bare:
            self.send(tracked.message)

    def check_ends(self) -> None:
        """Ask the journal once more about every message: the ends that were told are the ones that hold."""
        for worker in self.workers:
            worker.frozen_until_s = 0.0
            self.finish(worker)
        worker = self.workers[1]
        for key, tracked in self.known.items():
            self.send(tracked.message)
            delivery = self.queue.pop()
            worker.start(delivery)
            sends = sum(tracked.sends.values())
            self.finish(worker)
            if sum(tracked.sends.values()) != sends or tracked.end is None:
                self.violated(f"{key}: its end does not hold")
            if tracked.is_proven and not isinstance(tracked.end, Accepted):
                self.violated(f"{key}: the journal was told its id, and it ended as {tracked.end}")
        self.keeper.check(self, at_end=True)
        self._check()

    def _check(self) -> None:
        self.keeper.check(self, at_end=False)
        if self.broken:
            raise Violation("; ".join(self.broken))


def _is_known(end: GaveUp) -> bool:
    return end.reason is not GiveUpReason.OUTCOME_UNKNOWN


class Worker:
    """One process: a dispatcher with its own clock, and a thread for the attempt that it makes."""

    def __init__(self, world: World, offset_s: float, sender: type[Line]) -> None:
        self.world = world
        self.offset = timedelta(seconds=offset_s)
        self.point: Point | None = None
        self.delivery: Delivery | None = None
        self.claim: Claim | None = None
        self.must_write_s = float("inf")
        self.lease_ends_s = float("inf")
        self.frozen_until_s = 0.0
        self.has_asked = False
        self.has_begun = False
        """True once the journal has answered: an end is the journal's then."""
        self.told: list[Event] = []
        shell = Dispatcher if offset_s else DrivenDispatcher  # one worker in three is async
        self._dispatcher = shell(
            sender(self),
            policy=world.setting.policy(),
            clock=self.clock,
            draw=lambda: 0.0,
            sink=Told(self),
            journal=Watched(self, world.journal),
            lease_s=LEASE_S,
            elapsed=world.elapsed,
        )
        self._fate = WELL
        self._is_killed = False
        self._may_go = threading.Semaphore(0)
        self._stands = threading.Semaphore(0)

    @property
    def is_idle(self) -> bool:
        return self.delivery is None

    @property
    def is_frozen(self) -> bool:
        return self.world.now_s < self.frozen_until_s

    def works_on(self, message_id: str) -> bool:
        return self.delivery is not None and self.delivery.message_id == message_id

    def clock(self) -> datetime:
        return self.world.clock() + self.offset

    def start(self, delivery: Delivery) -> None:
        self.delivery, self.claim, self.lease_ends_s, self.has_asked = delivery, None, float("inf"), False
        self.has_begun = False
        threading.Thread(target=self._run, args=(delivery,), daemon=True).start()
        self._stands.acquire()

    def resume(self, fate: Fate) -> None:
        self._fate = fate
        self._may_go.release()
        self._stands.acquire()

    def kill(self) -> Delivery:
        delivery = self.delivery
        assert delivery is not None
        self._is_killed, self.frozen_until_s = True, 0.0
        self.resume(WELL)
        self._is_killed = False
        return delivery

    def pause(self, point: Point) -> Fate:
        """Stand at ``point`` until told to go on."""
        self.point = point
        self.must_write_s = self.world.now_s + LONGEST_GAP_S if point is Point.BEFORE_WRITE else float("inf")
        self._stands.release()
        self._may_go.acquire()
        self.must_write_s = float("inf")
        if self._is_killed:
            raise Killed
        return self._fate

    def _run(self, delivery: Delivery) -> None:
        try:
            self._attempt(json.loads(delivery.body))
        except Killed:
            pass
        except BaseException as error:
            self.world.violated(f"{type(error).__name__}: {error}")
        finally:
            self.point = self.delivery = self.claim = None
            self._stands.release()

    def _attempt(self, envelope: dict[str, Any]) -> None:
        message, state = Message.from_dict(envelope["message"]), AttemptState.from_dict(envelope["state"])
        outcome = self._dispatcher.attempt(message, state)
        self.pause(Point.BEFORE_PUBLISH)
        self._follow(message, outcome)
        self.pause(Point.BEFORE_ACK)

    def _follow(self, message: Message, outcome: Outcome) -> None:
        match outcome:
            case RetryAfter() | Deferred():
                self.world.publish(message, outcome.state, outcome.delay_s)
            case Accepted() | GaveUp() if self.has_begun:
                self.world.ended(str(message.id), outcome)
            case Accepted() | GaveUp():
                self.world.given_up(str(message.id), outcome)
            case _ as unreachable:
                assert_never(unreachable)


@dataclass(frozen=True, slots=True)
class Told:
    """Be the sink of a worker."""

    worker: Worker

    def record(self, event: Event, /) -> None:
        self.worker.told.append(event)


class Watched:
    """Be the journal as one worker sees it: it may die or freeze before and after each call, and so may the answer."""

    def __init__(self, worker: Worker, journal: Journal) -> None:
        self._worker = worker
        self._journal = journal

    def begin(self, message: Message, /, *, hint: AttemptState, **asked: Any) -> Any:
        begun = self._call(self._journal.begin, message, hint=hint, **asked)
        self._worker.has_begun = True
        if isinstance(begun, Claim):
            self._worker.claim = begun
        if hint.provider_id is not None:
            self._worker.world.known[str(message.id)].is_proven = True
        return begun

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        return self._call(self._journal.renew, claim, lease_s=lease_s)

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Any:
        instead = self._call(self._journal.finish, claim, outcome, event)
        if isinstance(outcome, Accepted) and (instead is None or not outcome.looked_up):
            self._worker.world.known[str(claim.message.id)].is_proven = True
        return instead

    def release(self, claim: Claim, /) -> None:
        self._call(self._journal.release, claim)

    def others(self, claim: Claim, /, *, since: datetime) -> Any:
        self._worker.has_asked = True  # or tried to: a journal that is away leaves a look-up without an answer
        return self._call(self._journal.others, claim, since=since)

    def hold(self, account: str, failure: Failure, /) -> None:
        self._call(self._journal.hold, account, failure)

    def reopen(self, account: str, /) -> None:
        self._call(self._journal.reopen, account)

    def _call(self, work: Callable[..., Any], *values: Any, **named: Any) -> Any:
        if self._worker.pause(Point.BEFORE_JOURNAL).reach is Reach.AWAY:
            raise self._away()
        done = work(*values, **named)
        if isinstance(done, Claim) or done is True:
            self._worker.lease_ends_s = self._worker.world.now_s + LEASE_S
        if isinstance(done, Claim):
            self._worker.world.claimed(done)
        if self._worker.pause(Point.AFTER_JOURNAL).reach is Reach.AWAY:
            raise self._away()
        return done

    def _away(self) -> JournalAway:
        delivery = self._worker.delivery
        assert delivery is not None
        self._worker.world.known[delivery.message_id].is_disturbed = True
        return JournalAway()


class Provider:
    """Take texts, now or some seconds later, and list them late."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sids = itertools.count(1)
        self.texts: list[Text] = []
        self.refuses_until_s = 0.0
        self.posts = 0

    @property
    def refuses_account(self) -> bool:
        return self._world.now_s < self.refuses_until_s

    def receive(self, message: Message, claim: Claim, fate: Fate) -> Text | None:
        """Get a request; return the text where it is taken, or will be."""
        self.posts += 1
        if self.refuses_account or not (fate.answer is Answer.TAKEN or fate.answer.name.endswith("BUT_TAKEN")):
            return None
        taken_s = self._world.now_s + fate.late * MOST_LATE_S
        text = Text(
            sid=f"SM{next(self._sids)}",
            message_id=str(message.id),
            round=claim.state.round,
            to=message.to,
            body=message.body.replace("https://example.com/offers", "https://sho.rt/1"),
            taken_s=taken_s,
            listed_s=taken_s + fate.lag * self._world.setting.lag_s,
        )
        self.texts.append(text)
        self._world.took(text)
        return text

    def answer(self, text: Text | None, answer: Answer, *, refused: bool) -> Receipt:
        if refused:
            raise ProviderError(Failure.of(FailureKind.AUTH, http_status=401))
        match answer:
            case Answer.TAKEN:
                assert text is not None
                return Receipt("model", text.sid, self._world.clock())
            case Answer.RATE_LIMITED:
                raise ProviderError(Failure.of(FailureKind.RATE_LIMITED, retry_after_s=3.0))
            case Answer.REFUSED_CONNECTION:
                raise ConnectionRefusedError
            case Answer.WRONG_NUMBER:
                raise ProviderError(Failure.of(FailureKind.INVALID_NUMBER))
            case Answer.LOST | Answer.LOST_BUT_TAKEN:
                raise TimeoutError
            case Answer.STATED_ERROR | Answer.STATED_ERROR_BUT_TAKEN:
                raise ProviderError(Failure.of(FailureKind.TEMPORARY, maybe_sent=True, http_status=500))
            case _ as unreachable:
                assert_never(unreachable)

    def listed(self, to: str) -> list[ListedMessage]:
        now_s = self._world.now_s
        return [_row(text) for text in self.texts if text.to == to and text.listed_s <= now_s]


def _row(text: Text) -> ListedMessage:
    return ListedMessage(
        sid=text.sid,
        to=text.to,
        body=text.body,
        from_=None,
        messaging_service_sid=None,
        direction="outbound-api",
        created_at=START + timedelta(seconds=text.taken_s),
        media=0,
        segments=1,
        status="sent",
    )


class Line:
    """Be the sender of one worker."""

    timeout_s = TIMEOUT_S
    account_key = "model"

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.provider = worker.world.provider

    def send(self, message: Message, /) -> Receipt:
        claim, world = self.worker.claim, self.worker.world
        assert claim is not None
        world.begins_to_send(message)
        fate = self.worker.pause(Point.BEFORE_WRITE)
        refused = self.provider.refuses_account
        if not refused:
            world.left(message, claim, asked=self.worker.has_asked)
        text = self.provider.receive(message, claim, fate)
        if fate.answer in OPENS_DOUBT and not refused:
            world.known[str(message.id)].is_disturbed = True
            world.known[str(message.id)].doubted.add(claim.state.round)
        self.worker.pause(Point.IN_SEND)
        if text is not None and fate.answer is not Answer.LOST_BUT_TAKEN:  # it answers when it has taken it
            earlier_s = max(0.0, text.taken_s - world.now_s)
            text.taken_s, text.listed_s = text.taken_s - earlier_s, text.listed_s - earlier_s
        return self.provider.answer(text, fate.answer, refused=refused)

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        fate = self.worker.pause(Point.BEFORE_ASKING)
        answer = self._looked_up(message, since, exclude, fate.listing)
        self.worker.pause(Point.AFTER_ASKING)
        return answer

    def _looked_up(self, message: Message, since: datetime, exclude: Collection[str], listing: Listing) -> LookUp:
        if listing is not Listing.COMPLETE:
            return CannotTell("403" if listing is Listing.FORBIDDEN else "429")
        rows = [
            row
            for row in self.provider.listed(message.to)
            if row.could_be(message, since=since) and row.sid not in exclude
        ]
        return verdict(rows, message, None, self.worker.clock())


NUMBERS: Final = ("+15005550006", "+15005550007")
BODIES: Final = ("Your table is ready.", "Your table is ready.", "See https://example.com/offers", "We close at six.")
DEADLINES_S: Final = (None, None, None, None, 90.0, 400.0)
WAITS_S: Final = (0.5, 2.0, 5.0, 16.0, 31.0, 41.0, 61.0, 130.0, 400.0)
MOST_UNDER_WAY: Final = 4
SHARES: Final = (0.0, 0.5, 1.0)


def message_of(world: World, to: int, body: int, deadline: int) -> Message:
    """Return a message of which others may have the same number and text."""
    left_s = DEADLINES_S[deadline % len(DEADLINES_S)]
    return Message(
        NUMBERS[to % len(NUMBERS)],
        BODIES[body % len(BODIES)],
        id=f"m{len(world.known)}",
        campaign="spring",
        send_before=None if left_s is None else world.clock() + timedelta(seconds=left_s),
    )


def random_setting(dice: Random, choices: Sequence[OnUnknown]) -> Setting:
    """Draw how a world is set up."""
    return Setting(
        choice=dice.choice(choices),
        retries=dice.choice([0, 1, 3, 3, 12, 12]),
        listing_at_last=dice.choice([Listing.COMPLETE, Listing.COMPLETE, Listing.FORBIDDEN]),
        refuses_at_last=dice.random() < 0.2,
    )


class Move(Enum):
    """What may happen next."""

    STEP = auto()
    """A worker takes a delivery, or goes on to its next point."""
    FINISH = auto()
    KILL = auto()
    FREEZE = auto()
    WAIT = auto()
    WAIT_FOR_WORK = auto()
    SUBMIT = auto()
    REPEAT = auto()
    RECOVER = auto()
    CANCEL = auto()
    MEND = auto()
    REFUSE_ACCOUNT = auto()


USUALLY: Final = {
    Move.STEP: 70.0,
    Move.FINISH: 10.0,
    Move.KILL: 3.0,
    Move.FREEZE: 3.0,
    Move.WAIT: 6.0,
    Move.WAIT_FOR_WORK: 6.0,
    Move.SUBMIT: 3.0,
    Move.REPEAT: 3.0,
    Move.RECOVER: 2.0,
    Move.CANCEL: 0.3,
    Move.MEND: 0.5,
    Move.REFUSE_ACCOUNT: 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How one walk differs from others: what never happens in it, and what happens often, finds more than the mean."""

    weights: Mapping[Move, float]
    answers: Sequence[Answer]
    listings: Sequence[Listing]
    away: float
    freezes_s: Sequence[float]
    alike: int
    """1 where all messages go to one number with one text."""
    messages: int

    @classmethod
    def draw(cls, dice: Random) -> Times:
        return cls(
            weights={one: much * dice.choice(_RATES if one in _NEEDED else _AT_TIMES) for one, much in USUALLY.items()},
            answers=[Answer.TAKEN, *dice.choices(list(Answer), k=3), *dice.choices(list(Answer), k=1)],
            listings=dice.choice(_LISTINGS),
            away=dice.choice((0.0, 0.04, 0.15)),
            freezes_s=dice.choice((WAITS_S, (61.0, 100.0, 130.0), (400.0, 1_000.0))),
            alike=dice.choice((1, 60)),
            messages=dice.randint(1, MOST_UNDER_WAY),
        )

    def fate(self, dice: Random) -> Fate:
        """Draw what a worker meets."""
        return Fate(
            reach=Reach.AWAY if dice.random() < self.away else Reach.FINE,
            answer=dice.choice(self.answers),
            listing=dice.choice(self.listings),
            late=dice.choice(SHARES),
            lag=dice.choice(SHARES),
        )

    def submit(self, world: World, dice: Random) -> None:
        """Submit one more message, while not too many are under way."""
        if sum(one.end is None for one in world.known.values()) < self.messages:
            message = message_of(world, dice.randrange(self.alike), dice.randrange(self.alike), dice.randrange(60))
            world.submit(message, dice.choice(list(Submission)))

    def happens(self, world: World, dice: Random) -> None:  # noqa: C901  # a table
        """Let one thing happen."""
        worker, pick = dice.choice(world.workers), dice.randrange(60)
        match dice.choices(list(self.weights), list(self.weights.values()))[0]:
            case Move.STEP:
                self._step(world, pick, dice)
            case Move.FINISH:
                world.finish(worker, self.fate(dice))
            case Move.KILL:
                world.kill(worker, redelivered=dice.random() < 0.7)
            case Move.FREEZE:
                world.freeze(worker, dice.choice(self.freezes_s))
            case Move.WAIT:
                world.wait(dice.choice(WAITS_S))
            case Move.WAIT_FOR_WORK:
                world.wait_for_work()
            case Move.SUBMIT:
                self.submit(world, dice)
            case Move.REPEAT:
                world.repeat(pick)
            case Move.RECOVER:
                world.recover()
            case Move.CANCEL:
                world.cancel(pick)
            case Move.MEND:
                world.mend()
            case Move.REFUSE_ACCOUNT:
                world.provider.refuses_until_s = world.now_s + dice.choice(WAITS_S)
            case _ as unreachable:
                assert_never(unreachable)

    def _step(self, world: World, pick: int, dice: Random) -> None:
        if all(one.end for one in world.known.values()):
            self.submit(world, dice)
        elif not (able := world.able):
            world.wait_for_work()
        elif (worker := dice.choice(able)).is_idle:
            world.start(worker, pick, early=dice.random() < 0.1)
        else:
            world.go_on(worker, self.fate(dice))


_LISTINGS: Final = (
    (Listing.COMPLETE,),
    (*[Listing.COMPLETE] * 4, *Listing),
    (*Listing, *[Listing.FORBIDDEN] * 4),
)
_NEEDED: Final = {Move.STEP, Move.WAIT}
_RATES: Final = (0.3, 1.0, 4.0)
_AT_TIMES: Final = (0.0, 1.0, 1.0, 4.0)


def walk(world: World, dice: Random, *, moves: int = 200, times: Times | None = None) -> None:
    """Let ``moves`` things happen at random, and then every message end."""
    times = times or Times.draw(dice)
    try:
        times.submit(world, dice)
        for _ in range(moves):
            times.happens(world, dice)
        world.settle_down()
    finally:
        world.close()
