"""The task of this library, with a journal."""

from __future__ import annotations

from typing import Final

from celery import Celery

from smsretry import Dispatcher, RetryPolicy
from smsretry.adapters.celery import recover_elsewhere, recover_every, sms_task
from smsretry.senders.twilio import TwilioSender, http
from smsretry.store import SQLStore
from tests.chaos.settings import FROM_NUMBER, GRACE_S, RECOVER_EVERY_S, TASK, TIMEOUT_S, settings_here

MAX_RETRIES: Final = 12
"""A killed attempt may have sent, so it uses up a retry; Celery does not count what it hands out again."""
LEASE_S: Final = 6.0
"""A minute by default. The longest freeze outlasts it."""

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
policy = RetryPolicy(
    max_retries=MAX_RETRIES,
    first_delay_s=0.2,
    max_delay_s=2.0,
    settle_after_s=_settings.settle_after_s,
    settle_after_error_s=_settings.settle_after_s,
)
store = SQLStore(_settings.store_url)
dispatcher = Dispatcher(sender, policy=policy, journal=store, lease_s=LEASE_S)
send_sms = sms_task(app, dispatcher, name=TASK)
if _settings.recovers_in_workers:
    recover_every(app, store, send_sms, RECOVER_EVERY_S, grace_s=GRACE_S)
else:
    recover_elsewhere(app)
