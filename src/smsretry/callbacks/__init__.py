"""Take in what a provider tells after it took a text: delivery reports, and messages that recipients send.

`smsretry.callbacks.twilio` reads Twilio's callbacks, whatever web framework receives them; `smsretry.callbacks.web` is
a WSGI and an ASGI application around it; `poll` asks the provider about texts whose report never came.
"""

from smsretry.callbacks.polling import Polled, poll

__all__ = ["Polled", "poll"]
