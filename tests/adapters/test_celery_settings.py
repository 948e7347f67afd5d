"""Settings that would break a promise are named when a worker starts, or at the first run of a task."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.adapters.celery_runs import NOBODY, celery_app, own_task, published, running
from tests.adapters.texts import MESSAGE, TimedSender

from smsretry import ConfigurationError, Dispatcher
from smsretry.adapters.celery import deliver, recover_elsewhere, recover_every, sms_task
from smsretry.adapters.celery.settings import problems_of_app
from smsretry.journal import MemoryJournal
from smsretry.testing import ScriptedSender

ON_REDIS = "redis://127.0.0.1:9/0"


def told(app: Any) -> str:
    app.finalize()
    return "\n".join(problems_of_app(app))


def registered(app: Any, journal: Any = None, **options: Any) -> Any:
    return sms_task(app, Dispatcher(TimedSender(), journal=journal), name="texts.send", **options)


def test_good_settings_are_told_nothing(store):
    app = celery_app(task_time_limit=60, task_soft_time_limit=40)
    task = registered(app, store)
    recover_every(app, store, task)
    assert told(app) == ""


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"soft_time_limit": 3, "time_limit": 40}, ["--soft-time-limit is 3 s"]),
        ({"soft_time_limit": 30, "time_limit": None}, []),
        ({"soft_time_limit": None, "time_limit": 4}, ["--time-limit is 4 s"]),
    ],
)
def test_limits_that_a_worker_was_started_with_are_told(limits, words):
    app = celery_app()
    registered(app)
    app.finalize()
    found = list(problems_of_app(app, SimpleNamespace(**limits)))
    assert [word in problem for word, problem in zip(words, found, strict=True)] == [True] * len(words)


def test_a_limit_of_the_application_is_told_once():
    app = celery_app(task_soft_time_limit=3)
    registered(app)
    app.finalize()
    [problem] = problems_of_app(app, SimpleNamespace(soft_time_limit=3, time_limit=None))
    assert "soft_time_limit is 3 s" in problem


def test_without_a_journal_early_acknowledgement_is_a_choice():
    app = celery_app()
    registered(app, acks_late=False)
    assert told(app) == ""


def test_a_journal_without_recover_is_told_once_with_the_remedy(store):
    app = celery_app()
    registered(app, store)
    sms_task(app, Dispatcher(TimedSender(), journal=store), name="texts.other")
    [problem] = told(app).splitlines()
    assert "waits for ever" in problem
    assert "recover_every(app, store, texts)" in problem


def test_a_recover_that_runs_elsewhere_is_believed(store):
    app = celery_app()
    registered(app, store)
    recover_elsewhere(app)
    assert told(app) == ""


@pytest.mark.parametrize("option", ["acks_late", "reject_on_worker_lost"])
def test_an_acknowledgement_that_loses_what_a_killed_worker_held_is_told_where_nobody_recovers(store, option):
    app = celery_app()
    task = registered(app, store, **{option: False})
    assert f"texts.send: {option} is off" in told(app)
    recover_every(app, store, task)
    assert told(app) == ""


@pytest.mark.parametrize("name", ["time_limit", "soft_time_limit"])
def test_a_time_limit_that_a_send_may_exceed_is_told(name):
    app = celery_app()
    registered(app, **{name: 10})
    assert f"texts.send: {name} is 10 s and one send may take 10 s" in told(app)
    assert f"Set {name} to 25 or more" in told(app)


def test_a_time_limit_of_the_whole_application_is_told_too():
    app = celery_app(task_time_limit=5)
    registered(app)
    assert "texts.send: time_limit is 5 s" in told(app)


def test_arguments_in_the_result_backend_are_told():
    app = celery_app(result_extended=True)
    registered(app)
    assert "Set result_extended to False" in told(app)


def test_an_application_without_texts_is_left_in_peace():
    app = celery_app(result_extended=True)
    own_task(app)
    assert told(app) == ""


def test_a_broker_that_hands_out_again_what_is_being_sent_is_told(store):
    app = celery_app(broker_url=ON_REDIS, broker_transport_options={"visibility_timeout": 30})
    recover_every(app, store, registered(app, store))
    assert "hands a message out again after 30 s (visibility_timeout)" in told(app)
    assert "Set visibility_timeout in broker_transport_options to 120 or more" in told(app)


def test_without_a_journal_it_is_the_send_itself_that_must_fit_in():
    app = celery_app(broker_url=ON_REDIS, broker_transport_options={"visibility_timeout": 30})
    registered(app)
    assert told(app) == ""
    app.conf.broker_transport_options = {"visibility_timeout": 8}
    assert "hands a message out again after 8 s" in told(app)


def test_a_claim_must_fit_in_whether_or_not_the_sender_says_how_long_it_takes(store):
    app = celery_app(broker_url=ON_REDIS, broker_transport_options={"visibility_timeout": 30})
    recover_every(app, store, sms_task(app, Dispatcher(ScriptedSender(), journal=store), name="texts.send"))
    assert "hands a message out again after 30 s (visibility_timeout)" in told(app)


def test_a_consumer_timeout_of_rabbitmq_that_a_claim_may_exceed_is_told(store):
    app = celery_app(broker_url=NOBODY, broker_transport_options={"consumer_timeout": 45})
    recover_every(app, store, registered(app, store))
    assert "hands a message out again after 45 s (consumer_timeout)" in told(app)


def test_quorum_queues_whose_publishes_are_not_confirmed_are_told_for_what_waits_may_be_lost(store):
    app = celery_app(broker_url=NOBODY, task_default_queue_type="quorum")
    task = registered(app, store)
    assert "Set confirm_publish to True in broker_transport_options" in told(app)
    recover_every(app, store, task)
    assert told(app) == ""


def test_a_text_that_no_journal_knows_needs_confirmed_publishes_whatever_recovers_the_others(store):
    app = celery_app(broker_url=NOBODY, task_default_queue_type="quorum")
    recover_every(app, store, registered(app, store))
    sms_task(app, Dispatcher(TimedSender()), name="texts.other")
    assert "confirm_publish is off" in told(app)


@pytest.mark.parametrize(
    "settings",
    [
        {"broker_transport_options": {"confirm_publish": True}, "task_default_queue_type": "quorum"},
        {"broker_transport_options": {}},
    ],
    ids=["confirmed", "no quorum queue"],
)
def test_publishes_that_are_confirmed_or_wait_in_workers_are_told_nothing(settings):
    app = celery_app(broker_url=NOBODY, **settings)
    registered(app)
    assert told(app) == ""


def test_a_task_that_expires_is_told_for_its_texts_vanish(store):
    app = celery_app()
    recover_every(app, store, registered(app, store, expires=60))
    assert "texts.send: expires is set" in told(app)
    assert "set send_before on the message" in told(app)


def test_a_task_of_ones_own_that_expires_is_told_at_its_first_run(caplog):
    own = own_task(celery_app(), expires=60)
    with caplog.at_level(logging.WARNING, "smsretry"), running(own):
        deliver(own, Dispatcher(TimedSender()), MESSAGE)
    assert "texts.own: expires is set" in caplog.text


def test_a_task_that_celery_retries_when_its_child_is_lost_is_not_called_lost(store):
    app = celery_app()
    registered(app, store, reject_on_worker_lost=False, retry_on_worker_lost=True)
    assert "reject_on_worker_lost" not in told(app)


def test_a_journal_in_memory_is_told_for_other_processes_cannot_read_it():
    app = celery_app()
    recover_elsewhere(app)
    registered(app, MemoryJournal())
    assert "its journal (MemoryJournal) lives in one process" in told(app)


def test_a_worker_logs_what_it_is_told(store, caplog):
    app = celery_app()
    registered(app, store)
    with caplog.at_level(logging.WARNING, "smsretry"), started(app):
        pass
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "recover_every" in caplog.text


def test_an_own_task_and_a_factory_are_checked_at_their_first_run_and_once(store, caplog):
    app = celery_app()
    dispatcher = Dispatcher(TimedSender(), journal=store)
    own = own_task(app, soft_time_limit=5)
    made = sms_task(app, lambda: dispatcher, name="texts.made", journal=store, soft_time_limit=5)
    assert "soft_time_limit" not in told(app)
    with caplog.at_level(logging.WARNING, "smsretry"):
        for _ in range(2):
            with running(own):
                deliver(own, dispatcher, MESSAGE)
            with running(made):
                made.run(MESSAGE.to_dict())
    assert caplog.text.count("texts.own: soft_time_limit is 5 s") == 1
    assert caplog.text.count("texts.made: soft_time_limit is 5 s") == 1
    assert caplog.text.count("there is a journal and no recover") == 1  # of texts.made the worker's start has told


def test_a_factory_whose_journal_the_task_does_not_know_is_told_for_nothing_is_planned(store, caplog):
    app = celery_app()
    recover_elsewhere(app)
    made = sms_task(app, lambda: Dispatcher(TimedSender(), journal=store), name="texts.made")
    app.finalize()
    with caplog.at_level(logging.WARNING, "smsretry"):
        for _ in range(2):
            with running(made):
                made.run(MESSAGE.to_dict())
    [problem] = [record.getMessage() for record in caplog.records]
    assert "send() plans nothing" in problem
    assert "journal=store" in problem


# --- recover beside a worker ---


class Sweeps:
    """Be a store whose recover is counted, and fails the first time."""

    def __init__(self) -> None:
        self.swept = threading.Semaphore(0)
        self.calls: list[tuple[Any, float]] = []

    def recover(self, requeue: Any, *, grace_s: float) -> None:
        self.calls.append((requeue, grace_s))
        self.swept.release()
        if len(self.calls) == 1:
            raise ConnectionError


@contextlib.contextmanager
def started(app: Any) -> Iterator[None]:
    """Start what a worker of ``app`` starts for us, and stop it."""
    app.finalize()
    worker = SimpleNamespace(app=app)
    steps = [step(worker) for step in app.steps["worker"]]
    for step in steps:
        step.start(worker)
    try:
        yield
    finally:
        for step in steps:
            step.stop(worker)


def queue_again(message_id: str, metadata: Any) -> None:
    """Stand for an application's own function that queues a message."""


def sweepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "smsretry-recover"]


def test_recover_runs_from_the_start_of_a_worker_to_its_end_whatever_goes_wrong(caplog):
    app, store, queue = celery_app(), Sweeps(), queue_again
    recover_every(app, store, queue, every_s=0.01, grace_s=5.0)
    assert sweepers() == []
    with caplog.at_level(logging.ERROR, "smsretry"), started(app):
        for _ in range(3):
            assert store.swept.acquire(timeout=10)
    assert sweepers() == []
    assert store.calls[0] == (queue, 5.0)
    assert "recover failed (ConnectionError): it runs again in 0.01 s" in caplog.text


@pytest.mark.parametrize("times", [{"every_s": 0}, {"grace_s": -1}, {"every_s": float("inf")}, {"every_s": "60"}])
def test_times_that_are_none_are_refused(times):
    with pytest.raises(ConfigurationError, match="must be more than 0 seconds"):
        recover_every(celery_app(), Sweeps(), queue_again, **times)


@pytest.mark.parametrize(
    ("store", "queue", "says"),
    [
        (
            "sqlite:///sms.db",
            queue_again,
            "store must have a method recover(queue, grace_s=...), got str. Use an SQLStore",
        ),
        (Sweeps, queue_again, "store must have a method recover(queue, grace_s=...), got a class. Use an SQLStore"),
        (Sweeps(), "texts.send", "queue must be a ready task, or a function of the id and the metadata"),
        (Sweeps(), None, "queue must be a ready task, or a function of the id and the metadata"),
    ],
    ids=["a URL", "a class", "a name", "nothing"],
)
def test_what_could_never_recover_is_refused_where_it_is_registered(store, queue, says):
    app = celery_app()
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        recover_every(app, store, queue)
    with started(app):
        assert sweepers() == []


def test_a_task_of_ones_own_cannot_recover_by_itself():
    with pytest.raises(ConfigurationError, match=r"'texts.own' was not made by sms_task.*a function that queues it"):
        recover_every(celery_app(), Sweeps(), own_task(celery_app()))


@pytest.mark.parametrize(
    "register", [lambda app: registered(app), lambda app: recover_every(app, Sweeps(), queue_again)]
)
def test_what_is_no_celery_app_is_refused(register):
    with pytest.raises(ConfigurationError, match="app must be a Celery app, got NoneType"):
        register(None)


def test_an_overdue_message_is_queued_again_by_the_worker(store):
    app = celery_app()
    task = registered(app, store)
    recover_every(app, store, task, every_s=0.05, grace_s=0.01)
    store.plan(MESSAGE)
    found: list[Any] = []
    with started(app):
        deadline = time.monotonic() + 10
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
            found = published(app)
    assert found[0].headers["id"] == MESSAGE.id


FORKING = """
import os, threading, time
from smsretry.adapters._seam import Sweeper

lock, begun = threading.Lock(), threading.Event()

class Store:
    def recover(self, requeue, *, grace_s):
        with lock:  # as a database driver or a logger holds one
            begun.set()
            time.sleep(0.2)

sweeper = Sweeper(Store(), print, every_s=60, grace_s=60)
sweeper.start()
begun.wait()
child = os.fork()
if child == 0:
    free = lock.acquire(timeout=1)
    if free:
        lock.release()
        sweeper.sweep()
    os._exit(0 if free else 1)
_, status = os.waitpid(child, 0)
sweeper.sweep()
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_waits_for_the_sweep_that_is_under_way():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "0"
