"""Use every public name as a stranger would; mypy --strict and pyright read this file, nobody runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, assert_never, assert_type

from celery import Celery, Task
from celery.result import AsyncResult

import smsretry
from smsretry import (
    Accepted,
    AnalyticsSink,
    AsyncDispatcher,
    AsyncSMSSender,
    AttemptState,
    ConfigurationError,
    Deferred,
    Dispatcher,
    Event,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    InvalidMessage,
    Jitter,
    Message,
    MessageAccepted,
    MessageDeferred,
    MessageFailed,
    NotAccepted,
    OnUnknown,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
    RetryScheduled,
    Scope,
    SendFailed,
    SendUnknown,
    SMSRetryError,
    SMSSender,
)
from smsretry.adapters.callables import retrying, send_with_retry
from smsretry.adapters.celery import deliver, sms_task
from smsretry.core.classify import chain, classify_error
from smsretry.errors import ProviderError
from smsretry.ports import AsyncCanLookUp, CanLookUp, CannotTell, Classifier, Clock, Found, LookUp, NotSeen
from smsretry.senders.twilio import AsyncTwilioSender, TwilioSender, classify_twilio_error
from smsretry.sinks.log import LogSink
from smsretry.store import SQLStore
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender, TwilioSimulator

# A message, and what is known of it


def build_a_message(customer_id: int, phone: str) -> Message:
    try:
        message = Message(
            phone,
            "Your table is ready.",
            id=f"spring:{customer_id}",
            campaign="spring",
            sender_id="MyShop",
            media_urls=("https://example.com/table.png",),
            send_before=datetime.now(UTC) + timedelta(minutes=5),
            metadata={"customer": customer_id},
        )
    except InvalidMessage as error:
        assert_type(str(error), str)
        raise
    assert_type(message.id, str | None)
    assert_type(message.metadata, Mapping[str, Any])
    assert_type(message.with_id("task-1"), Message)
    assert_type(message.to_dict(), dict[str, Any])
    return Message.from_dict(message.to_dict())


def read_a_receipt(receipt: Receipt) -> tuple[str, str, datetime, int | None, str]:
    assert_type(Receipt.from_dict(receipt.to_dict()), Receipt)
    return receipt.provider, receipt.provider_id, receipt.accepted_at, receipt.segments, receipt.raw_status


def build_a_failure() -> Failure:
    usual = Failure.of(FailureKind.RATE_LIMITED, code=20429, http_status=429, retry_after_s=3.0)
    assert_type(usual, Failure)
    assert_type(Failure.from_dict(usual.to_dict()), Failure)
    return Failure(
        FailureKind.TEMPORARY,
        Scope.PROVIDER,
        retryable=True,
        maybe_sent=True,
        code="busy",
        http_status=503,
        detail="try again",
        min_delay_s=1.0,
        retry_after_s=None,
        provider="acme",
        unmapped=False,
    )


# A policy


def build_a_policy() -> RetryPolicy:
    policy = RetryPolicy(
        max_retries=5,
        first_delay_s=1.0,
        multiplier=3.0,
        max_delay_s=60.0,
        max_hint_s=600.0,
        jitter=Jitter.EQUAL,
        on_unknown=OnUnknown.NEVER_RESEND,
        settle_after_s=60.0,
        settle_after_error_s=5.0,
    )
    assert_type(policy.schedule(), tuple[float, ...])
    assert_type(policy.schedule(FailureKind.QUEUE_FULL), tuple[float, ...])
    assert_type(policy.backoff(1), float)
    assert_type(policy.should_retry(build_a_failure(), 0), bool)
    assert_type(RetryPolicy.from_dict(policy.to_dict()), RetryPolicy)
    return policy.for_kind(FailureKind.QUEUE_FULL, max_retries=3, first_delay_s=600.0)


def decide(policy: RetryPolicy, failure: Failure, message: Message) -> datetime | None:
    now = datetime.now(UTC)
    decision = policy.decide(failure, AttemptState(), now=now, send_before=message.send_before, draw=0.5)
    assert_type(decision, RetryAfter | Deferred | GaveUp)
    match decision:
        case RetryAfter(delay_s=delay_s) | Deferred(delay_s=delay_s):
            return now + timedelta(seconds=delay_s)
        case GaveUp():
            return decision.would_retry_at
        case _ as unreachable:
            assert_never(unreachable)


# A sender, a classifier, a sink, a clock


class Answer(Protocol):
    """What the client of a provider returns."""

    sid: str


class AcmeSender:
    """A sender that can be asked."""

    def __init__(self, create: Callable[[str, str], Answer]) -> None:
        self._create = create

    def send(self, message: Message) -> Receipt:
        answer = self._create(message.to, message.body)
        if not answer.sid:
            raise ProviderError(Failure.of(FailureKind.LOST_ANSWER, detail="no id"))
        return Receipt("acme", answer.sid, datetime.now(UTC))

    def find(self, message: Message, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        if message.to in exclude:
            return CannotTell("not listed")
        if since > datetime.now(UTC):
            return NotSeen(as_of=since)
        return Found(Receipt("acme", "A1", since))

    def classify(self, error: Exception) -> Failure | None:
        return Failure.of(FailureKind.AUTH) if isinstance(error, PermissionError) else None


class CampaignSink:
    """A sink of an application."""

    def __init__(self) -> None:
        self.sent = self.failed = 0

    def record(self, event: Event) -> None:
        match event:
            case MessageAccepted():
                assert_type(event.receipt, Receipt)
                self.sent += 1
            case RetryScheduled():
                assert_type((event.delay_s, event.due, event.failure), tuple[float, datetime, Failure])
            case MessageDeferred():
                assert_type(event.failure, Failure | None)
            case MessageFailed():
                assert_type(event.reason, GiveUpReason)
                self.failed += 1
            case _:
                pass
        assert_type(event.event_id, str)
        assert_type(event.to_dict(), dict[str, Any])


def overrides(error: Exception) -> Failure | None:
    return Failure.of(FailureKind.TEMPORARY) if isinstance(error, BlockingIOError) else None


def build_a_dispatcher(create: Callable[[str, str], Answer], store: SQLStore) -> Dispatcher:
    sender: SMSSender = AcmeSender(create)
    askable: CanLookUp = AcmeSender(create)
    classify: Classifier = chain(overrides, classify_twilio_error)
    clock: Clock = FakeClock()
    sinks: list[AnalyticsSink] = [CampaignSink(), LogSink(), RecordingSink(), store]
    Dispatcher(sender)
    Dispatcher(AcmeSender(create), sink=CampaignSink())
    Dispatcher(ScriptedSender([build_a_failure(), OSError()], clock=FakeClock()), sink=[LogSink(), RecordingSink()])
    assert_type(askable.find(Message("+15005550006", "hi"), since=clock()), LookUp)
    assert_type(classify_error(OSError()), Failure)
    return Dispatcher(sender, policy=build_a_policy(), classify=classify, sink=sinks, clock=clock, draw=lambda: 0.5)


# One attempt, and what follows


def one_attempt(
    dispatcher: Dispatcher, message: Message, stored: dict[str, Any]
) -> tuple[float, dict[str, Any]] | None:
    try:
        state = AttemptState.from_dict(stored)
    except ValueError:
        state = AttemptState()
    outcome = dispatcher.attempt(message, state)
    assert_type(outcome, Outcome)
    match outcome:
        case Accepted(receipt, attempts, looked_up):
            assert_type((receipt, attempts, looked_up), tuple[Receipt, int, bool])
            return None
        case RetryAfter(delay_s, failure, following):
            assert_type(failure, Failure)
            return delay_s, following.to_dict()
        case Deferred(delay_s, reason, following):
            assert_type(str(reason), str)
            return delay_s, following.to_dict()
        case GaveUp(failure, reason, attempts):
            assert_type((failure, reason, attempts), tuple[Failure, GiveUpReason, int])
            return None
        case _ as unreachable:
            assert_never(unreachable)


def fields_of_a_state(state: AttemptState) -> None:
    assert_type(
        (state.version, state.retries, state.looks, state.deferrals, state.round), tuple[int, int, int, int, int]
    )
    assert_type((state.doubt_since, state.due), tuple[datetime | None, datetime | None])
    assert_type(state.provider_id, str | None)


# Plain code


def send_one(dispatcher: Dispatcher, message: Message) -> str:
    try:
        receipt = send_with_retry(dispatcher, message, sleep=FakeClock().sleep)
    except SendUnknown as error:
        assert_type(error.message_id, str)
        return "unknown"
    except SendFailed as error:
        assert_type((error.failure, error.reason, error.attempts), tuple[Failure, GiveUpReason, int])
        return error.failure.kind
    except (NotAccepted, ConfigurationError, SMSRetryError):
        return "never comes here"
    return receipt.provider_id


@retrying()
def send_sms(to: str, body: str, *, urgent: bool = False) -> str:
    return f"{to} {body} {urgent}"


def judge(result: dict[str, Any]) -> Failure | None:
    return None if result["success"] else Failure.of(FailureKind.OTHER, detail=result["error"])


@retrying(policy=RetryPolicy(max_retries=1), classify=overrides, sink=LogSink(), judge=judge)
def send_dict(to: str) -> dict[str, Any]:
    return {"success": bool(to)}


class Gateway:
    """A client of an application."""

    @retrying(sink=[LogSink(), CampaignSink()])
    def send(self, to: str) -> int:
        return len(to)


def call_what_was_wrapped() -> None:
    assert_type(send_sms("+15005550006", "hi", urgent=True), str)
    assert_type(send_dict("+15005550006"), dict[str, Any])
    assert_type(Gateway().send("+15005550006"), int)


# Twilio, Celery, a database, the simulator


def build_a_twilio_sender(env: dict[str, str]) -> TwilioSender:
    TwilioSender("AC1", "token", from_number="+15005550001")
    TwilioSender(
        "AC1",
        None,
        api_key="SK1",
        api_secret="secret",
        messaging_service_sid="MG1",
        timeout_s=5.0,
        connect_timeout_s=1.0,
        max_connections=4,
        base_url="http://127.0.0.1:8080",
        status_callback_url="https://example.com/status",
    )
    sender: SMSSender = TwilioSender.from_env()
    askable: CanLookUp = TwilioSender.from_env(env, timeout_s=5.0)
    Dispatcher(sender, classify=classify_twilio_error)
    assert_type(askable.find(Message("+15005550006", "hi"), since=datetime.now(UTC)), LookUp)
    return TwilioSender.from_env(env)


async def send_with_an_async_twilio_sender(message: Message, env: dict[str, str]) -> Outcome:
    sender: AsyncSMSSender = AsyncTwilioSender("AC1", "token", from_number="+15005550001", max_connections=500)
    askable: AsyncCanLookUp = AsyncTwilioSender.from_env(env, timeout_s=5.0)
    receipt = await sender.send(message)
    assert_type(receipt, Receipt)
    print(await askable.find(message, since=datetime.now(UTC), exclude=[receipt.provider_id]))
    async with AsyncTwilioSender.from_env() as closed_at_the_end:
        return await AsyncDispatcher(closed_at_the_end).attempt(message)


def build_a_task(app: Celery, dispatcher: Dispatcher, message: Message) -> None:
    ready = sms_task(app, dispatcher, name="shop.send_sms", queue="sms")
    sms_task(app, lambda: Dispatcher(TwilioSender.from_env()), name="shop.send_later")
    ready.delay(message.to_dict())
    result = ready.send(message, state=AttemptState(), countdown=60)
    assert_type(result, AsyncResult[dict[str, Any]])


def inside_a_task(task: Task[Any, Any], dispatcher: Dispatcher, message: Message) -> dict[str, Any]:
    receipt = deliver(task, dispatcher, message)
    assert_type(receipt, Receipt)
    return receipt.to_dict()


def use_a_store() -> None:
    store = SQLStore("sqlite:///sms.db", table_prefix="sms_")
    sink: AnalyticsSink = store
    Dispatcher(ScriptedSender(), sink=sink)
    store.skipped(Message("+15005550006", "hi", id="1"), "no consent")
    summary = store.campaign_summary("spring")
    assert_type(summary.sent, int)
    assert_type(summary.failed, int)
    for reason in store.failure_reasons("spring"):
        assert_type(reason.count, int)
    store.export_csv("spring.csv", "spring")
    store.purge(timedelta(days=30))
    store.close()


def use_the_simulator(message: Message) -> None:
    clock = FakeClock()
    clock.advance(1.0)
    with TwilioSimulator() as simulator:
        assert_type(simulator.url, str)
        sender = TwilioSender("AC1", "token", from_number="+15005550006", base_url=simulator.url)
        assert_type(Dispatcher(sender, clock=clock).attempt(message), Outcome)


assert_type(smsretry.__version__, str)
