"""RQ: a ready task, and `deliver` inside a job of an application's own, with RQ's own worker in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from rq import Retry, get_current_job
from rq.cron import create_cron
from rq.exceptions import ShutDownImminentException
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from tests.adapters import rq_runs
from tests.adapters.rq_runs import HERE, Shop
from tests.adapters.texts import BUSY, INVALID, MESSAGE, NUMBER, TEXT

from smsretry import ConfigurationError, Dispatcher, GiveUpReason, InvalidMessage, Message, RetryPolicy, SendFailed
from smsretry.adapters._seam import state_in
from smsretry.adapters.rq import deliver, end_of, recover_elsewhere, recover_every, sms_task
from smsretry.journal import MemoryJournal
from smsretry.testing import ScriptedSender

SOON = RetryPolicy(first_delay_s=0.2, jitter="none")
"""Waits that a run may come early by."""
SERIALIZERS = pytest.mark.parametrize("serializer", [None, JSONSerializer], ids=["pickle", "json"])


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as redis:
        yield redis
        for key in redis.scan_iter("smsretry:told:*"):
            redis.delete(key)


@SERIALIZERS
def test_an_accepted_text_ends_its_job_with_the_receipt(redis, serializer):
    shop = Shop(redis, serializer=serializer)
    job = shop.task().send(MESSAGE)
    shop.work()
    assert shop.sender.sent == [MESSAGE]
    assert job.return_value()["provider_id"] == "S1"


@SERIALIZERS
def test_a_retry_is_the_same_job_on_rqs_schedule_with_its_state(redis, serializer):
    shop = Shop(redis, BUSY, BUSY, serializer=serializer, policy=SOON)
    job = shop.task().send(MESSAGE)
    for attempt, delay_s in [(1, 0.2), (2, 0.4)]:
        began_s = time.time()
        shop.work() if attempt == 1 else shop.work_early(job)
        assert job.get_status() == "scheduled"
        assert delay_s <= shop.due_in_s(job, began_s) <= delay_s + 1 + (time.time() - began_s)
        assert state_in(shop.fetched(job).meta).retries == attempt
    shop.work_early(job)
    assert job.return_value()["provider_id"] == "S3"


def test_a_run_that_comes_early_waits_for_the_rest(redis):
    shop = Shop(redis)
    job = shop.task().send(MESSAGE, delay_s=30)
    shop.work_early(job)
    assert shop.sender.sent == []
    assert 28 < shop.due_in_s(job, time.time()) <= 31


@pytest.mark.parametrize("delay_s", [0.001, 0.2, 0.999, 1, 1.5])
def test_a_delay_is_rounded_up_to_a_whole_second_of_the_clock(redis, delay_s):
    shop = Shop(redis)
    began_s = time.time()
    job = shop.task().send(MESSAGE, delay_s=delay_s)
    assert delay_s <= shop.due_in_s(job, began_s) <= delay_s + 1 + (time.time() - began_s)


def test_a_job_of_an_applications_own_keeps_its_arguments_and_its_messages_id(redis):
    shop = Shop(redis, BUSY, policy=SOON)
    job = shop.own()
    shop.work()
    assert job.get_status() == "scheduled"
    assert shop.fetched(job).args == ("customer 7",)
    shop.work_early(job)
    assert job.return_value()["provider_id"] == "S2"
    assert [message.id for message in shop.sender.sent] == [job.id, job.id]


@pytest.mark.parametrize("form", ["ready", "own"])
def test_a_message_that_has_ended_fails_its_job_for_good_whatever_rqs_retry_says(redis, form):
    shop = Shop(redis, INVALID)
    retry = Retry(max=3)
    job = shop.task(retry=retry).send(MESSAGE) if form == "ready" else shop.own(retry=retry)
    shop.work()
    assert job.get_status() == "failed"
    assert len(shop.sender.sent) == 1
    assert job.id in shop.queue.failed_job_registry


def test_an_error_of_its_own_after_the_text_was_taken_sends_no_second_one(redis):
    shop, errors = Shop(redis), [KeyError(1), KeyError(2)]

    def body(*given: Any) -> Any:
        told = deliver(*given)
        if errors:
            raise errors.pop()
        return told

    shop.in_body = body
    job = shop.own(retry=Retry(max=3))
    for _ in range(3):
        shop.work()
    assert (len(shop.sender.sent), errors) == (1, [])
    assert job.return_value()["provider_id"] == "S1"


def test_a_job_whose_text_was_not_taken_can_be_queued_again_by_hand(redis):
    shop = Shop(redis, INVALID)
    job = shop.task().send(MESSAGE)
    shop.work()
    shop.queue.failed_job_registry.requeue(job.id)
    shop.work()
    assert job.return_value()["provider_id"] == "S2"


class Flickering:
    """Be a connection on which what is asked of a scheduler gets no answer."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def __getattr__(self, name: str) -> Any:
        return getattr(self.redis, name)

    def exists(self, *_: Any) -> int:
        raise RedisConnectionError("the answer was lost")


def test_a_redis_that_cannot_say_whether_a_scheduler_works_costs_no_retry(redis):
    shop = Shop(redis, BUSY)

    def body(job: Any, *given: Any) -> Any:
        job.connection = Flickering(redis)
        try:
            return deliver(job, *given)
        finally:
            job.connection = redis

    shop.in_body = body
    job = shop.own()
    shop.work()
    assert job.get_status() == "scheduled"


@SERIALIZERS
def test_the_end_of_a_failed_job_comes_back_whole(redis, serializer):
    shop = Shop(redis, INVALID, serializer=serializer)
    job = shop.task().send(MESSAGE)
    assert end_of(job) is None
    shop.work()
    wanted = SendFailed("parcel:17", GiveUpReason.PERMANENT, 1, INVALID.to_dict())
    error = end_of(job)
    assert (type(error), error.args) == (type(wanted), wanted.args)


def test_what_failed_of_something_else_has_no_end(redis):
    shop = Shop(redis)
    shop.in_body = lambda *_: 1 / 0
    job = shop.own()
    shop.work()
    assert job.get_status() == "failed"
    assert end_of(job) is None


@pytest.mark.parametrize("cut", [JobTimeoutException(), ShutDownImminentException("", {})], ids=["timeout", "shutdown"])
def test_a_send_that_rq_cuts_off_is_a_lost_answer(redis, cut):
    shop = Shop(redis, cut)
    job = shop.task().send(MESSAGE)
    shop.work()
    assert job.get_status() == "scheduled"
    assert state_in(shop.fetched(job).meta).doubt_since is not None


def test_neither_number_nor_text_is_shown(redis, caplog):
    shop = Shop(redis, BUSY, INVALID, policy=SOON)
    job = shop.task().send(MESSAGE)
    with caplog.at_level(logging.DEBUG):
        shop.work()
        shop.work_early(job)
    job = shop.fetched(job)
    logged = [repr(vars(record)) + record.getMessage() for record in caplog.records]
    shown = "\n".join([str(job), repr(job.args), repr(job.meta), shop.traceback(job), *logged])
    assert job.get_status() == "failed"
    assert "parcel:17" in str(job)
    assert NUMBER[1:] not in shown
    assert TEXT not in shown


def test_an_option_of_rq_goes_with_each_job(redis):
    shop = Shop(redis)
    job = shop.task(job_timeout=40, description="a text").send(MESSAGE)
    assert (job.timeout, job.description) == (40, "a text")


@pytest.mark.parametrize("option", ["ttl", "repeat", "job_id", "args", "kwargs", "meta"])
def test_an_option_that_would_break_a_promise_is_refused(redis, option):
    with pytest.raises(ConfigurationError, match=f"{option} cannot be set"):
        Shop(redis).task(**{option: 60})


@pytest.mark.parametrize("name", ["send_sms", "shop.send-sms", "", None])
def test_a_name_that_no_worker_finds_is_refused(redis, name):
    shop = Shop(redis)
    with pytest.raises(ConfigurationError, match="a module and a variable"):
        sms_task(shop.queue, shop.dispatcher, name=name)


def test_a_name_under_which_a_worker_finds_another_thing_is_refused(redis):
    shop = Shop(redis)
    task = sms_task(shop.queue, shop.dispatcher, name=f"{HERE}.remind")
    with pytest.raises(ConfigurationError, match="is not this task"):
        task.send(MESSAGE)


def test_what_is_no_queue_is_refused():
    with pytest.raises(ConfigurationError, match=r"must be an rq\.Queue, got str"):
        sms_task("texts", Dispatcher(ScriptedSender()), name=f"{HERE}.send_sms")  # type: ignore[arg-type]


def test_what_is_no_message_is_not_queued(redis):
    shop = Shop(redis)
    with pytest.raises(InvalidMessage):
        shop.task().send(MESSAGE.to_dict())
    assert len(shop.queue) == 0


@pytest.mark.parametrize("argument", [MESSAGE.to_dict(), NUMBER, "bm8="])
def test_a_job_that_holds_no_message_sends_nothing_and_says_so(redis, argument):
    shop = Shop(redis)
    shop.task()
    job = shop.queue.enqueue(f"{HERE}.send_sms", argument, description="a text")
    shop.work()
    assert "InvalidMessage: This job holds no packed message" in shop.traceback(job)
    assert shop.sender.sent == []


def test_a_corrupt_state_sends_nothing(redis):
    shop = Shop(redis)
    job = shop.own(meta={"smsretry_state": "{"})
    shop.work()
    assert "smsretry_state is no JSON text" in shop.traceback(job)
    assert shop.sender.sent == []


def test_outside_of_a_job_nothing_is_sent(redis):
    shop = Shop(redis)
    task = shop.task()
    packed = task.send(MESSAGE).args[0]
    with pytest.raises(ConfigurationError, match="sent by a running job, got NoneType"):
        deliver(get_current_job(), shop.dispatcher, MESSAGE)
    with pytest.raises(ConfigurationError, match="sent by a running job, got NoneType"):
        task(packed)
    assert shop.sender.sent == []


def test_a_second_deliver_in_one_run_is_refused(redis):
    shop = Shop(redis)

    def twice(job: Any, dispatcher: Dispatcher, message: Message) -> Any:
        deliver(job, dispatcher, message)
        return deliver(job, dispatcher, message)

    shop.in_body = twice
    job = shop.own()
    shop.work()
    assert "called deliver twice in one run" in shop.traceback(job)
    assert len(shop.sender.sent) == 1


def test_a_function_makes_the_dispatcher_once_in_a_process(redis):
    made = []

    def make() -> Dispatcher:
        made.append(shop.dispatcher)
        return shop.dispatcher

    shop = Shop(redis)
    task = shop.task(make)
    task.send(MESSAGE)
    task.send(MESSAGE)
    shop.work()
    assert len(shop.sender.sent) == 2
    assert len(made) == 1


def test_with_a_journal_a_message_is_planned_before_it_is_queued(redis, store):
    shop = Shop(redis, journal=store)
    job = shop.task().send(MESSAGE, delay_s=60)
    assert store.message("parcel:17").state == "pending"
    shop.work_early(job)
    assert shop.sender.sent == []
    assert store.message("parcel:17").state == "pending"


def test_with_a_journal_recover_queues_what_rq_has_lost(redis, store):
    shop = Shop(redis, journal=store)
    shop.task().send(MESSAGE).delete()
    time.sleep(0.01)
    store.recover(rq_runs.send_sms, grace_s=0.001)
    shop.work()
    assert shop.sender.sent == [MESSAGE]
    assert store.message("parcel:17").state == "accepted"


def test_recover_every_is_a_job_that_rqs_cron_queues(redis, store):
    shop = Shop(redis, journal=store)
    shop.task()
    store.plan(MESSAGE)
    time.sleep(0.01)
    rq_runs.recover_texts = recover_every(
        shop.queue, store, rq_runs.send_sms, name=f"{rq_runs.HERE}.recover_texts", grace_s=0.001
    )
    cron = create_cron(shop.queue.connection)
    [job] = cron.get_jobs()
    assert (job.interval, job.queue_name) == (60, shop.queue.name)
    cron.enqueue_jobs()
    shop.work()
    assert shop.sender.sent == [MESSAGE]
    assert store.message("parcel:17").state == "accepted"


def test_recover_every_refuses_what_cannot_be_recovered(redis, store):
    shop = Shop(redis, journal=store)
    for wrong in [{"name": "recover"}, {"name": "shop.recover", "every_s": 0}]:
        with pytest.raises(ConfigurationError):
            recover_every(shop.queue, store, shop.task(), **wrong)


def test_inside_a_job_a_planned_message_needs_an_id(redis, store):
    shop = Shop(redis, journal=store)
    task = shop.task()
    shop.in_body = lambda *_: task.send(Message(NUMBER, TEXT))
    job = shop.own()
    shop.work()
    assert "needs an id of its own" in shop.traceback(job)


class TestWithoutAWorker:
    """A queue with ``is_async=False`` runs each job where it is queued, and never again."""

    def test_all_attempts_follow_each_other(self, redis):
        shop = Shop(redis, BUSY, BUSY, is_async=False)
        assert shop.task().send(MESSAGE, delay_s=60).return_value()["provider_id"] == "S3"

    def test_what_would_have_to_wait_fails_and_says_so(self, redis, store):
        shop = Shop(redis, BUSY, is_async=False, journal=store)
        job = shop.task().send(MESSAGE)
        assert job.get_status() == "failed"
        assert "has to wait" in shop.traceback(job)
        assert store.message("parcel:17").state == "pending"


class TestWarnings:
    @pytest.fixture(autouse=True)
    def logged(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog

    def told(self) -> str:
        return "\n".join(record.getMessage() for record in self.caplog.records if record.name == "smsretry")

    def test_good_settings_are_told_nothing(self, redis, store):
        shop = Shop(redis, BUSY, journal=store)
        recover_elsewhere(shop.queue)
        shop.schedule()
        shop.task().send(MESSAGE, delay_s=0.5)
        shop.task().send(MESSAGE)
        shop.work()
        assert self.told() == ""

    def test_a_time_limit_that_may_cut_off_a_send(self, redis):
        shop = Shop(redis)
        shop.task(job_timeout=9).send(MESSAGE)
        shop.work()
        assert "job_timeout is 9 s and one send may take 10 s" in self.told()

    def test_a_job_without_a_time_limit_is_fine(self, redis):
        shop = Shop(redis)
        shop.task(job_timeout=-1).send(MESSAGE)
        shop.work()
        assert self.told() == ""

    def test_a_job_that_rq_drops(self, redis):
        shop = Shop(redis)
        shop.own(ttl=60)
        shop.work()
        assert f"{HERE}.remind: ttl is 60 s" in self.told()

    def test_a_journal_that_is_forgotten_with_its_process(self, redis):
        shop = Shop(redis, journal=MemoryJournal())
        shop.task().send(MESSAGE)
        shop.work()
        assert "MemoryJournal" in self.told()

    def test_a_journal_and_no_recover(self, redis, store):
        shop = Shop(redis, journal=store)
        shop.task().send(MESSAGE)
        shop.work()
        assert "there is a journal and no recover" in self.told()
        assert "recover_elsewhere(queue)" in self.told()

    def test_a_journal_in_which_the_ready_task_plans_nothing(self, redis, store):
        shop = Shop(redis, journal=store)
        shop.task(lambda: shop.dispatcher).send(MESSAGE)
        shop.work()
        assert "send() plans nothing" in self.told()

    def test_a_retry_that_no_scheduler_will_ever_queue(self, redis):
        shop = Shop(redis, BUSY)
        shop.task().send(MESSAGE)
        shop.work()
        assert "rq worker --with-scheduler" in self.told()

    def test_a_delay_that_no_scheduler_will_ever_queue(self, redis):
        Shop(redis).task().send(MESSAGE, delay_s=5)
        assert "rq worker --with-scheduler" in self.told()

    def test_each_problem_is_told_once_for_all_workers(self, redis):
        shop = Shop(redis)
        for _ in range(3):
            shop.task(job_timeout=9).send(MESSAGE)
            shop.work()
        assert self.told().count("job_timeout is 9 s") == 1

    def test_a_sender_that_is_not_set_up(self, redis):
        shop = Shop(redis, ConfigurationError("There is no TWILIO_ACCOUNT_SID."))
        shop.task().send(MESSAGE)
        shop.work()
        assert "its sender is not set up" in self.told()
