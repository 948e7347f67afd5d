"""Twilio: the sender, and what its errors mean. Importing it loads no client."""

from smsretry.senders.twilio.classify import classify_twilio_error, twilio_classifier
from smsretry.senders.twilio.sender import TwilioSender
from smsretry.senders.twilio_codes import Decision, TwilioCode, decide_unlisted, lookup_code

__all__ = [
    "Decision",
    "TwilioCode",
    "TwilioSender",
    "classify_twilio_error",
    "decide_unlisted",
    "lookup_code",
    "twilio_classifier",
]
