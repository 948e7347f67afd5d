"""Send each text message once: retries, and an honest answer to "was it sent?", for the queue you already have."""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; typing itself would cost more than the rest of this module
if TYPE_CHECKING:
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
    from smsretry.dispatcher import AsyncDispatcher, Dispatcher
    from smsretry.errors import (
        ConfigurationError,
        InvalidMessage,
        NotAccepted,
        SendFailed,
        SendUnknown,
        SMSRetryError,
    )
    from smsretry.ports import AnalyticsSink, AsyncSMSSender, SMSSender

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "AnalyticsSink",
    "AsyncDispatcher",
    "AsyncSMSSender",
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

_ROOMS = {
    "Accepted": "smsretry.core.outcome",
    "AnalyticsSink": "smsretry.ports",
    "AsyncDispatcher": "smsretry.dispatcher",
    "AsyncSMSSender": "smsretry.ports",
    "AttemptState": "smsretry.core.outcome",
    "ConfigurationError": "smsretry.errors",
    "Deferred": "smsretry.core.outcome",
    "Dispatcher": "smsretry.dispatcher",
    "Event": "smsretry.core.events",
    "Failure": "smsretry.core.failure",
    "FailureKind": "smsretry.core.failure",
    "GaveUp": "smsretry.core.outcome",
    "GiveUpReason": "smsretry.core.outcome",
    "InvalidMessage": "smsretry.errors",
    "Jitter": "smsretry.core.policy",
    "Message": "smsretry.core.message",
    "MessageAccepted": "smsretry.core.events",
    "MessageDeferred": "smsretry.core.events",
    "MessageFailed": "smsretry.core.events",
    "NotAccepted": "smsretry.errors",
    "OnUnknown": "smsretry.core.policy",
    "Outcome": "smsretry.core.outcome",
    "Receipt": "smsretry.core.message",
    "RetryAfter": "smsretry.core.outcome",
    "RetryPolicy": "smsretry.core.policy",
    "RetryScheduled": "smsretry.core.events",
    "SMSRetryError": "smsretry.errors",
    "SMSSender": "smsretry.ports",
    "Scope": "smsretry.core.failure",
    "SendFailed": "smsretry.errors",
    "SendUnknown": "smsretry.errors",
}


if not TYPE_CHECKING:  # a type checker that sees it would take every misspelt name for a public one

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used, so that a process pays for no more than it needs."""
        if name not in _ROOMS:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = globals()[name] = getattr(import_module(_ROOMS[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
