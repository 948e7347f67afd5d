"""A text, what may go wrong with it, and a sender of a script: what the tests of most adapters send."""

from __future__ import annotations

from smsretry import Failure, FailureKind, Message
from smsretry.testing import ScriptedSender

NUMBER = "+15005550006"
TEXT = "Your parcel is at the door"
MESSAGE = Message(NUMBER, TEXT, id="parcel:17")
BUSY = Failure.of(FailureKind.RATE_LIMITED, code=20429)
INVALID = Failure.of(FailureKind.INVALID_NUMBER, code=21211)


class TimedSender(ScriptedSender):
    """Say how long a send may take."""

    timeout_s = 10.0
