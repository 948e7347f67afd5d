"""The same with tenacity inside the task."""

from __future__ import annotations

from typing import Any

from tenacity import retry, stop_after_attempt, wait_exponential

from tests.chaos.apps import plain
from tests.chaos.settings import TASK

app = plain.app


@app.task(name=TASK, acks_late=True, reject_on_worker_lost=True)
@retry(stop=stop_after_attempt(4), wait=wait_exponential(multiplier=0.2))
def send_sms(message: dict[str, Any]) -> None:
    plain.send(message)
