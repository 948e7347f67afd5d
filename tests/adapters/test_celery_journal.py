"""What the Celery adapter does where a journal knows the messages, inside one process.

The journal is a real SQLite file; killed and frozen workers are in tests/integration/test_crash_points.py.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.exceptions import Reject, Retry
from celery.signals import task_revoked
from tests.adapters.celery_runs import (
    LOST,
    NOBODY,
    celery_app,
    out_of_time,
    own_task,
    published,
    running,
    state_of,
    unreachable_app,
)
from tests.adapters.texts import BUSY, INVALID, MESSAGE, NUMBER, TEXT
from tests.store.journeys import row_of

from smsretry import (
    AttemptState,
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    InvalidMessage,
    Message,
    RetryPolicy,
    SendFailed,
)
from smsretry.adapters.celery import SMSTask, deliver, recover_every, sms_task
from smsretry.core.claims import Claim, NotDue
from smsretry.core.outcome import DeferReason
from smsretry.journal import MemoryJournal
from smsretry.store import MessageState, SQLStore
from smsretry.testing import ScriptedSender

REFUSED = Failure.of(FailureKind.AUTH, code=20003)
OTHER_TEXT = Message(NUMBER, "Your parcel is lost", id=MESSAGE.id)


def journaled(store: Any, script: Any = (), **options: Any) -> tuple[ScriptedSender, Dispatcher]:
    sender = ScriptedSender(script)
    return sender, Dispatcher(sender, journal=store, **options)


def ready(app: Any, store: Any, script: Any = (), **options: Any) -> tuple[ScriptedSender, SMSTask]:
    sender, dispatcher = journaled(store, script, **options)
    return sender, sms_task(app, dispatcher, name="texts.send")


def state_in(store: SQLStore) -> MessageState:
    record = store.message(str(MESSAGE.id))
    assert record is not None
    return record.state


def claimed_by_another(store: SQLStore, lease_s: float) -> None:
    begun = store.begin(
        MESSAGE, hint=AttemptState(), nonce="another", lease_s=lease_s, account="a", most_deferred_s=60.0
    )
    assert isinstance(begun, Claim)


# --- known before it is queued ---


def test_a_message_is_planned_before_it_is_queued(store):
    app = celery_app()
    _, task = ready(app, store)
    task.send(MESSAGE)
    assert state_in(store) is MessageState.PENDING
    assert len(published(app)) == 1


def test_a_message_that_the_broker_does_not_take_is_planned_all_the_same(store):
    at_once = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app = celery_app(broker_url=NOBODY, task_publish_retry=False, broker_transport_options=at_once)
    _, task = ready(app, store)
    with pytest.raises(Exception):  # noqa: B017, PT011  # the broker's own
        task.send(MESSAGE)
    assert state_in(store) is MessageState.PENDING


class TakenAtOnce(SQLStore):
    """Be a journal whose plans another worker begins at once: a broker took the message, and its answer was lost."""

    def plan(self, messages: Any, **options: Any) -> int:
        new = super().plan(messages, **options)
        self.begin(messages, hint=AttemptState(), nonce="n", lease_s=60.0, account="a", most_deferred_s=60.0)
        return new


def test_a_message_that_may_be_on_its_way_is_not_to_be_sent_under_another_id(tmp_path):
    at_once = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app = celery_app(broker_url=NOBODY, task_publish_retry=False, broker_transport_options=at_once)
    with TakenAtOnce(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        _, task = ready(app, store)
        with pytest.raises(Exception) as raised:  # noqa: PT011  # the broker's own
            task.send(Message(NUMBER, TEXT))
    assert "may be sent: send it again under that id" in str(getattr(raised.value, "__notes__", ""))


def test_a_process_with_nothing_but_a_factory_plans_in_the_journal_it_is_given(store):
    def factory() -> Dispatcher:
        raise NotImplementedError

    app = celery_app()
    sms_task(app, factory, name="texts.send", journal=store).send(MESSAGE)
    assert state_in(store) is MessageState.PENDING


def test_the_same_message_may_be_queued_again_and_counts_once(store):
    app = celery_app()
    _, task = ready(app, store)
    for _ in range(2):
        task.send(MESSAGE)
    assert len(published(app)) == 2
    assert store.campaign_summary(None).planned == 1


def test_another_text_under_a_used_id_is_refused_and_not_queued(store):
    app = celery_app()
    _, task = ready(app, store)
    task.send(MESSAGE)
    published(app)
    with pytest.raises(InvalidMessage, match="belongs to a message with another text"):
        task.send(OTHER_TEXT)
    assert published(app) == []
    assert state_in(store) is MessageState.PENDING


def test_a_message_without_an_id_is_given_one_that_plan_and_task_share(store):
    app = celery_app()
    _, task = ready(app, store)
    result = task.send(Message(NUMBER, TEXT))
    [sent] = published(app)
    assert sent.payload[0][0]["id"] == sent.headers["id"] == result.id
    assert store.message(result.id) is not None


def test_inside_a_task_a_message_without_an_id_is_refused_for_a_repeat_would_double_it(store):
    app = celery_app(task_always_eager=True)
    _, task = ready(celery_app(), store)

    @app.task(shared=False)
    def queue_all():
        task.app = app  # both tasks are of one application
        task.send(Message(NUMBER, TEXT))

    with pytest.raises(InvalidMessage, match="inside a task needs an id"):
        queue_all.delay().get()
    assert store.campaign_summary(None).planned == 0


def in_a_parent_that_runs_twice(app, call):
    def queue_all():
        call()

    parent = app.task(queue_all, shared=False, name=f"parents.{id(call)}")
    for _ in range(2):
        parent.delay().get()


@pytest.mark.parametrize("where", ["store", "memory"])
def test_inside_a_task_a_bare_delay_without_an_id_is_refused_too(store, where):
    app = celery_app(task_always_eager=True)
    sender, task = ready(app, store if where == "store" else MemoryJournal())
    bare = Message(NUMBER, TEXT).to_dict()
    for call in (lambda: task.delay(bare), lambda: task.apply_async(kwargs={"message": bare})):
        with pytest.raises(InvalidMessage, match="inside a task needs an id"):
            in_a_parent_that_runs_twice(app, call)
    assert sender.sent == []


def test_inside_a_task_a_bare_delay_with_an_id_of_message_or_task_is_sent_once(store):
    app = celery_app(task_always_eager=True)
    sender, task = ready(app, store)
    in_a_parent_that_runs_twice(app, lambda: task.delay(MESSAGE.to_dict()))
    bare = Message(NUMBER, "Another text").to_dict()
    in_a_parent_that_runs_twice(app, lambda: task.apply_async((bare,), task_id="parcel:18"))
    assert [one.id for one in sender.sent] == [MESSAGE.id, "parcel:18"]


def test_a_retry_of_a_message_that_has_its_tasks_id_is_published(store):
    app = celery_app()
    _, task = ready(app, store, [BUSY])
    task.delay(Message(NUMBER, TEXT).to_dict())
    [first] = published(app)
    args, kwargs, _ = first.payload
    request = {**first.headers, "args": args, "kwargs": kwargs, "is_eager": False, "delivery_info": {}}
    build_tracer(task.name, task, app=app)(first.headers["id"], args, kwargs, request)  # as a worker does
    [again] = published(app)
    assert again.headers["id"] == first.headers["id"]


def test_a_message_with_a_new_id_that_the_broker_does_not_take_is_taken_back_for_the_caller_tries_again(store):
    _, task = ready(unreachable_app().app, store)
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017, PT011  # the broker's own
            task.send(Message(NUMBER, TEXT))
    summary = store.campaign_summary(None)
    assert (summary.canceled, summary.pending) == (2, 0)


def test_a_countdown_holds_by_the_clock_of_the_journal_whatever_copy_comes_early(store):
    app = celery_app()
    sender, task = ready(app, store)
    task.send(MESSAGE, countdown=30)
    published(app)
    with running(task), pytest.raises(Retry) as why:
        task.run(MESSAGE.to_dict())
    [again] = published(app)
    assert sender.sent == []
    assert "not_due" in str(why.value)
    wait_s = (datetime.fromisoformat(again.headers["eta"]) - datetime.now(UTC)).total_seconds()
    assert 28 < wait_s <= 30


def test_a_journal_in_memory_plans_nothing():
    app = celery_app()
    _, task = ready(app, MemoryJournal())
    task.send(MESSAGE)
    assert len(published(app)) == 1


# --- what would break the promise is refused ---


def test_a_journal_that_is_not_that_of_the_dispatcher_is_refused(store):
    _, dispatcher = journaled(None)
    with pytest.raises(ConfigurationError, match="Pass it to the Dispatcher"):
        sms_task(celery_app(), dispatcher, name="texts.send", journal=store)


def test_what_cannot_plan_is_no_journal_for_a_factory():
    journal: Any = MemoryJournal()
    with pytest.raises(ConfigurationError, match="got MemoryJournal"):
        sms_task(celery_app(), lambda: journaled(journal)[1], name="texts.send", journal=journal)


def test_a_factory_that_forgets_the_journal_of_its_task_sends_nothing(store):
    app = celery_app()
    sender, dispatcher = journaled(None)
    task = sms_task(app, lambda: dispatcher, name="texts.send", journal=store)
    app.finalize()
    with running(task), pytest.raises(ConfigurationError, match="its dispatcher has none"):
        task.run(MESSAGE.to_dict())
    assert sender.sent == []


# --- one text ---


def test_a_message_that_is_delivered_twice_is_sent_once_and_answered_twice(store):
    app = celery_app()
    sender, task = ready(app, store)
    app.finalize()
    receipts = []
    for _ in range(2):
        with running(task):
            receipts.append(task.run(MESSAGE.to_dict()))
    assert receipts[0] == receipts[1]
    assert len(sender.sent) == 1


def test_an_end_is_told_to_each_delivery(store):
    app = celery_app()
    sender, task = ready(app, store, [INVALID])
    app.finalize()
    for _ in range(2):
        with running(task), pytest.raises(SendFailed):
            task.run(MESSAGE.to_dict())
    assert len(sender.sent) == 1


def test_a_body_that_renders_another_text_the_next_time_sends_the_first(store):
    task = own_task(celery_app())
    sender, dispatcher = journaled(store, [BUSY], policy=RetryPolicy(first_delay_s=0.0))
    for message in (MESSAGE, OTHER_TEXT):
        with running(task):
            try:
                deliver(task, dispatcher, message)
            except Retry:
                continue
    assert [message.body for message in sender.sent] == [TEXT, TEXT]


def test_a_body_that_uses_an_id_again_for_another_text_is_told_that_it_was_not_sent(store, caplog):
    task = own_task(celery_app())
    sender, dispatcher = journaled(store)
    told = []
    for run, message in enumerate((MESSAGE, MESSAGE, OTHER_TEXT)):
        with running(task, id=f"task-{run}"), caplog.at_level(logging.WARNING, "smsretry"):
            deliver(task, dispatcher, message)
        told.append(sum(f"{MESSAGE.id} has ended, with another text" in line for line in caplog.messages))
    assert told == [0, 0, 1]
    assert [message.body for message in sender.sent] == [TEXT]


def test_a_ready_task_refuses_another_text_and_leaves_the_first_as_it_is(store):
    app = celery_app()
    sender, task = ready(app, store, [BUSY])
    app.finalize()
    with running(task), pytest.raises(Retry):
        task.run(MESSAGE.to_dict())
    with running(task, id="task-2"), pytest.raises(InvalidMessage, match="another text"):
        task.run(OTHER_TEXT.to_dict())
    assert len(sender.sent) == 1
    assert state_in(store) is MessageState.PENDING


# --- what is put off ---


def test_a_copy_of_a_message_that_another_worker_holds_does_not_spin(store):
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = journaled(store)
    claimed_by_another(store, lease_s=0.3)
    with running(task), pytest.raises(Retry) as why:
        deliver(task, dispatcher, MESSAGE)
    assert sender.sent == []
    assert DeferReason.BUSY.value in str(why.value)
    assert why.value.when == 1.0
    [again] = published(app)
    assert again.headers["retries"] == 0


def test_a_copy_that_is_busy_for_long_waits_for_the_end_of_the_lease(store):
    task = own_task(celery_app())
    _, dispatcher = journaled(store)
    claimed_by_another(store, lease_s=50.0)
    with running(task), pytest.raises(Retry) as why:
        deliver(task, dispatcher, MESSAGE)
    wait_s: Any = why.value.when
    assert 48 < wait_s <= 50


def test_behind_an_account_that_is_refused_messages_wait_in_the_queue(store):
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = journaled(store, [REFUSED])
    for number in range(3):
        message = Message(f"+1500555000{number}", TEXT, id=f"parcel:{number}")
        with running(task, id=str(message.id)), pytest.raises(Retry, match="on_hold"):
            deliver(task, dispatcher, message)
    assert len(sender.sent) == 1
    assert len(published(app)) == 3


def test_a_journal_that_is_away_puts_the_message_off_and_nothing_is_sent(tmp_path):
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = journaled(SQLStore(f"sqlite:///{tmp_path}"))  # a folder cannot be opened
    with running(task), pytest.raises(Retry, match="journal_away"):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert sender.sent == []
    assert state_of(again).claim is not None


def test_what_the_header_says_is_a_hint_and_the_journal_knows_better(store):
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = journaled(store, [BUSY] * 2, policy=RetryPolicy(first_delay_s=0.0))
    for _ in range(2):
        with running(task), pytest.raises(Retry):  # the second one comes without the state of the first
            deliver(task, dispatcher, MESSAGE)
    first, second = published(app)
    assert (state_of(first).retries, state_of(second).retries) == (1, 2)
    assert len(sender.sent) == 2


@pytest.mark.parametrize("apart_s", [-3_600, 3_600])
def test_a_retry_is_due_by_the_clock_of_the_worker_whatever_that_of_the_journal_shows(store, apart_s):
    app = celery_app()
    task = own_task(app)

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=apart_s)

    _, dispatcher = journaled(store, [BUSY], clock=clock)
    with running(task), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    due = state_of(again).due
    assert due is not None
    assert 0 < (due - clock()).total_seconds() <= 2


# --- a broker that takes no retry ---


@pytest.mark.parametrize("failure", [BUSY, LOST], ids=["busy", "lost"])
def test_a_retry_that_cannot_be_published_goes_back_to_the_broker_and_ends_nothing(store, failure):
    task = unreachable_app(acks_late=True)
    _, dispatcher = journaled(store, [failure], policy=RetryPolicy(first_delay_s=0.0))
    with running(task), pytest.raises(Reject) as raised:
        deliver(task, dispatcher, MESSAGE)
    assert raised.value.requeue is True
    assert state_in(store) is MessageState.PENDING


@pytest.mark.parametrize("failure", [BUSY, LOST], ids=["busy", "lost"])
def test_under_early_ack_it_is_left_to_recover_and_the_log_says_so(store, failure, caplog):
    task = unreachable_app(acks_late=False)
    _, dispatcher = journaled(store, [failure])
    with caplog.at_level(logging.ERROR, "smsretry"), running(task), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    assert "recover queues it again" in caplog.text
    assert NUMBER not in caplog.text
    assert state_in(store) is MessageState.PENDING


# --- the soft time limit ---


def test_a_soft_time_limit_is_a_deferral_until_the_lease_ends_and_the_doubt_is_kept(store):
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = journaled(store, [BUSY], draw=out_of_time, lease_s=20.0)
    with running(task), pytest.raises(Retry) as why:
        deliver(task, dispatcher, MESSAGE)
    assert why.value.when == 20.0
    [again] = published(app)
    assert again.headers["retries"] == 0
    with running(task, headers={"smsretry_state": again.headers["smsretry_state"]}), pytest.raises(Retry):
        deliver(task, Dispatcher(sender, journal=store), MESSAGE)
    assert len(sender.sent) == 1


# --- eager mode ---


def test_eager_mode_sends_what_can_be_sent_at_once(store):
    sender, task = ready(celery_app(task_always_eager=True), store, [BUSY], policy=RetryPolicy(first_delay_s=0.0))
    assert task.send(MESSAGE, countdown=60).state == "SUCCESS"
    assert len(sender.sent) == 2
    assert state_in(store) is MessageState.ACCEPTED


@pytest.mark.parametrize("failure", [BUSY, LOST], ids=["busy", "lost"])
def test_eager_mode_leaves_in_the_journal_what_has_to_wait(store, failure):
    sender, task = ready(celery_app(task_always_eager=True), store, [failure])
    assert task.send(MESSAGE).state == "RETRY"
    assert len(sender.sent) == 1
    assert state_in(store) is MessageState.PENDING


# --- revoked ---


@pytest.mark.parametrize(
    "arguments",
    [{"args": (MESSAGE.to_dict(),)}, {"args": (), "kwargs": {"message": MESSAGE.to_dict()}}],
    ids=["args", "kwargs"],
)
def test_a_revoked_task_cancels_its_message(store, arguments):
    app = celery_app()
    _, task = ready(app, store)
    app.finalize()
    task.send(MESSAGE)
    task_revoked.send(sender=task, request=Context(id="task-1", **arguments), terminated=False, signum=None)
    assert state_in(store) is MessageState.CANCELED


@pytest.mark.parametrize("own_id", [True, False], ids=["id of its own", "id of the task"])
def test_a_revoked_task_whose_text_may_have_left_is_asked_about_under_another_task_id(store, own_id):
    app = celery_app()
    sender, task = ready(app, store, [LOST])
    app.finalize()
    text = MESSAGE.to_dict() if own_id else Message(NUMBER, TEXT).to_dict()
    task_id = "task-1" if own_id else str(MESSAGE.id)
    with running(task, id=task_id), pytest.raises(Retry):
        task.run(text)
    published(app)
    task_revoked.send(sender=task, request=Context(id=task_id, args=(text,)), terminated=False, signum=None)
    [copy] = published(app)
    assert copy.headers["id"] not in {task_id, MESSAGE.id}
    assert copy.payload[0] == [MESSAGE.to_dict()]
    begun = store.begin(MESSAGE, hint=AttemptState(), nonce="n", lease_s=60.0, account="a", most_deferred_s=60.0)
    assert isinstance(begun, NotDue)
    assert len(sender.sent) == 1


def test_a_task_that_is_killed_over_its_send_is_taken_back_too(store):
    app = celery_app()
    _, task = ready(app, store)
    app.finalize()
    claimed_by_another(store, lease_s=0.05)
    task_revoked.send(sender=task, request=Context(id="task-1", args=(MESSAGE.to_dict(),)), terminated=True, signum=15)
    assert len(published(app)) == 1
    time.sleep(0.06)  # the lease of who was killed
    with running(task, id="task-2"), pytest.raises(Retry):
        task.run(MESSAGE.to_dict())
    row = row_of(store, str(MESSAGE.id))
    assert (row.doubt_since is not None, "canceled" in row.ending) == (True, True)


def test_a_copy_that_cannot_be_queued_is_left_to_recover(store, caplog):
    at_once = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app = celery_app(broker_url=NOBODY, task_publish_retry=False, broker_transport_options=at_once)
    _, task = ready(app, store)
    app.finalize()
    claimed_by_another(store, lease_s=60.0)
    with caplog.at_level(logging.ERROR, "smsretry"):
        task_revoked.send(sender=task, request=Context(id="task-1", args=(MESSAGE.to_dict(),)))
    assert "parcel:17 was revoked in doubt and not queued again" in caplog.text


def test_a_revoked_task_of_an_application_s_own_cancels_the_message_with_its_id(store):
    app, another = celery_app(), celery_app()
    task = own_task(app)
    recover_every(app, store, lambda message_id, metadata: None)
    store.plan([MESSAGE, Message(NUMBER, "another", id="beside")])
    task_revoked.send(sender=own_task(another), request=Context(id=MESSAGE.id, args=()))
    assert state_in(store) is MessageState.PENDING
    task_revoked.send(sender=task, request=Context(id=MESSAGE.id, args=({"id": "beside"},)), terminated=False)
    assert state_in(store) is MessageState.CANCELED
    assert store.campaign_summary(None).pending == 1
    assert published(app) == []


def test_a_revoked_task_whose_text_has_left_changes_nothing(store):
    app = celery_app()
    _, task = ready(app, store)
    app.finalize()
    with running(task):
        task.run(MESSAGE.to_dict())
    task_revoked.send(sender=task, request=Context(id="task-1", args=(MESSAGE.to_dict(),)))
    assert state_in(store) is MessageState.ACCEPTED


def test_a_journal_that_is_away_when_a_task_is_revoked_is_logged(tmp_path, caplog):
    app = celery_app()
    store = SQLStore(f"sqlite:///{tmp_path / 'nowhere' / 'sms.db'}")
    _, task = ready(app, store)
    app.finalize()
    with caplog.at_level(logging.ERROR, "smsretry"):
        task_revoked.send(sender=task, request=Context(id="task-1", args=(MESSAGE.to_dict(),)))
    assert "parcel:17 was revoked and could not be canceled" in caplog.text


def test_the_state_that_is_published_is_json(store):
    app = celery_app()
    task = own_task(app)
    _, dispatcher = journaled(store, [BUSY])
    with running(task), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert json.loads(again.headers["smsretry_state"])["retries"] == 1
