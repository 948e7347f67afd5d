"""Send from plain code: one message in a loop that sleeps, or any function that an application has already."""

from __future__ import annotations

import functools
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar, assert_never, cast

from smsretry.core.classify import classify_error
from smsretry.core.failure import Failure
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, AttemptState, Deferred, GaveUp, RetryAfter
from smsretry.core.policy import RetryPolicy
from smsretry.dispatcher import Dispatcher
from smsretry.errors import ProviderError, not_accepted
from smsretry.ports import AnalyticsSink, Classifier

P = ParamSpec("P")
R = TypeVar("R")


def send_with_retry(
    dispatcher: Dispatcher, message: Message, *, sleep: Callable[[float], object] = time.sleep
) -> Receipt:
    """Send ``message``, waiting between attempts with ``sleep`` (seconds), until it is accepted or has ended.

    Return the provider's `Receipt`. Raise `smsretry.SendFailed` where it was not taken and `smsretry.SendUnknown` where
    nobody can tell, both `smsretry.NotAccepted`, with the sender's exception as ``__cause__``. A message without an id
    gets one for this call.
    """
    message = message.with_id(uuid.uuid4().hex)
    state = AttemptState()
    while True:
        outcome = dispatcher.attempt(message, state)
        match outcome:
            case Accepted(receipt):
                return receipt
            case RetryAfter(delay_s) | Deferred(delay_s):
                state = outcome.state
                sleep(delay_s)
            case GaveUp():
                raise not_accepted(str(message.id), outcome) from outcome.cause
            case _ as unreachable:
                assert_never(unreachable)


def retrying(
    *,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008  # a frozen value
    classify: Classifier = classify_error,
    sink: AnalyticsSink | Iterable[AnalyticsSink] = (),
    sleep: Callable[[float], object] = time.sleep,
    judge: Callable[[R], Failure | None] | None = None,
    draw: Callable[[], float] = random.random,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Wrap a function that sends one text, so that it is called again as ``policy`` says.

    ``classify`` says what an exception of it means; by default one that nobody listed may have been sent, and a text
    that may have been sent is not sent again (`smsretry.SendUnknown`). ``judge`` serves functions that return a failure
    instead of raising it: it gets what was returned and says which `Failure` it is, or None where it was sent.

    The wrapped function raises `smsretry.NotAccepted` where the text has ended, with its own exception as ``__cause__``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            call = _Call(lambda: function(*args, **kwargs), judge)
            dispatcher = Dispatcher(call, policy=policy, classify=classify, sink=sink, draw=draw)
            send_with_retry(dispatcher, cast("Message", _Unaddressed()), sleep=sleep)
            return cast("R", call.result)

        return wrapper

    return decorate


@dataclass(frozen=True, slots=True)
class _Unaddressed:
    """Stand for a message of which only the wrapped function knows number and text."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    campaign: None = None
    send_before: None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def with_id(self, _: str) -> _Unaddressed:
        return self


class _Call:
    """Be the sender of one call of a wrapped function, and keep what it returned."""

    def __init__(self, call: Callable[[], Any], judge: Callable[[Any], Failure | None] | None) -> None:
        self._call = call
        self._judge = judge
        self.result: Any = None

    def send(self, _: Message, /) -> Receipt:
        self.result = self._call()
        failure = None if self._judge is None else self._judge(self.result)
        if failure is not None:
            raise ProviderError(failure)
        if isinstance(self.result, Receipt):
            return self.result
        return Receipt("callable", str(getattr(self.result, "sid", "") or ""), datetime.now(UTC))
