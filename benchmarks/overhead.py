"""Measure what one attempt costs beside a hand-written loop, tenacity and stamina: ``python -m benchmarks.overhead``.

Every contender sends through the same function, judges its exceptions with the same classifier, notes every step in a
list and waits with a sleep that does nothing. (stamina takes no sleep; its switch for tests, which sleeps for 0 s,
comes nearest.) All of them take turns in one run, so that a slow moment of the machine meets all; the median counts.
*Overhead* is the time beyond the bare calls of the function; the fastest round tells what a quiet machine would say.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import stamina
import stamina.instrumentation
import tenacity

from smsretry import Dispatcher, Event, Failure, FailureKind, Message, NotAccepted, Receipt, RetryPolicy
from smsretry.adapters.callables import send_with_retry

ROUNDS: Final = 300
CALLS: Final = 50
MESSAGE: Final = Message("+15005550006", "Your table is ready.", id="booking-1")
RECEIPT: Final = Receipt("benchmark", "SM1", datetime.now(UTC))
BUSY: Final = Failure.of(FailureKind.RATE_LIMITED)
LOST: Final = Failure.of(FailureKind.LOST_ANSWER)


class TooFast(Exception):
    """What the provider of this benchmark raises."""


class Provider:
    """Fail ``failures`` times, then accept where ``accepts``; and so on for the next message."""

    def __init__(self, failures: int, *, accepts: bool = True) -> None:
        self._fails = itertools.cycle([*[True] * failures, *[False] * accepts])

    def send(self, _: Message, /) -> Receipt:
        if next(self._fails):
            raise TooFast
        return RECEIPT


class Notes:
    """Keep what happened in memory."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def record(self, event: Event, /) -> None:
        self.kept.append(event)


def classify(error: Exception) -> Failure:
    return BUSY if isinstance(error, TooFast) else LOST


def no_sleep(seconds: float, /) -> None:
    del seconds


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to send, and the list that it fills."""

    name: str
    send: Callable[[], object]
    notes: Notes


def bare(provider: Provider, sends: int) -> Contender:
    """Call the function as often as the others have to, and do nothing else."""

    def send() -> None:
        for _ in range(sends):
            try:
                provider.send(MESSAGE)
            except TooFast:
                continue

    return Contender("bare calls", send, Notes())


def by_hand(provider: Provider) -> Contender:
    notes = Notes()

    def send() -> Receipt:
        retries = 0
        while True:
            try:
                receipt = provider.send(MESSAGE)
            except Exception as error:
                failure = classify(error)
                if not failure.retryable or retries == 3:
                    raise
                retries += 1
                delay_s = 2.0**retries
                notes.kept.append({"id": MESSAGE.id, "kind": failure.kind, "retry": retries, "delay_s": delay_s})
                no_sleep(delay_s)
            else:
                notes.kept.append({"id": MESSAGE.id, "kind": "accepted", "receipt": receipt})
                return receipt

    return Contender("hand-written loop", send, notes)


def with_tenacity(provider: Provider) -> Contender:
    notes = Notes()

    def note(state: tenacity.RetryCallState) -> None:
        notes.kept.append({"id": MESSAGE.id, "retry": state.attempt_number, "delay_s": state.upcoming_sleep})

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Exception) and classify(error).retryable),
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_exponential(multiplier=2, max=600),
        before_sleep=note,
        sleep=no_sleep,
        reraise=True,
    )
    def attempt() -> Receipt:
        return provider.send(MESSAGE)

    def send() -> Receipt:
        receipt = attempt()
        notes.kept.append({"id": MESSAGE.id, "kind": "accepted", "receipt": receipt})
        return receipt

    return Contender("tenacity", send, notes)


def with_stamina(provider: Provider) -> Contender:
    notes = Notes()

    def note(details: stamina.instrumentation.RetryDetails) -> None:
        notes.kept.append({"id": MESSAGE.id, "retry": details.retry_num, "delay_s": details.wait_for})

    @stamina.retry(on=lambda error: classify(error).retryable, attempts=4, timeout=None)
    def attempt() -> Receipt:
        return provider.send(MESSAGE)

    stamina.instrumentation.set_on_retry_hooks([note])

    def send() -> Receipt:
        receipt = attempt()
        notes.kept.append({"id": MESSAGE.id, "kind": "accepted", "receipt": receipt})
        return receipt

    return Contender("stamina", send, notes)


def with_smsretry(provider: Provider) -> Contender:
    notes = Notes()
    dispatcher = Dispatcher(provider, policy=RetryPolicy(), classify=classify, sink=notes)
    return Contender("smsretry", lambda: send_with_retry(dispatcher, MESSAGE, sleep=no_sleep), notes)


def one_attempt(provider: Provider) -> Contender:
    """One call of the dispatcher, without the loop of `send_with_retry`."""
    notes = Notes()
    dispatcher = Dispatcher(provider, policy=RetryPolicy(), classify=classify, sink=notes)
    return Contender("smsretry, one attempt", lambda: dispatcher.attempt(MESSAGE), notes)


def giving_up(contender: Contender) -> Contender:
    """Let the message end: the contender raises and whoever called catches it."""

    def send() -> None:
        try:
            contender.send()
        except (TooFast, NotAccepted):
            return

    return Contender(contender.name, send, contender.notes)


def cases() -> Iterator[tuple[str, list[Contender]]]:
    makers = (by_hand, with_tenacity, with_stamina, with_smsretry)
    yield "success", [bare(Provider(0), 1), *(make(Provider(0)) for make in makers), one_attempt(Provider(0))]
    yield "three failures, then success", [bare(Provider(3), 4), *(make(Provider(3)) for make in makers)]
    ends = [giving_up(make(Provider(4, accepts=False))) for make in makers]
    yield "four failures, then the end", [bare(Provider(4, accepts=False), 4), *ends]


def measured(contenders: list[Contender], rounds: int) -> dict[str, list[float]]:
    """Return the times of one message in µs, sorted, by contender."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds + 2):
        for contender in contenders:
            seconds = timed(contender)
            if turn >= 2:  # the first two warm the interpreter up
                times[contender.name].append(seconds / CALLS * 1e6)
    return {name: sorted(values) for name, values in times.items()}


def timed(contender: Contender) -> float:
    contender.notes.kept.clear()
    send = contender.send
    began = time.perf_counter()
    for _ in range(CALLS):
        send()
    return time.perf_counter() - began


def table(case: str, times: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(values) for name, values in times.items()}
    base, rival = medians["bare calls"], medians["tenacity"] - medians["bare calls"]
    lines = [f"{case:<32}{'median µs':>10}{'overhead':>10}{'of tenacity':>13}{'fastest overhead':>18}"]
    for name, values in times.items():
        overhead, fastest = medians[name] - base, values[0] - times["bare calls"][0]
        lines.append(f"  {name:<30}{medians[name]:>10.1f}{overhead:>10.1f}{overhead / rival:>12.0%}{fastest:>18.1f}")
    return "\n".join(lines)


def main(rounds: int = ROUNDS) -> None:
    stamina.set_testing(testing=True, attempts=4)  # its own switch for "do not wait"
    gc.collect()
    print(f"Python {sys.version.split()[0]}, medians of {rounds} rounds of {CALLS} messages\n")
    for case, contenders in cases():
        print(table(case, measured(contenders, rounds)), end="\n\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
