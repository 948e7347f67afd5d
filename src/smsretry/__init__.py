"""Send each text message once: retries, and an honest answer to "was it sent?", for the queue you already have."""

from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure, FailureKind, Scope
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import (
    Accepted,
    AttemptState,
    Deferred,
    GaveUp,
    GiveUpReason,
    Outcome,
    RetryAfter,
)
from smsretry.core.policy import Jitter, OnUnknown, RetryPolicy
from smsretry.dispatcher import Dispatcher
from smsretry.errors import (
    ConfigurationError,
    InvalidMessage,
    NotAccepted,
    SendFailed,
    SendUnknown,
    SMSRetryError,
)
from smsretry.ports import AnalyticsSink, SMSSender

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "AnalyticsSink",
    "AttemptState",
    "ConfigurationError",
    "Deferred",
    "Dispatcher",
    "Event",
    "Failure",
    "FailureKind",
    "GaveUp",
    "GiveUpReason",
    "InvalidMessage",
    "Jitter",
    "Message",
    "MessageAccepted",
    "MessageDeferred",
    "MessageFailed",
    "NotAccepted",
    "OnUnknown",
    "Outcome",
    "Receipt",
    "RetryAfter",
    "RetryPolicy",
    "RetryScheduled",
    "SMSRetryError",
    "SMSSender",
    "Scope",
    "SendFailed",
    "SendUnknown",
    "__version__",
]
