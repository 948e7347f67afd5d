"""What the library raises comes back whole, whoever carries it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.backends.base import Backend
from hypothesis import given
from hypothesis import strategies as st

from smsretry import (
    ConfigurationError,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    InvalidMessage,
    Message,
    NotAccepted,
    SendFailed,
    SendUnknown,
    SMSRetryError,
)
from smsretry.errors import ProviderError, not_accepted, reason_of
from smsretry.store import SQLStore
from tests.strategies import failures, names

BUSY = Failure.of(FailureKind.RATE_LIMITED, code=20429, detail="too fast")
EXCEPTIONS: list[SMSRetryError] = [
    SMSRetryError("something"),
    InvalidMessage("body is empty"),
    ConfigurationError("TWILIO_AUTH_TOKEN is missing"),
    ProviderError(BUSY),
    not_accepted("booking-1", GaveUp(BUSY, GiveUpReason.RETRIES_EXHAUSTED, 4)),
    not_accepted("booking-1", GaveUp(BUSY, GiveUpReason.OUTCOME_UNKNOWN, 1)),
]


def same(one: BaseException, other: BaseException) -> bool:
    return (type(one), one.args, str(one), repr(one)) == (type(other), other.args, str(other), repr(other))


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_our_exceptions_survive_pickle_copy_and_json(error: SMSRetryError) -> None:
    assert same(pickle.loads(pickle.dumps(error)), error)
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)
    assert same(type(error)(*json.loads(json.dumps(error.args))), error)


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_our_exceptions_survive_a_json_result_backend_of_celery(error: SMSRetryError) -> None:
    backend = Backend(app=Celery(set_as_current=False), serializer="json")
    stored = backend.decode(backend.encode(backend.prepare_exception(error)))
    assert same(backend.exception_to_python(stored), error)


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_our_exceptions_pass_through_a_context_manager(error: SMSRetryError) -> None:
    @contextmanager
    def unit_of_work() -> Iterator[None]:
        yield

    with pytest.raises(type(error)) as caught, unit_of_work():
        raise error
    assert caught.value is error


@given(failures(), names, st.integers(0, 1000), st.sampled_from(GiveUpReason))
def test_the_end_of_a_message_says_everything_about_it(
    failure: Failure, message_id: str, attempts: int, reason: GiveUpReason
) -> None:
    error = pickle.loads(pickle.dumps(not_accepted(message_id, GaveUp(failure, reason, attempts))))
    assert (error.message_id, error.reason, error.attempts, error.failure) == (message_id, reason, attempts, failure)
    assert isinstance(error, SendUnknown) is (reason is GiveUpReason.OUTCOME_UNKNOWN)
    assert isinstance(error, SendFailed) is (reason is not GiveUpReason.OUTCOME_UNKNOWN)
    assert error.reason in str(error)


@given(failures())
def test_a_sender_states_a_failure(failure: Failure) -> None:
    error = pickle.loads(pickle.dumps(ProviderError(failure)))
    assert error.failure == failure
    assert failure.kind in str(error)


def test_an_end_reads_well() -> None:
    assert str(EXCEPTIONS[4]) == "booking-1: retries_exhausted after 4 attempt(s): rate_limited 20429 (too fast)"
    assert str(ProviderError(Failure.of(FailureKind.OTHER))) == "other"


def test_the_exceptions_are_a_tree() -> None:
    assert issubclass(InvalidMessage, (SMSRetryError, ValueError))
    assert issubclass(InvalidMessage, ValueError)
    for kind in (ConfigurationError, ProviderError, NotAccepted):
        assert kind.__bases__ == (SMSRetryError,)
    for end in (SendFailed, SendUnknown):
        assert end.__bases__ == (NotAccepted,)


@pytest.mark.parametrize("args", [(), (None,), ("busy",), ({"kind": "busy"},), ([],)])
def test_an_exception_with_other_args_can_still_be_shown(args: tuple[Any, ...]) -> None:
    for error in EXCEPTIONS:
        changed = copy.copy(error)
        changed.args = args
        assert isinstance(str(changed), str)
        assert isinstance(repr(changed), str)


def test_a_log_says_why_a_database_cannot_work_and_repeats_nothing_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "sms.db").write_bytes(b"no database" * 1_000)
    message = Message("+14155550101", "See you at noon.", id="a")
    with pytest.raises(sa.exc.DatabaseError) as broken, SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        store.plan(message)
    assert reason_of(broken.value) == "DatabaseError: file is not a database"
    refused = RuntimeError("connection to +14155550101 failed\nparameters: See you at noon.")
    assert reason_of(sa.exc.OperationalError("UPDATE", {}, refused)) == "OperationalError: connection to ***01 failed"
    for kind in (sa.exc.IntegrityError, sa.exc.DataError):  # whose words may hold a value
        assert reason_of(kind("UPDATE", {}, RuntimeError("invalid: 'See you at noon.'"))) == kind.__name__


def test_a_log_says_what_an_error_of_our_own_says_and_of_others_the_type() -> None:
    assert reason_of(ConfigurationError("url is none.")) == "ConfigurationError: url is none."
    assert reason_of(ValueError("See you at noon.")) == "ValueError"
