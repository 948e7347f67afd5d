"""The Celery application that the workers of the tests run; its settings come as JSON in SMSRETRY_TEST_CELERY."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import OperationalError
from tests.integration.celery_sender import FileSender, note

from smsretry import Dispatcher, Message, OnUnknown, RetryPolicy
from smsretry.adapters.celery import deliver, recover_every, sms_task
from smsretry.limits import MemoryLimiter
from smsretry.limits.redis import RedisLimiter
from smsretry.store import SQLStore

settings = json.loads(os.environ["SMSRETRY_TEST_CELERY"])
folder = Path(settings["folder"])

QUICK = RetryPolicy(max_retries=5, first_delay_s=0.1, settle_after_s=0.0)
LATER = RetryPolicy(max_retries=1, first_delay_s=7.0)
PATIENT = RetryPolicy(max_retries=1, first_delay_s=0.1, settle_after_s=1.0)
CUSTOMERS = {"17": ("+15005550006", "Ada")}

app = Celery("texts")
app.conf.update(settings["conf"])

# At module level, as an application may have it: forked children and threads share what was made here.
sender = FileSender(folder)
quick = Dispatcher(sender, policy=QUICK)

send_sms = sms_task(app, quick, name="texts.send", max_retries=3)
send_later = sms_task(app, Dispatcher(sender, policy=LATER), name="texts.later")
send_patiently = sms_task(app, Dispatcher(sender, policy=PATIENT), name="texts.patient")
send_unasked = sms_task(app, Dispatcher(sender, policy=RetryPolicy(on_unknown=OnUnknown.GIVE_UP)), name="texts.unasked")
send_in_a_second = sms_task(app, quick, name="texts.limited", soft_time_limit=1)
send_over_a_bad_line = sms_task(app, quick, name="texts.badline")

journal = SQLStore(f"sqlite:///{folder / 'journal.db'}")
journaled = Dispatcher(sender, policy=QUICK, journal=journal, lease_s=8.0)  # what a copy waits
send_journaled = sms_task(app, journaled, name="texts.journaled")
send_journaled_in_a_second = sms_task(app, journaled, name="texts.journaled.limited", soft_time_limit=1)
short = Dispatcher(sender, policy=QUICK, journal=journal, lease_s=2.0)
send_journaled_or_die = sms_task(app, short, name="texts.journaled.cut", time_limit=1)
send_journaled_early = sms_task(app, short, name="texts.journaled.early", acks_late=False)
recover_every(app, journal, send_journaled, every_s=0.5, grace_s=1.0)


def make_limiter() -> MemoryLimiter | RedisLimiter:
    """Return a limiter of 4 segments a second: in the Redis that is the broker, where there is one."""
    url = settings["conf"]["broker_url"]
    if url.startswith("redis:"):
        return RedisLimiter(url, rate_per_s=4.0, burst=2.0, prefix=f"{uuid.uuid4().hex}:")
    return MemoryLimiter(4.0, burst=2.0)


ONCE = RetryPolicy(max_retries=0)
in_turn = Dispatcher(sender, policy=ONCE, limiter=make_limiter())
send_in_turn = sms_task(app, in_turn, name="texts.in_turn")
send_in_turn_journaled = sms_task(
    app, Dispatcher(sender, policy=ONCE, limiter=make_limiter(), journal=journal), name="texts.in_turn.journaled"
)


def make_dispatcher() -> Dispatcher:
    note(folder / "made.jsonl", {})
    return Dispatcher(FileSender(folder), policy=QUICK)


send_made = sms_task(app, make_dispatcher, name="texts.made")


@app.task(bind=True, name="texts.remind", max_retries=3, acks_late=True)
def remind(self: Any, customer_id: str, answers: list[str]) -> str:
    """Look the customer up and render the text, as an application's own task does."""
    number, name = CUSTOMERS[customer_id]
    message = Message(number, f"Dear {name}, see you at 9.", metadata={"answers": answers})
    return deliver(self, lambda: quick, message).provider_id


# Without a delay the end of Celery's last run may be overwritten by the RETRY of the run before it.
@app.task(bind=True, name="texts.autoretry", autoretry_for=(Exception,), max_retries=1, default_retry_delay=1)
def autoretry(self: Any, message: dict[str, Any]) -> str:
    return deliver(self, quick, Message.from_dict(message)).provider_id


def bad_line(name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None, **_: Any) -> None:
    """Refuse the first retry of texts.badline, as a broker that is down for a moment does."""
    broken = folder / "bad-line"
    if name == "texts.badline" and not broken.exists():
        broken.touch()
        raise OperationalError("the broker is away")


app.conf.task_routes = (bad_line,)
