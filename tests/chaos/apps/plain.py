"""What the two other programs share: the application and the plain client of Twilio."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from twilio.http.http_client import TwilioHttpClient  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]

from tests.chaos.settings import FROM_NUMBER, TIMEOUT_S, settings_here

_settings: Final = settings_here()

app = Celery("chaos")
app.conf.update(_settings.celery)

client: Any = Client(_settings.account_sid, _settings.auth_token, http_client=TwilioHttpClient(timeout=TIMEOUT_S))
client.api.base_url = _settings.twilio_url
create = client.messages.create  # loads the rest of the client before the pool forks


def send(message: dict[str, Any]) -> None:
    """Send a text as people do it."""
    create(to=message["to"], body=message["body"], from_=FROM_NUMBER)
