"""Decide whose turn a message is: what a journal keeps of it, and how that changes; values in, values out.

A message has at most one open claim. Each claim has an epoch, one more than the claim before it, and whoever finishes,
renews or releases names the epoch that it holds: a worker that was frozen while another took over changes nothing any
more. A claim that may have sent and was left alone until its lease ended is a doubt, and belongs to whoever comes next.
Every journal runs these functions under its own lock, with its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message
from smsretry.core.outcome import Accepted, AttemptState, Deferred, GaveUp, GiveUpReason, Outcome, RetryAfter

EARLY_S: Final = 0.5
"""Whoever comes this much before its time goes on: a queue's wait and a database's clock differ a little."""
PROBE_EVERY_S: Final = 60.0
"""How often an attempt asks whether an account that the provider refused is served again."""
_LEAST_WAIT_S: Final = 1.0
"""Whoever has to wait for another message looks again no sooner."""
_LATEST_NONCES: Final = 3
"""How many begins whose answer was lost are remembered beside the first of them."""


_NEW: Final = AttemptState()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Hold what a journal keeps of one message; times are by the journal's clock."""

    state: AttemptState = _NEW
    epoch: int = 0
    """How many claims there were: 0 for a message that was only planned."""
    nonce: str | None = None
    """Names the begin that made the last claim, so that it can be told from another one."""
    claimed_until: datetime | None = None
    """When the lease of the open claim ends; None where no claim is open."""
    sending_since: datetime | None = None
    """Since when a claim that has not finished may have sent."""
    sending_epoch: int | None = None
    """Which claim that is."""
    taken_back: GaveUp | None = None
    """How it ends where no send of it is in doubt: the application took it back while a claim was open."""
    end: Accepted | GaveUp | None = None

    @property
    def is_open(self) -> bool:
        """Say whether another message with the same recipient and text must wait for this one."""
        at_work = self.claimed_until is not None or self.sending_since is not None
        return self.end is None and (at_work or self.state.doubt_since is not None)

    @property
    def may_wait(self) -> bool:
        """Say whether it has to wait for another one: neither open itself nor ended."""
        return self.end is None and not self.is_open


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Hold what a worker asks for: a claim for ``lease_s`` seconds, under ``nonce``; ``hint`` came with the message."""

    hint: AttemptState
    nonce: str
    lease_s: float
    is_late: bool = False
    """True where the message's deadline has passed: the claim is there to end it, and sends nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Hold the right to the next attempt of a message, until the lease ends.

    ``state`` is the journal's word, with times by the journal's clock, at which it was ``now``. ``message`` is what is
    sent under this id: the text of the first begin. ``dead_since`` is set where a claim before this one may have sent,
    since then, and never finished: that is to be settled, and nothing sent. ``refused`` is set where the account is on
    hold and the message has waited for it as long as it may.
    """

    message: Message
    epoch: int
    state: AttemptState
    now: datetime
    dead_since: datetime | None = None
    probes: bool = False
    """True where the account is on hold and this attempt is to find out whether it still is."""
    refused: Failure | None = None

    @property
    def may_send(self) -> bool:
        """Say whether the journal counts this claim as one that may send, before it is renewed for that."""
        return self.dead_since is None and self.state.doubt_since is None and not is_late(self.message, self.now)


@dataclass(frozen=True, slots=True)
class Ended:
    """Say that the message has ended: this is its end, for whoever asks again."""

    outcome: Accepted | GaveUp


@dataclass(frozen=True, slots=True)
class Busy:
    """Say that another worker holds the message, or one with the same recipient and text, for ``left_s`` seconds."""

    left_s: float


@dataclass(frozen=True, slots=True)
class NotDue:
    """Say that the next attempt is due in ``left_s`` seconds."""

    left_s: float


@dataclass(frozen=True, slots=True)
class OnHold:
    """Say that the provider refuses the account, as ``failure`` says; it is asked again in ``left_s`` seconds."""

    left_s: float
    failure: Failure


Begun = Claim | Ended | Busy | NotDue | OnHold
"""The answers to ``begin``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """Hold what a journal knows of other messages to a recipient, for a look-up."""

    provider_ids: frozenset[str] = frozenset()
    """What the provider called them: what is listed under one of these is another message."""
    unsure: bool = False
    """True where one with the same text ended as unknown about then: a text that is listed may be that one's."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Say that the claim is made; ``dead_since`` as in `Claim`."""

    dead_since: datetime | None


def begin(entry: Entry, asked: Asked, now: datetime) -> tuple[Entry, Granted | Ended | Busy | NotDue]:
    """Return what a begin at ``now`` leads to, and the entry after it."""
    taken = _evidence(entry, asked.hint)
    if entry.end is not None and taken is None:
        return entry, Ended(entry.end)
    state = entry.state if entry.epoch else _adopted(asked.hint, entry.state)
    if entry.end is not None:  # and the provider took it all the same: that is written under no claim
        return replace(entry, state=replace(state, provider_id=taken)), Granted(None)
    if entry.nonce in _lost_nonces(asked):
        entry = release(entry, entry.epoch)
    if taken is not None:
        return _claimed(replace(entry, state=replace(state, provider_id=taken)), asked, now)
    if (left_s := _left_s(entry, now)) > 0.0:
        return entry, Busy(left_s)
    return _begun(entry, state, asked, now)


def _begun(entry: Entry, state: AttemptState, asked: Asked, now: datetime) -> tuple[Entry, Granted | Ended | NotDue]:
    """Return what a begin of a message with ``state`` leads to that nobody holds."""
    if entry.taken_back is not None and not entry.is_open:
        return replace(entry, end=entry.taken_back), Ended(entry.taken_back)
    if entry.sending_since is None and state.due is not None and _seconds(state.due - now) > EARLY_S:
        return entry, NotDue(_seconds(state.due - now))
    return _claimed(replace(entry, state=state), asked, now)


def with_nonce(known: str | None, nonce: str) -> str:
    """Return what a message carries along when the answer to one more begin, under ``nonce``, was lost.

    Of many, the first and the latest are kept: a journal goes away, and comes back, in the middle of a begin.
    """
    first, *more = [*_split(known), nonce]
    return " ".join([first, *more[-_LATEST_NONCES:]])


def renew(entry: Entry, epoch: int, *, now: datetime, lease_s: float) -> Entry | None:
    """Return the entry with a lease of ``lease_s`` seconds from ``now`` for a send; None where it may not be sent.

    The claim was lost, or the application has taken the message back.
    """
    if not _holds(entry, epoch) or _is_taken_back(entry):
        return None
    return replace(entry, claimed_until=now + timedelta(seconds=lease_s), sending_since=now, sending_epoch=entry.epoch)


def release(entry: Entry, epoch: int) -> Entry:
    """Return the entry after a claim under which nothing was sent; unchanged where the claim is lost."""
    if not _holds(entry, epoch):
        return entry
    own = entry.sending_epoch == epoch
    return replace(
        entry,
        claimed_until=None,
        sending_since=None if own else entry.sending_since,
        sending_epoch=None if own else entry.sending_epoch,
    )


def finish(entry: Entry, claim: Claim, outcome: Outcome) -> Entry | None:
    """Return the entry after ``outcome``; None where the claim was lost and the outcome counts for nothing.

    That the provider took the text counts whoever says it, within one round.
    """
    if claim.state.round != entry.state.round:
        return None
    if isinstance(outcome, Accepted):
        return _taken(entry, claim, outcome)
    if entry.epoch != claim.epoch or entry.end not in (None, outcome):
        return None
    if entry.claimed_until is None:  # finished before, and the answer was lost
        return entry
    match outcome:
        case RetryAfter() | Deferred():
            after = replace(_closed(entry), state=replace(outcome.state, message_id=None, claim=None))
            return (cancel(after) or after) if _is_taken_back(entry) else after
        case GaveUp():
            return replace(_closed(entry), end=replace(outcome, cause=None))
        case _ as unreachable:
            assert_never(unreachable)


def _taken(entry: Entry, claim: Claim, outcome: Accepted) -> Entry | None:
    if is_found(claim, outcome) and not _holds(entry, claim.epoch) and entry.end != outcome:
        return None
    return replace(_closed(entry), end=entry.end if isinstance(entry.end, Accepted) else outcome)


def is_found(claim: Claim, outcome: Accepted) -> bool:
    """Say whether a look-up alone says that the text was taken.

    That counts only while the claim is held: whoever froze over the look-up may have found a text that another message
    with the same words was sent as meanwhile.
    """
    return outcome.looked_up and claim.state.provider_id is None


def overruled(entry: Entry, outcome: Outcome) -> Ended | None:
    """Say what holds in place of an outcome that was written: that of a message that was taken back meanwhile."""
    is_end = isinstance(outcome, Accepted | GaveUp)
    return None if is_end or entry.end is None else Ended(entry.end)


def instead(entry: Entry, now: datetime) -> Ended | Busy:
    """Say what holds in place of the outcome of a claim that was lost."""
    return busy(entry, now) if entry.end is None else Ended(entry.end)


def busy(entry: Entry, now: datetime) -> Busy:
    """Say how long to wait for an open message: until its lease ends, or it is looked at again."""
    until = entry.claimed_until or entry.state.due or now
    return Busy(max(_LEAST_WAIT_S, _seconds(until - now)))


def needs_account(entry: Entry, granted: Granted) -> bool:
    """Say whether a claim is there to ask or to send: not to write what is known, or what a dead sender left."""
    return entry.state.provider_id is None and granted.dead_since is None


def has_waited(entry: Entry, message: Message, now: datetime, most_deferred_s: float) -> bool:
    """Say whether a message has waited as long as it may for an account that is on hold."""
    since = entry.state.deferred_since or now
    return is_late(message, now) or now - since >= timedelta(seconds=most_deferred_s)


def is_late(message: Message, now: datetime) -> bool:
    """Say whether a message may not be sent any more: ``send_before`` has passed."""
    return message.send_before is not None and now > message.send_before


def put_on_hold(entry: Entry, *, until: datetime, now: datetime) -> Entry:
    """Return the entry of a message that waits for its account, so that nobody takes it for lost meanwhile."""
    return replace(entry, state=replace(entry.state, due=until, deferred_since=entry.state.deferred_since or now))


def _canceled(entry: Entry) -> GaveUp:
    taken_back = Failure.of(FailureKind.OTHER, detail="canceled by the application")
    return GaveUp(taken_back, GiveUpReason.CANCELED, entry.state.retries)


def cancel(entry: Entry) -> Entry | None:
    """Return the entry of a message that is not sent any more; None where it has ended.

    One that is being sent at this moment, or in doubt, ends as what becomes of that send, and is not sent again.
    """
    if entry.end is not None:
        return None
    if entry.state.doubt_since is not None:
        return replace(entry, state=replace(entry.state, ending=entry.state.ending or _canceled(entry)))
    return replace(entry, taken_back=_canceled(entry)) if entry.is_open else replace(entry, end=_canceled(entry))


def _is_taken_back(entry: Entry) -> bool:
    ending = entry.state.ending or entry.taken_back
    return ending is not None and ending.reason is GiveUpReason.CANCELED


def leave_out(entry: Entry) -> Entry | None:
    """Return the entry of a planned message that is left out after all; None where something is known of a send."""
    may_have_sent = entry.state.retries or entry.state.round > 1 or entry.is_open
    return None if may_have_sent else cancel(entry)


def reopened(entry: Entry) -> Entry | None:
    """Return the entry of a message that failed, to be sent in a new round; None for any other."""
    if not isinstance(entry.end, GaveUp) or entry.end.reason is GiveUpReason.OUTCOME_UNKNOWN:
        return None
    return Entry(epoch=entry.epoch, state=AttemptState(round=entry.state.round + 1))


def proved(entry: Entry, taken: Accepted) -> Entry:
    """Return the entry of a message of which the provider itself says, in this round, that it took it."""
    return replace(_closed(entry), end=entry.end if isinstance(entry.end, Accepted) else taken)


def sent_anew(entry: Entry, due: datetime) -> Entry:
    """Return the entry of a message that was accepted and did not arrive, to be sent at ``due`` in a new round."""
    return Entry(epoch=entry.epoch, state=AttemptState(round=entry.state.round + 1, due=due))


def _claimed(entry: Entry, asked: Asked, now: datetime) -> tuple[Entry, Granted]:
    dead_since = entry.sending_since
    is_settled = dead_since is None and entry.state.doubt_since is None and entry.state.provider_id is None
    sends = is_settled and not asked.is_late
    epoch = entry.epoch + 1
    changed = replace(
        entry,
        epoch=epoch,
        nonce=asked.nonce,
        claimed_until=now + timedelta(seconds=asked.lease_s),
        sending_since=now if sends else dead_since,
        sending_epoch=epoch if sends else entry.sending_epoch,
    )
    return changed, Granted(dead_since)


def _holds(entry: Entry, epoch: int) -> bool:
    return entry.end is None and entry.epoch == epoch and entry.claimed_until is not None


def _left_s(entry: Entry, now: datetime) -> float:
    """Return how many seconds the open claim still holds."""
    return 0.0 if entry.claimed_until is None else max(0.0, _seconds(entry.claimed_until - now))


def _closed(entry: Entry) -> Entry:
    return replace(entry, claimed_until=None, sending_since=None, sending_epoch=None, taken_back=None)


def _adopted(hint: AttemptState, planned: AttemptState) -> AttemptState:
    """Return the state of a message that was never begun here: what came with it, and when it was planned for."""
    if hint is _NEW or hint == _NEW:
        return planned
    return replace(
        hint,
        message_id=None,
        provider_id=None,
        claim=None,
        round=max(hint.round, planned.round),
        due=planned.due,  # that of the hint is by the clock of a worker, and whoever brings it has waited
        deferred_since=planned.deferred_since or hint.deferred_since,
    )


def _evidence(entry: Entry, hint: AttemptState) -> str | None:
    """Return the provider's id that came with a message, where it says something new about the present round."""
    if entry.epoch and hint.round != entry.state.round:
        return None
    known = entry.end.receipt.provider_id if isinstance(entry.end, Accepted) else None
    return None if hint.provider_id == known else hint.provider_id


def _lost_nonces(asked: Asked) -> frozenset[str | None]:
    """Return the names of begins whose answers were lost: nothing was sent under them."""
    return frozenset({asked.nonce, *_split(asked.hint.claim)})


def _split(nonces: str | None) -> list[str]:
    return [] if nonces is None else nonces.split()


def _seconds(wait: timedelta) -> float:
    return wait.total_seconds()
