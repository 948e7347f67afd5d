"""Turn a row of the table of messages into what the journal's rules work on, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from smsretry.core.claims import Entry
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, GaveUp, GiveUpReason
from smsretry.store.moves import MessageState

MENDABLE: Final = frozenset(
    {FailureKind.AUTH, FailureKind.ACCOUNT, FailureKind.SENDER_CONFIG, FailureKind.GEO_PERMISSION}
)
"""Kinds after which a message may be sent once more when somebody has mended the account: its text is kept."""
_REASONS: Final[Mapping[str, GiveUpReason]] = {
    MessageState.EXPIRED.value: GiveUpReason.EXPIRED,
    MessageState.UNKNOWN.value: GiveUpReason.OUTCOME_UNKNOWN,
    MessageState.CANCELED.value: GiveUpReason.CANCELED,
    MessageState.SKIPPED.value: GiveUpReason.CANCELED,
    MessageState.SUPPRESSED.value: GiveUpReason.SUPPRESSED,
}


def is_open(row: Any) -> bool:
    """Say whether the message in ``row`` may still be sent: it was left out before it was planned, or has no end."""
    never_planned = row.state == MessageState.SKIPPED.value and row.fingerprint is None
    return never_planned or row.state == MessageState.PENDING.value


def entry_of(row: Any) -> Entry:
    """Return what the journal's rules know of the message in ``row``."""
    open_, in_doubt = is_open(row), row.doubt_since is not None
    decided = GaveUp.from_dict(json.loads(row.ending)) if open_ and row.ending else None
    canceled = decided is not None and decided.reason is GiveUpReason.CANCELED
    return Entry(
        state=AttemptState(
            retries=row.retries,
            doubt_since=row.doubt_since,
            looks=row.looks if in_doubt else 0,
            deferrals=row.deferrals,
            due=row.due,
            round=row.round,
            settles_at=row.settles_at if in_doubt else None,
            deferred_since=row.deferred_since,
            ending=decided if in_doubt else None,
            slot=row.slot,
        ),
        epoch=row.epoch,
        nonce=row.nonce,
        claimed_until=row.claimed_until,
        sending_since=row.sending_since,
        sending_epoch=row.sending_epoch,
        taken_back=decided if canceled and not in_doubt else None,
        end=None if open_ else _end_of(row),
    )


def columns_of(entry: Entry) -> dict[str, Any]:
    """Return the columns that hold ``entry``; where it stands is the business of analytics."""
    state, ending = entry.state, entry.end or entry.state.ending or entry.taken_back
    return {
        "round": state.round,
        "retries": state.retries,
        "doubt_since": state.doubt_since,
        "looks": state.looks,
        "deferrals": state.deferrals,
        "due": state.due,
        "settles_at": state.settles_at,
        "deferred_since": state.deferred_since,
        "ending": None if ending is None else json.dumps(_end_written(ending)),
        "slot": state.slot,
        "epoch": entry.epoch,
        "nonce": entry.nonce,
        "claimed_until": entry.claimed_until,
        "sending_since": entry.sending_since,
        "sending_epoch": entry.sending_epoch,
    }


def written_body(message: Message, *, keep: bool) -> str:
    """Return what is kept of ``message`` until it has ended: all of it, or no number and no text."""
    return json.dumps(message.to_dict() if keep else {"metadata": dict(message.metadata)})


def read_body(body: str | None) -> tuple[Message | None, Mapping[str, Any]]:
    """Return the message and its metadata; None where its text was not kept."""
    data: dict[str, Any] = {} if body is None else json.loads(body)
    return (Message.from_dict(data) if "v" in data else None), data.get("metadata", {})


def may_be_mended(end: Accepted | GaveUp) -> bool:
    """Say whether a message that ended so may be sent once more after somebody has mended the account."""
    return isinstance(end, GaveUp) and end.failure.kind in MENDABLE


def _end_written(end: Accepted | GaveUp) -> dict[str, Any]:
    if isinstance(end, GaveUp):
        return end.to_dict()
    return {"receipt": end.receipt.to_dict(), "attempts": end.attempts, "looked_up": end.looked_up}


def _end_of(row: Any) -> Accepted | GaveUp:
    """Return the end that was written, or, where analytics alone saw it, what the other columns say."""
    written: dict[str, Any] = json.loads(row.ending) if row.ending else {}
    if row.state == MessageState.ACCEPTED.value:
        if "receipt" in written:
            return Accepted(Receipt.from_dict(written["receipt"]), written["attempts"], written["looked_up"])
        return Accepted(Receipt(row.provider or "", row.provider_id or row.id, row.decided_at), max(1, row.attempts))
    if "failure" in written:
        return GaveUp.from_dict(written)
    failure = Failure.of(
        FailureKind(row.kind or FailureKind.OTHER),
        code=row.code,
        http_status=row.http_status,
        detail=row.detail or "",
        provider=row.provider or "",
    )
    return GaveUp(failure, _REASONS.get(row.state, GiveUpReason.PERMANENT), row.attempts)
