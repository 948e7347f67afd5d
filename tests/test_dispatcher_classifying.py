"""Every exception of a sender gets exactly one class, and what is no error of a send passes through."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    Accepted,
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    InvalidMessage,
    Message,
    Receipt,
    RetryAfter,
    SendFailed,
    SendUnknown,
)
from smsretry.core.classify import chain, classify_error
from smsretry.errors import ProviderError
from smsretry.testing import ScriptedSender

MESSAGE = Message("+15005550006", "Your table is ready.", id="booking-1")
BUSY = Failure.of(FailureKind.RATE_LIMITED)
WRONG_NUMBER = Failure.of(FailureKind.INVALID_NUMBER)


class Unspeakable(Exception):
    """It cannot even be shown."""

    def __str__(self) -> NoReturn:
        raise RuntimeError

    __repr__ = __str__


class Shy(Exception):
    """Every question about it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError


def cyclic() -> Exception:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def corrupt() -> Exception:
    error = ProviderError(BUSY)
    error.args = ("not a failure",)
    return error


def stated() -> Exception:
    return ProviderError(BUSY)


MAKERS: list[Callable[[], Exception]] = [
    *(OSError, ConnectionRefusedError, ConnectionResetError, TimeoutError, ValueError, KeyError, StopIteration),
    *(RecursionError, MemoryError, UnicodeError, Unspeakable, InvalidMessage, ConfigurationError),
    *(cyclic, corrupt, stated),
]
leaves = st.sampled_from(MAKERS).map(lambda make: make())
exceptions = st.recursive(
    leaves, lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda ones: ExceptionGroup("several", ones))
)


@given(exceptions)
def test_every_exception_gets_exactly_one_class(error: Exception) -> None:
    failure = classify_error(error)
    assert isinstance(failure, Failure)
    outcome = Dispatcher(ScriptedSender([error])).attempt(MESSAGE)
    assert isinstance(outcome, (RetryAfter, GaveUp))
    assert outcome.failure == failure


def test_an_exception_that_answers_no_question_is_an_unknown_outcome() -> None:
    class Sender:
        def send(self, message: Message, /) -> Receipt:
            raise Shy

    outcome = Dispatcher(Sender()).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is GiveUpReason.OUTCOME_UNKNOWN
    assert type(outcome.cause) is Shy


class Stopped(BaseException):
    """No error of a send."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, Stopped])
def test_what_is_no_exception_of_a_send_is_never_caught(error: type[BaseException]) -> None:
    class Interrupted:
        sent = 0

        def send(self, message: Message, /) -> Receipt:
            self.sent += 1
            raise error

    sender = Interrupted()
    with pytest.raises(error):
        Dispatcher(sender).attempt(MESSAGE)
    assert sender.sent == 1


def test_what_nobody_listed_may_have_been_sent() -> None:
    failure = classify_error(Exception("+15005550006"))
    assert failure.maybe_sent
    assert failure.unmapped
    assert "5005550006" not in failure.detail


def test_a_failure_that_the_sender_states_goes_to_no_classifier() -> None:
    outcome = Dispatcher(ScriptedSender([WRONG_NUMBER]), classify=lambda error: BUSY).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert outcome.failure == WRONG_NUMBER


def test_the_classifier_that_is_given_comes_before_the_senders_own() -> None:
    class Opinionated(ScriptedSender):
        def classify(self, error: Exception) -> Failure:
            return WRONG_NUMBER

    sender = Opinionated([OSError()], repeat=True)
    own, given_ = Dispatcher(sender), Dispatcher(sender, classify=lambda error: BUSY)
    assert isinstance(outcome := own.attempt(MESSAGE), GaveUp)
    assert outcome.failure is WRONG_NUMBER
    assert isinstance(outcome := given_.attempt(MESSAGE), RetryAfter)
    assert outcome.failure is BUSY


def test_a_classifier_may_leave_an_exception_to_the_next_one() -> None:
    classify = chain(lambda error: None, lambda error: BUSY if isinstance(error, OSError) else None)
    assert classify(OSError()) is BUSY
    assert classify(InvalidMessage("no text")).kind is FailureKind.CONTENT


@pytest.mark.parametrize("answer", [None, "busy", True, {}])
def test_a_classifier_that_says_nothing_of_use_leaves_it_to_the_default(answer: Any) -> None:
    outcome = Dispatcher(ScriptedSender([ConnectionRefusedError()]), classify=lambda error: answer).attempt(MESSAGE)
    assert isinstance(outcome, RetryAfter)
    assert outcome.failure.kind is FailureKind.TEMPORARY


def test_a_classifier_that_raises_loses_no_message(caplog: pytest.LogCaptureFixture) -> None:
    def broken(error: Exception) -> Failure:
        raise KeyError(str(error))

    dispatcher = Dispatcher(ScriptedSender([OSError("+15005550006"), ConnectionRefusedError()]), classify=broken)
    with caplog.at_level(logging.ERROR, "smsretry"):
        unknown, refused = dispatcher.attempt(MESSAGE), dispatcher.attempt(MESSAGE)
    assert unknown.failure.kind is FailureKind.LOST_ANSWER  # type: ignore[union-attr]
    assert refused.failure.kind is FailureKind.TEMPORARY  # type: ignore[union-attr]
    assert caplog.messages[0] == "The classifier raised KeyError; the default one judges instead."
    assert "5005550006" not in caplog.text


def test_a_message_that_no_provider_could_take_is_given_up() -> None:
    outcome = Dispatcher(ScriptedSender([InvalidMessage("body is too long")])).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.failure.detail) == (GiveUpReason.PERMANENT, "body is too long")


def test_a_sender_that_recovers_is_accepted_after_an_exception() -> None:
    dispatcher = Dispatcher(ScriptedSender([ConnectionRefusedError()]))
    first = dispatcher.attempt(MESSAGE)
    assert isinstance(first, RetryAfter)
    assert isinstance(dispatcher.attempt(MESSAGE, first.state), Accepted)


@pytest.mark.parametrize("kind", [FailureKind.RATE_LIMITED, FailureKind.LOST_ANSWER, FailureKind.INVALID_NUMBER])
def test_a_text_that_another_dispatcher_gave_up_has_failed_for_good(kind: FailureKind) -> None:
    ended = SendFailed("m", GiveUpReason.RETRIES_EXHAUSTED, 4, Failure.of(kind, code=7, detail="why").to_dict())
    failure = classify_error(ended)
    assert (failure.retryable, failure.maybe_sent, failure.code, failure.detail) == (False, False, 7, "why")
    assert failure.kind is (FailureKind.OTHER if kind is FailureKind.LOST_ANSWER else kind)


@pytest.mark.parametrize("kind", [FailureKind.TEMPORARY, FailureKind.LOST_ANSWER])
def test_a_text_of_which_another_dispatcher_could_not_tell_may_have_been_sent(kind: FailureKind) -> None:
    ended = SendUnknown("m", GiveUpReason.OUTCOME_UNKNOWN, 1, Failure.of(kind).to_dict())
    failure = classify_error(ended)
    assert (failure.kind, failure.retryable, failure.maybe_sent) == (kind, False, True)


def test_an_end_whose_arguments_somebody_changed_may_have_been_sent() -> None:
    ended = SendFailed("m", GiveUpReason.PERMANENT, 1, {})
    ended.args = ("gone",)
    assert classify_error(ended).maybe_sent
