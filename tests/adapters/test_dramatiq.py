"""Dramatiq without a worker process: a worker's threads in this process, on Dramatiq's own stub broker."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Actor, Worker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed, Retry
from dramatiq.middleware import AgeLimit, Middleware, Retries, TimeLimit, TimeLimitExceeded
from dramatiq.results import ResultFailure, Results
from dramatiq.results.backends import StubBackend
from tests.adapters.texts import BUSY, INVALID, MESSAGE, NUMBER, TEXT, TimedSender

from smsretry import (
    AttemptState,
    ConfigurationError,
    Dispatcher,
    InvalidMessage,
    Message,
    NotAccepted,
    Receipt,
    RetryPolicy,
    SendFailed,
)
from smsretry.adapters.dramatiq import SMSMiddleware, deliver, end_of, recover_elsewhere, recover_every, sms_task
from smsretry.journal import MemoryJournal

QUICK = RetryPolicy(max_retries=3, first_delay_s=0.01, settle_after_s=0.01)


class ForgetfulBroker(StubBroker):
    """Be a broker that is away when a retry is to be queued."""

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        if isinstance(message, MessageProxy):
            raise ConnectionClosed("the broker is away")
        return super().enqueue(message, delay=delay)


@pytest.fixture
def broker() -> StubBroker:
    made = StubBroker(fail_fast_default=False)
    made.add_middleware(Results(backend=StubBackend()))
    return made


def sending(*script: Any, **options: Any) -> tuple[TimedSender, Dispatcher]:
    sender = TimedSender(script)
    return sender, Dispatcher(sender, **{"policy": QUICK, **options})


@contextlib.contextmanager
def at_work(broker: StubBroker) -> Iterator[None]:
    """Run a worker until all that is queued by the end of the block was done."""
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    try:
        yield
        broker.join("default", timeout=10_000)
        worker.join()
    finally:
        worker.stop()


def own_actor(
    broker: StubBroker, dispatcher: Any, body: Callable[..., Any] = deliver, **options: Any
) -> Actor[[int], None]:
    """Declare an actor as an application has it."""
    broker.add_middleware(SMSMiddleware())

    def remind(customer_id: int) -> None:
        body(actor, dispatcher, Message(NUMBER, TEXT, id=f"customer:{customer_id}"))

    actor = dramatiq.actor(broker=broker, actor_name="remind", **{"throws": NotAccepted, **options})(remind)
    return actor


def dead(broker: StubBroker) -> list[str]:
    return [type(message._exception).__name__ for message in broker.dead_letters]


# --- a ready task ---


def test_a_text_is_sent_and_its_receipt_is_the_result(broker):
    sender, dispatcher = sending()
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        queued = texts.send(MESSAGE)
    assert sender.sent == [MESSAGE]
    result = queued.get_result(backend=broker.get_results_backend())
    assert isinstance(Receipt.from_dict(result), Receipt)


def test_without_the_results_middleware_nothing_is_said_of_a_result(caplog):
    broker = StubBroker()
    sender, dispatcher = sending()
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        texts.send(MESSAGE)
    assert len(sender.sent) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_refused_number_is_one_attempt_and_its_end_comes_back_whole(broker):
    sender, dispatcher = sending(INVALID)
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        queued = texts.send(MESSAGE)
    assert len(sender.sent) == 1
    assert dead(broker) == ["SendFailed"]
    with pytest.raises(ResultFailure) as raised:
        queued.get_result(backend=broker.get_results_backend())
    end = end_of(raised.value)
    assert isinstance(end, SendFailed)
    assert (end.message_id, end.attempts, end.failure.code) == ("parcel:17", 1, INVALID.code)


def test_what_failed_of_something_else_is_no_end():
    assert end_of(ResultFailure("actor raised KeyError: 1", "KeyError", "1")) is None


def test_the_policy_counts_whatever_max_retries_says(broker):
    sender, dispatcher = sending(BUSY, BUSY, BUSY)
    texts = sms_task(broker, dispatcher, name="send_sms", max_retries=0)
    with at_work(broker):
        texts.send(MESSAGE)
    assert len(sender.sent) == 4
    assert dead(broker) == []


def test_neither_number_nor_text_is_logged_or_shown(broker, caplog):
    caplog.set_level(logging.DEBUG)
    _, dispatcher = sending(BUSY, INVALID)
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        queued = texts.send(MESSAGE)
    said = "\n".join([caplog.text, str(queued), repr(queued), repr(broker.dead_letters[0].asdict())])
    assert "Retrying message" in said
    assert NUMBER[1:] not in said
    assert TEXT not in said


def test_a_delay_and_a_state_go_with_the_message(broker):
    texts = sms_task(broker, sending()[1], name="send_sms")
    queued = texts.send(MESSAGE, delay_s=8 * 86_400, state=AttemptState(retries=2))
    assert queued.queue_name == "default.DQ"
    assert queued.options["eta"] - queued.message_timestamp == pytest.approx(8 * 86_400_000, abs=1000)
    state = json.loads(queued.options["smsretry_state"])
    assert state["retries"] == 2
    assert state["due"] is not None


def test_a_message_without_an_id_gets_that_of_the_job_on_every_run(broker):
    sender, dispatcher = sending(BUSY)
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        queued = texts.send(Message(NUMBER, TEXT))
    assert [message.id for message in sender.sent] == [queued.message_id] * 2


def test_what_is_no_message_is_not_queued(broker):
    texts = sms_task(broker, sending()[1], name="send_sms")
    with pytest.raises(InvalidMessage, match="Nothing was sent"):
        texts.send("parcel:17")  # type: ignore[arg-type]
    assert broker.queues["default"].empty()


def test_a_job_that_holds_no_message_is_a_dead_letter_at_once(broker):
    sender, dispatcher = sending()
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        texts.actor.send()
    assert dead(broker) == ["InvalidMessage"]
    assert sender.sent == []


def test_with_a_journal_a_message_queued_inside_an_actor_needs_an_id(broker, store):
    texts = sms_task(broker, sending(journal=store)[1], name="send_sms")
    recover_elsewhere(broker)
    outer = dramatiq.actor(broker=broker, actor_name="outer", max_retries=0)(lambda: texts.send(Message(NUMBER, TEXT)))
    with at_work(broker):
        outer.send()
    assert dead(broker) == ["InvalidMessage"]


def test_a_second_delivery_with_a_journal_is_no_second_text(broker, store):
    sender, dispatcher = sending(journal=store)
    texts = sms_task(broker, dispatcher, name="send_sms")
    recover_elsewhere(broker)
    with at_work(broker):
        broker.enqueue(texts.send(MESSAGE))
    assert len(sender.sent) == 1


# --- in an actor of an application's own ---


def test_an_own_actor_sends_and_its_state_rides_beside_its_arguments(broker):
    sender, dispatcher = sending(BUSY, BUSY, BUSY)
    actor = own_actor(broker, dispatcher, max_retries=0)
    with at_work(broker):
        actor.send(17)
    assert [message.id for message in sender.sent] == ["customer:17"] * 4


def test_errors_of_its_own_are_counted_beside_the_retries_of_the_policy(broker):
    seen: list[int] = []

    def failing(actor: Any, dispatcher: Any, message: Message) -> None:
        deliver(actor, dispatcher, message)
        seen.append(1)
        raise KeyError

    sender, dispatcher = sending(BUSY, BUSY)
    actor = own_actor(broker, dispatcher, failing, max_retries=1, min_backoff=1, max_backoff=2)
    with at_work(broker):
        actor.send(17)
    assert len(seen) == 2
    assert len(sender.sent) == 3
    assert dead(broker) == ["KeyError"]


@pytest.mark.parametrize("journaled", [False, True])
def test_an_error_of_its_own_after_the_text_was_taken_sends_no_second_one(broker, store, journaled):
    sender, dispatcher = sending(BUSY, **({"journal": store} if journaled else {}))
    errors = [KeyError(1), KeyError(2)]

    def body(*given: Any) -> None:
        deliver(*given)
        if errors:
            raise errors.pop()

    actor = own_actor(broker, dispatcher, body, min_backoff=1, max_backoff=2)
    with at_work(broker):
        actor.send(7)
    assert (len(sender.sent), errors, dead(broker)) == (2, [], [])


def test_a_second_deliver_that_dramatiq_repeats_sends_no_second_text(broker):
    sender, dispatcher = sending()

    def body(*given: Any) -> None:
        deliver(*given)
        deliver(*given)

    actor = own_actor(broker, dispatcher, body, min_backoff=1, max_backoff=2, max_retries=3)
    with at_work(broker):
        actor.send(7)
    assert (len(sender.sent), dead(broker)) == (1, ["ConfigurationError"])


def test_an_end_is_not_repeated(broker):
    sender, dispatcher = sending(INVALID)
    actor = own_actor(broker, dispatcher)
    with at_work(broker):
        actor.send(17)
    assert len(sender.sent) == 1
    assert dead(broker) == ["SendFailed"]


def test_a_dispatcher_is_made_once(broker):
    made: list[int] = []

    def make() -> Dispatcher:
        made.append(1)
        return sending()[1]

    actor = own_actor(broker, make)
    with at_work(broker):
        actor.send(1)
        actor.send(2)
    assert made == [1]


def test_a_retry_that_a_body_keeps_to_itself_is_told_and_the_message_is_kept(broker, caplog):
    def greedy(*arguments: Any) -> None:
        with contextlib.suppress(Retry):
            deliver(*arguments)

    actor = own_actor(broker, sending(BUSY)[1], greedy)
    with at_work(broker):
        actor.send(17)
    assert len(broker.dead_letters) == 1
    assert "remind caught the Retry of deliver" in caplog.text


def test_a_message_whose_next_run_is_not_queued_is_kept_as_a_dead_letter():
    broker = ForgetfulBroker(fail_fast_default=False)
    texts = sms_task(broker, sending(BUSY)[1], name="send_sms")
    with at_work(broker):
        texts.send(MESSAGE)
    assert dead(broker) == ["Retry"]


def out_of_time() -> float:
    raise TimeLimitExceeded


def test_a_time_limit_after_the_send_keeps_the_doubt(broker):
    sender, dispatcher = sending(BUSY, draw=out_of_time)
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        texts.send(MESSAGE)
    assert len(sender.looked_up) == 1
    assert len(sender.sent) == 2
    assert dead(broker) == []


class Delays(Middleware):
    """List the delays of what is queued, in milliseconds."""

    def __init__(self) -> None:
        self.seen: queue.Queue[int] = queue.Queue()

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        if delay is not None:
            self.seen.put(delay)


def test_a_time_limit_in_a_run_with_a_journal_puts_the_message_off_until_its_claim_ends(broker, store):
    _, dispatcher = sending(BUSY, draw=out_of_time, journal=store, lease_s=40.0)
    texts = sms_task(broker, dispatcher, name="send_sms")
    recover_elsewhere(broker)
    broker.add_middleware(delays := Delays())
    texts.send(MESSAGE)
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    try:
        assert delays.seen.get(timeout=10) == 40_000
    finally:
        worker.stop()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"throws": None}, "throws=NotAccepted"), ({"retry_when": lambda *_: False}, "retry_when would end")],
)
def test_an_actor_that_would_break_a_promise_sends_nothing(broker, options, words):
    sender, dispatcher = sending()
    actor = own_actor(broker, dispatcher, max_retries=0, **options)
    with at_work(broker):
        actor.send(17)
    [message] = broker.dead_letters
    assert isinstance(message._exception, ConfigurationError)
    assert words in str(message._exception)
    assert sender.sent == []


def test_a_second_deliver_in_one_run_is_refused(broker):
    def twice(*arguments: Any) -> None:
        deliver(*arguments)
        deliver(*arguments)

    sender, dispatcher = sending()
    actor = own_actor(broker, dispatcher, twice, max_retries=0)
    with at_work(broker):
        actor.send(17)
    assert dead(broker) == ["ConfigurationError"]
    assert len(sender.sent) == 1


def test_deliver_outside_of_its_running_actor_is_refused(broker):
    actor = own_actor(broker, sending()[1])
    for wrong in (actor, "remind"):
        with pytest.raises(ConfigurationError, match=r"deliver needs the actor that runs"):
            deliver(wrong, sending()[1], MESSAGE)  # type: ignore[arg-type]
    with pytest.raises(InvalidMessage):
        deliver(actor, sending()[1], "text")  # type: ignore[arg-type]


# --- settings ---


def test_what_is_no_broker_or_does_not_retry_is_refused(broker):
    _, dispatcher = sending()
    with pytest.raises(ConfigurationError, match="broker must be a Dramatiq broker, got str"):
        sms_task("redis://", dispatcher, name="send_sms")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no Retries middleware"):
        sms_task(StubBroker(middleware=[]), dispatcher, name="send_sms")
    with pytest.raises(ConfigurationError, match="throws=NotAccepted"):
        sms_task(broker, dispatcher, name="send_all", throws=KeyError)
    with pytest.raises(ConfigurationError, match="dispatcher must be a Dispatcher"):
        sms_task(broker, "dispatcher", name="send_none")  # type: ignore[arg-type]


def test_a_retry_when_or_an_age_limit_of_the_whole_broker_is_set_aside(caplog):
    broker = StubBroker(middleware=[AgeLimit(max_age=1), TimeLimit(), Retries(retry_when=lambda *_: False)])
    sender, dispatcher = sending(BUSY)
    texts = sms_task(broker, dispatcher, name="send_sms")
    with at_work(broker):
        texts.send(MESSAGE, delay_s=0.05)
    assert len(sender.sent) == 2
    assert "max_age" not in caplog.text


def told(broker: Any, caplog: pytest.LogCaptureFixture, dispatcher: Any = None, **options: Any) -> list[str]:
    """Return what is warned of when a worker starts."""
    sms_task(broker, dispatcher or sending()[1], name="send_sms", **options)
    for middleware in broker.middleware:
        if isinstance(middleware, SMSMiddleware):
            middleware.before_worker_boot(broker, None)
            middleware.before_worker_boot(broker, None)
    return [record.getMessage() for record in caplog.records if record.name == "smsretry"]


def test_good_settings_are_told_nothing(caplog, store):
    assert told(StubBroker(), caplog) == []
    assert told(RedisBroker(), caplog) == []
    assert told(RabbitmqBroker(confirm_delivery=True), caplog) == []
    broker = StubBroker()
    recover_elsewhere(broker)
    assert told(broker, caplog, sending(journal=store)[1]) == []


def test_a_time_limit_below_that_of_the_sender_is_told_in_milliseconds(broker, caplog):
    [problem] = told(broker, caplog, time_limit=5_000)
    assert "time_limit is 5 s and one send may take 10 s" in problem
    assert "Set time_limit to 25000 or more" in problem


def test_a_time_limit_of_the_whole_broker_is_seen(caplog):
    [problem] = told(StubBroker(middleware=[Retries(), TimeLimit(time_limit=5_000)]), caplog)
    assert "time_limit is 5 s" in problem


def test_an_age_limit_is_told(broker, caplog):
    [problem] = told(broker, caplog, max_age=60_000)
    assert "send_before on the message" in problem


def test_a_journal_without_recover_is_told(broker, caplog, store):
    [problem] = told(broker, caplog, sending(journal=store)[1])
    assert "waits for ever" in problem
    assert "recover_every(broker, store, texts)" in problem


def test_a_journal_that_is_forgotten_is_told(broker, caplog):
    recover_elsewhere(broker)
    [problem] = told(broker, caplog, sending(journal=MemoryJournal())[1])
    assert "SQLStore" in problem


def test_a_redis_that_hands_nothing_out_again_is_told(caplog):
    [problem] = told(RedisBroker(maintenance_chance=0), caplog)
    assert "maintenance_chance is 0" in problem


def test_a_rabbitmq_that_confirms_nothing_is_told(caplog):
    [problem] = told(RabbitmqBroker(), caplog)
    assert "confirm_delivery=True" in problem


def test_what_only_a_function_knows_is_told_at_the_first_run(broker, caplog, store):
    recover_elsewhere(broker)
    texts = sms_task(broker, lambda: sending(journal=store)[1], name="send_sms", time_limit=5_000)
    with at_work(broker):
        texts.send(MESSAGE)
        texts.send(Message(NUMBER, TEXT, id="parcel:18"))
    problems = [record.getMessage() for record in caplog.records if record.name == "smsretry"]
    assert ["time_limit" in problem for problem in problems] == [True, False]
    assert "send() plans nothing" in problems[1]


def test_a_worker_recovers_what_was_planned_and_never_queued(broker, store):
    sender, dispatcher = sending(journal=store)
    texts = sms_task(broker, dispatcher, name="send_sms")
    store.plan(MESSAGE)
    recover_every(broker, store, texts, every_s=0.05, grace_s=0.01)
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    try:
        while store.message("parcel:17").state == "pending":
            time.sleep(0.01)
    finally:
        worker.stop()
    assert len(sender.sent) == 1
