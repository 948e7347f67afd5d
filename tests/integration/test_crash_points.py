"""A worker process that is killed, or frozen for longer than its claim holds, at each point of an attempt.

Real forked workers on a broker of files and a SQLite journal, the Twilio client over HTTP, and a Twilio that counts.
All points run side by side in one worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from tests.integration.celery_sender import notes_in
from tests.integration.celery_workers import Worker, on_files, running_worker, together

from smsretry import Message
from smsretry.adapters.celery import SMSTask
from smsretry.store import MessageState, SQLStore
from smsretry.testing import TwilioSimulator
from smsretry.testing.simulator import Delayed, Fault, RateLimited

pytestmark = pytest.mark.integration

LEASE_S: Final = 4.0
WITHIN_S: Final = 60.0
POINTS: Final[dict[str, tuple[Fault, ...]]] = {
    "before_claim": (),
    "after_claim": (),
    "request_left": (Delayed(delay_s=1.5),),
    "after_answer": (),
    "after_finish": (),
    "after_publish": (RateLimited(),),
    "before_ack": (),
}
FALLS: Final = [f"{how}:{point}" for how in ("kill", "stop") for point in POINTS]
CHILDREN: Final = len(POINTS) + 5
HELD: Final = 4
"""Texts that the doomed worker has sent, without an answer, when it is killed; as many wait in it."""
DOOMED: Final = [Message(f"+1555111{n:04d}", "Hello", id=f"doomed-{n}", campaign="doomed") for n in range(2 * HELD)]


def message_of(fall: str) -> Message:
    return Message(f"+1555000{FALLS.index(fall):04d}", f"Hello {fall}", id=fall, campaign=fall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where workers fall: their Twilio, their journal, and the notes that they leave."""

    twilio: TwilioSimulator
    store: SQLStore
    folder: Path

    def lines(self, name: str) -> list[dict[str, Any]]:
        return notes_in(self.folder / name)

    def pids(self, name: str, message_id: str) -> list[int]:
        return [line["pid"] for line in self.lines(name) if line["id"] == message_id]

    def is_accepted(self, message_id: str) -> bool:
        record = self.store.message(message_id)
        return record is not None and record.state is MessageState.ACCEPTED

    def note_fall(self, message_id: str, pid: int) -> None:
        with (self.folder / "fallen.jsonl").open("a") as file:
            file.write(json.dumps({"id": message_id, "pid": pid}) + "\n")

    def has_ended(self) -> bool:
        return all(self.is_accepted(fall) for fall in (*FALLS, *(str(message.id) for message in DOOMED)))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "TWILIO_AUTH_TOKEN": self.twilio.auth_token,
            "TWILIO_FROM_NUMBER": "+15005550006",
            "TWILIO_BASE_URL": self.twilio.url,
            "SMSRETRY_TEST_STORE": f"sqlite:///{self.folder / 'sms.db'}",
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("crashes")
    with TwilioSimulator(list_lag_s=0.2) as twilio, SQLStore(f"sqlite:///{folder / 'sms.db'}") as store:
        yield Site(twilio=twilio, store=store, folder=folder)


@pytest.fixture(scope="module")
def fallen(site: Site) -> Site:
    """Let worker processes fall, and wait until every message and every frozen run has ended without them."""
    with together(at_work(site, "prefork", CHILDREN), at_work(site, "threads", HELD, "doomed")) as (worker, doomed):
        queue_what_falls(site, worker.task("texts.send"))
        queue_what_is_doomed(site, worker.task("texts.send"))
        killer, frozen = Killer(site, doomed.pid), Frozen(site)
        try:
            eventually(lambda: killer.has_struck() and frozen.have_woken() and site.has_ended())
        finally:
            frozen.wake_all()
        time.sleep(1.0)  # a copy that is still about would be sent now
    return site


def at_work(
    site: Site, pool: str, concurrency: int, queue: str = "celery"
) -> contextlib.AbstractContextManager[Worker]:
    conf = on_files(site.folder) | {"worker_lost_wait": 1.0, "task_ignore_result": True}
    options = (f"--pool={pool}", f"--concurrency={concurrency}", f"--queues={queue}", f"--hostname={queue}@here")
    module = "tests.integration.crash_tasks"
    return running_worker(module, conf, site.folder, *options, environment=site.environment)


def queue_what_falls(site: Site, task: SMSTask) -> None:
    messages = [message_of(fall) for fall in FALLS]
    site.store.plan(messages)  # as task.send does where the producer has the journal
    for message in messages:
        site.twilio.script(*POINTS[str(message.id).partition(":")[2]], to=message.to)
        task.send(message)


def queue_what_is_doomed(site: Site, task: SMSTask) -> None:
    site.store.plan(DOOMED)
    for message in DOOMED:
        site.twilio.script(Delayed(delay_s=1.8), to=message.to)
        task.apply_async((message.to_dict(),), task_id=message.id, queue="doomed")


class Killer:
    """Strike, as soon as Twilio has the text, those who wait for its answer."""

    def __init__(self, site: Site, doomed_pid: int) -> None:
        self._site = site
        self._waiting = {"kill:request_left": signal.SIGKILL, "stop:request_left": signal.SIGSTOP}
        self._doomed_pid: int | None = doomed_pid

    def has_struck(self) -> bool:
        """Strike whoever is to be struck by now; say whether all are."""
        for fall, how in tuple(self._waiting.items()):
            if self._site.twilio.texts_to(message_of(fall).to):
                self._site.note_fall(fall, pid := self._site.pids("sending.jsonl", fall)[0])
                os.kill(pid, how)
                del self._waiting[fall]
        if self._doomed_pid and all(self._site.twilio.texts_to(one.to) for one in DOOMED[:HELD]):
            os.kill(self._doomed_pid, signal.SIGKILL)
            self._doomed_pid = None
        return not self._waiting and self._doomed_pid is None


class Frozen:
    """Wake frozen processes when their message has ended without them and their claim is long over."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._since: dict[str, float] = {}
        self._woken: dict[str, int] = {}

    def have_woken(self) -> bool:
        """Wake those whose time has come; say whether all were woken and came to the end of their run."""
        for fall in self._asleep():
            since = self._since.setdefault(fall, time.monotonic())
            if time.monotonic() - since > LEASE_S + 1.0 and self._site.is_accepted(fall):
                [self._woken[fall]] = self._site.pids("fallen.jsonl", fall)
                os.kill(self._woken[fall], signal.SIGCONT)
        return len(self._woken) == len(POINTS) and all(
            pid in self._site.pids("runs.jsonl", fall) for fall, pid in self._woken.items()
        )

    def wake_all(self) -> None:
        for line in self._site.lines("fallen.jsonl"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(line["pid"], signal.SIGCONT)

    def _asleep(self) -> list[str]:
        fell = [line["id"] for line in self._site.lines("fallen.jsonl")]
        return [fall for fall in fell if fall.startswith("stop:") and fall not in self._woken]


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to an end"
        time.sleep(0.05)


@pytest.mark.parametrize("fall", FALLS)
def test_a_worker_that_falls_leaves_one_text_and_right_counters(fallen: Site, fall: str):
    assert fall in {line["id"] for line in fallen.lines("fallen.jsonl")}
    assert [text.body for text in fallen.twilio.texts_to(message_of(fall).to)] == [f"Hello {fall}"]
    summary = fallen.store.campaign_summary(fall)
    assert (summary.planned, summary.sent, summary.doubled) == (1, 1, 0)


def test_a_whole_worker_that_is_killed_with_sent_and_unsent_texts_in_its_hands_loses_and_doubles_none(fallen: Site):
    assert [len(fallen.twilio.texts_to(message.to)) for message in DOOMED] == [1] * len(DOOMED)
    summary = fallen.store.campaign_summary("doomed")
    assert (summary.planned, summary.sent, summary.doubled) == (len(DOOMED), len(DOOMED), 0)
    looked_up = [message for message in DOOMED if fallen.store.history(str(message.id))[-1].looked_up]
    assert looked_up  # their answers died with the worker
