"""Waits that brokers get wrong: below a second on quorum queues, and beyond the visibility timeout of Redis.

Real workers side by side, the Twilio client over HTTP, and a Twilio that counts the texts.
"""

from __future__ import annotations

import gc
import itertools
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from tests.integration.celery_workers import Worker, on_quorum_queues, on_redis, running_worker, together

from smsretry import Message
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator
from smsretry.testing.simulator import RateLimited

pytestmark = pytest.mark.integration

WITHIN_S: Final = 60.0
VISIBLE_S: Final = 4.0
"""What Redis waits before it hands a message out again: half of it is left to a busy machine."""
DELAY_S: Final = 13.0
NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What came of the messages of a run."""

    messages: int
    texts: int
    doubled: int
    lost: int
    waits_s: tuple[float, ...]
    """Between the attempts of one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Workers of one application, and the Twilio that they send to."""

    twilio: TwilioSimulator
    worker: Worker

    def send(self, name: str, count: int, *, refused: int, countdown: float = 0.0) -> list[Message]:
        """Queue messages, each of which is refused so many times before it is taken."""
        sent = [message(next(NUMBERS)) for _ in range(count)]
        _, kind, *journaled = name.split(".")
        if journaled:  # as send does where the producer has the journal
            with SQLStore(f"sqlite:///{self.worker.folder / f'{kind}.db'}") as store:
                store.plan(sent, due_in_s=countdown)
        for one in sent:
            self.twilio.script(*(RateLimited(),) * refused, to=one.to)
            self.worker.task(name).send(one, countdown=countdown)
        return sent

    def warm_up(self, *names: str) -> None:
        """Let each worker import, connect and wait in a hop once: the first time takes a second or two."""
        sent = [self.send(name, 16, refused=0, countdown=VISIBLE_S * 0.6) for name in names]
        self.wait_for(itertools.chain.from_iterable(sent), still_s=0.0)

    def wait_for(self, sent: Iterable[Message], *, still_s: float) -> None:
        """Wait until all texts are there, or it is too late; and then for those that should not come."""
        missing = {one.to for one in sent}
        deadline = time.monotonic() + WITHIN_S
        while missing and time.monotonic() < deadline:
            time.sleep(0.1)
            missing = {number for number in missing if not self.twilio.texts_to(number)}
        time.sleep(still_s)

    def count(self, sent: list[Message]) -> Count:
        texts = [len(self.twilio.texts_to(one.to)) for one in sent]
        return Count(
            messages=len(sent),
            texts=sum(texts),
            doubled=sum(number > 1 for number in texts),
            lost=texts.count(0),
            waits_s=tuple(itertools.chain.from_iterable(self.waits(one.to) for one in sent)),
        )

    def waits(self, number: str) -> list[float]:
        posts = (one for one in self.twilio.requests if one.method == "POST" and one.form.get("To") == [number])
        return [later - earlier for earlier, later in itertools.pairwise(post.at_s for post in posts)]


def message(number: int) -> Message:
    return Message(f"+1555{number:07d}", f"Hello {number}", id=f"text:{number}:{uuid.uuid4().hex}")


def open_shop(folder: Path, conf: dict[str, Any], *, workers: int, delay_s: float = 1.0) -> Iterator[Shop]:
    with TwilioSimulator() as twilio:
        environment = {
            "TWILIO_ACCOUNT_SID": twilio.account_sid,
            "TWILIO_AUTH_TOKEN": twilio.auth_token,
            "TWILIO_FROM_NUMBER": "+15005550006",
            "TWILIO_BASE_URL": twilio.url,
            "SMSRETRY_TEST_DELAY_S": str(delay_s),
        }
        names = (f"--hostname=worker{number}@here" for number in range(workers))
        options = ("--pool=threads", "--concurrency=4")
        module = "tests.integration.broker_tasks"
        running = (running_worker(module, conf, folder, *options, name, environment=environment) for name in names)
        with together(*running) as started:
            yield Shop(twilio=twilio, worker=started[0])
    gc.collect()  # a result that is collected later looks for its Redis


@pytest.fixture(scope="module")
def quorum(rabbitmq_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("quorum")
    yield from open_shop(folder, on_quorum_queues(rabbitmq_url, folder), workers=2)


@pytest.fixture(scope="module")
def impatient(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Lend workers on a Redis that soon hands out again what they hold."""
    conf = on_redis(redis_url, visibility_timeout=VISIBLE_S, global_keyprefix=f"{uuid.uuid4().hex}:")
    yield from open_shop(tmp_path_factory.mktemp("impatient"), conf, workers=2, delay_s=DELAY_S)


@pytest.fixture(scope="module")
def jittered(quorum: Shop) -> dict[str, Count]:
    """Let messages be refused twice, with delays between 0 and 1 second."""
    sent = {name: quorum.send(name, 12, refused=2) for name in ("texts.jittered", "texts.jittered.journaled")}
    quorum.wait_for(itertools.chain.from_iterable(sent.values()), still_s=1.0)
    return {name: quorum.count(messages) for name, messages in sent.items()}


@pytest.mark.parametrize("name", ["texts.jittered", "texts.jittered.journaled"])
def test_on_quorum_queues_a_wait_below_a_second_is_one_text(jittered: dict[str, Count], name: str):
    counted = jittered[name]
    assert (counted.texts, counted.doubled, counted.lost) == (12, 0, 0)
    assert len(counted.waits_s) == 24


def test_on_quorum_queues_a_wait_below_a_second_is_rounded_up(jittered: dict[str, Count]):
    assert min(jittered["texts.jittered"].waits_s) >= 0.9


@pytest.fixture(scope="module")
def waited(impatient: Shop) -> dict[str, Count]:
    """Let messages wait side by side, before their first attempt and between two."""
    impatient.warm_up("texts.patient", "texts.patient.journaled")
    sent = {
        f"{name}, {how}": impatient.send(name, 4, **options)
        for name in ("texts.patient", "texts.patient.journaled")
        for how, options in (("postponed", {"refused": 0, "countdown": DELAY_S}), ("retried", {"refused": 1}))
    }
    impatient.wait_for(itertools.chain.from_iterable(sent.values()), still_s=VISIBLE_S + 1.0)
    return {key: impatient.count(messages) for key, messages in sent.items()}


@pytest.mark.parametrize("how", ["postponed", "retried"])
@pytest.mark.parametrize("name", ["texts.patient", "texts.patient.journaled"])
def test_on_redis_a_wait_far_beyond_the_visibility_timeout_is_one_text(waited: dict[str, Count], name: str, how: str):
    counted = waited[f"{name}, {how}"]
    assert (counted.texts, counted.doubled, counted.lost) == (4, 0, 0)
    assert all(wait_s >= DELAY_S - 0.5 for wait_s in counted.waits_s)
