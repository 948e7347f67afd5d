"""How a message has ended, in a job's metadata: for a queue that keeps no exceptions, or runs an ended job again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from smsretry.adapters._seam.run import Done, Failed
from smsretry.core.message import Receipt
from smsretry.errors import InvalidMessage, SendFailed, SendUnknown

END_KEY: Final = "smsretry_end"
"""Where the end stands in a queue's own metadata, as a JSON text."""
_ENDS: Final = {kind.__name__: kind for kind in (SendFailed, SendUnknown)}


def end_written(plan: Done | Failed) -> dict[str, str]:
    """Return the entry of a job's metadata that says how its message has ended."""
    if isinstance(plan, Done):
        said: list[Any] = [Done.__name__, plan.receipt.to_dict()]
    else:
        said = [type(plan.error).__name__, *plan.error.args]
    return {END_KEY: json.dumps(said, separators=(",", ":"))}


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
        raise InvalidMessage(f"{END_KEY} is corrupt, so nothing was sent: {error!r}. Send the message anew.") from error
