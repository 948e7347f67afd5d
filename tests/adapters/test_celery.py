"""What the Celery adapter does inside one process: eager runs, published messages, refusals.

The runs that need a broker use kombu's own in-memory one, and Celery's own request stack. Real workers are in
test_celery_worker.py.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from tests.adapters.celery_runs import (
    LOST,
    NOBODY,
    celery_app,
    out_of_time,
    own_task,
    published,
    running,
    sending,
    state_of,
    unreachable_app,
)
from tests.adapters.texts import BUSY, INVALID, MESSAGE, NUMBER, TEXT

from smsretry import (
    AttemptState,
    ConfigurationError,
    Dispatcher,
    FailureKind,
    GiveUpReason,
    InvalidMessage,
    Message,
    MessageDeferred,
    MessageFailed,
    NotAccepted,
    OnUnknown,
    Receipt,
    RetryPolicy,
    RetryScheduled,
    SendFailed,
    SendUnknown,
)
from smsretry.adapters.celery import SMSTask, deliver, sms_task
from smsretry.core.lookup import CannotTell, Found
from smsretry.errors import ProviderError
from smsretry.limits import MemoryLimiter
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender

AT_ONCE = RetryPolicy(first_delay_s=0.0)

# --- what is published ---


def test_a_retry_is_published_with_its_state_delay_and_id():
    app = celery_app()
    task = own_task(app)
    _, dispatcher = sending([BUSY])
    with running(task, id="task-9"), pytest.raises(Retry) as raised:
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert again.headers["id"] == "task-9"
    assert again.headers["retries"] == 1
    assert state_of(again).retries == 1
    wait_s = (datetime.fromisoformat(again.headers["eta"]) - datetime.now(UTC)).total_seconds()
    assert 1.5 < wait_s <= 2.0
    assert raised.value.when == 2.0
    assert isinstance(raised.value.exc, ProviderError)
    assert raised.value.exc.failure == BUSY


def test_what_the_app_hid_of_its_arguments_stays_hidden_on_the_retry():
    app = celery_app()
    task = own_task(app)
    _, dispatcher = sending([BUSY])
    with running(task, argsrepr="('order 17',)", kwargsrepr="{}"), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert again.headers["argsrepr"] == "('order 17',)"
    assert again.headers["kwargsrepr"] == "{}"


def test_headers_of_the_app_travel_along():
    app = celery_app()
    task = own_task(app)
    _, dispatcher = sending([BUSY])
    with running(task, headers={"trace": "abc"}), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert again.headers["trace"] == "abc"


def test_the_policy_counts_and_not_max_retries_of_the_task():
    app = celery_app()
    task = own_task(app, max_retries=3)
    _, dispatcher = sending([BUSY], policy=RetryPolicy(max_retries=5))
    state = AttemptState(retries=4)
    with running(task, retries=4, headers={"smsretry_state": json.dumps(state.to_dict())}), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert state_of(again).retries == 5


def test_a_body_that_retries_for_reasons_of_its_own_keeps_the_state_and_is_not_stopped_by_our_count():
    app = celery_app()
    task = own_task(app, max_retries=None)
    written = json.dumps(AttemptState(retries=3).to_dict())
    with running(task, retries=3, headers={"smsretry_state": written}), pytest.raises(Retry):
        task.retry(exc=ConnectionError("the database is away"))
    [again] = published(app)
    assert again.headers["smsretry_state"] == written
    with running(own_task(app, name="texts.other", max_retries=3), retries=3), pytest.raises(ConnectionError):
        app.tasks["texts.other"].retry(exc=ConnectionError("the database is away"))


def test_a_message_in_doubt_is_published_again_without_using_a_retry():
    app = celery_app()
    task = own_task(app)
    clock = FakeClock(datetime.now(UTC))
    sender, dispatcher = sending([LOST], clock=clock)
    doubt = AttemptState(retries=1, doubt_since=clock.now(), settles_at=clock.now() + timedelta(seconds=120))
    with running(task, retries=1, headers={"smsretry_state": json.dumps(doubt.to_dict())}), pytest.raises(Retry) as why:
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert sender.sent == []
    assert len(sender.looked_up) == 1
    assert (again.headers["retries"], state_of(again).retries, state_of(again).deferrals) == (1, 1, 1)
    assert "in_doubt" in str(why.value)


def test_a_task_that_wakes_before_its_message_is_due_waits_on_without_an_attempt():
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = sending()
    early = AttemptState(retries=1, due=datetime.now(UTC) + timedelta(seconds=60))
    with running(task, retries=1, headers={"smsretry_state": json.dumps(early.to_dict())}), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert sender.sent == []
    assert state_of(again) == early
    assert again.headers["retries"] == 1


def test_a_fraction_of_a_second_early_is_in_time():
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = sending()
    due = AttemptState(retries=1, due=datetime.now(UTC) + timedelta(seconds=0.3))
    with running(task, headers={"smsretry_state": json.dumps(due.to_dict())}):
        deliver(task, dispatcher, MESSAGE)
    assert len(sender.sent) == 1


def test_expires_of_the_task_bounds_the_message_and_does_not_drop_its_retry():
    app = celery_app()
    task = own_task(app)
    expires = datetime.now(UTC) + timedelta(seconds=30)
    sender, dispatcher = sending([BUSY])
    with running(task, expires=expires.isoformat()), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    assert sender.sent[0].send_before == expires
    [again] = published(app)
    assert again.headers["expires"] is None
    own_headers = {name: value for name, value in again.headers.items() if name.startswith("smsretry")}
    own_headers.pop("smsretry_state")
    with running(task, headers=own_headers):
        deliver(task, dispatcher, MESSAGE)
    assert sender.sent[1].send_before == expires


def test_an_earlier_send_before_of_the_message_wins_over_expires():
    task = own_task(celery_app())
    now = datetime.now(UTC)
    sender, dispatcher = sending()
    message = Message(NUMBER, TEXT, send_before=now + timedelta(seconds=5))
    with running(task, expires=(now + timedelta(seconds=30)).isoformat()):
        deliver(task, dispatcher, message)
    assert sender.sent[0].send_before == message.send_before


# --- what comes back ---


def test_the_receipt_of_the_provider_comes_back_as_it_is():
    task = own_task(celery_app())
    receipt = Receipt("twilio", "SM1", datetime.now(UTC), 1, "queued")
    _, dispatcher = sending([receipt])
    with running(task):
        assert deliver(task, dispatcher, MESSAGE) is receipt


def test_a_message_without_an_id_gets_the_one_of_the_task():
    task = own_task(celery_app())
    sender, dispatcher = sending()
    with running(task, id="task-3"):
        deliver(task, dispatcher, Message(NUMBER, TEXT))
    assert sender.sent[0].id == "task-3"


def test_a_permanent_failure_is_raised_with_the_providers_error_as_its_cause():
    app = celery_app()
    task = own_task(app)
    _, dispatcher = sending([INVALID])
    with running(task), pytest.raises(SendFailed) as raised:
        deliver(task, dispatcher, MESSAGE)
    assert raised.value.reason is GiveUpReason.PERMANENT
    assert isinstance(raised.value.__cause__, ProviderError)
    assert published(app) == []


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_sender_that_is_not_set_up_is_told_aloud_once_in_each_process(is_eager, caplog):
    missing = ConfigurationError("TWILIO_ACCOUNT_SID is missing. Set it to what Twilio's console shows.")
    _, dispatcher = sending([missing, missing])
    task = own_task(celery_app())
    for _ in range(2):
        with running(task, is_eager=is_eager), caplog.at_level(logging.ERROR), pytest.raises(SendFailed):
            deliver(task, dispatcher, MESSAGE)
    [line] = caplog.messages
    assert line.startswith("texts.own: its sender is not set up, so texts fail as sender_config: TWILIO_ACCOUNT_SID is")


def test_an_unknown_outcome_that_may_not_be_asked_ends_as_unknown():
    task = own_task(celery_app())
    _, dispatcher = sending([LOST], policy=RetryPolicy(on_unknown=OnUnknown.GIVE_UP))
    with running(task), pytest.raises(SendUnknown):
        deliver(task, dispatcher, MESSAGE)


# --- a broker that does not take the retry ---


def test_a_retry_that_cannot_be_published_hands_the_run_back_to_the_broker():
    task = unreachable_app(acks_late=True)
    _, dispatcher = sending([BUSY], policy=AT_ONCE)
    with running(task), pytest.raises(Reject) as raised:
        deliver(task, dispatcher, MESSAGE)
    assert raised.value.requeue is True
    assert raised.value.__cause__ is not None


def test_a_run_that_goes_back_to_the_broker_keeps_its_wait_so_that_the_provider_is_not_flooded():
    task = unreachable_app(acks_late=True)
    sender, dispatcher = sending([BUSY] * 3, policy=RetryPolicy(first_delay_s=0.1))
    began = time.monotonic()
    for _ in range(3):  # the broker hands it out again at once
        with running(task), pytest.raises(Reject):
            deliver(task, dispatcher, MESSAGE)
    assert len(sender.sent) == 3
    assert time.monotonic() - began >= 0.3


def test_under_early_ack_a_retry_that_cannot_be_published_fails_loudly_with_its_state(caplog):
    task = unreachable_app(acks_late=False)
    _, dispatcher = sending([BUSY])
    with caplog.at_level(logging.CRITICAL, "smsretry"), running(task), pytest.raises(Exception) as raised:  # noqa: PT011
        deliver(task, dispatcher, MESSAGE)
    assert not isinstance(raised.value, (Retry, Reject))
    assert "parcel:17" in caplog.text
    assert "'retries': 1" in caplog.text
    assert NUMBER not in caplog.text


def test_a_lost_answer_whose_retry_cannot_be_published_ends_as_unknown_and_is_not_sent_blindly():
    task = unreachable_app(acks_late=True)
    _, dispatcher = sending([LOST], sink=(sink := RecordingSink()))
    with running(task), pytest.raises(SendUnknown):
        deliver(task, dispatcher, MESSAGE)
    assert [type(event) for event in sink.events] == [RetryScheduled, MessageFailed]


def test_a_second_lost_answer_whose_retry_cannot_be_published_ends_as_unknown_too():
    task = unreachable_app(acks_late=True)
    now = datetime.now(UTC)
    settled = AttemptState(retries=1, doubt_since=now - timedelta(seconds=200), settles_at=now - timedelta(seconds=80))
    sender, dispatcher = sending([LOST])
    with running(task, headers={"smsretry_state": json.dumps(settled.to_dict())}), pytest.raises(SendUnknown):
        deliver(task, dispatcher, MESSAGE)
    assert len(sender.sent) == 1


def test_a_doubt_that_the_broker_knows_of_goes_back_to_it():
    task = unreachable_app(acks_late=True)
    now = datetime.now(UTC)
    doubt = AttemptState(retries=1, doubt_since=now, settles_at=now + timedelta(seconds=0.2))
    _, dispatcher = sending()
    with running(task, headers={"smsretry_state": json.dumps(doubt.to_dict())}), pytest.raises(Reject):
        deliver(task, dispatcher, MESSAGE)


# --- the soft time limit ---


def test_a_soft_time_limit_after_the_send_keeps_the_doubt():
    app = celery_app()
    task = own_task(app)
    sender, dispatcher = sending([BUSY], draw=out_of_time, sink=(sink := RecordingSink()))
    with running(task), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert len(sender.sent) == 1
    assert state_of(again).doubt_since is not None
    assert state_of(again).retries == 1
    [event] = sink.events
    assert isinstance(event, RetryScheduled)
    assert (event.failure.kind, event.failure.detail) == (FailureKind.LOST_ANSWER, "SoftTimeLimitExceeded")
    assert event.due == state_of(again).due


def test_a_message_that_a_soft_time_limit_ends_is_told_to_the_sinks():
    task = own_task(celery_app())
    sink, policy = RecordingSink(), RetryPolicy(on_unknown=OnUnknown.GIVE_UP)
    _, dispatcher = sending([BUSY], draw=out_of_time, sink=sink, policy=policy)
    with running(task), pytest.raises(SendUnknown) as raised:
        deliver(task, dispatcher, MESSAGE)
    assert "SoftTimeLimitExceeded" in raised.value.__notes__[0]
    [event] = sink.events
    assert isinstance(event, MessageFailed)
    assert event.reason is GiveUpReason.OUTCOME_UNKNOWN


def test_a_soft_time_limit_after_the_last_send_is_looked_up_before_the_message_ends():
    app = celery_app()
    task = own_task(app)
    sink, policy = RecordingSink(), RetryPolicy(max_retries=0)
    _, dispatcher = sending([BUSY], draw=out_of_time, policy=policy, sink=sink)
    with running(task), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [again] = published(app)
    assert [type(event) for event in sink.events] == [MessageDeferred]
    assert state_of(again).ending is not None
    assert state_of(again).doubt_since is not None


# --- what is refused before anything is sent ---


@pytest.mark.parametrize("catching", [(Exception,), (NotAccepted,), (SendUnknown,), (ValueError, Reject)])
def test_autoretry_that_would_repeat_an_end_is_refused_before_anything_is_sent(catching, caplog):
    task = own_task(celery_app(), autoretry_for=catching)
    sender, dispatcher = sending([INVALID])
    for _ in range(2):  # Celery catches the refusal, and tries again
        with running(task), pytest.raises(ConfigurationError, match="Remove autoretry_for"):
            deliver(task, dispatcher, MESSAGE)
    assert sender.sent == []
    assert caplog.text.count("Remove autoretry_for") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"autoretry_for": (ConnectionError,)},
        {"autoretry_for": (Exception,), "dont_autoretry_for": (NotAccepted, Reject)},
    ],
)
def test_autoretry_that_lets_an_end_pass_is_allowed(options):
    task = own_task(celery_app(), **options)
    sender, dispatcher = sending()
    with running(task):
        deliver(task, dispatcher, MESSAGE)
    assert len(sender.sent) == 1


def test_a_ready_task_with_such_autoretry_is_refused_when_it_is_registered():
    _, dispatcher = sending()
    with pytest.raises(ConfigurationError, match="Remove autoretry_for"):
        sms_task(celery_app(), dispatcher, name="texts.send", autoretry_for=(Exception,))


def test_deliver_outside_of_a_task_is_refused():
    task = own_task(celery_app())
    sender, dispatcher = sending()
    with pytest.raises(ConfigurationError, match="called as a plain function"):
        deliver(task, dispatcher, MESSAGE)
    assert sender.sent == []


def test_a_ready_task_called_as_a_function_is_refused():
    sender, dispatcher = sending()
    send_sms = sms_task(celery_app(), dispatcher, name="texts.send")
    with pytest.raises(ConfigurationError, match="delay"):
        send_sms(MESSAGE.to_dict())
    assert sender.sent == []


def test_deliver_without_the_task_says_to_bind_it():
    _, dispatcher = sending()
    with pytest.raises(ConfigurationError, match=r"got str\. Declare the task with @app\.task\(bind=True\)"):
        deliver("order 17", dispatcher, MESSAGE)  # type: ignore[arg-type]


def test_a_second_message_in_one_run_is_refused():
    task = own_task(celery_app())
    sender, dispatcher = sending()
    with running(task):
        deliver(task, dispatcher, MESSAGE)
        with pytest.raises(ConfigurationError, match="one task for each message"):
            deliver(task, dispatcher, MESSAGE)
    assert len(sender.sent) == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[]",
        "null",
        7,
        '{"v": 1, "retries": -1}',
        '{"v": 1, "retries": 1.5}',
        '{"v": 99}',
        '{"v": 1, "due": "x"}',
    ],
)
def test_a_corrupt_state_is_refused_before_anything_is_sent(header):
    task = own_task(celery_app())
    sender, dispatcher = sending()
    with running(task, headers={"smsretry_state": header}), pytest.raises(InvalidMessage, match="nothing was sent"):
        deliver(task, dispatcher, MESSAGE)
    assert sender.sent == []


@pytest.mark.parametrize("source", [None, "dispatcher", 3])
def test_what_is_no_dispatcher_is_refused(source):
    with pytest.raises(ConfigurationError, match="must be a Dispatcher"):
        sms_task(celery_app(), source, name="texts.send")
    task = own_task(celery_app())
    with running(task), pytest.raises(ConfigurationError, match="must be a Dispatcher"):
        deliver(task, source, MESSAGE)


def test_a_factory_that_returns_no_dispatcher_is_refused():
    task = own_task(celery_app())
    with running(task), pytest.raises(ConfigurationError, match="got NoneType"):
        deliver(task, lambda: None, MESSAGE)  # type: ignore[arg-type,return-value]


# --- the factory ---


def test_a_factory_is_called_once_whichever_thread_asks_first():
    task = own_task(celery_app())
    made: list[Dispatcher] = []
    start = threading.Barrier(8)

    def factory() -> Dispatcher:
        made.append(sending()[1])
        return made[-1]

    def run() -> None:
        start.wait()
        with running(task):
            deliver(task, factory, MESSAGE)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_another_factory_makes_another_dispatcher():
    task = own_task(celery_app())
    senders = [ScriptedSender(), ScriptedSender()]
    for sender in senders:
        with running(task):
            deliver(task, lambda sender=sender: Dispatcher(sender), MESSAGE)  # type: ignore[misc]
    assert [len(sender.sent) for sender in senders] == [1, 1]


def test_a_process_that_only_queues_never_calls_the_factory():
    def factory() -> Dispatcher:
        raise NotImplementedError

    app = celery_app()
    sms_task(app, factory, name="texts.send").send(MESSAGE)
    assert len(published(app)) == 1


# --- the ready task ---


def ready(app: Celery, script: Any = (), **options: Any) -> tuple[ScriptedSender, SMSTask]:
    sender, dispatcher = sending(script, **options)
    return sender, sms_task(app, dispatcher, name="texts.send")


def test_the_ready_task_is_bound_acknowledged_late_and_counts_no_retries_itself():
    _, task = ready(celery_app())
    assert isinstance(task, SMSTask)
    assert (task.name, task.max_retries, task.acks_late, task.reject_on_worker_lost) == ("texts.send", None, True, True)
    assert task.throws == (NotAccepted,)


def test_options_of_the_task_override_its_defaults():
    _, dispatcher = sending()
    task = sms_task(celery_app(), dispatcher, name="texts.send", acks_late=False, max_retries=3, rate_limit="10/s")
    assert (task.acks_late, task.max_retries, task.rate_limit) == (False, 3, "10/s")


def test_the_task_class_of_the_app_stays_in_force():
    class InContext(Task):
        entered = 0

        def __call__(self, *args, **kwargs):
            type(self).entered += 1
            return super().__call__(*args, **kwargs)

    sender, dispatcher = sending()
    task = sms_task(celery_app(), dispatcher, name="texts.send", base=InContext)
    task.apply((MESSAGE.to_dict(),)).get()
    assert task.entered == 1
    assert len(sender.sent) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda task: task.delay(MESSAGE.to_dict()),
        lambda task: task.delay(message=MESSAGE.to_dict()),
        lambda task: task.apply_async((MESSAGE.to_dict(),)),
        lambda task: task.apply_async(kwargs={"message": MESSAGE.to_dict()}, countdown=5),
        lambda task: task.s(MESSAGE.to_dict()).apply_async(),
        lambda task: task.s(MESSAGE.to_dict()).set(countdown=1).delay(),
        lambda task: (task.si(MESSAGE.to_dict()) | task.si(MESSAGE.to_dict())).apply_async(),
        lambda task: task.send(MESSAGE),
        lambda task: task.send(MESSAGE, countdown=5),
    ],
    ids=["delay", "kwargs", "apply_async", "apply_async-kwargs", "signature", "set", "chain", "send", "later"],
)
def test_number_and_text_are_in_the_body_and_nowhere_else(call):
    app = celery_app(task_send_sent_event=True)
    _, task = ready(app)
    call(task)
    [message] = published(app)
    seen = json.dumps([message.headers, message.properties], default=str)
    assert NUMBER not in seen
    assert TEXT not in seen
    assert "parcel:17" in seen
    assert "***06" in seen
    assert NUMBER in json.dumps(message.payload)


def test_what_is_queued_by_name_is_hidden_where_the_caller_says_so_and_from_the_first_retry_on():
    app = celery_app()
    _, task = ready(app, [BUSY])
    app.send_task(task.name, (MESSAGE.to_dict(),), argsrepr="(…)", kwargsrepr="{…}")
    [hidden] = published(app)
    assert NUMBER not in json.dumps([hidden.headers, hidden.properties])
    app.send_task(task.name, (MESSAGE.to_dict(),))
    [shown] = published(app)
    assert NUMBER in shown.headers["argsrepr"]
    with running(task, argsrepr=shown.headers["argsrepr"]), pytest.raises(Retry):
        task.run(MESSAGE.to_dict())
    [again] = published(app)
    assert NUMBER not in json.dumps([again.headers, again.properties])


@pytest.mark.parametrize("argument", ["+15005550006", {"to": NUMBER}, {"v": 1, "to": "5005550006", "body": TEXT}, None])
def test_an_argument_that_is_no_message_is_not_shown_either(argument):
    app = celery_app()
    _, task = ready(app)
    task.delay(argument)
    [message] = published(app)
    assert "5005550006" not in json.dumps([message.headers, message.properties], default=str)


def test_send_gives_the_task_the_id_of_the_message():
    app = celery_app()
    _, task = ready(app)
    assert task.send(MESSAGE).id == "parcel:17"
    assert published(app)[0].headers["id"] == "parcel:17"


@pytest.mark.parametrize("message_id", [None, "spring/17", "a" * 156])
def test_an_id_that_a_result_backend_would_refuse_is_no_task_id(message_id):
    app = celery_app()
    _, task = ready(app)
    assert task.send(Message(NUMBER, TEXT, id=message_id)).id != message_id


def test_send_carries_a_state_on_and_waits_until_it_is_due():
    app = celery_app()
    _, task = ready(app)
    state = AttemptState(retries=2, due=datetime.now(UTC) + timedelta(seconds=40))
    task.send(MESSAGE, state=state)
    [message] = published(app)
    assert state_of(message) == state
    wait_s = (datetime.fromisoformat(message.headers["eta"]) - datetime.now(UTC)).total_seconds()
    assert 35 < wait_s <= 40


def test_send_with_what_is_no_state_is_refused():
    task = sms_task(celery_app(), sending()[1], name="texts.send")
    with pytest.raises(ConfigurationError, match="state must be an AttemptState, got dict"):
        task.send(MESSAGE, state={})  # type: ignore[arg-type]  # the mistake


def test_a_countdown_says_when_whatever_the_state_says():
    app = celery_app()
    _, task = ready(app)
    task.send(MESSAGE, state=AttemptState(retries=2, due=datetime.now(UTC) + timedelta(seconds=400)), countdown=3)
    [message] = published(app)
    assert state_of(message).retries == 2
    for due in (state_of(message).due, datetime.fromisoformat(message.headers["eta"])):
        assert due is not None
        assert (due - datetime.now(UTC)).total_seconds() <= 3


def test_a_delay_is_the_same_word_as_in_every_adapter():
    app = celery_app()
    _, task = ready(app)
    task.send(MESSAGE, delay_s=30)
    [message] = published(app)
    assert 28 < (datetime.fromisoformat(message.headers["eta"]) - datetime.now(UTC)).total_seconds() <= 30


# --- eager mode ---


def test_eager_mode_makes_all_attempts_at_once_without_a_broker():
    sender, task = ready(celery_app(task_always_eager=True, broker_url=NOBODY), [BUSY, BUSY])
    result = task.delay(MESSAGE.to_dict())
    assert result.state == "SUCCESS"
    assert Receipt.from_dict(result.get()).provider_id == "S3"
    assert len(sender.sent) == 3


def test_eager_mode_that_propagates_raises_the_end_and_never_a_retry():
    sender, task = ready(celery_app(task_always_eager=True, task_eager_propagates=True), [BUSY] * 4)
    with pytest.raises(SendFailed) as raised:
        task.delay(MESSAGE.to_dict())
    assert raised.value.reason is GiveUpReason.RETRIES_EXHAUSTED
    assert len(sender.sent) == 4


def test_apply_takes_a_state_and_a_message_of_no_id_gets_that_of_the_task():
    sender, task = ready(celery_app(), [BUSY])
    headers = {"smsretry_state": json.dumps(AttemptState(retries=3).to_dict())}
    result = task.apply((Message(NUMBER, TEXT).to_dict(),), headers=headers, task_id="task-4")
    assert isinstance(result.result, SendFailed)
    assert result.result.message_id == "task-4"
    assert len(sender.sent) == 1


def test_eager_mode_calls_a_message_unknown_that_would_have_to_wait_for_a_look_up():
    sender, task = ready(celery_app(), [LOST], sink=(sink := RecordingSink()))
    result = task.apply((MESSAGE.to_dict(),))
    assert isinstance(result.result, SendUnknown)
    assert len(sender.sent) == 1
    assert isinstance(sink.events[-1], MessageFailed)


def test_eager_mode_calls_a_message_unknown_that_has_ended_but_for_a_look_up():
    sender, task = ready(celery_app(), [LOST], policy=RetryPolicy(max_retries=0))
    result = task.apply((MESSAGE.to_dict(),))
    assert isinstance(result.result, SendUnknown)
    assert result.result.attempts == 1
    assert len(sender.sent) == 1


def test_eager_mode_does_not_wait_for_a_turn_under_a_rate_limit_and_calls_nothing_unknown():
    sender, task = ready(celery_app(), limiter=(limiter := MemoryLimiter(0.1, burst=1.0)))
    assert task.apply((MESSAGE.to_dict(),)).state == "SUCCESS"
    result = task.apply((MESSAGE.to_dict(),))
    assert result.state == "RETRY"
    assert "limited, eager mode does not wait" in str(result.result)
    assert len(sender.sent) == 1
    assert limiter.take_turn("ScriptedSender", 1, datetime.now(UTC)).wait_s > 10.0  # each of them has its place


def test_eager_mode_calls_a_message_in_doubt_unknown_that_would_have_to_wait_for_its_turn():
    policy = RetryPolicy(settle_after_s=0.0)
    sender, task = ready(celery_app(), [LOST], policy=policy, limiter=MemoryLimiter(0.1, burst=1.0))
    assert isinstance(task.apply((MESSAGE.to_dict(),)).result, SendUnknown)
    assert len(sender.sent) == 1


def test_eager_mode_looks_up_what_can_be_settled_at_once():
    sender = ScriptedSender([LOST], finds=[Found(Receipt("twilio", "SM7", datetime.now(UTC)))])
    task = sms_task(celery_app(), Dispatcher(sender), name="texts.send")
    assert task.apply((MESSAGE.to_dict(),)).get()["provider_id"] == "SM7"
    assert len(sender.sent) == 1


def test_an_own_task_runs_eagerly_too():
    app = celery_app(task_always_eager=True)
    sender, dispatcher = sending([BUSY])

    @app.task(bind=True, shared=False)
    def remind(self, order):
        return deliver(self, dispatcher, Message(NUMBER, f"{order} is ready")).provider_id

    assert remind.delay("order 17").get() == "S2"
    assert len(sender.sent) == 2


def test_a_soft_time_limit_while_an_end_waits_for_its_look_up_changes_no_end():
    app = celery_app()
    task = own_task(app)
    sink, clock = RecordingSink(), FakeClock(datetime.now(UTC))
    sender = ScriptedSender([LOST, INVALID], finds=[CannotTell("busy")] * 9, clock=clock)
    dispatcher = Dispatcher(sender, sink=sink, clock=clock, policy=RetryPolicy(max_retries=0))
    with running(task), pytest.raises(Retry):
        deliver(task, dispatcher, MESSAGE)
    [waiting] = published(app)
    clock.advance(200)
    with running(task, headers={"smsretry_state": waiting.headers["smsretry_state"]}), pytest.raises(Retry):
        deliver(task, Dispatcher(sender, sink=sink, clock=_Interrupting(clock)), MESSAGE)
    [again] = published(app)
    assert state_of(again).ending == state_of(waiting).ending
    assert [type(event) for event in sink.events] == [MessageDeferred, MessageDeferred]


class _Interrupting:
    """Tell the time, and let the soft time limit strike inside the attempt."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked = 0

    def __call__(self) -> datetime:
        self.asked += 1
        if self.asked == 4:  # 1: as the dispatcher is made, 2: is it due, 3: when the attempt began, 4: inside it
            raise SoftTimeLimitExceeded(5)
        return self.clock()


# --- bad input ---


def test_a_message_as_it_is_cannot_be_queued():
    _, task = ready(celery_app())
    with pytest.raises(InvalidMessage, match=r"Use send\(message\), or delay"):
        task.delay(MESSAGE)
    with pytest.raises(InvalidMessage, match=r"Use send\(message\), or delay"):
        task.apply_async(kwargs={"message": MESSAGE})


def test_only_a_message_is_sent():
    sender, task = ready(celery_app())
    with pytest.raises(InvalidMessage, match=r"Give send a smsretry.Message, got dict"):
        task.send(MESSAGE.to_dict())
    own = celery_app().task(bind=True, shared=False)(lambda self: None)
    with pytest.raises(InvalidMessage, match=r"Give deliver a smsretry.Message, got dict"):
        deliver(own, Dispatcher(sender), MESSAGE.to_dict())
    assert sender.sent == []


def test_two_ready_tasks_cannot_share_a_name():
    app = celery_app()
    sms_task(app, sending()[1], name="texts.send")
    with pytest.raises(ConfigurationError, match=r"texts.send sends already"):
        sms_task(app, sending()[1], name="texts.send")


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_task_needs_a_name(name: Any):
    with pytest.raises(ConfigurationError, match=r"name must be a str such as"):
        sms_task(celery_app(), sending()[1], name=name)


# --- without Celery ---


def test_without_celery_the_import_says_what_to_install():
    program = "import sys; sys.modules['celery'] = None\nimport smsretry.adapters.celery"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install 'smsretry[celery]'" in done.stderr
