"""The main job on real parts: a Celery worker, the Twilio client over HTTP, a Twilio that fails, a database."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.integration.celery_workers import on_files, on_redis, running_worker

from smsretry import Message, SendFailed
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator
from smsretry.testing.simulator import Fault, RateLimited, Refused, Reset, ServerError

pytestmark = pytest.mark.integration

CAMPAIGN = "spring"
BUSY = RateLimited()
FATES: dict[str, tuple[int, tuple[Fault, ...]]] = {
    "fine": (30, ()),
    "busy twice": (5, (BUSY, BUSY)),
    "busy for ever": (3, (BUSY,) * 4),
    "no such number": (5, (Refused(code=21211),)),
    "opted out": (2, (Refused(code=21610),)),
    "taken, answer lost": (5, (Reset(taken=True),)),
    "not taken, answer lost": (5, (Reset(taken=False),)),
    "server error": (3, (ServerError(),)),
}
ENDS = {
    "no such number": ("invalid_number", "21211", "permanent"),
    "opted out": ("opted_out", "21610", "permanent"),
    "busy for ever": ("rate_limited", "20429", "retries_exhausted"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A campaign that has ended."""

    twilio: TwilioSimulator
    store: SQLStore
    messages: dict[str, list[Message]]
    results: dict[str, Any]


@pytest.fixture(scope="module", params=["files and SQLite", "Redis and PostgreSQL"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("main-job")
    if request.param == "files and SQLite":
        conf, url, pool = on_files(folder), f"sqlite:///{folder / 'sms.db'}", "threads"
    else:
        conf, url, pool = (
            on_redis(request.getfixturevalue("redis_url")),
            request.getfixturevalue("postgres_url"),
            "prefork",
        )
    with campaign_over(conf, url, pool, folder) as ended:
        yield ended


@contextmanager
def campaign_over(conf: dict[str, Any], url: str, pool: str, folder: Path) -> Iterator[Run]:
    messages = dict(planned(folder.name))
    store = SQLStore(url)
    with TwilioSimulator(list_lag_s=0.2) as twilio:
        for fate, (_, faults) in FATES.items():
            for message in messages[fate]:
                twilio.script(*faults, to=message.to)
        environment = {
            "TWILIO_ACCOUNT_SID": twilio.account_sid,
            "TWILIO_AUTH_TOKEN": twilio.auth_token,
            "TWILIO_FROM_NUMBER": "+15005550006",
            "TWILIO_BASE_URL": twilio.url,
            "SMSRETRY_TEST_STORE": url,
        }
        options = ("--pool", pool, "--concurrency", "4")
        with running_worker(
            "tests.integration.main_job_tasks", conf, folder, *options, environment=environment
        ) as worker:
            task = worker.task("shop.send_sms")
            results = {str(one.id): task.send(one) for many in messages.values() for one in many}
            wait_until_all_have_ended(store, len(results))
            ends = {id_: result.get(timeout=30, propagate=False) for id_, result in results.items()}
        yield Run(twilio=twilio, store=store, messages=messages, results=ends)
    store.close()


def planned(prefix: str) -> Iterator[tuple[str, list[Message]]]:
    number = 0
    for fate, (count, _) in FATES.items():
        many = []
        for _ in range(count):
            number += 1
            many.append(Message(f"+1555{number:07d}", f"Hello {number}", id=f"{prefix}:{number}", campaign=CAMPAIGN))
        yield fate, many


def wait_until_all_have_ended(store: SQLStore, messages: int) -> None:
    patience = time.monotonic() + 60
    while (summary := store.campaign_summary(CAMPAIGN)).planned - summary.pending < messages:
        assert time.monotonic() < patience, summary
        time.sleep(0.1)


def test_every_message_becomes_one_text_or_has_a_reason(run: Run):
    for fate, messages in run.messages.items():
        texts = [len(run.twilio.texts_to(message.to)) for message in messages]
        assert texts == [0 if fate in ENDS else 1] * len(messages), fate


def test_the_counters_add_up_in_the_database(run: Run):
    summary = run.store.campaign_summary(CAMPAIGN)
    ended_badly = sum(FATES[fate][0] for fate in ENDS)
    planned_ = sum(count for count, _ in FATES.values())
    assert (summary.planned, summary.sent, summary.failed) == (planned_, planned_ - ended_badly, ended_badly)
    assert (summary.pending, summary.unknown, summary.doubled) == (0, 0, 0)


def test_every_failure_has_its_reason_in_the_database(run: Run):
    reasons = {(one.kind, one.code, one.reason): one.count for one in run.store.failure_reasons(CAMPAIGN)}
    assert reasons == {end: FATES[fate][0] for fate, end in ENDS.items()}


def test_every_retry_has_its_reason_in_the_database(run: Run):
    reasons = {(one.kind, one.code): one.count for one in run.store.retry_reasons(CAMPAIGN)}
    busy = 2 * FATES["busy twice"][0] + 3 * FATES["busy for ever"][0]
    lost = FATES["taken, answer lost"][0] + FATES["not taken, answer lost"][0]
    assert reasons == {
        ("rate_limited", "20429"): busy,
        ("lost_answer", None): lost,
        ("temporary", "20500"): FATES["server error"][0],
    }


def test_a_message_out_of_retries_was_posted_four_times_on_the_schedule(run: Run):
    for message in run.messages["busy for ever"]:
        at_s = [request.at_s for request in run.twilio.requests if request.form.get("To") == [message.to]]
        waits_s = [later - earlier for earlier, later in pairwise(at_s)]
        assert len(at_s) == 4
        for waited_s, planned_s in zip(waits_s, (0.2, 0.4, 0.8), strict=True):
            assert waited_s >= planned_s - 0.01
            assert waited_s < planned_s + 5  # a busy machine is late, never early


def test_other_messages_are_posted_once(run: Run):
    posts = Counter(request.form["To"][0] for request in run.twilio.requests if request.method == "POST")
    assert {posts[message.to] for message in run.messages["fine"]} == {1}
    assert {posts[message.to] for message in run.messages["no such number"]} == {1}
    assert {posts[message.to] for message in run.messages["taken, answer lost"]} == {1}


def test_the_results_come_back_whole(run: Run):
    accepted = run.results[str(run.messages["busy twice"][0].id)]
    assert accepted["provider"] == "twilio"
    assert accepted["provider_id"].startswith("SM")
    failed = run.results[str(run.messages["opted out"][0].id)]
    assert isinstance(failed, SendFailed)
    assert failed.failure.code == 21610
    assert failed.attempts == 1


def test_no_number_and_no_text_is_in_the_failures(run: Run):
    told = " ".join(str(end) for end in run.results.values() if isinstance(end, SendFailed))
    assert "+1555" not in told
    assert "Hello" not in told
