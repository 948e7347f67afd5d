"""The task of this library."""

from __future__ import annotations

from typing import Final

from celery import Celery

from smsretry import Dispatcher, RetryPolicy
from smsretry.adapters.celery import sms_task
from smsretry.senders.twilio import TwilioSender, http
from smsretry.store import SQLStore
from tests.chaos.settings import FROM_NUMBER, TASK, TIMEOUT_S, settings_here

SETTLE_AFTER_S: Final = 5.0
"""Above the provider's latest take and list lag together, as the promise asks for; two minutes by default."""
MAX_RETRIES: Final = 12
"""A killed attempt may have sent, so it uses up a retry; Celery does not count what it hands out again."""
POLICY: Final = RetryPolicy(
    max_retries=MAX_RETRIES,
    first_delay_s=0.2,
    max_delay_s=2.0,
    settle_after_s=SETTLE_AFTER_S,
    settle_after_error_s=SETTLE_AFTER_S,
    max_looks=5,
)

_settings = settings_here()
_loaded_before_the_pool_forks = http

app = Celery("chaos")
app.conf.update(_settings.celery)

sender = TwilioSender(
    _settings.account_sid,
    _settings.auth_token,
    from_number=FROM_NUMBER,
    base_url=_settings.twilio_url,
    timeout_s=TIMEOUT_S,
)
store = SQLStore(_settings.store_url)
dispatcher = Dispatcher(sender, policy=POLICY, sink=store)
send_sms = sms_task(app, dispatcher, name=TASK)
