"""A journal in memory: one process, no database, forgotten at its end."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from smsretry.core import claims
from smsretry.core.claims import PROBE_EVERY_S, Asked, Begun, Busy, Claim, Ended, Entry, Granted, OnHold, Others
from smsretry.core.events import Event
from smsretry.core.failure import Failure
from smsretry.core.fingerprint import ENDED_WITH_ANOTHER_TEXT, Fingerprints, check_like
from smsretry.core.message import Message
from smsretry.core.outcome import Accepted, AttemptState, GaveUp, GiveUpReason, Outcome
from smsretry.ports import Clock

_LISTED_BEFORE: Final = timedelta(hours=1)
"""How long before a doubt began a message may have ended as unknown whose text its listing still shows."""

_log: Final = logging.getLogger("smsretry")


@dataclass(frozen=True, slots=True)
class _Kept:
    message: Message
    entry: Entry = field(default_factory=Entry)
    provider_ids: frozenset[str] = frozenset()
    finished_at: datetime | None = None

    @property
    def is_unknown(self) -> bool:
        end = self.entry.end
        return isinstance(end, GaveUp) and end.reason is GiveUpReason.OUTCOME_UNKNOWN

    def is_like(self, message: Message) -> bool:
        """Say whether it is another message with the same recipient and text."""
        return self.message.id != message.id and _text_of(self.message) == _text_of(message)


@dataclass(frozen=True, slots=True)
class _Held:
    failure: Failure
    next_probe: datetime


class MemoryJournal:
    """Keep one open claim per message, for the threads of one process.

    It holds every message that was begun, with its text, until the process ends: for scripts and tests. Where
    processes share the work, or one may be killed, use `smsretry.store.SQLStore`. ``clock`` tells the time.
    """

    blocks: ClassVar[bool] = False
    """It may be called in a running loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or _utc_now
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)
        self._kept: dict[str, _Kept] = {}
        self._held: dict[str, _Held] = {}

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
        """Claim the next attempt of ``message``, or say why not: see `smsretry.ports.Journal`."""
        with self._lock:
            now = self._clock()
            kept = self._kept.setdefault(str(message.id), _Kept(message))
            self._check_same(kept, message, rerun=rerun)
            asked = Asked(hint=hint, nonce=nonce, lease_s=lease_s, is_late=claims.is_late(kept.message, now))
            may_wait = kept.entry.may_wait and not asked.is_late
            if may_wait and (busy := self._like(kept.message, now)) is not None:
                return busy
            entry, answer = claims.begin(kept.entry, asked, now)
            if not isinstance(answer, Granted):
                self._kept[str(message.id)] = replace(kept, entry=entry)
                return answer
            probes, held = self._probe(account, now) if claims.needs_account(entry, answer) else (False, None)
            if held is not None and not claims.has_waited(entry, kept.message, now, most_deferred_s):
                waits = claims.put_on_hold(kept.entry, until=held.next_probe, now=now)
                self._kept[str(message.id)] = replace(kept, entry=waits)
                return OnHold((held.next_probe - now).total_seconds(), held.failure)
            self._kept[str(message.id)] = replace(kept, entry=entry)
            return Claim(
                message=kept.message,
                epoch=entry.epoch,
                state=entry.state,
                now=now,
                dead_since=answer.dead_since,
                probes=probes,
                refused=held.failure if held is not None else None,
            )

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        """Begin the lease anew, for a send; False where the claim is lost."""
        with self._lock:
            kept = self._kept[str(claim.message.id)]
            entry = claims.renew(kept.entry, claim.epoch, now=self._clock(), lease_s=lease_s)
            if entry is None:
                return False
            self._kept[str(claim.message.id)] = replace(kept, entry=entry)
            return True

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Ended | Busy | None:
        """Write what followed; None where the claim was held, else what holds in its place."""
        del event  # it goes to the sinks
        with self._lock:
            now = self._clock()
            kept = self._kept[str(claim.message.id)]
            entry = claims.finish(kept.entry, claim, outcome)
            if isinstance(outcome, Accepted) and not (entry is None and claims.is_found(claim, outcome)):
                kept = self._noted(kept, outcome)
            finished_at = kept.finished_at if entry is None else now
            self._kept[str(claim.message.id)] = replace(kept, entry=entry or kept.entry, finished_at=finished_at)
            return claims.instead(kept.entry, now) if entry is None else claims.overruled(entry, outcome)

    def release(self, claim: Claim, /) -> None:
        """Give a claim back under which nothing was sent."""
        with self._lock:
            kept = self._kept[str(claim.message.id)]
            self._kept[str(claim.message.id)] = replace(kept, entry=claims.release(kept.entry, claim.epoch))

    def others(self, claim: Claim, /, *, since: datetime) -> Others:
        """Return what is known of other messages to the recipient of ``claim``."""
        with self._lock:
            return Others(
                provider_ids=frozenset(self._taken_by_others(claim.message)),
                unsure=self._is_unsure(claim.message, since - _LISTED_BEFORE),
            )

    def hold(self, account: str, failure: Failure, /) -> None:
        """Note that the provider refuses ``account``."""
        with self._lock:
            self._held[account] = _Held(failure, self._clock() + timedelta(seconds=PROBE_EVERY_S))

    def reopen(self, account: str, /) -> None:
        """Note that the provider serves ``account`` again."""
        with self._lock:
            self._held.pop(account, None)

    def cancel(self, message_id: str) -> bool:
        """Take back a message: from now on nobody begins to send it. False where it has ended, or is not known.

        One that is being sent at this moment, or whose outcome is in doubt, is not sent again. It ends as what becomes
        of that send: as accepted, where the provider took it.
        """
        with self._lock:
            kept = self._kept.get(message_id)
            entry = None if kept is None else claims.cancel(kept.entry)
            if kept is None or entry is None:
                return False
            self._kept[message_id] = replace(kept, entry=entry)
            return True

    def _check_same(self, kept: _Kept, message: Message, *, rerun: bool) -> None:
        first = kept.message
        if _text_of(first) == _text_of(message):
            return
        if not rerun or first.to != message.to:
            check_like(message, *(Fingerprints.of(one, self._secret) for one in (message, first)))
        if kept.entry.end is not None:
            _log.warning(ENDED_WITH_ANOTHER_TEXT, message.id)

    def _like(self, message: Message, now: datetime) -> Busy | None:
        """Say how long to wait for another open message with the same recipient and text."""
        for other in self._kept.values():
            if other.is_like(message) and other.entry.is_open:
                return claims.busy(other.entry, now)
        return None

    def _probe(self, account: str, now: datetime) -> tuple[bool, _Held | None]:
        """Say whether this attempt asks if the account is served again, and what holds it back where it does not."""
        held = self._held.get(account)
        if held is None:
            return False, None
        if held.next_probe > now:
            return False, held
        self._held[account] = replace(held, next_probe=now + timedelta(seconds=PROBE_EVERY_S))
        return True, None

    def _noted(self, kept: _Kept, outcome: Accepted) -> _Kept:
        """Note the provider's id of a text that it took, the second of a message too."""
        known = kept.provider_ids | {outcome.receipt.provider_id}
        if len(known) > max(1, len(kept.provider_ids)):
            _log.error("%s was taken by the provider more than once: %s", kept.message.id, ", ".join(sorted(known)))
        return replace(kept, provider_ids=known)

    def _taken_by_others(self, message: Message) -> Iterator[str]:
        for other in self._kept.values():
            if other.message.to == message.to and other.message.id != message.id:
                yield from other.provider_ids

    def _is_unsure(self, message: Message, since: datetime) -> bool:
        """Say whether a message with the same recipient and text ended as unknown after ``since``."""
        return any(
            other.is_like(message) and other.is_unknown and (other.finished_at or since) >= since
            for other in self._kept.values()
        )


def _text_of(message: Message) -> tuple[object, ...]:
    return message.to, message.body, message.media_urls


def _utc_now() -> datetime:
    return datetime.now(UTC)
