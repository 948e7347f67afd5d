"""Send from taskiq's own broker in memory; what needs a worker process is in tests/queues."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from taskiq import Context, InMemoryBroker, ScheduledTask, ScheduleSource, TaskiqDepends, TaskiqScheduler
from taskiq.middlewares import SimpleRetryMiddleware
from taskiq.schedule_sources import LabelScheduleSource
from tests.adapters.texts import INVALID

from smsretry import (
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Failure,
    FailureKind,
    InvalidMessage,
    Message,
    Receipt,
    RetryPolicy,
    SendFailed,
    SendUnknown,
)
from smsretry.adapters._seam import Again
from smsretry.adapters.taskiq import deliver, recover_elsewhere, recover_every, sms_task
from smsretry.core.lookup import Found, LookUp
from smsretry.journal import MemoryJournal
from smsretry.store import SQLStore
from smsretry.testing import ScriptedSender

MESSAGE = Message("+14155550123", "Your table is ready.", id="booking-1")
BUSY = Failure.of(FailureKind.RATE_LIMITED)
QUICK = RetryPolicy(first_delay_s=0.1)
"""Its waits are so short that a run which is early by all of them goes on."""


class Sender:
    """Be a scripted sender that is awaited."""

    timeout_s = 10.0

    def __init__(self, *script: Any) -> None:
        self.scripted = ScriptedSender(script)

    async def send(self, message: Message, /) -> Receipt:
        return self.scripted.send(message)


class Hanging(Sender):
    """Take the first text and never answer, as a look-up finds out."""

    def __init__(self) -> None:
        self.taken = Receipt("scripted", "S1", datetime.now(UTC))
        self.scripted = ScriptedSender(finds=[Found(self.taken)])

    async def send(self, message: Message, /) -> Receipt:
        receipt = await super().send(message)
        await asyncio.sleep(60)
        return receipt

    async def find(self, message: Message, /, **asked: Any) -> LookUp:
        return self.scripted.find(message, **asked)


class Schedules(ScheduleSource):
    """Keep schedules in memory, and be the scheduler too."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.waiting: list[ScheduledTask] = []
        self.is_away = is_away

    async def get_schedules(self) -> list[ScheduledTask]:
        return self.waiting

    async def add_schedule(self, schedule: ScheduledTask) -> None:
        if self.is_away:
            raise ConnectionRefusedError("the source is away")
        self.waiting.append(ScheduledTask.model_validate(schedule.model_dump(mode="json")))

    def waits_s(self) -> list[float]:
        return [round((one.time - datetime.now(UTC)).total_seconds()) for one in self.waiting if one.time]


@dataclass
class Shop:
    """Hold a broker that runs a job as soon as it is queued."""

    broker: InMemoryBroker
    schedules: Schedules

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run ``work``, and then all that waits, as soon as it is looked at."""

        async def worked() -> Any:
            done = await work
            scheduler = TaskiqScheduler(self.broker, [self.schedules])
            while self.schedules.waiting:
                await scheduler.on_ready(self.schedules, self.schedules.waiting.pop(0))
            return done

        return asyncio.run(worked())

    def result(self, job: Any) -> Any:
        return self.broker.result_backend.results.get(job.task_id)  # type: ignore[attr-defined]


@pytest.fixture
def shop() -> Shop:
    broker = InMemoryBroker(await_inplace=True)
    recover_elsewhere(broker)
    return Shop(broker, Schedules())


def ready(shop: Shop, *script: Any, **options: Any) -> Any:
    dispatcher = options.pop("dispatcher", None) or AsyncDispatcher(Sender(*script), journal=options.pop("kept", None))
    return sms_task(shop.broker, dispatcher, name="texts", source=shop.schedules, **options)


def own(shop: Shop, dispatcher: Any, message: Message = MESSAGE, **labels: Any) -> tuple[Any, list[Any]]:
    """Register a task of an application's own; return it with the labels of each of its runs."""
    runs: list[Any] = []

    async def notify(customer: int, context: Annotated[Context, TaskiqDepends()]) -> str:
        runs.append((customer, dict(context.message.labels)))
        return (await deliver(context, dispatcher, message, source=shop.schedules)).provider_id

    return shop.broker.register_task(notify, "notify", **labels), runs


def told(caplog: pytest.LogCaptureFixture, about: str = "") -> list[str]:
    lines = [one.getMessage() for one in caplog.records if one.name == "smsretry" and one.levelno >= logging.WARNING]
    return [line for line in lines if about in line]


# --- a ready task ---


def test_a_text_that_is_accepted_leaves_its_receipt(shop):
    job = shop.run(ready(shop).send(MESSAGE))
    assert job.task_id == "texts:booking-1"
    assert Receipt.from_dict(shop.result(job).return_value).provider_id


def test_a_retry_waits_on_the_schedule_source_and_leaves_no_result(shop):
    texts = ready(shop, BUSY, BUSY)
    job = asyncio.run(texts.send(MESSAGE))
    assert shop.schedules.waits_s() == [2]
    assert shop.schedules.waiting[0].task_id == job.task_id
    assert shop.result(job) is None


def test_the_due_time_is_kept_when_a_scheduler_is_early(shop):
    sender = Sender(BUSY)
    texts = ready(shop, dispatcher=AsyncDispatcher(sender))
    asyncio.run(texts.send(MESSAGE))
    early = shop.schedules.waiting.pop()
    asyncio.run(TaskiqScheduler(shop.broker, [shop.schedules]).on_ready(shop.schedules, early))
    assert len(sender.scripted.sent) == 1
    assert shop.schedules.waits_s() == [2]


def test_a_delay_waits_on_the_schedule_source(shop):
    asyncio.run(ready(shop).send(MESSAGE, delay_s=90.0))
    assert shop.schedules.waits_s() == [90]


def test_a_message_that_has_ended_fails_whole_and_is_not_repeated(shop):
    shop.broker.add_middlewares(SimpleRetryMiddleware(default_retry_label=True))
    sender = Sender(INVALID)
    job = shop.run(ready(shop, dispatcher=AsyncDispatcher(sender)).send(MESSAGE))
    error = shop.result(job).error
    assert isinstance(error, SendFailed)
    assert error.failure is not None
    assert (error.failure.code, len(sender.scripted.sent)) == (21211, 1)


def test_a_state_from_elsewhere_is_gone_on_with(shop):
    state = AttemptState(retries=3)
    job = shop.run(ready(shop, BUSY).send(MESSAGE, state=state))
    assert isinstance(shop.result(job).error, SendFailed)


def test_a_message_without_an_id_takes_that_of_its_job(shop):
    sender = Sender()
    job = shop.run(ready(shop, dispatcher=AsyncDispatcher(sender)).send(Message("+14155550123", "Hello.")))
    assert [one.id for one in sender.scripted.sent] == [job.task_id]


def test_nothing_personal_is_shown(shop, caplog):
    caplog.set_level(logging.DEBUG)
    texts = ready(shop, BUSY, INVALID)
    job = asyncio.run(texts.send(MESSAGE))
    shown = [caplog.text, repr(texts), repr(job), repr(shop.schedules.waiting), repr(vars(job))]
    assert [one for one in shown if "4155550123" in one or "table" in one] == []


def test_a_journal_is_planned_in_before_the_job_is_queued(shop, store):
    shop.schedules.is_away = True
    texts = ready(shop, kept=store)
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(texts.send(MESSAGE, delay_s=60.0))
    assert store.message("booking-1").state == "pending"


def test_a_worker_refuses_a_message_without_an_id_where_there_is_a_journal(shop, store):
    shop.broker.is_worker_process = True
    with pytest.raises(InvalidMessage, match="needs an id of its own"):
        asyncio.run(ready(shop, kept=store).send(Message("+14155550123", "Hello.")))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"broker": "redis://"}, "broker must be a taskiq broker, got str"),
        ({"name": ""}, "name must be a str"),
        ({"source": LabelScheduleSource(InMemoryBroker())}, "takes new schedules, got LabelScheduleSource"),
        ({"source": None}, "takes new schedules, got NoneType"),
        ({"retry_on_error": True}, "send again what has ended"),
        ({"dispatcher": 3}, "dispatcher must be an AsyncDispatcher"),
    ],
)
def test_options_that_would_break_a_promise_are_refused(shop, wrong, complaint):
    given = {"broker": shop.broker, "dispatcher": AsyncDispatcher(Sender()), "name": "t", "source": shop.schedules}
    with pytest.raises(ConfigurationError, match=complaint):
        sms_task(**{**given, **wrong})


def test_a_name_is_given_once(shop):
    ready(shop)
    with pytest.raises(ConfigurationError, match="has a task called texts already"):
        ready(shop)


def test_a_job_that_holds_no_message_sends_nothing(shop):
    sender = Sender()
    texts = ready(shop, dispatcher=AsyncDispatcher(sender))
    job = shop.run(texts.task.kiq("hello"))
    assert isinstance(shop.result(job).error, InvalidMessage)
    assert sender.scripted.sent == []


# --- a task of an application's own ---


def test_an_own_task_keeps_its_arguments_and_the_types_of_its_labels(shop):
    dispatcher = AsyncDispatcher(Sender(BUSY, BUSY), policy=QUICK)
    task, runs = own(shop, dispatcher, tenant=17, share=0.5, live=True)
    job = shop.run(task.kiq(42))
    assert [customer for customer, _ in runs] == [42, 42, 42]
    assert {(labels["tenant"], labels["share"], labels["live"]) for _, labels in runs} == {(17, 0.5, True)}
    assert shop.result(job).return_value


def test_a_retry_middleware_leaves_alone_what_has_ended(shop):
    shop.broker.add_middlewares(SimpleRetryMiddleware(default_retry_label=True))
    task, runs = own(shop, AsyncDispatcher(Sender(INVALID)), retry_on_error=True)
    job = shop.run(task.kiq(42))
    assert isinstance(shop.result(job).error, SendFailed)
    assert len(runs) == 1


def test_an_error_of_its_own_after_the_text_was_taken_sends_no_second_one(shop):
    shop.broker.add_middlewares(SimpleRetryMiddleware(default_retry_count=3))
    sender, errors = Sender(), [KeyError(1)]
    dispatcher = AsyncDispatcher(sender)

    async def notify(context: Annotated[Context, TaskiqDepends()]) -> str:
        receipt = await deliver(context, dispatcher, MESSAGE, source=shop.schedules)
        if errors:
            raise errors.pop()
        return receipt.provider_id

    task = shop.broker.register_task(notify, "forgetful", retry_on_error=True)
    job = shop.run(task.kiq())
    assert (len(sender.scripted.sent), shop.result(job).return_value) == (1, "S1")


def test_a_send_that_the_timeout_of_its_task_cuts_off_is_looked_up(shop):
    sender = Hanging()
    texts = ready(shop, dispatcher=AsyncDispatcher(sender, policy=RetryPolicy(first_delay_s=0.1)), timeout=0.2)
    job = asyncio.run(texts.send(MESSAGE))
    assert shop.result(job) is None
    assert "doubt_since" in shop.schedules.waiting[0].labels["smsretry_state"]
    time.sleep(0.2)
    shop.run(asyncio.sleep(0))
    assert Receipt.from_dict(shop.result(job).return_value) == sender.taken
    assert len(sender.scripted.sent) == 1


def test_with_a_journal_a_send_that_is_cut_off_waits_for_its_claim(shop, store):
    dispatcher = AsyncDispatcher(Hanging(), journal=store, lease_s=30.0)
    job = asyncio.run(ready(shop, dispatcher=dispatcher, timeout=0.2).send(MESSAGE))
    assert shop.result(job) is None
    assert shop.schedules.waits_s() == [30]


def test_one_run_sends_one_message(shop):
    dispatcher = AsyncDispatcher(Sender())

    async def twice(context: Annotated[Context, TaskiqDepends()]) -> None:
        await deliver(context, dispatcher, MESSAGE, source=shop.schedules)
        await deliver(context, dispatcher, MESSAGE, source=shop.schedules)

    job = shop.run(shop.broker.register_task(twice, "twice").kiq())
    assert "called deliver twice" in str(shop.result(job).error)


def test_deliver_wants_a_running_task():
    with pytest.raises(ConfigurationError, match="Annotated"):
        asyncio.run(deliver(None, AsyncDispatcher(Sender()), MESSAGE, source=Schedules()))


def test_a_dispatcher_is_made_once(shop):
    made: list[AsyncDispatcher] = []

    def make() -> AsyncDispatcher:
        made.append(AsyncDispatcher(Sender()))
        return made[-1]

    task, _ = own(shop, make)
    for customer in range(3):
        shop.run(task.kiq(customer))
    assert len(made) == 1


# --- when the schedule source is away ---


def test_with_a_journal_a_retry_that_is_not_queued_is_left_to_recover(shop, store):
    shop.schedules.is_away = True
    job = shop.run(ready(shop, BUSY, kept=store).send(MESSAGE))
    assert shop.result(job) is None
    assert store.message("booking-1").state == "pending"


def test_without_a_journal_a_retry_that_is_not_queued_fails_loudly(shop, caplog):
    shop.schedules.is_away = True
    job = shop.run(ready(shop, BUSY).send(MESSAGE))
    assert isinstance(shop.result(job).error, ConnectionRefusedError)
    assert "send it anew with state" in caplog.text


def test_a_doubt_that_is_not_queued_ends_as_unknown(shop):
    shop.schedules.is_away = True
    job = shop.run(ready(shop, TimeoutError()).send(MESSAGE))
    assert isinstance(shop.result(job).error, SendUnknown)


# --- settings that would break a promise ---


def started(shop: Shop) -> None:
    asyncio.run(shop.broker.startup())


def test_a_journal_without_recover_is_told_when_a_worker_starts(store, caplog):
    shop = Shop(InMemoryBroker(await_inplace=True), Schedules())
    ready(shop, kept=store)
    started(shop)
    started(shop)
    [problem] = told(caplog, "no recover")
    assert "recover_every(broker, store, texts)" in problem


def test_an_own_task_with_a_journal_and_no_recover_is_told_at_its_first_run(store, caplog):
    shop = Shop(InMemoryBroker(await_inplace=True), Schedules())
    task, _ = own(shop, AsyncDispatcher(Sender(), journal=store))
    shop.run(task.kiq(1))
    assert len(told(caplog, "no recover")) == 1


def test_a_journal_that_recover_watches_is_told_nothing(shop, store, caplog):
    texts = ready(shop, kept=store)
    started(shop)
    shop.run(texts.send(MESSAGE))
    assert told(caplog) == []


def test_early_acknowledgement_is_told_once(shop, caplog):
    texts = ready(shop)
    for number in range(2):
        shop.run(texts.send(Message("+14155550123", "Hello.", id=f"hello-{number}")))
    [problem] = told(caplog, "is acknowledged before")
    assert "RedisStreamBroker" in problem


def test_a_timeout_that_would_cut_off_a_send_is_told(shop, caplog):
    shop.run(ready(shop, timeout=5).send(MESSAGE))
    [problem] = told(caplog, "timeout is 5 s")
    assert "Set timeout to 25" in problem


def test_a_broker_that_hands_out_again_what_is_being_sent_is_told(shop, caplog):
    vars(shop.broker)["idle_timeout"] = 4_000
    shop.run(ready(shop).send(MESSAGE))
    [problem] = told(caplog, "idle_timeout")
    assert "after 4 s" in problem
    assert "to 20000 (milliseconds)" in problem


def test_a_source_that_skips_what_is_past_is_told(shop, caplog):
    vars(shop.schedules)["_skip_past_schedules"] = True
    ready(shop)
    started(shop)
    assert len(told(caplog, "skip_past_schedules")) == 1


def test_a_scheduler_that_does_not_run_is_told_when_a_worker_starts(shop, caplog):
    texts = ready(shop, BUSY)
    asyncio.run(texts.send(MESSAGE))
    started(shop)
    assert told(caplog, "taskiq scheduler") == []
    shop.schedules.waiting[0].time = datetime.now(UTC) - timedelta(seconds=300)
    started(shop)
    [problem] = told(caplog, "taskiq scheduler")
    assert "waits on the schedule source 300 s after its time" in problem


def test_a_scheduler_that_looks_once_a_minute_is_told_at_the_first_late_run(shop, caplog):
    texts = ready(shop)
    due = datetime.now(UTC) - timedelta(seconds=40)
    for number in range(2):
        late = Message("+14155550123", "Hello.", id=f"hello-{number}")
        shop.run(texts._publish(Again(delay_s=0.0, message=late, state=AttemptState(due=due))))
    [problem] = told(caplog, "--update-interval 1")
    assert "came 40 s after its time" in problem


def test_a_journal_that_lives_in_one_process_is_told(shop, caplog):
    shop.run(ready(shop, kept=MemoryJournal()).send(MESSAGE))
    assert len(told(caplog, "lives in one process")) == 1


def test_a_journal_that_the_task_does_not_know_is_told(shop, store, caplog):
    shop.run(ready(shop, dispatcher=lambda: AsyncDispatcher(Sender(), journal=store)).send(MESSAGE))
    assert len(told(caplog, "plans nothing")) == 1


# --- recover ---


def wait_for_the_end(store: SQLStore) -> None:
    while store.message("booking-1").state == "pending":  # type: ignore[union-attr]
        time.sleep(0.02)


def test_a_worker_recovers_beside_its_loop(shop, store):
    texts = ready(shop, kept=store)
    store.plan(MESSAGE)
    recover_every(shop.broker, store, texts, 0.05, grace_s=0.01)

    async def worked() -> None:
        await shop.broker.startup()
        await asyncio.to_thread(wait_for_the_end, store)
        await shop.broker.shutdown()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}  # it recovers no more

    asyncio.run(worked())
    assert store.message("booking-1").state == "accepted"


def test_a_task_of_an_applications_own_is_recovered_by_its_function(shop, store):
    task, runs = own(shop, AsyncDispatcher(Sender(), journal=store))
    store.plan(MESSAGE)

    async def again(message_id: str, metadata: Any) -> None:
        await task.kiq(int(message_id.removeprefix("booking-")))

    recover_every(shop.broker, store, again, 0.05, grace_s=0.01)

    async def worked() -> None:
        await shop.broker.startup()
        await asyncio.to_thread(wait_for_the_end, store)
        await shop.broker.shutdown()

    asyncio.run(worked())
    assert runs[0][0] == 1


@pytest.mark.parametrize("wrong", [{"every_s": 0}, {"grace_s": -1.0}])
def test_recovering_wants_positive_times(shop, store, wrong):
    with pytest.raises(ConfigurationError, match="must be more than 0 seconds"):
        recover_every(shop.broker, store, ready(shop, kept=store), **wrong)
