"""What needs no worker process of procrastinate: a worker in this process, on procrastinate's own in-memory queue."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import procrastinate
import pytest
from procrastinate.testing import InMemoryConnector
from tests.adapters.texts import BUSY, INVALID, MESSAGE, NUMBER, TEXT

from smsretry import (
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Dispatcher,
    InvalidMessage,
    Message,
    Receipt,
)
from smsretry.adapters.procrastinate import (
    deliver,
    deliver_async,
    recover_elsewhere,
    recover_every,
    sms_task,
    sms_task_async,
)
from smsretry.journal import MemoryJournal
from smsretry.testing import ScriptedSender


class AsyncSender:
    """Give the answers of a script in a running loop."""

    timeout_s: ClassVar[float] = 10.0

    def __init__(self, script: Any = ()) -> None:
        self.scripted = ScriptedSender(script)

    async def send(self, message: Message, /) -> Receipt:
        return self.scripted.send(message)


class Hanging:
    """Take ten seconds at most to send, and never answer."""

    timeout_s: ClassVar[float] = 10.0

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def send(self, message: Message, /) -> Receipt:
        self.began.set()
        await asyncio.Event().wait()
        raise NotImplementedError


@pytest.fixture
def app() -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector())


def work(app: procrastinate.App) -> None:
    """Run every job that is due."""
    asyncio.run(app.run_worker_async(wait=False, listen_notify=False, install_signal_handlers=False))


def jobs(app: procrastinate.App) -> list[dict[str, Any]]:
    connector: Any = app.connector
    return list(connector.jobs.values())


def own_task(app: procrastinate.App, dispatcher: Dispatcher, **options: Any) -> Any:
    @app.task(pass_context=True, name="shop.remind", **options)
    def remind(context, customer_id, smsretry_state=None):
        deliver(context, dispatcher, Message(NUMBER, TEXT, id=f"parcel:{customer_id}"))

    return remind


def state_of(job: dict[str, Any]) -> AttemptState:
    return AttemptState.from_dict(json.loads(job["args"]["smsretry_state"]))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "smsretry"]


def test_a_ready_task_sends_and_its_job_succeeds(app):
    sender = ScriptedSender()
    texts = sms_task(app, Dispatcher(sender), name="shop.send_sms")
    job_id = texts.send(MESSAGE)
    work(app)
    assert sender.sent == [MESSAGE]
    assert [(job["id"], job["status"]) for job in jobs(app)] == [(job_id, "succeeded")]


def test_a_retry_is_a_job_of_its_own_with_the_queue_and_the_lock_of_the_first(app):
    texts = sms_task(
        app,
        Dispatcher(ScriptedSender([BUSY])),
        name="shop.send_sms",
        queue="texts",
        priority=7,
        lock="a",
        queueing_lock="b",
    )
    texts.send(MESSAGE)
    before = datetime.now(UTC)
    work(app)
    first, second = jobs(app)
    assert (first["status"], second["status"]) == ("succeeded", "todo")
    assert (second["queue_name"], second["priority"], second["lock"]) == ("texts", 7, "a")
    assert second["args"]["message"] == first["args"]["message"]
    assert state_of(second).retries == 1
    assert timedelta(seconds=2) <= second["scheduled_at"] - before < timedelta(seconds=4)


def test_a_queueing_lock_that_is_taken_loses_no_retry(app):
    texts = sms_task(app, Dispatcher(ScriptedSender([BUSY])), name="shop.send_sms", queueing_lock="one")

    class Late(Dispatcher):
        def attempt(self, *args, **options):
            outcome = super().attempt(*args, **options)
            texts.send(Message(NUMBER, TEXT, id="parcel:18"), delay_s=60)  # while this one runs
            return outcome

    other = sms_task(app, Late(ScriptedSender([BUSY])), name="shop.other", queueing_lock="one")
    other.send(MESSAGE)
    work(app)
    assert [(job["task_name"], job["status"]) for job in jobs(app)] == [
        ("shop.other", "succeeded"),
        ("shop.send_sms", "todo"),
        ("shop.other", "todo"),
    ]


def test_a_delay_is_waited_for_in_the_queue(app):
    sender = ScriptedSender()
    texts = sms_task(app, Dispatcher(sender), name="shop.send_sms")
    before = datetime.now(UTC)
    texts.send(MESSAGE, delay_s=60)
    work(app)
    [job] = jobs(app)
    assert sender.sent == []
    assert timedelta(seconds=60) <= job["scheduled_at"] - before < timedelta(seconds=62)
    assert state_of(job).due == job["scheduled_at"]


def test_attempts_that_began_elsewhere_count(app):
    texts = sms_task(app, Dispatcher(ScriptedSender([BUSY])), name="shop.send_sms")
    texts.send(MESSAGE, state=AttemptState(retries=3))
    work(app)
    assert [job["status"] for job in jobs(app)] == ["failed"]


def test_a_permanent_failure_fails_the_job_and_is_not_repeated(app, caplog):
    texts = sms_task(app, Dispatcher(ScriptedSender([INVALID])), name="shop.send_sms")
    texts.send(MESSAGE)
    work(app)
    assert [job["status"] for job in jobs(app)] == ["failed"]
    assert "SendFailed" in caplog.text


def test_an_async_task_sends_in_the_loop(app):
    sender = AsyncSender([BUSY])
    texts = sms_task_async(app, lambda: AsyncDispatcher(sender), name="shop.send_sms")
    asyncio.run(texts.send_async(MESSAGE))
    work(app)
    first, second = jobs(app)
    assert (first["status"], second["status"], state_of(second).retries) == ("succeeded", "todo", 1)
    assert sender.scripted.sent == [MESSAGE]


def test_an_own_task_keeps_its_arguments(app):
    own_task(app, Dispatcher(ScriptedSender([BUSY]))).defer(customer_id=17)
    work(app)
    first, second = jobs(app)
    assert (first["status"], second["status"]) == ("succeeded", "todo")
    assert (second["args"]["customer_id"], state_of(second).retries) == (17, 1)


def test_an_own_async_task_keeps_its_arguments(app: Any):
    dispatcher = AsyncDispatcher(AsyncSender([BUSY]))

    @app.task(pass_context=True, name="shop.remind")
    async def remind(context, customer_id, smsretry_state=None):
        await deliver_async(context, dispatcher, Message(NUMBER, TEXT, id=f"parcel:{customer_id}"))

    remind.defer(customer_id=17)
    work(app)
    assert [job["args"]["customer_id"] for job in jobs(app)] == [17, 17]


# --- what is refused ---


def test_retry_is_refused_for_a_ready_task(app):
    with pytest.raises(ConfigurationError, match="retry would send anew"):
        sms_task(app, Dispatcher(ScriptedSender()), name="shop.send_sms", retry=3)


@pytest.mark.parametrize("retry", [3, procrastinate.RetryStrategy(max_attempts=1, retry_exceptions=[Exception])])
def test_retry_of_an_own_task_is_refused_before_anything_is_sent(app, caplog, retry):
    sender = ScriptedSender()
    own_task(app, Dispatcher(sender), retry=retry).defer(customer_id=17)
    work(app)
    assert sender.sent == []
    assert "retry of shop.remind would send anew" in caplog.text


def test_retry_for_exceptions_of_its_own_is_left_to_an_own_task(app):
    sender = ScriptedSender()
    own_task(app, Dispatcher(sender), retry=procrastinate.RetryStrategy(retry_exceptions=[KeyError])).defer(
        customer_id=17
    )
    work(app)
    assert len(sender.sent) == 1


def test_a_retry_that_would_send_again_what_was_sent_is_told_where_there_is_no_journal(app, caplog):
    def shop(app: Any, journal: Any) -> None:
        dispatcher = Dispatcher(ScriptedSender(), journal=journal)
        own_task(app, dispatcher, retry=procrastinate.RetryStrategy(retry_exceptions=[KeyError])).defer(customer_id=17)
        work(app)

    shop(app, None)
    [problem] = told(caplog)
    assert "shop.remind: retry is set, so an error of its body after deliver sends the text again" in problem
    caplog.clear()
    shop(procrastinate.App(connector=InMemoryConnector()), MemoryJournal())
    assert "retry is set" not in caplog.text


def test_an_own_task_that_takes_no_state_is_refused_before_anything_is_sent(app: Any, caplog):
    sender = ScriptedSender()

    @app.task(pass_context=True, name="shop.remind")
    def remind(context, customer_id):
        deliver(context, Dispatcher(sender), MESSAGE)

    remind.defer(customer_id=17)
    work(app)
    assert sender.sent == []
    assert "shop.remind must take smsretry_state=None" in caplog.text


def test_a_second_deliver_in_one_run_is_refused(app: Any, caplog):
    sender = ScriptedSender()

    @app.task(pass_context=True, name="shop.remind")
    def remind(context, smsretry_state=None):
        for number in (17, 18):
            deliver(context, Dispatcher(sender), Message(NUMBER, TEXT, id=f"parcel:{number}"))

    remind.defer()
    work(app)
    assert len(sender.sent) == 1
    assert "shop.remind called deliver twice in one run" in caplog.text


def test_deliver_outside_of_a_job_is_refused():
    with pytest.raises(ConfigurationError, match=r"Declare the task with @app.task\(pass_context=True\)"):
        deliver("context", Dispatcher(ScriptedSender()), MESSAGE)


@pytest.mark.parametrize("packed", [17, "", "no", "bm8=", MESSAGE.to_dict()])
def test_a_job_that_send_has_not_queued_sends_nothing(app, caplog, packed):
    sender = ScriptedSender()
    sms_task(app, Dispatcher(sender), name="shop.send_sms").task.defer(message=packed)
    work(app)
    assert sender.sent == []
    assert [job["status"] for job in jobs(app)] == ["failed"]
    assert "Queue it with send" in caplog.text


def test_a_corrupt_state_sends_nothing(app, caplog):
    sender = ScriptedSender()
    own_task(app, Dispatcher(sender)).defer(customer_id=17, smsretry_state="{")
    work(app)
    assert sender.sent == []
    assert "smsretry_state is no JSON text" in caplog.text


def test_what_is_no_message_is_not_queued(app):
    texts = sms_task(app, Dispatcher(ScriptedSender()), name="shop.send_sms")
    with pytest.raises(InvalidMessage, match=r"Give send a smsretry\.Message, got str"):
        texts.send(NUMBER)
    assert jobs(app) == []


def test_a_dispatcher_of_the_other_kind_is_refused(app):
    with pytest.raises(ConfigurationError, match="dispatcher must be a Dispatcher"):
        sms_task(app, AsyncDispatcher(AsyncSender()), name="shop.send_sms")
    with pytest.raises(ConfigurationError, match="dispatcher must be an AsyncDispatcher"):
        sms_task_async(app, Dispatcher(ScriptedSender()), name="shop.send_sms")


# --- what is shown ---


def test_neither_number_nor_text_is_logged_or_stands_in_the_arguments(app, caplog):
    caplog.set_level(logging.DEBUG)
    sms_task(app, Dispatcher(ScriptedSender([BUSY])), name="shop.send_sms").send(MESSAGE)
    sms_task(app, Dispatcher(ScriptedSender([INVALID])), name="shop.refused").send(MESSAGE)
    work(app)
    shown = f"{[vars(record) for record in caplog.records]} {jobs(app)}"
    assert "shop.refused" in shown
    assert NUMBER[1:] not in shown
    assert "parcel is" not in shown


# --- the journal ---


def test_a_message_is_planned_before_it_is_queued(app, store):
    texts = sms_task(app, Dispatcher(ScriptedSender(), journal=store), name="shop.send_sms")
    texts.send(MESSAGE)
    assert store.message("parcel:17").state == "pending"
    with pytest.raises(InvalidMessage, match="needs an id of its own"):
        texts.send(Message(NUMBER, TEXT))
    assert len(jobs(app)) == 1


def test_recover_every_queues_again_what_was_lost(app, store):
    texts = sms_task(app, Dispatcher(ScriptedSender(), journal=store), name="shop.send_sms")
    recover_every(app, store, texts, grace_s=0.001)
    store.plan(MESSAGE)  # and its job was lost
    app.configure_task("shop.send_sms.recover").defer(timestamp=0)
    work(app)
    assert store.message("parcel:17").state == "accepted"
    assert ("shop.send_sms.recover", "") in app.periodic_registry.periodic_tasks


def test_two_kinds_of_texts_recover_beside_each_other(app, store):
    for name in ("shop.texts", "shop.codes"):
        recover_every(app, store, sms_task(app, Dispatcher(ScriptedSender(), journal=store), name=name))
    sweeps = [one.task for one in app.periodic_registry.periodic_tasks.values()]
    assert {task.name for task in sweeps} == {"shop.texts.recover", "shop.codes.recover"}
    assert {task.queueing_lock for task in sweeps} == {"shop.texts.recover", "shop.codes.recover"}


def test_a_blueprint_that_recovers_is_seen_by_the_app(app, store, caplog):
    blueprint = procrastinate.Blueprint()
    texts = sms_task(blueprint, Dispatcher(ScriptedSender(), journal=store), name="texts")
    recover_every(blueprint, store, texts)
    app.add_tasks_from(blueprint, namespace="shop")
    texts.send(MESSAGE)
    work(app)
    assert store.message("parcel:17").state == "accepted"
    assert "no recover" not in caplog.text


def test_recover_runs_in_the_queue_of_the_texts(app, store):
    texts = sms_task(app, Dispatcher(ScriptedSender(), journal=store), name="shop.send_sms", queue="texts")
    recover_every(app, store, texts)
    assert app.tasks["shop.send_sms.recover"].queue == "texts"
    recover_every(app, store, texts, name="shop.recover", queue="slow")
    assert app.tasks["shop.recover"].queue == "slow"


def test_a_journal_without_recover_is_told_once_with_the_remedy(app, store, caplog):
    texts = sms_task(app, Dispatcher(ScriptedSender(), journal=store), name="shop.send_sms")
    for number in (17, 18):
        texts.send(Message(NUMBER, TEXT, id=f"parcel:{number}"))
    work(app)
    [problem] = told(caplog)
    assert "there is a journal and no recover" in problem
    assert "recover_every(app, store, texts)" in problem


def test_a_journal_that_the_ready_task_does_not_know_is_told(app, store, caplog):
    recover_elsewhere(app)
    sms_task(app, lambda: Dispatcher(ScriptedSender(), journal=store), name="shop.send_sms").send(MESSAGE)
    own_task(app, Dispatcher(ScriptedSender(), journal=store)).defer(customer_id=18)
    work(app)
    [problem] = told(caplog)
    assert problem.startswith("shop.send_sms: its dispatcher has a journal that the ready task does not know")


@pytest.mark.parametrize("recovers", [recover_elsewhere, lambda app: recover_every(app, RecoversNothing(), print)])
def test_a_recover_that_runs_is_told_nothing(app, store, caplog, recovers):
    recovers(app)
    sms_task(app, Dispatcher(ScriptedSender(), journal=store), name="shop.send_sms").send(MESSAGE)
    work(app)
    assert told(caplog) == []


class RecoversNothing:
    def recover(self, requeue, *, grace_s):
        del requeue, grace_s


def test_a_journal_in_memory_is_told(app, caplog):
    recover_elsewhere(app)
    sms_task(app, Dispatcher(ScriptedSender(), journal=MemoryJournal()), name="shop.send_sms").send(MESSAGE)
    work(app)
    assert "(MemoryJournal) lives in one process" in "\n".join(told(caplog))


# --- a worker that shuts down ---


def test_a_shutdown_that_may_cut_off_a_send_is_told(caplog):
    app = procrastinate.App(connector=InMemoryConnector(), worker_defaults={"shutdown_graceful_timeout": 5})
    sms_task_async(app, AsyncDispatcher(AsyncSender()), name="shop.send_sms").send(MESSAGE)
    work(app)
    assert "Set shutdown_graceful_timeout to 25 or more" in "\n".join(told(caplog))


def test_a_send_that_a_shutdown_cut_off_is_asked_about_in_its_next_run(app):
    async def run() -> None:
        sender = Hanging()
        texts = sms_task_async(app, AsyncDispatcher(sender), name="shop.send_sms")
        await texts.send_async(MESSAGE)
        options: Any = {"shutdown_graceful_timeout": 0.01, "listen_notify": False, "install_signal_handlers": False}
        worker = asyncio.create_task(app.run_worker_async(**options))
        await sender.began.wait()
        worker.cancel()
        await asyncio.wait([worker])

    asyncio.run(run())
    _, second = jobs(app)
    assert second["status"] == "todo"
    assert state_of(second).doubt_since is not None
