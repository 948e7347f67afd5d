"""Send a few texts from plain code: no queue, no database.

Run it: ``python examples/plain.py``. A simulator on this machine stands in for Twilio. For the real one, drop the
``with`` line and build the sender with ``TwilioSender.from_env(from_number="+1...")``.
"""

from __future__ import annotations

from collections.abc import Iterable

from smsretry import Dispatcher, Message, RetryPolicy, SendFailed, SendUnknown
from smsretry.adapters.callables import send_with_retry
from smsretry.senders.twilio import TwilioSender
from smsretry.testing import TwilioSimulator
from smsretry.testing.simulator import RateLimited

BOOKINGS = {"booking-1": "+14155550101", "booking-2": "+15005550001", "booking-3": "+14155550103"}
"""By booking, the number to text; +15005550001 is Twilio's test number for "no such number"."""


def messages(bookings: dict[str, str]) -> Iterable[Message]:
    """Return one text for each booking, with an id that is the same whenever this runs again."""
    for booking, number in bookings.items():
        yield Message(number, "Your table is ready.", id=booking)


def text_all(dispatcher: Dispatcher, bookings: dict[str, str]) -> dict[str, str]:
    """Text every booking; return what became of each. A text that fails stops no other."""
    ended = {}
    for message in messages(bookings):
        try:
            receipt = send_with_retry(dispatcher, message)
        except SendFailed as error:
            ended[str(message.id)] = f"failed: {error.failure.kind} {error.failure.code}"
        except SendUnknown:
            ended[str(message.id)] = "unknown: look at the provider's console before you send it again"
        else:
            ended[str(message.id)] = f"sent: {receipt.provider_id}"
    return ended


def main() -> None:
    """Let the first text meet a rate limit, so that there is a retry to see."""
    with TwilioSimulator() as twilio:
        sender = TwilioSender(twilio.account_sid, twilio.auth_token, from_number="+15005550006", base_url=twilio.url)
        twilio.script(RateLimited())
        for booking, what in text_all(Dispatcher(sender, policy=RetryPolicy()), BOOKINGS).items():
            print(f"{booking}  {what}")
        print(f"{twilio.posts} requests, {twilio.text_count} texts")


if __name__ == "__main__":
    main()
