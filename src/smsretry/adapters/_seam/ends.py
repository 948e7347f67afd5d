"""How a message has ended, for a queue that keeps no exceptions: in a job's metadata, or in a line of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from smsretry.adapters._seam.run import Done, Failed
from smsretry.core.message import Receipt
from smsretry.errors import InvalidMessage, NotAccepted, SendFailed, SendUnknown

ErrorT = TypeVar("ErrorT", bound=BaseException)

END_KEY: Final = "smsretry_end"
"""Where the end stands in a queue's own metadata, as a JSON text."""
_LINE: Final = "smsretry ended: "
_ENDS: Final = {kind.__name__: kind for kind in (SendFailed, SendUnknown)}


def end_written(plan: Done | Failed) -> dict[str, str]:
    """Return the entry of a job's metadata that says how its message has ended."""
    if isinstance(plan, Done):
        said: list[Any] = [Done.__name__, plan.receipt.to_dict()]
    else:
        said = [type(plan.error).__name__, *plan.error.args]
    return {END_KEY: json.dumps(said, separators=(",", ":"))}


def taken_written(plan: Done | Failed) -> dict[str, str]:
    """Return what `end_written` does of a text that was taken, or may have been; nothing of one that was not.

    An error of a body's own makes a queue run it again, which then is told so, and sends nothing. A job whose text was
    not taken can be queued again by hand.
    """
    is_taken = isinstance(plan, Done) or isinstance(plan.error, SendUnknown)
    return end_written(plan) if is_taken else {}


def end_in(metadata: Mapping[str, Any] | None) -> Done | Failed | None:
    """Return the end that stands in a job's metadata; None where its message goes on.

    Raise `InvalidMessage` where it is corrupt.
    """
    text = (metadata or {}).get(END_KEY)
    if text is None:
        return None
    try:
        kind, *said = json.loads(text)
        return Done(Receipt.from_dict(*said)) if kind == Done.__name__ else Failed(_ENDS[kind](*said))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidMessage(
            f"{END_KEY} is corrupt, so nothing was sent in this run: {error!r}. An earlier one may have sent: look at "
            "the provider's list before you send the message anew."
        ) from error


def with_notes(error: ErrorT, of: BaseException) -> ErrorT:
    """Return ``error`` with the notes of another exception."""
    for note in getattr(of, "__notes__", ()):
        error.add_note(note)
    return error


def end_told(error: BaseException) -> str:
    """Return one line that says all of ``error``: for the words of an exception, which are all that a queue keeps."""
    return f"{_LINE}{json.dumps([type(error).__name__, *error.args])}"


def end_read(text: str | None) -> NotAccepted | None:
    """Return the end that stands, as `end_told` wrote it, in ``text``; None where there is none."""
    for line in (text or "").splitlines():
        if line.startswith(_LINE):
            kind, *args = json.loads(line.removeprefix(_LINE))
            return _ENDS[kind](*args)
    return None
