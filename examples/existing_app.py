"""Put `deliver` into a task that an application has already.

The clinic's task looks its appointment up, renders the text and writes down how it went; one line of it changed, the
one that sends. It catches ``Exception``, as such tasks do, and that needs a remedy: see `remind`.

Run it in the folder above this one, with a Redis and an account at Twilio (or ``smsretry simulate``)::

    export TWILIO_ACCOUNT_SID=AC... TWILIO_AUTH_TOKEN=... TWILIO_FROM_NUMBER=+1...
    celery -A examples.existing_app worker
    python -m examples.existing_app 1 2
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from typing import Any

from celery import Celery
from celery.exceptions import Reject, Retry

from smsretry import Dispatcher, Message, NotAccepted
from smsretry.adapters.celery import deliver
from smsretry.senders.twilio import TwilioSender

app = Celery("clinic", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"))
app.conf.task_ignore_result = True

dispatcher = Dispatcher(TwilioSender.from_env(timeout_s=5.0))  # opens nothing, so it may stand here

APPOINTMENTS = [(1, "Ada", "+14155550101", "09:00"), (2, "Grace", "+15005550001", "09:30")]


class Clinic:
    """The clinic's own database."""

    def __init__(self, path: str) -> None:
        self._path = path

    def appointment(self, appointment_id: int) -> tuple[str, str, str]:
        """Return name, number and time."""
        return self._run("SELECT name, phone, time FROM appointment WHERE id = ?", appointment_id)[0]

    def note(self, appointment_id: int, status: str) -> None:
        """Write down how a reminder went."""
        self._run("INSERT INTO reminder VALUES (?, ?)", appointment_id, status)

    def notes(self, appointment_id: int) -> list[str]:
        """Return everything that was written down about one reminder."""
        return [status for (status,) in self._run("SELECT status FROM reminder WHERE id = ?", appointment_id)]

    def _run(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS appointment (id PRIMARY KEY, name, phone, time)")
            connection.execute("CREATE TABLE IF NOT EXISTS reminder (id, status)")
            connection.executemany("INSERT OR IGNORE INTO appointment VALUES (?, ?, ?, ?)", APPOINTMENTS)
            return connection.execute(statement, values).fetchall()


clinic = Clinic(os.environ.get("CLINIC_DATABASE", "clinic.db"))


@app.task(bind=True, name="clinic.remind", acks_late=True, reject_on_worker_lost=True, throws=(NotAccepted,))
def remind(self: Any, appointment_id: int) -> None:
    """Remind one patient. The whole body runs again on each retry, so it renders the same text every time."""
    try:
        name, phone, time = clinic.appointment(appointment_id)
        text = Message(phone, f"Dear {name}, see you at {time}.", id=f"reminder:{appointment_id}")
        receipt = deliver(self, dispatcher, text)  # it was: provider.send(phone, f"Dear {name}, ...")
    except (Retry, Reject):
        raise  # Celery's own words: another run follows. Swallowed, they would be noted as a failure below.
    except Exception as error:
        clinic.note(appointment_id, f"failed: {error}")
        raise
    clinic.note(appointment_id, f"sent as {receipt.provider_id}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        remind.delay(int(argument))
