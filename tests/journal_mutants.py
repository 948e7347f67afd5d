"""Journals and senders that break one rule each: what the model must notice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from smsretry import Accepted, AttemptState, Deferred, Message, Outcome, RetryAfter
from smsretry.core.claims import Busy, Claim, Entry, Others, instead
from smsretry.core.events import Event
from smsretry.journal import MemoryJournal, _Kept
from smsretry.ports import CannotTell, LookUp, NotSeen
from tests.journal_world import Line, Listing


class ClaimsPerAttempt(MemoryJournal):
    """Break rule 1: a message that is being worked on is claimed once more."""

    def begin(self, message: Message, /, **asked: Any) -> Any:
        begun = super().begin(message, **asked)
        if not isinstance(begun, Busy):
            return begun
        kept = self._kept[str(message.id)]
        idle = replace(kept.entry, claimed_until=None, sending_since=None, sending_epoch=None)
        self._kept[str(message.id)] = replace(kept, entry=idle)
        return super().begin(message, **asked)


class NoEpochs(MemoryJournal):
    """Break rule 2: whoever comes to settle a doubt does so beside the others, and each of them is its holder."""

    def begin(self, message: Message, /, **asked: Any) -> Any:
        kept = self._kept.get(str(message.id))
        if kept is not None and kept.entry.state.doubt_since is not None and kept.entry.sending_since is None:
            self._kept[str(message.id)] = replace(kept, entry=replace(kept.entry, claimed_until=None))
        return super().begin(message, **asked)

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        return super().renew(self._as_holder(claim), lease_s=lease_s)

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Any:
        return super().finish(self._as_holder(claim), outcome, event)

    def _as_holder(self, claim: Claim) -> Claim:
        kept = self._kept[str(claim.message.id)]
        held = replace(kept.entry, claimed_until=kept.entry.claimed_until or claim.now)
        self._kept[str(claim.message.id)] = replace(kept, entry=held)
        return replace(claim, epoch=held.epoch)


class NoDeadSenders(MemoryJournal):
    """Break rule 3: a claim whose sender died is not in doubt."""

    def begin(self, message: Message, /, **asked: Any) -> Any:
        begun = super().begin(message, **asked)
        return replace(begun, dead_since=None) if isinstance(begun, Claim) else begun


class ClaimsAfterwards(MemoryJournal):
    """Break rule 4: the send comes first, and what is claimed is written with what followed."""

    def begin(self, message: Message, /, **asked: Any) -> Any:
        before = self._kept.get(str(message.id), _Kept(message))
        begun = super().begin(message, **asked)
        if isinstance(begun, Claim):
            self._kept[str(message.id)] = before
        return begun

    def renew(self, claim: Claim, /, *, lease_s: float) -> bool:
        return True

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Any:
        kept = self._kept[str(claim.message.id)]
        claimed = replace(kept.entry, epoch=claim.epoch, claimed_until=claim.now)
        self._kept[str(claim.message.id)] = replace(kept, entry=claimed)
        return super().finish(claim, outcome, event)


class NoRelease(MemoryJournal):
    """Break the end of rule 4: what sent nothing looks like a dead sender."""

    def release(self, claim: Claim, /) -> None:
        pass


class DoubtOfOneAttempt(MemoryJournal):
    """Break rule 8: an attempt that was surely not taken ends the doubt about the one before it."""

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Any:
        if isinstance(outcome, RetryAfter) and not outcome.failure.maybe_sent:
            sure = replace(outcome.state, doubt_since=None, settles_at=None, looks=0)
            outcome = replace(outcome, state=sure)
        return super().finish(claim, outcome, event)


class EndsInDoubt(MemoryJournal):
    """Break the end of rule 8: a message that is to end ends, though it may have been taken."""

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Any:
        if isinstance(outcome, Deferred) and outcome.state.ending is not None:
            outcome = outcome.state.ending
        return super().finish(claim, outcome, event)


class NoWaiting(MemoryJournal):
    """Break rule 10: like messages are sent at the same time."""

    def _like(self, message: Message, now: datetime) -> Busy | None:
        return None


class NoOthers(MemoryJournal):
    """Break rule 10: a look-up does not know which ids other messages hold."""

    def others(self, claim: Claim, /, *, since: datetime) -> Others:
        return replace(super().others(claim, since=since), provider_ids=frozenset())


class SureOfUnknown(MemoryJournal):
    """Break rule 10: a text that may be that of a message that ended as unknown counts as this one's."""

    def others(self, claim: Claim, /, *, since: datetime) -> Others:
        return replace(super().others(claim, since=since), unsure=False)


class DropsLateAnswers(MemoryJournal):
    """Break rule 11: what the provider said to a claim that was taken over counts for nothing."""

    def finish(self, claim: Claim, /, outcome: Outcome, event: Event) -> Any:
        entry: Entry = self._kept[str(claim.message.id)].entry
        if isinstance(outcome, Accepted) and entry.epoch != claim.epoch:
            return instead(entry, claim.now)
        return super().finish(claim, outcome, event)


class DropsEvidence(MemoryJournal):
    """Break rule 11: a provider's id that comes along with a message counts for nothing."""

    def begin(self, message: Message, /, *, hint: AttemptState, **asked: Any) -> Any:
        return super().begin(message, hint=replace(hint, provider_id=None), **asked)


class TakesErrorsForNo(Line):
    """Break rule 9: a listing that is refused counts as one without the text."""

    def _looked_up(self, message: Message, since: datetime, exclude: Collection[str], listing: Listing) -> LookUp:
        answer = super()._looked_up(message, since, exclude, listing)
        refused = isinstance(answer, CannotTell) and answer.why in {"403", "429"}
        return NotSeen(self.worker.clock()) if refused else answer


class MatchesTextsOnly(Line):
    """Break rule 10: a text that the provider changed on its way counts as another one."""

    def _looked_up(self, message: Message, since: datetime, exclude: Collection[str], listing: Listing) -> LookUp:
        answer = super()._looked_up(message, since, exclude, listing)
        changed = isinstance(answer, CannotTell) and answer.why.startswith("another text")
        return NotSeen(self.worker.clock()) if changed else answer
