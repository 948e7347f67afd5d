"""The Celery examples do what they say: a real worker, the Twilio client, a Twilio that refuses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry
from tests.integration.celery_workers import Worker, running_worker, together

from examples import celery_app, existing_app
from smsretry import Dispatcher, Failure, FailureKind, Message
from smsretry.adapters.celery import deliver
from smsretry.store import SQLStore
from smsretry.testing import ScriptedSender, TwilioSimulator
from smsretry.testing.simulator import RateLimited

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Shop:
    """Both examples at work, each with a worker and a Twilio of its own."""

    campaign: TwilioSimulator
    clinic: TwilioSimulator
    journal: TwilioSimulator
    folder: Path
    broker_url: str


@pytest.fixture(scope="module")
def shop(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("examples")
    server = redis_url.rpartition("/")[0]  # the other tests queue in database 0
    with TwilioSimulator() as campaign, TwilioSimulator() as clinic, TwilioSimulator() as journal:
        workers = together(
            at_work("examples.celery_app", f"{server}/7", campaign, folder),
            at_work("examples.existing_app", f"{server}/8", clinic, folder),
            at_work("examples.journal_app", f"{server}/9", journal, folder),
        )
        with workers:
            yield Shop(campaign, clinic, journal, folder, server)


def at_work(
    module: str, broker_url: str, twilio: TwilioSimulator, folder: Path
) -> contextlib.AbstractContextManager[Worker]:
    return running_worker(module, {}, folder, "--pool=solo", environment=environment(broker_url, twilio, folder))


def environment(broker_url: str, twilio: TwilioSimulator, folder: Path) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": broker_url,
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": twilio.auth_token,
        "TWILIO_FROM_NUMBER": "+15005550006",
        "TWILIO_BASE_URL": twilio.url,
        "SMSRETRY_DATABASE_URL": f"sqlite:///{folder / 'sms.db'}",
        "CLINIC_DATABASE": str(folder / "clinic.db"),
    }


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def test_a_campaign_goes_through_the_ready_task(shop):
    shop.campaign.script(RateLimited(), to="+14155550101")
    celery_app.app.conf.broker_url = f"{shop.broker_url}/7"
    numbers = ["+14155550101", "+15005550001", "+14155550103"]
    assert celery_app.queue_campaign("spring", numbers) == ["spring:1", "spring:2", "spring:3"]
    with SQLStore(f"sqlite:///{shop.folder / 'sms.db'}") as store:
        assert eventually(lambda: (end := store.campaign_summary("spring")).sent == 2 and end.failed == 1)
    assert [len(shop.campaign.texts_to(number)) for number in numbers] == [1, 0, 1]
    assert shop.campaign.posts == 4


def test_a_campaign_in_a_journal_that_is_queued_twice_is_sent_once(shop):
    variables = os.environ | environment(f"{shop.broker_url}/9", shop.journal, shop.folder)
    command = [sys.executable, "-m", "examples.journal_app", "autumn", "+14155550111", "+14155550112"]
    for _ in range(2):
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        assert "CampaignSummary(campaign='autumn'" in done.stdout
    with SQLStore(f"sqlite:///{shop.folder / 'sms.db'}") as store:
        assert eventually(lambda: store.campaign_summary("autumn").sent == 2)
        assert store.campaign_summary("autumn").planned == 2
    assert shop.journal.text_count == 2


def test_an_existing_task_delivers_and_notes_each_end_once(shop):
    shop.clinic.script(RateLimited(), to="+14155550101")
    existing_app.app.conf.broker_url = f"{shop.broker_url}/8"
    for appointment_id in (1, 2):
        existing_app.remind.delay(appointment_id)
    clinic = existing_app.Clinic(str(shop.folder / "clinic.db"))
    assert eventually(lambda: clinic.notes(1) and clinic.notes(2))
    [text] = shop.clinic.texts_to("+14155550101")
    assert clinic.notes(1) == [f"sent as {text.sid}"]
    [note] = clinic.notes(2)
    assert note.startswith("failed: reminder:2: permanent after 1 attempt(s): invalid_number 21211")
    assert shop.clinic.posts == 3


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
