"""What travels in a queue: a message with the state of its attempts, or that state beside a task's own arguments."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from smsretry.core.mask import shown
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState
from smsretry.errors import InvalidMessage

ENVELOPE_VERSION: Final = 1
STATE_KEY: Final = "smsretry_state"
"""Where the state stands in a queue's own metadata, as a JSON text: no table, so that every broker brings it back as it
was."""
NEW: Final = AttemptState()
_FIELDS: Final = frozenset({"message", "state"})


@dataclass(frozen=True, slots=True)
class Envelope:
    """Hold a message and the state of its attempts: all that a queue has to carry."""

    message: Message
    state: AttemptState = NEW

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object with the version ``v``; it holds the number and the text."""
        return {"v": ENVELOPE_VERSION, "message": self.message.to_dict(), "state": self.state.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` returned; raise `InvalidMessage` for another version, other fields or a bad value."""
        if not isinstance(data, Mapping):
            msg = f"An envelope must be a JSON object, got {type(data).__name__}. Pass what was queued, parsed."
            raise InvalidMessage(msg)
        known = dict(data)
        version = known.pop("v", None)
        if type(version) is not int or version != ENVELOPE_VERSION:
            raise InvalidMessage(
                f"This envelope has version {shown(version)} and this smsretry reads version {ENVELOPE_VERSION}. "
                "Pass what was queued, and upgrade the process that reads it first."
            )
        if known.keys() != _FIELDS:
            wrong = min(map(shown, known.keys() ^ _FIELDS))
            raise InvalidMessage(f"An envelope holds message and state and nothing else, see {wrong}. Send it anew.")
        return cls(Message.from_dict(known["message"]), _state("The envelope's state", known["state"]))


def state_in(metadata: Mapping[str, Any] | None) -> AttemptState:
    """Return the state that came in a job's metadata; raise `InvalidMessage` where it is corrupt."""
    return state_of((metadata or {}).get(STATE_KEY))


def state_of(text: str | None) -> AttemptState:
    """Return the state that `text_of` wrote; a new one for None. Raise `InvalidMessage` where it is corrupt."""
    if text is None:
        return NEW
    try:
        data = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InvalidMessage(
            f"{STATE_KEY} is no JSON text, so nothing was sent ({error}). An attempt may have been made: look at the "
            "provider's list before you send the message anew."
        ) from error
    return _state(STATE_KEY, data)


def text_of(state: AttemptState) -> str:
    """Return ``state`` as a JSON text."""
    return json.dumps(state.to_dict(), separators=(",", ":"))


def written(state: AttemptState) -> dict[str, str]:
    """Return the entry of a job's metadata that carries ``state``."""
    return {STATE_KEY: text_of(state)}


def packed(message: Message) -> str:
    """Return ``message`` as a short text that shows neither number nor words, for a queue that shows its arguments.

    It hides them from a glance, and is no encryption.
    """
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(message.to_dict()).encode())).decode()


def unpacked(text: str) -> Message:
    """Return the message that `packed` wrote; raise `InvalidMessage` for any other text."""
    try:
        data = json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))
    except (TypeError, ValueError, zlib.error) as error:
        raise InvalidMessage("This job holds no packed message, so nothing was sent. Queue it with send.") from error
    return Message.from_dict(data)


def check_message(message: object, remedy: str) -> None:
    """Raise `smsretry.InvalidMessage` where ``message`` is none, before anything is queued or sent."""
    if not isinstance(message, Message):
        raise InvalidMessage(f"{remedy}, got {type(message).__name__}. Nothing was sent.")


def seconds_until(due: datetime | None, now: datetime) -> float:
    """Return how many seconds ``due`` is ahead; 0 where it is past or unknown."""
    return 0.0 if due is None else max(0.0, (due - now).total_seconds())


def _state(where: str, data: Any) -> AttemptState:
    try:
        return AttemptState.from_dict(data)
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"{where} cannot be read, so nothing was sent: {error}") from error
