"""The Celery examples do what they say: a real worker, the Twilio client, a Twilio that refuses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry
from tests.integration.celery_workers import running_worker

from examples import celery_app, existing_app
from smsretry import Dispatcher, Failure, FailureKind, Message
from smsretry.adapters.celery import deliver
from smsretry.store import SQLStore
from smsretry.testing import ScriptedSender, TwilioSimulator
from smsretry.testing.simulator import RateLimited

pytestmark = pytest.mark.integration

WITHIN_S = 30.0


@pytest.fixture
def twilio() -> Iterator[TwilioSimulator]:
    with TwilioSimulator() as simulator:
        yield simulator


@pytest.fixture
def environment(twilio: TwilioSimulator, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": f"{redis_url.rpartition('/')[0]}/7",  # the other tests queue in database 0
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": twilio.auth_token,
        "TWILIO_FROM_NUMBER": "+15005550006",
        "TWILIO_BASE_URL": twilio.url,
        "SMSRETRY_DATABASE_URL": f"sqlite:///{tmp_path / 'sms.db'}",
        "CLINIC_DATABASE": str(tmp_path / "clinic.db"),
    }


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def test_a_campaign_goes_through_the_ready_task(twilio, environment, tmp_path):
    twilio.script(RateLimited(), to="+14155550101")
    with running_worker("examples.celery_app", {}, tmp_path, "--pool=solo", environment=environment):
        numbers = ["+14155550101", "+15005550001", "+14155550103"]
        celery_app.app.conf.broker_url = environment["CELERY_BROKER_URL"]
        assert celery_app.queue_campaign("spring", numbers) == ["spring:1", "spring:2", "spring:3"]
        with SQLStore(environment["SMSRETRY_DATABASE_URL"]) as store:
            assert eventually(lambda: (end := store.campaign_summary("spring")).sent == 2 and end.failed == 1)
    assert [len(twilio.texts_to(number)) for number in numbers] == [1, 0, 1]
    assert twilio.posts == 4


def test_an_existing_task_delivers_and_notes_each_end_once(twilio, environment, tmp_path):
    twilio.script(RateLimited(), to="+14155550101")
    clinic = existing_app.Clinic(environment["CLINIC_DATABASE"])
    with running_worker("examples.existing_app", {}, tmp_path, "--pool=solo", environment=environment):
        existing_app.app.conf.broker_url = environment["CELERY_BROKER_URL"]
        for appointment_id in (1, 2):
            existing_app.remind.delay(appointment_id)
        assert eventually(lambda: clinic.notes(1) and clinic.notes(2))
    [text] = twilio.texts_to("+14155550101")
    assert clinic.notes(1) == [f"sent as {text.sid}"]
    [note] = clinic.notes(2)
    assert note.startswith("failed: reminder:2: permanent after 1 attempt(s): invalid_number 21211")
    assert twilio.posts == 3


@pytest.mark.parametrize("remedied", [True, False])
def test_a_body_that_catches_everything_takes_a_retry_for_a_failure_unless_it_lets_celerys_own_words_pass(remedied):
    app = Celery("clinic", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = uuid.uuid4().hex
    dispatcher = Dispatcher(ScriptedSender([Failure.of(FailureKind.RATE_LIMITED)]))
    notes: list[str] = []
    let_pass = (Retry, Reject) if remedied else ()

    @app.task(bind=True, shared=False)
    def remind(self: Any) -> None:
        try:
            deliver(self, dispatcher, Message("+14155550101", "See you at 9."))
        except let_pass:
            raise
        except Exception as error:
            notes.append(f"failed: {error}")

    remind.push_request(id="task-1", args=(), kwargs={}, called_directly=False)
    if remedied:
        with pytest.raises(Retry):
            remind.run()
        assert notes == []
    else:
        remind.run()
        assert len(notes) == 1  # and the retry is on its way all the same
    remind.pop_request()
