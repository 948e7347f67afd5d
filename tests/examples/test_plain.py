"""The plain example does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from examples import plain
from smsretry import Dispatcher, Failure, FailureKind, RetryPolicy
from smsretry.testing import ScriptedSender

EXAMPLE = Path(plain.__file__)
AT_ONCE = RetryPolicy(first_delay_s=0.0)


def test_the_example_runs_as_it_is() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=True, timeout=60)
    first, second, third, figures = done.stdout.splitlines()
    assert first.startswith("booking-1  sent: SM")
    assert second == "booking-2  failed: invalid_number 21211"
    assert third.startswith("booking-3  sent: SM")
    assert figures == "4 requests, 2 texts"


def test_a_text_that_fails_stops_no_other() -> None:
    answers = [Failure.of(FailureKind.OPTED_OUT, code=21610), Failure.of(FailureKind.RATE_LIMITED)]
    ended = plain.text_all(Dispatcher(ScriptedSender(answers), policy=AT_ONCE), plain.BOOKINGS)
    assert ended["booking-1"] == "failed: opted_out 21610"
    assert ended["booking-2"].startswith("sent: ")
    assert ended["booking-3"].startswith("sent: ")


def test_an_unknown_outcome_is_told_apart_from_a_failure() -> None:
    class CannotBeAsked:
        def send(self, message):
            raise TimeoutError

    ended = plain.text_all(Dispatcher(CannotBeAsked(), policy=AT_ONCE), {"booking-1": "+14155550101"})
    assert ended["booking-1"].startswith("unknown")


def test_every_message_has_an_id_of_the_applications_own() -> None:
    assert [message.id for message in plain.messages(plain.BOOKINGS)] == list(plain.BOOKINGS)
