"""Sending from plain code, and wrapping a function that an application has already."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shells import AwaitedAsking
from tests.strategies import policies

from smsretry import (
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    GiveUpReason,
    InvalidMessage,
    Jitter,
    Message,
    MessageAccepted,
    NotAccepted,
    OnUnknown,
    Receipt,
    RetryPolicy,
    SendFailed,
    SendUnknown,
)
from smsretry.adapters.callables import retrying, send_with_retry, send_with_retry_async
from smsretry.core.failure import RETRYABLE_KINDS
from smsretry.errors import ProviderError
from smsretry.journal import MemoryJournal
from smsretry.ports import CannotTell, Found
from smsretry.testing import FakeClock, RecordingSink, ScriptedSender

MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")
BUSY = Failure.of(FailureKind.RATE_LIMITED)
LOST = Failure.of(FailureKind.LOST_ANSWER)
WRONG_NUMBER = Failure.of(FailureKind.INVALID_NUMBER)
RECEIPT = Receipt("scripted", "SM1", FakeClock().now())


def dispatcher_of(*script: Receipt | Exception | Failure, clock: FakeClock, **more: Any) -> Dispatcher:
    return Dispatcher(ScriptedSender(script, clock=clock, repeat=True), clock=clock, **more)


# One message


def test_success_returns_the_very_receipt() -> None:
    clock = FakeClock()
    assert send_with_retry(dispatcher_of(BUSY, RECEIPT, clock=clock), MESSAGE, sleep=clock.sleep) is RECEIPT
    assert clock.sleeps == [2.0]


@given(policies(jitters=st.just(Jitter.NONE)), st.sampled_from(sorted(RETRYABLE_KINDS - {FailureKind.LOST_ANSWER})))
def test_the_waits_of_a_message_that_always_fails_are_the_schedule_of_its_policy(
    policy: RetryPolicy, kind: FailureKind
) -> None:
    clock = FakeClock()
    failure = replace(Failure.of(kind), maybe_sent=False, min_delay_s=0.0)
    with pytest.raises(SendFailed):
        send_with_retry(dispatcher_of(failure, clock=clock, policy=policy), MESSAGE, sleep=clock.sleep)
    assert tuple(clock.sleeps) == policy.schedule(kind)


def test_with_a_journal_a_message_needs_an_id_of_its_own_for_the_call_may_be_made_again() -> None:
    sender = ScriptedSender()
    with pytest.raises(InvalidMessage, match="needs an id"):
        send_with_retry(Dispatcher(sender, journal=MemoryJournal()), replace(MESSAGE, id=None))
    dispatcher: Any = AsyncDispatcher(AwaitedAsking(sender), journal=MemoryJournal())
    with pytest.raises(InvalidMessage, match="needs an id"):
        asyncio.run(send_with_retry_async(dispatcher, replace(MESSAGE, id=None)))
    assert sender.sent == []


def test_arguments_in_each_others_place_are_told_and_nothing_is_sent() -> None:
    sender = ScriptedSender()
    dispatcher: Any = Dispatcher(sender)
    with pytest.raises(ConfigurationError, match="first argument must be a Dispatcher, got Message"):
        send_with_retry(MESSAGE, dispatcher)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError, match="first argument must be an AsyncDispatcher, got Dispatcher"):
        asyncio.run(send_with_retry_async(dispatcher, MESSAGE))
    with pytest.raises(InvalidMessage, match=r"second argument must be a smsretry\.Message, got str"):
        send_with_retry(dispatcher, "Hello.")  # type: ignore[arg-type]  # the mistake
    assert sender.sent == []


def test_a_wait_for_another_worker_is_told_for_no_sink_hears_of_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    journal = MemoryJournal(clock)  # a worker that is killed now began it
    journal.begin(MESSAGE, hint=AttemptState(), nonce="n", lease_s=60.0, account="a", most_deferred_s=60.0)
    found = [Found(Receipt("scripted", "SM1", clock.now()))]
    dispatcher = Dispatcher(ScriptedSender(finds=found, clock=clock), journal=journal, clock=clock)
    with caplog.at_level(logging.WARNING, "smsretry"):
        send_with_retry(dispatcher, MESSAGE, sleep=clock.sleep)
    assert [line for line in caplog.messages if "waits for 60 s: another worker has it" in line]


def test_giving_up_keeps_the_exception_of_the_sender_as_its_cause() -> None:
    clock = FakeClock()
    error = ConnectionRefusedError("refused")
    with pytest.raises(SendFailed) as caught:
        send_with_retry(dispatcher_of(error, clock=clock), MESSAGE, sleep=clock.sleep)
    assert caught.value.__cause__ is error
    assert (caught.value.message_id, caught.value.attempts) == ("booking-1", 4)
    assert caught.value.reason is GiveUpReason.RETRIES_EXHAUSTED


def test_an_unknown_outcome_is_an_exception_of_its_own() -> None:
    clock = FakeClock()
    sender = ScriptedSender([LOST], finds=[CannotTell("403")] * 9, clock=clock)
    with pytest.raises(SendUnknown) as caught:
        send_with_retry(Dispatcher(sender, clock=clock), MESSAGE, sleep=clock.sleep)
    assert caught.value.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert sum(clock.sleeps) == 248.0


def test_a_lost_answer_is_looked_up_while_the_caller_waits() -> None:
    clock = FakeClock()
    sender = ScriptedSender([LOST], finds=[CannotTell("503"), Found(RECEIPT)], clock=clock)
    assert send_with_retry(Dispatcher(sender, clock=clock), MESSAGE, sleep=clock.sleep) is RECEIPT
    assert len(sender.sent) == 1
    assert clock.sleeps == [2.0, 2.0]


def test_a_message_without_an_id_has_one_for_the_whole_call() -> None:
    clock, sink = FakeClock(), RecordingSink()
    sender = ScriptedSender([BUSY, BUSY], clock=clock)
    send_with_retry(Dispatcher(sender, sink=sink, clock=clock), replace(MESSAGE, id=None), sleep=clock.sleep)
    assert len({message.id for message in sender.sent} | {event.message_id for event in sink.events}) == 1


def test_what_ends_the_wait_ends_the_sending() -> None:
    class Stop(BaseException):
        pass

    def stop(seconds: float) -> None:
        raise Stop

    sender = ScriptedSender([BUSY], repeat=True)
    with pytest.raises(Stop):
        send_with_retry(Dispatcher(sender), MESSAGE, sleep=stop)
    assert len(sender.sent) == 1


def test_the_deadline_bounds_the_waiting() -> None:
    clock = FakeClock()
    message = replace(MESSAGE, send_before=clock.now() + timedelta(seconds=7))
    with pytest.raises(SendFailed) as caught:
        send_with_retry(dispatcher_of(BUSY, clock=clock), message, sleep=clock.sleep)
    assert caught.value.reason is GiveUpReason.EXPIRED
    assert clock.sleeps == [2.0, 4.0]


def test_our_exceptions_survive_a_context_manager() -> None:
    @contextmanager
    def unit_of_work() -> Iterator[None]:
        try:
            yield
        finally:
            undone.append(True)

    undone: list[bool] = []
    with pytest.raises(SendFailed) as caught, unit_of_work():
        send_with_retry(Dispatcher(ScriptedSender([WRONG_NUMBER])), MESSAGE)
    assert undone == [True]
    assert caught.value.failure == WRONG_NUMBER


def test_the_end_survives_pickle() -> None:
    with pytest.raises(SendFailed) as caught:
        send_with_retry(Dispatcher(ScriptedSender([WRONG_NUMBER])), MESSAGE)
    thawed = pickle.loads(pickle.dumps(caught.value))
    assert (type(thawed), thawed.args) == (SendFailed, caught.value.args)
    assert json.loads(json.dumps(thawed.args)) == list(caught.value.args)


# A function that an application has already


class Answers:
    """A function of an application that raises or returns what comes next."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *args: object, **kwargs: object) -> Any:
        self.calls.append((*args, *kwargs.items()))
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def busy(error: Exception) -> Failure:
    return BUSY


def test_a_wrapped_function_returns_its_own_result() -> None:
    result = object()
    answers = Answers(OSError(), OSError(), result)
    clock = FakeClock()
    assert retrying(classify=busy, sleep=clock.sleep)(answers)("+15005550006", body="hi") is result
    assert clock.sleeps == [2.0, 4.0]
    assert answers.calls == [("+15005550006", ("body", "hi"))] * 3


@given(policies(jitters=st.just(Jitter.NONE)))
def test_the_waits_of_a_wrapped_function_are_the_schedule_of_its_policy(policy: RetryPolicy) -> None:
    clock = FakeClock()

    @retrying(policy=policy, classify=busy, sleep=clock.sleep)
    def send() -> None:
        raise OSError

    with pytest.raises(SendFailed) as caught:
        send()
    assert tuple(clock.sleeps) == policy.schedule(BUSY.kind)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_wrapped_function_is_drawn_for_too() -> None:
    clock = FakeClock()
    policy = RetryPolicy(jitter=Jitter.FULL)
    retrying(policy=policy, classify=busy, sleep=clock.sleep, draw=lambda: 0.5)(Answers(OSError(), "SM1"))()
    assert clock.sleeps == [1.0]


def test_what_a_function_may_have_sent_is_not_sent_again() -> None:
    answers = Answers(TimeoutError())
    with pytest.raises(SendUnknown) as caught:
        retrying()(answers)()
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert len(answers.calls) == 1


def test_a_one_time_password_may_be_sent_again_by_choice() -> None:
    clock = FakeClock()
    policy = RetryPolicy(on_unknown=OnUnknown.RESEND)
    assert retrying(policy=policy, sleep=clock.sleep)(Answers(TimeoutError(), "SM1"))() == "SM1"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_passes_through_a_wrapped_function(error: type[BaseException]) -> None:
    answers = Answers(error())
    with pytest.raises(error):
        retrying(classify=busy)(answers)()
    assert len(answers.calls) == 1


def test_a_wrapped_function_keeps_its_name_its_words_and_its_signature() -> None:
    @retrying()
    def send_sms(to: str, body: str = "hi") -> str:
        """Send a text."""
        return to + body

    assert send_sms.__name__ == "send_sms"
    assert send_sms.__doc__ == "Send a text."
    assert list(inspect.signature(send_sms).parameters) == ["to", "body"]
    assert send_sms.__wrapped__("a") == "ahi"  # type: ignore[attr-defined]


class Gateway:
    """A client of an application, with methods that send."""

    sent: list[str]

    def __init__(self) -> None:
        self.sent = []

    @retrying(classify=busy, sleep=lambda seconds: None)
    def send(self, to: str) -> str:
        self.sent.append(to)
        if len(self.sent) < 3:
            raise OSError
        return f"sent {to}"

    @classmethod
    @retrying()
    def of_class(cls, to: str) -> str:
        return f"{cls.__name__} {to}"

    @staticmethod
    @retrying()
    def of_nobody(to: str) -> str:
        return to


class _SendsOnce:
    """Be functions whose calls are counted; each needs a number and a text."""

    def __init__(self) -> None:
        self.calls = 0

    def plain(self, number: str, text: str) -> None:
        self.calls += 1
        len(number, text)  # type: ignore[call-arg]  # a fault of its own, after the text may have left

    async def awaited(self, number: str, text: str) -> None:
        self.plain(number, text)


def test_arguments_that_do_not_fit_are_told_as_of_any_function_and_nothing_was_sent() -> None:
    sends, sink = _SendsOnce(), RecordingSink()
    plain: Any = retrying(sink=sink)(sends.plain)
    awaited: Any = retrying()(sends.awaited)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'text'"):
        plain("+14155550101")
    with pytest.raises(TypeError, match="unexpected keyword argument 'body'"):
        asyncio.run(awaited("+14155550101", body="Hello."))
    assert sends.calls == 0
    assert [event.type for event in sink.events] == ["failed"]


def test_a_type_error_of_the_function_itself_may_have_come_after_the_send() -> None:
    sends = _SendsOnce()
    with pytest.raises(SendUnknown):
        retrying()(sends.plain)("+14155550101", "Hello.")
    with pytest.raises(SendUnknown):
        asyncio.run(retrying()(sends.awaited)("+14155550101", "Hello."))
    assert sends.calls == 2


def test_a_type_error_of_what_has_no_signature_may_have_come_after_the_send() -> None:
    builtin: Any = vars
    with pytest.raises(SendUnknown):
        retrying()(builtin)(1, 2)


@pytest.mark.parametrize("parts", [{"judge": 5}, {"sleep": 5}])
def test_a_judge_or_a_sleep_that_is_no_function_is_refused(parts: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a function, got int"):
        retrying(**parts)


def test_methods_are_wrapped_like_functions() -> None:
    one, other = Gateway(), Gateway()
    assert one.send("a") == "sent a"
    assert other.send(to="b") == "sent b"
    assert (one.sent, other.sent) == (["a"] * 3, ["b"] * 3)
    assert Gateway.of_class("c") == "Gateway c"
    assert Gateway().of_nobody("d") == "d"


def test_the_events_of_one_call_have_one_id_and_of_two_calls_two() -> None:
    sink = RecordingSink()
    send = retrying(classify=busy, sink=sink, sleep=lambda seconds: None)(Answers(OSError(), "SM1", "SM2"))
    assert (send(), send()) == ("SM1", "SM2")
    first, second, third = (event.message_id for event in sink.events)
    assert first == second != third
    assert len(first) == 32


def test_the_receipt_of_a_wrapped_function_is_told_to_the_sinks() -> None:
    sink = RecordingSink()
    results = [RECEIPT, SimpleNamespace(sid="SM2"), {"ok": True}]
    send = retrying(sink=sink)(Answers(*results))
    for _ in results:
        send()
    told = [event.receipt for event in sink.events if isinstance(event, MessageAccepted)]
    assert [(receipt.provider, receipt.provider_id) for receipt in told] == [
        ("scripted", "SM1"),
        ("callable", "SM2"),
        ("callable", sink.events[2].message_id),  # it names no id, so the call's own stands for it
    ]


# Results that are judged


def judge(result: dict[str, Any]) -> Failure | None:
    return None if result["success"] else Failure.of(FailureKind(result["error"]))


def test_a_returned_failure_is_retried_like_a_raised_one() -> None:
    clock = FakeClock()
    good = {"success": True}
    answers = Answers({"success": False, "error": "rate_limited"}, good)
    assert retrying(judge=judge, sleep=clock.sleep)(answers)() is good
    assert clock.sleeps == [2.0]


def test_a_returned_failure_for_good_ends_the_message() -> None:
    answers = Answers({"success": False, "error": "invalid_number"})
    with pytest.raises(SendFailed) as caught:
        retrying(judge=judge)(answers)()
    assert caught.value.failure.kind is FailureKind.INVALID_NUMBER
    assert isinstance(caught.value.__cause__, ProviderError)
    assert len(answers.calls) == 1


def test_a_result_that_cannot_be_judged_may_have_been_sent() -> None:
    answers = Answers({"sid": "SM1"}, {"success": True})
    with pytest.raises(SendUnknown) as caught:
        retrying(judge=judge, classify=busy, sleep=lambda seconds: None)(answers)()
    assert caught.value.failure.detail == "judging the result raised KeyError"
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(answers.calls) == 1


def test_a_result_whose_id_cannot_be_read_may_have_been_sent() -> None:
    class Lazy:
        @property
        def sid(self) -> str:
            raise OSError

    answers = Answers(Lazy())
    with pytest.raises(SendUnknown):
        retrying(classify=busy, sleep=lambda seconds: None)(answers)()
    assert len(answers.calls) == 1


@pytest.mark.parametrize("verdict", [True, False, "busy", {}, FailureKind.RATE_LIMITED])
def test_a_verdict_that_is_no_failure_leaves_the_outcome_unknown(verdict: Any) -> None:
    answers = Answers("SM1")
    with pytest.raises(SendUnknown) as caught:
        retrying(judge=lambda result: verdict)(answers)()
    assert caught.value.failure.detail.startswith("judge must return a Failure or None, got")


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [
        (lambda result: True, "returned a bool"),
        (lambda result: {}["noon"], "raised KeyError"),
        (
            lambda result: Failure.of(FailureKind.OTHER, code={"a": 1}),  # type: ignore[arg-type]
            "raised ValueError: code of a failure cannot be a dict. Give int or str or None.",
        ),
    ],
)
def test_a_judge_at_fault_is_named_once_in_the_log(verdict: Any, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    def send_sms(to: str) -> str:
        return "SM1"

    send = retrying(judge=verdict)(send_sms)
    for _ in range(2):
        with pytest.raises(SendUnknown):
            send("+14155550101")
    (told,) = caplog.messages
    assert "send_sms" in told
    assert told.endswith(f"It {fault}")


# What cannot be wrapped


async def coroutine() -> None: ...


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "function",
    [
        *(asynchronous_generator, generator, functools.partial(generator), None, "send"),
        classmethod(lambda cls: None),
    ],
)
def test_what_is_no_function_that_sends_is_refused_when_it_is_wrapped(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="retrying wraps a function that sends"):
        retrying()(function)


@pytest.mark.parametrize("function", [lambda: coroutine(), lambda: generator()])
def test_a_function_that_returns_what_has_yet_to_run_has_sent_nothing(function: Callable[[], object]) -> None:
    with pytest.raises(SendFailed) as caught:
        _ = retrying()(function)()
    assert isinstance(caught.value.__cause__, ConfigurationError)
    assert caught.value.failure.kind is FailureKind.SENDER_CONFIG


def test_a_function_that_does_not_wait_for_the_answer_may_have_sent() -> None:
    with pytest.raises(SendUnknown, match="wrap one that waits for the answer"):
        retrying()(lambda: Future[object]())()


def test_missing_parentheses_are_told() -> None:
    with pytest.raises(ConfigurationError, match=r"Write @retrying\(\) above it"):
        retrying(generator)  # type: ignore[arg-type]


def test_a_sink_that_cannot_record_is_refused_when_it_is_wrapped() -> None:
    with pytest.raises(ConfigurationError, match="sink must have"):
        retrying(sink="events.log")  # type: ignore[arg-type]


def test_both_ends_can_be_caught_as_one() -> None:
    def ended(function: Callable[[], object]) -> bool:
        try:
            function()
        except NotAccepted:
            return True
        return False

    assert ended(retrying()(Answers(TimeoutError())))
    assert ended(retrying(judge=lambda result: WRONG_NUMBER)(Answers("x")))
    assert not ended(retrying()(Answers("x")))


# In a running loop


def waiting_on(clock: FakeClock) -> Callable[[float], Coroutine[Any, Any, None]]:
    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    return sleep


def test_in_a_loop_a_message_waits_on_the_schedule_and_returns_the_very_receipt() -> None:
    clock = FakeClock()
    dispatcher = AsyncDispatcher(AwaitedAsking(ScriptedSender([BUSY, BUSY, RECEIPT], clock=clock)), clock=clock)
    assert asyncio.run(send_with_retry_async(dispatcher, MESSAGE, sleep=waiting_on(clock))) is RECEIPT
    assert clock.sleeps == [2.0, 4.0]


@given(policy=policies(jitters=st.just(Jitter.NONE), limits=False))
def test_in_a_loop_the_waits_of_an_endless_failure_are_the_schedule(policy: RetryPolicy) -> None:
    clock = FakeClock()
    sender = AwaitedAsking(ScriptedSender([BUSY], clock=clock, repeat=True))
    dispatcher = AsyncDispatcher(sender, policy=policy, clock=clock)
    with pytest.raises(SendFailed):
        asyncio.run(send_with_retry_async(dispatcher, MESSAGE, sleep=waiting_on(clock)))
    assert tuple(clock.sleeps) == policy.schedule(FailureKind.RATE_LIMITED)


def test_a_coroutine_function_is_called_again_and_its_result_returned() -> None:
    clock = FakeClock()
    calls: list[str] = []

    @retrying(sleep=waiting_on(clock), judge=lambda result: BUSY if result == "busy" else None)
    async def send(number: str, *, text: str) -> str:
        """Send one text."""
        calls.append(f"{number}: {text}")
        await asyncio.sleep(0)
        return "busy" if len(calls) < 3 else "sent"

    assert inspect.iscoroutinefunction(send)
    assert send.__doc__ == "Send one text."
    assert asyncio.run(send("+15005550006", text="hello")) == "sent"
    assert calls == ["+15005550006: hello"] * 3
    assert clock.sleeps == [2.0, 4.0]


def test_a_coroutine_function_keeps_its_own_exception_as_the_cause() -> None:
    @retrying(sleep=waiting_on(FakeClock()))
    async def send() -> None:
        raise ConnectionRefusedError

    with pytest.raises(SendFailed) as caught:
        asyncio.run(send())
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.attempts == 4


def test_a_coroutine_function_that_is_canceled_is_not_called_again() -> None:
    calls: list[int] = []

    @retrying()
    async def send() -> None:
        calls.append(1)
        await asyncio.Event().wait()

    async def run() -> None:
        sending = asyncio.ensure_future(send())
        await asyncio.sleep(0)
        sending.cancel()
        await sending

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert calls == [1]


def test_in_a_loop_a_message_that_is_canceled_while_it_waits_is_sent_no_more() -> None:
    sender = ScriptedSender([BUSY], repeat=True)

    async def run() -> None:
        sending = asyncio.ensure_future(send_with_retry_async(AsyncDispatcher(AwaitedAsking(sender)), MESSAGE))
        await asyncio.sleep(0)
        sending.cancel()
        await sending

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert len(sender.sent) == 1
