"""Stand in for Twilio's Messages API on a loopback port: see `TwilioSimulator`.

The standard library is all that it needs. As a command it serves until it is ended:
``python -m smsretry.testing.simulator --seed 1 --rate rate_limited=0.1``.
"""

from smsretry.testing.simulator.courier import WebhookAnswer
from smsretry.testing.simulator.fates import CallbackPlan, Fate, TextStatus
from smsretry.testing.simulator.faults import (
    FAULTS,
    Body,
    Closed,
    Cut,
    Delayed,
    Fault,
    Hang,
    HintForm,
    Normal,
    OddSuccess,
    Part,
    RateLimited,
    Redirected,
    Refused,
    Reset,
    ServerError,
    Slow,
    fault_from_dict,
    fault_named,
    fault_to_dict,
)
from smsretry.testing.simulator.ledger import Callback, CallbackCounts, Request, Text
from smsretry.testing.simulator.plan import Call
from smsretry.testing.simulator.simulator import TwilioSimulator

__all__ = [
    "FAULTS",
    "Body",
    "Call",
    "Callback",
    "CallbackCounts",
    "CallbackPlan",
    "Closed",
    "Cut",
    "Delayed",
    "Fate",
    "Fault",
    "Hang",
    "HintForm",
    "Normal",
    "OddSuccess",
    "Part",
    "RateLimited",
    "Redirected",
    "Refused",
    "Request",
    "Reset",
    "ServerError",
    "Slow",
    "Text",
    "TextStatus",
    "TwilioSimulator",
    "WebhookAnswer",
    "fault_from_dict",
    "fault_named",
    "fault_to_dict",
]
