"""Carry what a worker's process has to know, through its environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

VARIABLE: Final = "SMSRETRY_CHAOS"
TASK: Final = "chaos.send_sms"
"""The name of the task in every program."""
FROM_NUMBER: Final = "+15005550006"
TIMEOUT_S: Final = 2.0
"""How long every program waits for an answer of the provider."""
RECOVER_EVERY_S: Final = 1.0
GRACE_S: Final = 3.0
"""Both a minute by default; the latter is longer than a message of this load waits in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold where the broker, the provider and the database are."""

    celery: dict[str, Any]
    store_url: str
    twilio_url: str
    account_sid: str
    auth_token: str
    settle_after_s: float
    recovers_in_workers: bool
    """Whether each worker runs `recover` in a thread; else it is a process of its own."""

    def environment(self) -> dict[str, str]:
        """Return the variable that `settings_here` reads."""
        return {VARIABLE: json.dumps(asdict(self))}


def settings_here() -> Settings:
    """Return the settings of this process."""
    return Settings(**json.loads(os.environ[VARIABLE]))
