"""Messages share a dispatcher and a policy, and nothing else; and nothing of them stays behind."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    Accepted,
    AttemptState,
    Deferred,
    Dispatcher,
    Failure,
    FailureKind,
    Message,
    NotAccepted,
    Outcome,
    Receipt,
    RetryAfter,
    RetryPolicy,
)
from smsretry.adapters.callables import retrying, send_with_retry
from smsretry.errors import ProviderError
from smsretry.testing import FakeClock, RecordingSink
from tests.strategies import failures, policies

BUSY = Failure.of(FailureKind.RATE_LIMITED)
LOST = Failure.of(FailureKind.LOST_ANSWER)
MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")


class Scripts:
    """Answer each message with a script of its own, whatever order they come in."""

    def __init__(self, scripts: dict[str, list[Failure]], clock: FakeClock) -> None:
        self._left = {name: list(script) for name, script in scripts.items()}
        self._clock = clock

    def send(self, message: Message, /) -> Receipt:
        script = self._left[str(message.id)]
        if script:
            raise ProviderError(script.pop(0))
        return Receipt("scripted", str(message.id), self._clock())


def steps(dispatcher: Dispatcher, name: str) -> Iterator[Outcome]:
    message, state = replace(MESSAGE, id=name), AttemptState()
    while True:
        yield (outcome := dispatcher.attempt(message, state))
        if not isinstance(outcome, (RetryAfter, Deferred)):
            return
        state = outcome.state


scripts = st.dictionaries(st.sampled_from("abcd"), st.lists(failures(), max_size=5), min_size=1)


@given(policies(), scripts, st.randoms(use_true_random=False))
def test_interleaved_messages_see_the_schedules_of_separate_ones(
    policy: RetryPolicy, per_message: dict[str, list[Failure]], chance: object
) -> None:
    clock = FakeClock()
    separate = {
        name: list(
            steps(Dispatcher(Scripts({name: script}, clock), policy=policy, clock=clock, draw=lambda: 0.5), name)
        )
        for name, script in per_message.items()
    }
    shared = Dispatcher(Scripts(per_message, clock), policy=policy, clock=clock, draw=lambda: 0.5)
    running = {name: steps(shared, name) for name in per_message}
    together: dict[str, list[Outcome]] = {name: [] for name in per_message}
    while running:
        name = chance.choice(sorted(running))  # type: ignore[attr-defined]
        try:
            together[name].append(next(running[name]))
        except StopIteration:
            del running[name]
    assert together == separate


def test_messages_in_threads_see_the_schedules_of_separate_ones() -> None:
    clock = FakeClock()
    names = [f"{number}" for number in range(64)]
    per_message = {name: [BUSY] * (int(name) % 5) for name in names}
    dispatcher = Dispatcher(Scripts(per_message, clock), sink=RecordingSink(), clock=clock)
    with ThreadPoolExecutor(16) as pool:
        outcomes = dict(zip(names, pool.map(lambda name: list(steps(dispatcher, name)), names), strict=True))
    for name, script in per_message.items():
        waits = [outcome.delay_s for outcome in outcomes[name] if isinstance(outcome, RetryAfter)]
        assert waits == [2.0, 4.0, 8.0][: len(script)]
        assert isinstance(outcomes[name][-1], Accepted) is (len(script) < 4)


def test_one_wrapped_function_serves_many_threads() -> None:
    waits: dict[int, list[float]] = {}
    tries: dict[int, int] = {}
    gate = threading.Barrier(8)

    @retrying(classify=lambda error: BUSY, sleep=lambda seconds: waits[threading.get_ident()].append(seconds))
    def send(number: int) -> str:
        tries[number] = tries.get(number, 0) + 1
        if tries[number] == 1:
            gate.wait(20)  # all of them are under way at once
        if tries[number] <= number % 4:
            raise OSError(number)
        return f"SM{number}"

    def call(number: int) -> tuple[str, list[float]]:
        waits[threading.get_ident()] = []
        return send(number), waits[threading.get_ident()]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(8)))
    assert results == [(f"SM{number}", [2.0, 4.0, 8.0][: number % 4]) for number in range(8)]


# Nothing stays behind


class Endless:
    """Fail ``failures`` times with a new exception each, then accept; again for every message."""

    def __init__(self, failing: int) -> None:
        self._failing, self._sent = failing, 0

    def send(self, message: Message, /) -> Receipt:
        self._sent += 1
        if self._sent % (self._failing + 1):
            raise OSError(message.id)
        return Receipt("endless", "SM1", FakeClock().now())


def cycles_left_by(work: Callable[[], object]) -> int:
    """Count the objects in reference cycles that ``work`` leaves each time; other threads may leave some too."""
    work()
    gc.collect()
    return min(_collected_after(work) for _ in range(4))


def _collected_after(work: Callable[[], object]) -> int:
    gc.freeze()  # what other tests left is not looked at again
    gc.disable()
    try:
        for _ in range(5):
            work()
        return gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()


def no_sleep(seconds: float) -> None:
    del seconds


def sent_through(dispatcher: Dispatcher) -> None:
    send_with_retry(dispatcher, MESSAGE, sleep=no_sleep)


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_failures_and_a_success_leave_no_reference_cycle(failing: int) -> None:
    dispatcher = Dispatcher(Endless(failing), classify=lambda error: BUSY)
    assert cycles_left_by(lambda: sent_through(dispatcher)) == 0


def test_giving_up_leaves_no_reference_cycle() -> None:
    dispatcher = Dispatcher(Endless(1_000_000), classify=lambda error: BUSY)
    assert isinstance(cause_of(dispatcher), OSError)
    assert cycles_left_by(lambda: cause_of(dispatcher)) == 0


def cause_of(dispatcher: Dispatcher) -> BaseException | None:
    try:
        send_with_retry(dispatcher, MESSAGE, sleep=no_sleep)
    except NotAccepted as error:
        return error.__cause__
    return None


@pytest.mark.parametrize("answer", [BUSY, LOST])
def test_a_wrapped_function_leaves_no_reference_cycle(answer: Failure) -> None:
    @retrying(classify=lambda error: answer, sleep=no_sleep)
    def send() -> None:
        raise OSError

    def call() -> None:
        try:
            send()
        except NotAccepted:
            return

    assert cycles_left_by(call) == 0


def test_the_end_of_an_attempt_leaves_no_reference_cycle() -> None:
    dispatcher = Dispatcher(Endless(1_000_000), classify=lambda error: LOST, sink=RecordingSink())
    assert cycles_left_by(lambda: dispatcher.attempt(MESSAGE)) == 0


def test_a_reference_cycle_would_be_found() -> None:
    def leave_one() -> None:
        ring: list[object] = []
        ring.append(ring)

    assert cycles_left_by(leave_one) == 5


def test_memory_does_not_grow_with_the_number_of_attempts() -> None:
    few, many = peak_of(50), peak_of(1_000)
    assert many < few + 20_000, "bytes"


def peak_of(retries: int) -> int:
    dispatcher = Dispatcher(Endless(retries), policy=RetryPolicy(max_retries=1_000), classify=lambda error: BUSY)
    sent_through(dispatcher)
    gc.collect()
    tracemalloc.start()
    try:
        sent_through(dispatcher)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_exception_is_gone_when_its_attempt_is_over() -> None:
    class Traced(Exception):
        def __del__(self) -> None:
            deaths.append(1)

    deaths: list[int] = []

    class Sender:
        def send(self, message: Message, /) -> Receipt:
            raise Traced

    dispatcher = Dispatcher(Sender(), classify=lambda error: BUSY)
    gc.disable()
    try:
        outcome = dispatcher.attempt(MESSAGE)
        assert isinstance(outcome, RetryAfter)
        assert deaths == [1], "no frame, state or outcome holds it"
    finally:
        gc.enable()
    assert sys.exc_info() == (None, None, None)
