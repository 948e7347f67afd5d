"""The few verbs that the library asks of a sender, an analytics sink, a journal and a clock."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from smsretry.core.claims import Begun, Busy, Claim, Ended, Others
from smsretry.core.delivery import DeliveryReport, Mark, Received
from smsretry.core.events import Event
from smsretry.core.failure import Failure
from smsretry.core.limit import Turn
from smsretry.core.lookup import CannotTell, Found, LookUp, NotSeen
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState, Outcome
from smsretry.core.suppression import Suppression

__all__ = [
    "AnalyticsSink",
    "AsyncAnalyticsSink",
    "AsyncCanLookUp",
    "AsyncFairLimiter",
    "AsyncJournal",
    "AsyncRateLimiter",
    "AsyncSMSSender",
    "CanFetch",
    "CanLookUp",
    "CannotTell",
    "Classifier",
    "Clock",
    "DeliveryLog",
    "FairLimiter",
    "Found",
    "Journal",
    "LookUp",
    "NotSeen",
    "RateLimiter",
    "SMSSender",
    "SuppressionList",
    "Turn",
    "check_before_writing",
    "check_before_writing_async",
    "mark_of_send",
]


class SMSSender(Protocol):
    """Hand one text to one provider."""

    def send(self, message: Message, /) -> Receipt:
        """Make one attempt, one request, with a total timeout and no repeats of its own.

        Return the `Receipt` only where the provider said that it took the text; raise anything else. Raise
        `smsretry.errors.ProviderError` to state the failure; any other exception goes to the classifier.
        """
        ...


@runtime_checkable
class CanLookUp(Protocol):
    """Ask a provider whether it has a text; a sender that can do it is believed when an answer was lost."""

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Say whether the provider took ``message`` at or after ``since`` (aware UTC).

        Provider ids in ``exclude`` belong to other messages and are passed over.
        `Found` needs exactly one listed message with this recipient, text and account. `NotSeen` needs a complete,
        error-free listing without any outbound message to that number in the window that could be this one. Everything
        between, and every error, is `CannotTell`. It does not raise.
        """
        ...


@runtime_checkable
class CanFetch(Protocol):
    """Ask a provider where a text of ours is on its way."""

    def fetch(self, provider_id: str, /) -> DeliveryReport:
        """Return what the provider says now of the text that it calls ``provider_id``; raise what goes wrong."""
        ...


class DeliveryLog(Protocol):
    """Take note of delivery reports: `smsretry.store.SQLStore` does."""

    def receive(self, report: DeliveryReport, /) -> Received:
        """Write ``report`` and what follows from it, in one transaction; return only after it is durable.

        Reports may come in any order and repeatedly, and before the create's own answer. One with our message's id and
        mark settles a message in doubt as accepted. Where it raises, nothing is written.
        """
        ...


class SuppressionList(Protocol):
    """Know who must not be texted: `smsretry.store.SQLStore` does."""

    def suppressed(self, to: str, sender: str, /) -> Suppression | None:
        """Return the entry by which ``sender`` must not text ``to``; one for every sender counts too.

        Where nobody says who sends, ``sender`` is '', and an entry for any sender counts.
        """
        ...

    def suppress(self, entry: Suppression, /) -> None:
        """Put ``entry`` on the list; where there is one for this number and sender, that stays."""
        ...

    def lift(self, to: str, sender: str, /) -> bool:
        """Take the entry of this very number and sender off the list; False where there is none."""
        ...


class AnalyticsSink(Protocol):
    """Take note of what happened to a message."""

    def record(self, event: Event, /) -> None:
        """Store ``event``; the same ``event.event_id`` may come again and must count once.

        What it raises is logged and changes no outcome. Leave the event as it is: other sinks get the same one.
        """
        ...


class Journal(Protocol):
    """Remember, beyond the life of any worker, what was begun: one open claim per message.

    Times, leases and deadlines are by the journal's own clock. Every method returns only after what it says is durable;
    where it raises, nobody knows whether it was written, and the same call may be made again.
    `smsretry.core.claims` holds the rules; a journal brings a lock, a clock and a place to keep an `Entry`.
    """

    def begin(
        self,
        message: Message,
        /,
        *,
        hint: AttemptState,
        nonce: str,
        lease_s: float,
        account: str,
        most_deferred_s: float,
        rerun: bool = False,
    ) -> Begun:
        """Claim the next attempt of ``message``, or say why not.

        ``hint`` is the state that came with the message; it counts where this journal knows no begin, and what it holds
        of a provider's id counts always. ``nonce`` is new for each begin. ``rerun`` says that the text may have been
        rendered anew: then the text of the first begin is sent. Raises `smsretry.InvalidMessage`, and changes nothing,
        where the id belongs to another recipient or text. An account on hold lets one attempt a minute pass, and those
        that waited for ``most_deferred_s``, which end.
        """
        ...

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        """Begin the lease anew, for a send; False where the claim is lost, or the message was taken back meanwhile.

        Then nothing may be sent.
        """
        ...

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed, and count it; None where the claim was held, else what holds in its place.

        A message that was taken back meanwhile ends in place of a retry. That the provider took the text counts in any
        case.
        """
        ...

    def release(self, claim: Claim, /) -> None:
        """Give a claim back under which nothing was sent."""
        ...

    def others(self, claim: Claim, /, *, since: datetime) -> Others:
        """Return what is known, since ``since``, of other messages to the recipient of ``claim``.

        Provider's ids of earlier rounds of the same message count as those of other ones.
        """
        ...

    def hold(self, account: str, failure: Failure, /) -> None:
        """Note that the provider refuses ``account``: from now on one attempt a minute asks whether it still does."""
        ...

    def reopen(self, account: str, /) -> None:
        """Note that the provider serves ``account`` again."""
        ...


class RateLimiter(Protocol):
    """Say when something may be sent, so that a sender never carries more than it may."""

    def reserve(self, key: str, cost: int, now: datetime, /) -> float:
        """Reserve a slot for ``cost`` segments of the sender ``key``; return how many seconds away it is, 0.0 for now.

        The slot belongs to whoever asked: he comes back then, and need not ask again.
        """
        ...


class FairLimiter(RateLimiter, Protocol):
    """Say whose turn it is, fairly between the campaigns that share a sender, and slow down where the provider asks.

    A dispatcher asks a limiter that can do it in this way, and not by ``reserve``.
    """

    def take_turn(
        self,
        key: str,
        cost: int,
        now: datetime,
        /,
        *,
        campaign: str = "",
        slot: str | None = None,
        within_s: float = math.inf,
    ) -> Turn:
        """Say whether ``cost`` segments of the sender ``key`` may go now, or how many seconds away their turn is.

        Whoever must wait comes back with the `Turn`'s ``slot`` and asks for the same. A ``campaign`` that is alone has
        the whole rate: then its turn has come. Where others wait too they share it equally, and a turn may be further
        away than it was. A wait of more than ``within_s`` seconds is told, and no place kept.
        """
        ...

    def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None = None) -> None:
        """Note that the provider refused a text of ``key`` as too fast: use less of its rate, and slowly more again.

        Nothing goes for ``retry_after_s`` seconds. Who waits already waits longer.
        """
        ...


class AsyncSMSSender(Protocol):
    """Hand one text to one provider, in a running loop: what `SMSSender` promises, awaited."""

    async def send(self, message: Message, /) -> Receipt:
        """Make one attempt: see `SMSSender.send`. Where the task is canceled, end at once and repeat nothing."""
        ...


@runtime_checkable
class AsyncCanLookUp(Protocol):
    """Ask a provider whether it has a text: what `CanLookUp` promises, awaited."""

    async def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        """Say whether the provider took ``message``: see `CanLookUp.find`."""
        ...


class AsyncAnalyticsSink(Protocol):
    """Take note of what happened to a message: what `AnalyticsSink` promises, awaited."""

    async def record(self, event: Event, /) -> None:
        """Store ``event``: see `AnalyticsSink.record`."""
        ...


class AsyncJournal(Protocol):
    """Remember what was begun: what `Journal` promises, verb by verb, awaited."""

    async def begin(
        self,
        message: Message,
        /,
        *,
        hint: AttemptState,
        nonce: str,
        lease_s: float,
        account: str,
        most_deferred_s: float,
        rerun: bool = False,
    ) -> Begun:
        """Claim the next attempt of ``message``: see `Journal.begin`."""
        ...

    async def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        """Begin the lease anew: see `Journal.renew`."""
        ...

    async def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed: see `Journal.finish`."""
        ...

    async def release(self, claim: Claim, /) -> None:
        """Give a claim back under which nothing was sent."""
        ...

    async def others(self, claim: Claim, /, *, since: datetime) -> Others:
        """Return what is known of other messages to the recipient: see `Journal.others`."""
        ...

    async def hold(self, account: str, failure: Failure, /) -> None:
        """Note that the provider refuses ``account``: see `Journal.hold`."""
        ...

    async def reopen(self, account: str, /) -> None:
        """Note that the provider serves ``account`` again."""
        ...


class AsyncRateLimiter(Protocol):
    """Say when something may be sent: what `RateLimiter` promises, awaited."""

    async def reserve(self, key: str, cost: int, now: datetime, /) -> float:
        """Reserve a slot: see `RateLimiter.reserve`."""
        ...


class AsyncFairLimiter(AsyncRateLimiter, Protocol):
    """Say whose turn it is: what `FairLimiter` promises, awaited."""

    async def take_turn(
        self,
        key: str,
        cost: int,
        now: datetime,
        /,
        *,
        campaign: str = "",
        slot: str | None = None,
        within_s: float = math.inf,
    ) -> Turn:
        """Ask for a turn: see `FairLimiter.take_turn`."""
        ...

    async def slow_down(self, key: str, now: datetime, /, *, retry_after_s: float | None = None) -> None:
        """Use less of the rate: see `FairLimiter.slow_down`."""
        ...


class Clock(Protocol):
    """Tell the time."""

    def __call__(self) -> datetime:
        """Return the present moment as an aware UTC datetime."""
        ...


Classifier = Callable[[Exception], Failure | None]
"""Say what an exception of a sender means, or None to leave it to the next classifier."""


LAST_CHECK: Final[ContextVar[Callable[[], None] | None]] = ContextVar("smsretry_last_check", default=None)
"""What a sender is to call, through `check_before_writing`, while it sends."""


def check_before_writing() -> None:
    """Make sure that the message is still ours to send; raise `smsretry.errors.ProviderError` where it is not.

    A sender calls it when it is connected and the first byte of the request is about to leave. A process that was
    frozen on the way there, for longer than its claim in the journal held, then sends nothing.
    """
    check = LAST_CHECK.get()
    if check is not None:
        check()


MARK: Final[ContextVar[Mark | None]] = ContextVar("smsretry_mark", default=None)
"""Names the send that is going on, where a journal knows it."""


def mark_of_send() -> Mark | None:
    """Return what names the send that is going on; None without a journal.

    A sender puts it, with the message's id, into the URL to which the provider reports about the text.
    """
    return MARK.get()


LAST_CHECK_ASYNC: Final[ContextVar[Callable[[], Awaitable[None]] | None]] = ContextVar(
    "smsretry_last_check_async", default=None
)
"""What an async sender is to await, through `check_before_writing_async`, while it sends."""


async def check_before_writing_async() -> None:
    """Make sure that the message is still ours to send: see `check_before_writing`."""
    check = LAST_CHECK_ASYNC.get()
    if check is not None:
        await check()
