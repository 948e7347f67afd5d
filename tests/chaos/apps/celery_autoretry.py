"""The task that people write today."""

from __future__ import annotations

from typing import Any

from tests.chaos.apps import plain
from tests.chaos.settings import TASK

app = plain.app


@app.task(
    bind=True,
    name=TASK,
    autoretry_for=(Exception,),
    retry_backoff=True,
    max_retries=3,
    acks_late=True,
    reject_on_worker_lost=True,
)
def send_sms(self: Any, message: dict[str, Any]) -> None:
    plain.send(message)
