"""Messages through real Celery workers: forked children on a broker of files, threads on a real Redis."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery
from tests.integration.celery_sender import INVALID
from tests.integration.celery_workers import Worker, on_files, on_redis, running_worker

from smsretry import AttemptState, FailureKind, GiveUpReason, Message, Receipt, RetryPolicy, SendFailed, SendUnknown
from smsretry.errors import ConfigurationError, ProviderError
from smsretry.store import MessageState, SQLStore

pytestmark = pytest.mark.integration

TASKS = "tests.integration.celery_tasks"
NUMBER = "+15005550006"
TEXT = "Your parcel is at the door"
WITHIN_S = 30.0
SLACK_S = 1.0
"""What a busy machine may add to a wait."""
TICK_S = 1.0
"""Without an event loop, as on files, Celery's timer looks only once a second."""
QUICK = RetryPolicy(max_retries=5, first_delay_s=0.1, settle_after_s=0.0)


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Lend a worker with forked children, on files and SQLite."""
    folder = tmp_path_factory.mktemp("forking")
    with running_worker(TASKS, on_files(folder), folder, "--pool=prefork", "--concurrency=2") as worker:
        yield worker


@pytest.fixture(scope="module")
def threaded_worker(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Lend a worker with threads, on a Redis that hands out again what waits for 4 seconds, with events."""
    folder = tmp_path_factory.mktemp("threaded")
    conf = on_redis(redis_url, visibility_timeout=4, global_keyprefix=f"{uuid.uuid4().hex}:")
    with running_worker(TASKS, conf, folder, "--pool=threads", "--concurrency=4", "-E") as worker:
        yield worker
        gc.collect()  # a result that is collected later looks for its Redis


@pytest.fixture(scope="module")
def seven_seconds(threaded_worker: Worker) -> dict[str, tuple[float, Message, Any]]:
    """Send two texts that wait for 7 seconds, before all others; what they did is looked at last."""
    retried, postponed = message("busy", "taken"), message("taken")
    return {
        "retried": (time.time(), retried, threaded_worker.task("texts.later").send(retried)),
        "postponed": (time.time(), postponed, threaded_worker.task("texts.send").send(postponed, countdown=7.0)),
    }


@pytest.fixture
def threaded(threaded_worker: Worker, seven_seconds: object) -> Worker:
    return threaded_worker


@pytest.fixture(params=["forking", "threaded"])
def worker(request: pytest.FixtureRequest) -> Worker:
    found: Worker = request.getfixturevalue(request.param)
    return found


def message(*answers: str, **fields: Any) -> Message:
    fields.setdefault("id", uuid.uuid4().hex)
    return Message(NUMBER, TEXT, metadata={"answers": list(answers)}, **fields)


def end_of(result: Any) -> Any:
    return result.get(timeout=WITHIN_S, interval=0.05)


def waits(worker: Worker, message_id: str) -> list[float]:
    times = [attempt.at for attempt in worker.attempts(message_id)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_a_text_is_sent_and_its_receipt_comes_back_as_json(worker):
    text = message("taken")
    result = worker.task("texts.send").delay(text.to_dict())
    receipt = Receipt.from_dict(end_of(result))
    assert receipt.provider_id == f"sid-{text.id}"
    assert len(worker.attempts(str(text.id))) == 1


def test_a_text_that_always_fails_is_tried_on_the_schedule_of_the_policy_whatever_max_retries_says(worker):
    text = message("busy")
    result = worker.task("texts.send").send(text)
    with pytest.raises(SendFailed) as raised:
        end_of(result)
    schedule = QUICK.schedule()
    tick_s = TICK_S if worker.app.conf.broker_url.startswith("filesystem://") else 0.0
    measured = waits(worker, str(text.id))
    assert len(measured) == len(schedule) == 5
    for wait_s, scheduled_s in zip(measured, schedule, strict=True):
        assert scheduled_s <= wait_s <= scheduled_s + SLACK_S + tick_s
    assert raised.value.reason is GiveUpReason.RETRIES_EXHAUSTED
    assert raised.value.attempts == 6


def test_a_permanent_failure_is_one_attempt_and_comes_back_whole(worker):
    text = message("invalid")
    result = worker.task("texts.send").send(text)
    with pytest.raises(SendFailed) as raised:
        end_of(result)
    assert result.state == "FAILURE"
    assert raised.value.args == (text.id, "permanent", 1, INVALID.to_dict())
    assert raised.value.failure == INVALID
    assert len(worker.attempts(str(text.id))) == 1


def test_other_messages_are_untouched_by_one_that_fails(worker):
    texts = [message("taken"), message("invalid"), message("busy", "taken"), message("taken")]
    task = worker.task("texts.send")
    results = [task.send(text) for text in texts]
    ends = [result.get(timeout=WITHIN_S, interval=0.05, propagate=False) for result in results]
    assert [isinstance(end, SendFailed) for end in ends] == [False, True, False, False]
    assert [len(worker.attempts(str(text.id))) for text in texts] == [1, 1, 2, 1]


def test_a_lost_answer_is_looked_up_and_not_sent_again(worker):
    text = message("lost")
    receipt = Receipt.from_dict(end_of(worker.task("texts.send").send(text)))
    assert receipt.provider_id == f"sid-{text.id}"
    assert len(worker.attempts(str(text.id))) == 1


def test_a_doubt_that_is_not_settled_yet_waits_without_using_up_the_only_retry(forking):
    text = message("drop", "taken")
    end_of(forking.task("texts.patient").send(text))
    [wait_s] = waits(forking, str(text.id))
    assert wait_s >= 1.0


def test_a_text_without_an_id_keeps_that_of_its_task_through_all_retries(worker):
    result = worker.task("texts.send").delay(message("busy", "busy", "taken", id=None).to_dict())
    assert end_of(result)["provider_id"] == f"sid-{result.id}"
    assert len(worker.attempts(result.id)) == 3


def test_while_it_waits_a_message_is_in_retry_with_its_failure_under_its_own_id(worker):
    text = message("busy", "taken")
    task = worker.task("texts.later")
    task.send(text)
    result = worker.app.AsyncResult(text.id)
    assert eventually(lambda: result.state == "RETRY")
    assert isinstance(result.result, ProviderError)
    assert result.result.failure.kind is FailureKind.RATE_LIMITED


def test_a_factory_makes_one_dispatcher_in_each_process(worker):
    task = worker.task("texts.made")
    for result in [task.send(message("busy", "taken")) for _ in range(8)]:
        end_of(result)
    pids = [json.loads(line)["pid"] for line in (worker.folder / "made.jsonl").read_text().splitlines()]
    assert 1 <= len(pids) == len(set(pids))


def test_an_own_task_looks_its_customer_up_in_every_run_and_delivers(forking):
    result = forking.app.send_task("texts.remind", ("17", ["busy", "busy", "busy", "busy", "taken"]))
    assert end_of(result) == f"sid-{result.id}"
    attempts = forking.attempts(result.id)
    assert [attempt.body for attempt in attempts] == ["Dear Ada, see you at 9."] * 5


def test_an_own_task_with_autoretry_fails_with_the_reason_and_sends_nothing(forking):
    text = message("invalid")
    with pytest.raises(ConfigurationError, match="Remove autoretry_for"):
        end_of(forking.app.send_task("texts.autoretry", (text.to_dict(),)))
    assert forking.attempts(str(text.id)) == []


def test_a_soft_time_limit_during_a_send_is_a_lost_answer(forking):
    text = message("stuck")
    receipt = Receipt.from_dict(end_of(forking.task("texts.limited").send(text)))
    assert receipt.provider_id == f"sid-{text.id}"
    assert len(forking.attempts(str(text.id))) == 1


def test_a_retry_that_the_broker_refuses_is_not_lost(worker):
    text = message("busy", "taken")
    assert end_of(worker.task("texts.badline").send(text))
    assert len(worker.attempts(str(text.id))) == 2
    assert "this run goes back to the broker" in worker.log()


def test_a_corrupt_state_fails_the_task_and_sends_nothing(worker):
    text = message("taken")
    result = worker.task("texts.send").apply_async(
        (text.to_dict(),), headers={"smsretry_state": '{"v": 1, "retries": -1}'}
    )
    with pytest.raises(ValueError, match="cannot be read, so nothing was sent"):
        end_of(result)
    assert worker.attempts(str(text.id)) == []


def test_a_last_answer_that_is_lost_is_looked_up_before_the_message_ends_as_failed(forking):
    text = message("drop")
    result = forking.task("texts.send").send(text, state=AttemptState(retries=5))
    with pytest.raises(SendFailed):  # the provider, asked, does not have it
        end_of(result)
    assert len(forking.attempts(str(text.id))) == 1


def test_an_end_that_nobody_knows_is_called_unknown(forking):
    text = message("drop")
    with pytest.raises(SendUnknown) as raised:
        end_of(forking.task("texts.unasked").send(text))
    assert raised.value.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert len(forking.attempts(str(text.id))) == 1


def journal_of(worker: Worker) -> SQLStore:
    return SQLStore(f"sqlite:///{worker.folder / 'journal.db'}")


def ended_as(worker: Worker, text: Message) -> MessageState | None:
    with journal_of(worker) as journal:
        record = journal.message(str(text.id))
    return None if record is None or record.state is MessageState.PENDING else record.state


def test_with_a_journal_a_text_that_is_delivered_three_times_is_sent_once(worker):
    text = message("busy", "taken")
    results = [worker.task("texts.journaled").apply_async((text.to_dict(),)) for _ in range(3)]
    assert {end_of(result)["provider_id"] for result in results} == {f"sid-{text.id}"}
    assert [attempt.answer for attempt in worker.attempts(str(text.id))] == ["busy", "taken"]


def test_a_text_that_was_planned_and_never_queued_is_queued_by_the_worker(worker):
    text = message("taken")
    with journal_of(worker) as journal:
        journal.plan(text)
        assert eventually(lambda: journal.campaign_summary(None).pending == 0)
    assert len(worker.attempts(str(text.id))) == 1


def test_with_a_journal_a_soft_time_limit_during_a_send_is_a_lost_answer(forking):
    text = message("stuck")
    receipt = Receipt.from_dict(end_of(forking.task("texts.journaled.limited").send(text)))
    assert receipt.provider_id == f"sid-{text.id}"
    assert len(forking.attempts(str(text.id))) == 1


@pytest.mark.parametrize("name", ["texts.in_turn", "texts.in_turn.journaled"])
def test_texts_over_the_limit_wait_in_the_broker_for_their_turn_and_use_up_no_retry(threaded, name):
    sender_id = f"+1500{uuid.uuid4().int % 10**7:07d}"
    texts = [replace(message("taken", sender_id=sender_id), body=f"{TEXT} {number}") for number in range(8)]
    for result in [threaded.task(name).send(text) for text in texts]:
        end_of(result)  # the policy has no retries: whoever used one up would have failed
    attempts = [threaded.attempts(str(text.id)) for text in texts]
    times = sorted(attempt.at for (attempt,) in attempts)
    assert times[-1] - times[0] >= 6 / 4 - 0.5  # 2 at once, and 4 a second; the first may be slow on its way
    assert times[-1] - times[0] <= 6 / 4 + SLACK_S + TICK_S


def test_with_a_journal_a_hard_time_limit_during_a_send_is_a_lost_answer_that_recover_settles(forking):
    text = message("stuck")
    forking.task("texts.journaled.cut").send(text)
    assert eventually(lambda: ended_as(forking, text) is MessageState.ACCEPTED)
    assert len(forking.attempts(str(text.id))) == 1


@pytest.mark.parametrize(("answer", "sends"), [("stuck", 1), ("hung", 2)], ids=["taken", "not taken"])
def test_with_a_journal_and_early_acknowledgement_recover_goes_on_for_a_child_that_is_killed(forking, answer, sends):
    text = message(answer, "taken")
    forking.task("texts.journaled.early").send(text)
    assert eventually(lambda: forking.attempts(str(text.id)))
    os.kill(forking.attempts(str(text.id))[0].pid, signal.SIGKILL)
    assert eventually(lambda: ended_as(forking, text) is MessageState.ACCEPTED)
    assert len(forking.attempts(str(text.id))) == sends


@pytest.mark.parametrize(
    ("answer", "state"), [("stuck", MessageState.ACCEPTED), ("hung", MessageState.CANCELED)], ids=["taken", "not taken"]
)
def test_a_text_whose_task_is_revoked_and_killed_is_asked_about_and_not_sent_again(forking, answer, state):
    text = message(answer)
    sending = forking.task("texts.journaled.early").send(text)
    assert eventually(lambda: forking.attempts(str(text.id)))
    forking.app.control.revoke(sending.id, terminate=True, signal="SIGKILL")
    assert eventually(lambda: ended_as(forking, text) is state)
    assert len(forking.attempts(str(text.id))) == 1


def test_a_revoked_text_is_canceled_in_the_journal(threaded):
    text = message("taken", campaign="revoked")
    with journal_of(threaded) as journal:
        journal.plan(text, due_in_s=60)
        waiting = threaded.task("texts.journaled").send(text, countdown=2)
        threaded.app.control.revoke(waiting.id)
        assert eventually(lambda: journal.campaign_summary("revoked").canceled == 1)
    assert threaded.attempts(str(text.id)) == []


def test_events_inspection_and_log_show_neither_number_nor_text(threaded):
    texts = [message("busy", "taken"), message("invalid")]
    with listening(threaded.app) as events:
        assert eventually(lambda: hears(events, threaded))
        for result in [threaded.task("texts.send").send(text) for text in texts]:
            result.get(timeout=WITHIN_S, interval=0.05, propagate=False)
        waiting = threaded.task("texts.send").send(message("taken"), countdown=60)
        assert eventually(lambda: any(event["uuid"] == waiting.id for event in events))
        held = threaded.app.control.inspect(timeout=1.0).scheduled()
    assert {"task-received", "task-started", "task-retried", "task-failed", "task-succeeded"} <= {
        event["type"] for event in events
    }
    assert waiting.id in json.dumps(held)
    seen = json.dumps([events, held], default=str) + threaded.log()
    assert NUMBER not in seen
    assert TEXT not in seen
    received = [event for event in events if event["type"] == "task-received" and event["uuid"] == texts[0].id]
    assert [event["retries"] for event in received] == [0, 1]
    assert all("***06" in event["args"] for event in received)
    assert received[1]["eta"] is not None
    threaded.app.control.revoke(waiting.id)


def test_a_text_that_has_ended_is_logged_without_a_traceback(forking):
    text = message("invalid")
    with pytest.raises(SendFailed):
        end_of(forking.task("texts.send").send(text))
    assert eventually(lambda: f"[{text.id}] raised expected" in forking.log())
    assert NUMBER not in forking.log()
    assert TEXT not in forking.log()


def test_a_wait_beyond_the_visibility_timeout_is_cut_into_hops_and_runs_once(threaded, seven_seconds):
    for _, _, result in seven_seconds.values():
        end_of(result)
    _, retried, _ = seven_seconds["retried"]
    [wait_s] = waits(threaded, str(retried.id))
    assert 7.0 <= wait_s <= 7.0 + SLACK_S
    sent_at, postponed, _ = seven_seconds["postponed"]
    [attempt] = threaded.attempts(str(postponed.id))
    assert 7.0 <= attempt.at - sent_at <= 7.0 + SLACK_S
    time.sleep(1.0)  # what was handed out twice would run at the same moment
    assert len(threaded.attempts(str(retried.id))) == 2
    assert len(threaded.attempts(str(postponed.id))) == 1


def hears(events: list[dict[str, Any]], worker: Worker) -> bool:
    """Say whether events arrive yet: a subscription to Redis begins some time after it was asked for."""
    end_of(worker.task("texts.send").send(message("taken")))
    return bool(events)


def eventually(condition: Any) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


class listening:  # noqa: N801  # it reads as a verb
    """Collect the events of all workers while the block lasts."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._events: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> list[dict[str, Any]]:
        self._thread.start()
        assert self._ready.wait(WITHIN_S)
        return self._events

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(WITHIN_S)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self._keep})
            self._receiver.on_consume_ready = lambda *_, **__: self._ready.set()
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _keep(self, event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            self._events.append(event)
