"""Twilio: the senders, and what its errors mean. Importing it loads no client, and not asyncio."""

from typing import TYPE_CHECKING

from smsretry.senders.twilio.classify import classify_twilio_error, twilio_classifier
from smsretry.senders.twilio.sender import TwilioSender
from smsretry.senders.twilio_codes import Decision, TwilioCode, decide_unlisted, lookup_code

if TYPE_CHECKING:
    from smsretry.senders.twilio.async_sender import AsyncTwilioSender

__all__ = [
    "AsyncTwilioSender",
    "Decision",
    "TwilioCode",
    "TwilioSender",
    "classify_twilio_error",
    "decide_unlisted",
    "lookup_code",
    "twilio_classifier",
]

if not TYPE_CHECKING:  # a type checker that sees it would take every misspelt name for a public one

    def __getattr__(name: str) -> object:
        """Load the async sender, and asyncio with it, when it is first used."""
        if name != "AsyncTwilioSender":
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from smsretry.senders.twilio.async_sender import AsyncTwilioSender

        globals()[name] = AsyncTwilioSender
        return AsyncTwilioSender
