"""What the Huey adapter does in one process, on Huey's in-memory storage; a real consumer is in tests/queues."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from huey import MemoryHuey, RetryTask, SqliteHuey
from huey.exceptions import TaskException, TaskTimeout
from huey.serializer import SignedSerializer
from tests.adapters.texts import BUSY, INVALID, MESSAGE, NUMBER, TEXT, TimedSender

from smsretry import (
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    InvalidMessage,
    Message,
    NotAccepted,
    Receipt,
    RetryPolicy,
    SendFailed,
    SendUnknown,
)
from smsretry.adapters.huey import Carried, deliver, end_of, recover_elsewhere, recover_every, sms_task
from smsretry.core.lookup import Found
from smsretry.core.outcome import AttemptState
from smsretry.journal import MemoryJournal
from smsretry.store import SQLStore
from smsretry.testing import RecordingSink, ScriptedSender

QUICK = RetryPolicy(first_delay_s=0.001)
FAR_AWAY = datetime(9999, 1, 1)  # noqa: DTZ001  # as Huey keeps its times


class StoppedSender(ScriptedSender):
    """Be stopped by the worker in the middle of the first send."""

    def __init__(self, stop: BaseException) -> None:
        super().__init__()
        self._stops = [stop]

    def send(self, message: Message, /) -> Receipt:
        receipt = super().send(message)
        if self._stops:
            raise self._stops.pop()
        return receipt


def quick(sender: ScriptedSender, **parts: Any) -> Dispatcher:
    return Dispatcher(sender, **{"policy": QUICK, **parts})


@pytest.fixture
def huey() -> MemoryHuey:
    return MemoryHuey()


def works(huey: Any) -> list[Any]:
    """Run every job until none is left, without waiting, and return the runs."""
    runs: list[Any] = []
    while len(runs) < 20 and (jobs := [*iter(huey.dequeue, None), *huey.read_schedule(FAR_AWAY)]):
        for job in jobs:
            job.eta = None
            runs.append(job)
            huey.execute(job)
    return runs


def state_of(job: Any) -> Any:
    return json.loads(job.kwargs.beside["smsretry_state"])


def retries_of(job: Any) -> int:
    """Return the retries in the state that a run left, or came with where it was the last."""
    return int(state_of(job)["retries"])


def starts(huey: Any) -> None:
    """Do what each worker does first."""
    for hook in huey._startup.values():
        hook()


def failure_of(result: Any) -> NotAccepted | None:
    with pytest.raises(TaskException) as caught:
        result.get()
    return end_of(caught.value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "smsretry"]


# --- the ready task ---


def test_an_accepted_text_ends_with_its_receipt_under_the_id_of_the_message(huey: Any):
    texts = sms_task(huey, quick(ScriptedSender()), name="shop.texts")
    assert texts.send(MESSAGE).id == "parcel:17"
    works(huey)
    assert Receipt.from_dict(huey.result("parcel:17")).provider_id


def test_a_retry_keeps_its_job_and_counts(huey: Any):
    sender = ScriptedSender([BUSY, BUSY])
    sms_task(huey, quick(sender), name="shop.texts").send(MESSAGE)
    runs = works(huey)
    assert [job.id for job in runs] == ["parcel:17"] * 3
    assert [retries_of(job) for job in runs] == [1, 2, 2]
    assert sender.sent == [MESSAGE] * 3


def test_a_retry_waits_for_the_delay_of_the_policy(huey: Any):
    sms_task(huey, Dispatcher(ScriptedSender([BUSY])), name="shop.texts").send(MESSAGE)
    before = huey._get_timestamp()
    huey.execute(huey.dequeue())
    [waiting] = huey.scheduled()
    assert timedelta(seconds=2) <= waiting.eta - before < timedelta(seconds=3)
    assert huey.result_count() == 0


def test_a_message_without_an_id_has_that_of_its_job_in_every_run(huey: Any):
    sender = ScriptedSender([BUSY])
    job = sms_task(huey, quick(sender), name="shop.texts").send(Message(NUMBER, TEXT))
    works(huey)
    assert [message.id for message in sender.sent] == [job.id] * 2


def test_a_delay_is_waited_for_in_the_schedule(huey: Any):
    texts = sms_task(huey, quick(ScriptedSender()), name="shop.texts")
    texts.send(MESSAGE, delay_s=60.0)
    huey.execute(huey.dequeue())
    [waiting] = huey.scheduled()
    assert timedelta(seconds=58) < waiting.eta - huey._get_timestamp() <= timedelta(seconds=60)


def test_what_comes_before_its_time_waits_on(huey: Any):
    sender = ScriptedSender()
    sms_task(huey, quick(sender), name="shop.texts").send(MESSAGE, delay_s=60.0)
    job = huey.dequeue()
    job.eta = None  # as where the clock of a worker is wrong
    huey.execute(job)
    assert sender.sent == []
    assert huey.scheduled_count() == 1


def test_a_state_that_began_elsewhere_goes_on(huey: Any):
    sender = ScriptedSender([BUSY], repeat=True)
    texts = sms_task(huey, quick(sender, policy=replace(QUICK, max_retries=3)), name="shop.texts")
    texts.send(MESSAGE, state=AttemptState(retries=2))
    works(huey)
    assert len(sender.sent) == 2


@pytest.mark.parametrize(
    ("answers", "kind"), [([INVALID], SendFailed), ([Failure.of(FailureKind.LOST_ANSWER)] * 9, SendUnknown)]
)
def test_the_end_of_a_message_comes_back_whole(huey: Any, answers: Any, kind: type[NotAccepted]):
    now = [datetime.now().astimezone()]

    def clock() -> datetime:
        now[0] += timedelta(minutes=10)
        return now[0]

    sink = RecordingSink()
    result = sms_task(huey, quick(ScriptedSender(answers), sink=sink, clock=clock), name="shop.texts").send(MESSAGE)
    works(huey)
    end = failure_of(result)
    assert type(end) is kind
    assert (end.message_id, end.failure.kind) == ("parcel:17", answers[0].kind)


def test_another_error_is_no_end_of_a_message(huey: Any):
    @huey.task()
    def breaks() -> None:
        raise ValueError("(SendFailed)")

    result = breaks()
    works(huey)
    assert failure_of(result) is None


def test_without_results_the_queue_returns_nothing():
    huey = MemoryHuey(results=False)
    sender = ScriptedSender()
    assert sms_task(huey, quick(sender), name="shop.texts").send(MESSAGE) is None
    works(huey)
    assert sender.sent == [MESSAGE]


def test_a_function_makes_the_dispatcher_where_it_is_needed_and_once(huey: Any):
    made = []

    def make() -> Dispatcher:
        made.append(quick(ScriptedSender()))
        return made[-1]

    texts = sms_task(huey, make, name="shop.texts")
    texts.send(MESSAGE)
    texts.send(Message(NUMBER, TEXT, id="parcel:18"))
    assert made == []
    works(huey)
    assert len(made) == 1


def test_what_is_sent_in_sqlite_is_the_same(tmp_path: Path):
    huey: Any = SqliteHuey(filename=str(tmp_path / "huey.db"))
    sender = ScriptedSender([BUSY, INVALID])
    result = sms_task(huey, quick(sender), name="shop.texts").send(MESSAGE)
    runs = works(huey)
    assert [retries_of(job) for job in runs] == [1, 1]
    assert isinstance(failure_of(result), SendFailed)


# --- a task of an application's own ---


def own_task(huey: Any, dispatcher: Any, **options: Any) -> Any:
    @huey.task(context=True, **options)
    def remind(customer: int, *, polite: bool = False, task: Any) -> Any:
        assert (customer, polite) == (17, True)
        return deliver(task, dispatcher, MESSAGE).to_dict()

    return remind


def test_an_own_task_keeps_its_arguments_and_counts(huey: Any):
    sender = ScriptedSender([BUSY, BUSY])
    result = own_task(huey, quick(sender))(17, polite=True)
    runs = works(huey)
    assert [retries_of(job) for job in runs] == [1, 2, 2]
    assert [(job.args, job.kwargs) for job in runs] == [((17,), {"polite": True})] * 3
    assert Receipt.from_dict(result.get()).provider_id


def test_what_has_ended_is_not_repeated_by_the_retries_of_an_own_task(huey: Any):
    sender = ScriptedSender([INVALID], repeat=True)
    result = own_task(huey, quick(sender), retries=5)(17, polite=True)
    works(huey)
    assert len(sender.sent) == 1
    assert isinstance(failure_of(result), SendFailed)


def test_the_retries_of_the_policy_are_not_cut_short_by_those_of_huey(huey: Any):
    sender = ScriptedSender([BUSY], repeat=True)
    own_task(huey, quick(sender, policy=replace(QUICK, max_retries=5)), retries=2)(17, polite=True)
    works(huey)
    assert len(sender.sent) == 6


def test_an_error_of_the_body_is_retried_by_huey_and_keeps_the_state(huey: Any):
    sender, broken = ScriptedSender([BUSY]), [False, True]

    @huey.task(context=True, retries=1)
    def remind(task: Any) -> Any:
        if broken and broken.pop(0):
            raise ConnectionError
        return deliver(task, quick(sender), MESSAGE).to_dict()

    remind()
    runs = works(huey)
    assert len(runs) == 3
    assert [retries_of(job) for job in runs] == [1, 1, 1]


def test_a_body_sees_the_end_as_not_accepted(huey: Any):
    seen = []

    @huey.task(context=True)
    def remind(task: Any) -> str:
        try:
            return deliver(task, quick(ScriptedSender([INVALID])), MESSAGE).provider_id
        except NotAccepted as error:
            seen.append(error)
            return "write a letter"

    result = remind()
    works(huey)
    assert (seen[0].reason, result.get()) == ("permanent", "write a letter")


def test_a_body_that_swallows_the_retry_has_no_other_run(huey: Any):
    sender = ScriptedSender([BUSY])

    @huey.task(context=True)
    def remind(task: Any) -> None:
        with pytest.raises(RetryTask):
            deliver(task, quick(sender), MESSAGE)

    remind()
    works(huey)
    assert len(sender.sent) == 1


def test_one_run_delivers_once(huey: Any):
    @huey.task(context=True)
    def remind(task: Any) -> None:
        deliver(task, quick(ScriptedSender()), MESSAGE)
        with pytest.raises(ConfigurationError, match="called deliver twice in one run"):
            deliver(task, quick(ScriptedSender()), MESSAGE)

    result = remind()
    works(huey)
    assert result.get() is None


def test_an_own_task_makes_its_dispatcher_once(huey: Any):
    made = []

    def make() -> Dispatcher:
        made.append(quick(ScriptedSender([BUSY])))
        return made[-1]

    own_task(huey, make)(17, polite=True)
    works(huey)
    assert len(made) == 1


# --- being stopped in the middle of a send ---


@pytest.mark.parametrize("stop", [TaskTimeout(), KeyboardInterrupt()])
def test_a_send_that_is_stopped_is_in_doubt_and_goes_on(huey: Any, stop: BaseException):
    sink, sender = RecordingSink(), StoppedSender(stop)
    sms_task(huey, quick(sender, sink=sink), name="shop.texts").send(MESSAGE)
    huey.execute(huey.dequeue())
    [waiting] = huey.scheduled()
    assert AttemptState.from_dict(state_of(waiting)).doubt_since is not None
    assert len(sender.sent) == 1


def test_with_a_journal_a_send_that_is_stopped_waits_for_its_claim(huey: Any, store: SQLStore):
    sender = StoppedSender(KeyboardInterrupt())
    texts = sms_task(huey, quick(sender, journal=store, lease_s=600.0), name="shop.texts")
    texts.send(MESSAGE)
    huey.execute(huey.dequeue())
    [waiting] = huey.scheduled()
    assert waiting.eta - huey._get_timestamp() > timedelta(seconds=500)


# --- immediate mode ---


def test_in_immediate_mode_all_attempts_follow_each_other_at_once():
    huey: Any = MemoryHuey(immediate=True)
    sender = ScriptedSender([BUSY, BUSY])
    result = sms_task(huey, quick(sender), name="shop.texts").send(MESSAGE, delay_s=60.0)
    assert Receipt.from_dict(result.get()).provider_id
    assert len(sender.sent) == 3


def test_in_immediate_mode_a_lost_answer_ends_as_unknown():
    huey: Any = MemoryHuey(immediate=True)
    lost = Failure.of(FailureKind.LOST_ANSWER)
    result = sms_task(huey, quick(ScriptedSender([lost])), name="shop.texts").send(MESSAGE)
    assert isinstance(failure_of(result), SendUnknown)


def test_in_immediate_mode_what_has_to_wait_stays_in_the_journal(store: SQLStore):
    huey: Any = MemoryHuey(immediate=True)
    result = sms_task(huey, Dispatcher(ScriptedSender([BUSY]), journal=store), name="shop.texts").send(MESSAGE)
    assert result.get() is None
    assert store.message("parcel:17").state == "pending"


# --- bad input ---


def test_a_queue_that_is_no_huey_is_refused():
    with pytest.raises(ConfigurationError, match="huey must be a Huey, got str"):
        sms_task("redis://", quick(ScriptedSender()), name="shop.texts")


def test_a_dispatcher_that_is_none_is_refused(huey: Any):
    with pytest.raises(ConfigurationError, match="dispatcher must be a Dispatcher or a function"):
        sms_task(huey, ScriptedSender(), name="shop.texts")


def test_what_is_no_message_is_not_queued(huey: Any):
    with pytest.raises(InvalidMessage, match=r"Give send a smsretry\.Message, got dict"):
        sms_task(huey, quick(ScriptedSender()), name="shop.texts").send(MESSAGE.to_dict())
    assert len(huey) == 0


def test_deliver_needs_the_running_job():
    with pytest.raises(ConfigurationError, match=r"got NoneType. Declare @huey.task\(context=True\)"):
        deliver(None, quick(ScriptedSender()), MESSAGE)


def test_a_job_that_send_has_not_queued_sends_nothing(huey: Any, caplog: pytest.LogCaptureFixture):
    sender = ScriptedSender()
    sms_task(huey, quick(sender), name="shop.texts").task()
    works(huey)
    assert sender.sent == []
    assert "holds no message. Queue it with send(message)." in caplog.text


def test_with_a_journal_a_message_needs_an_id(huey: Any, store: SQLStore):
    with pytest.raises(InvalidMessage, match="needs an id of its own"):
        sms_task(huey, quick(ScriptedSender(), journal=store), name="shop.texts").send(Message(NUMBER, TEXT))
    assert len(huey) == 0


# --- what is seen ---


def test_neither_logs_nor_jobs_nor_results_show_number_or_text(huey: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    texts = sms_task(huey, quick(ScriptedSender([BUSY, INVALID])), name="shop.texts")
    result = texts.send(MESSAGE)
    [queued] = huey.pending()
    huey.execute(huey.dequeue())
    [scheduled] = huey.scheduled()
    works(huey)
    with pytest.raises(TaskException) as caught:
        result.get()
    jobs = [repr((job, job.args, job.kwargs, job.data)) for job in (queued, scheduled)]
    shown = "\n".join([*jobs, repr(result), repr(caught.value.metadata), caplog.text])
    assert "parcel:17" in shown
    assert NUMBER[1:] not in shown
    assert TEXT not in shown


def test_a_text_that_has_ended_is_logged_without_a_traceback(huey: Any, caplog: pytest.LogCaptureFixture):
    sms_task(huey, quick(ScriptedSender([INVALID])), name="shop.texts").send(MESSAGE)
    works(huey)
    assert "raised CancelExecution (aborted, will not be retried)" in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("options", [{}, {"compression": True}, {"serializer": SignedSerializer(secret="s")}])
def test_the_state_survives_every_serializer_of_huey(options: dict[str, Any]):
    huey: Any = MemoryHuey(**options)
    sender = ScriptedSender([BUSY, BUSY])
    own_task(huey, quick(sender))(17, polite=True)
    assert [retries_of(job) for job in works(huey)] == [1, 2, 2]


def test_what_rides_beside_arguments_is_no_argument():
    carried = pickle.loads(pickle.dumps(Carried({"customer": 17}, {"state": "x"})))
    assert (carried, carried.beside, repr(carried)) == ({"customer": 17}, {"state": "x"}, "{'customer': 17}")


# --- the journal ---


def test_a_message_is_planned_before_it_is_queued(huey: Any, store: SQLStore):
    class Away(MemoryHuey):
        def enqueue(self, task: Any) -> Any:
            assert store.message("parcel:17") is not None
            raise ConnectionError

    with pytest.raises(ConnectionError):
        sms_task(Away(), quick(ScriptedSender(), journal=store), name="shop.texts").send(MESSAGE)
    sender = ScriptedSender()
    texts = sms_task(huey, quick(sender, journal=store), name="shop.texts")
    assert recovered(store, texts) == 1
    works(huey)
    assert sender.sent == [MESSAGE]


def test_a_retry_that_the_storage_does_not_take_is_recovered(store: SQLStore):
    class Forgetful(MemoryHuey):
        def add_schedule(self, task: Any) -> None:
            raise ConnectionError

    sender = ScriptedSender([BUSY])
    away: Any = Forgetful()
    sms_task(away, quick(sender, journal=store), name="shop.texts").send(MESSAGE)
    with pytest.raises(ConnectionError):  # a consumer logs it
        away.execute(away.dequeue())
    assert store.message("parcel:17").state == "pending"


def test_a_revoked_job_is_canceled_in_the_journal(huey: Any, store: SQLStore):
    sender = ScriptedSender()
    texts = sms_task(huey, quick(sender, journal=store), name="shop.texts")
    texts.send(MESSAGE).revoke()
    works(huey)
    assert sender.sent == []
    assert store.message("parcel:17").state == "canceled"


def in_doubt_and_revoked(huey: Any, store: SQLStore) -> tuple[Any, ScriptedSender]:
    """Queue a text whose answer is lost, and revoke it while it waits to be asked about."""
    taken = Receipt("scripted", "S1", datetime.now(UTC))
    sender = ScriptedSender([Failure.of(FailureKind.LOST_ANSWER)], finds=[Found(taken)])
    texts = sms_task(huey, quick(sender, journal=store), name="shop.texts")
    texts.send(MESSAGE)
    huey.execute(huey.dequeue())
    return texts, sender


def test_a_revoked_job_whose_text_may_have_been_sent_is_asked_about(huey: Any, store: SQLStore):
    _, sender = in_doubt_and_revoked(huey, store)
    huey.revoke_by_id("parcel:17")
    works(huey)
    assert (len(sender.sent), store.message("parcel:17").state) == (1, "accepted")


def test_recover_queues_what_was_revoked_in_doubt_under_an_id_that_is_not(huey: Any, store: SQLStore):
    texts, sender = in_doubt_and_revoked(huey, store)
    huey.flush()  # and the look-up that waited is lost
    huey.revoke_by_id("parcel:17")
    assert recovered(store, texts) == 1
    works(huey)
    assert (len(sender.sent), store.message("parcel:17").state) == (1, "accepted")


def test_a_task_that_is_revoked_as_a_whole_does_not_queue_itself_again_and_again(huey: Any, store: SQLStore):
    texts, _ = in_doubt_and_revoked(huey, store)
    texts.task.revoke()
    assert len(works(huey)) == 1


def test_two_kinds_of_texts_recover_beside_each_other(huey: Any, store: SQLStore):
    first = sms_task(huey, quick(ScriptedSender(), journal=store), name="shop.texts")
    second = sms_task(huey, quick(ScriptedSender(), journal=store), name="shop.codes")
    for texts in (first, second):
        recover_every(huey, store, texts)
    periodic = huey.read_periodic(huey._get_timestamp())
    assert {job.name for job in periodic} == {"shop.texts.recover", "shop.codes.recover"}


def test_a_revoked_job_without_a_journal_is_dropped(huey: Any):
    sender = ScriptedSender()
    sms_task(huey, quick(sender), name="shop.texts").send(MESSAGE).revoke()
    works(huey)
    assert sender.sent == []


def test_recover_every_is_a_periodic_task(huey: Any, store: SQLStore):
    sender = ScriptedSender()
    texts = sms_task(huey, quick(sender, journal=store), name="shop.texts")
    store.plan([MESSAGE])
    recover_every(huey, store, texts, grace_s=1e-6)
    [periodic] = huey.read_periodic(huey._get_timestamp())
    huey.execute(periodic)
    works(huey)
    assert sender.sent == [MESSAGE]


def test_recover_every_refuses_what_cannot_be_recovered(huey: Any, store: SQLStore):
    with pytest.raises(ConfigurationError, match="queue must be a ready task, or a function"):
        recover_every(huey, store, "shop.texts")


def recovered(store: SQLStore, texts: Any) -> int:
    return int(store.recover(texts, grace_s=1e-6).handed_over)


# --- settings that would break a promise ---


def test_good_settings_are_told_nothing(huey: Any, store: SQLStore, caplog: pytest.LogCaptureFixture):
    texts = sms_task(huey, quick(TimedSender(), journal=store), name="shop.texts", timeout=25)
    recover_every(huey, store, texts)
    starts(huey)
    texts.send(MESSAGE)
    works(huey)
    assert warnings(caplog) == []


def test_a_journal_without_recover_is_told_once_when_a_consumer_starts(
    huey: Any, store: SQLStore, caplog: pytest.LogCaptureFixture
):
    sms_task(huey, quick(ScriptedSender(), journal=store), name="shop.texts")
    starts(huey)
    starts(huey)
    [problem] = warnings(caplog)
    assert "shop.texts: there is a journal and no recover" in problem
    assert "recover_every(huey, store, texts)" in problem


def test_a_recover_that_runs_elsewhere_is_believed(huey: Any, store: SQLStore, caplog: pytest.LogCaptureFixture):
    sms_task(huey, quick(ScriptedSender(), journal=store), name="shop.texts")
    recover_elsewhere(huey)
    starts(huey)
    assert warnings(caplog) == []


def test_a_timeout_within_the_time_of_a_send_is_told(huey: Any, caplog: pytest.LogCaptureFixture):
    sms_task(huey, quick(TimedSender()), name="shop.texts", timeout=10)
    starts(huey)
    [problem] = warnings(caplog)
    assert "timeout is 10 s and one send may take 10 s" in problem
    assert "Set timeout to 25 or more" in problem


def test_a_journal_that_lives_in_one_process_is_told(huey: Any, caplog: pytest.LogCaptureFixture):
    sms_task(huey, quick(ScriptedSender(), journal=MemoryJournal()), name="shop.texts")
    recover_elsewhere(huey)
    starts(huey)
    [problem] = warnings(caplog)
    assert "lives in one process" in problem


def test_a_journal_that_the_ready_task_does_not_know_is_told(
    huey: Any, store: SQLStore, caplog: pytest.LogCaptureFixture
):
    texts = sms_task(huey, lambda: quick(ScriptedSender(), journal=store), name="shop.texts")
    texts.send(MESSAGE)
    works(huey)
    [problem] = warnings(caplog)
    assert "send() plans nothing" in problem


@pytest.mark.parametrize(
    ("options", "told"), [({"expires": 600}, "set send_before"), ({"retries": 2}, "sends the text again")]
)
@pytest.mark.parametrize("registered", [own_task, lambda huey, *_, **options: sms_task(huey, *_, **options)])
def test_what_drops_or_doubles_a_text_is_told_once(
    huey: Any, caplog: pytest.LogCaptureFixture, options: Any, told: str, registered: Callable[..., Any]
):
    if registered is own_task:
        task = own_task(huey, quick(ScriptedSender()), **options)
        task(17, polite=True)
        task(17, polite=True)
    else:
        sms_task(huey, quick(ScriptedSender()), name="shop.texts", **options)
        starts(huey)
        starts(huey)
    works(huey)
    [problem] = warnings(caplog)
    assert told in problem


def test_with_a_journal_huey_may_retry_errors_of_the_body(huey: Any, store: SQLStore, caplog: pytest.LogCaptureFixture):
    own_task(huey, quick(ScriptedSender(), journal=store), retries=2)(17, polite=True)
    works(huey)
    assert warnings(caplog) == []


# --- without Huey ---
