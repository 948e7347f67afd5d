"""What went wrong, as a value."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import failures, hostile_values

from smsretry import Failure, FailureKind, Scope
from smsretry.core.failure import LONGEST_DELAY_S, RETRYABLE_KINDS

BUSY = Failure.of(FailureKind.RATE_LIMITED, code=20429, http_status=429, retry_after_s=3.0)


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_has_a_scope_and_says_whether_it_may_be_retried(kind: FailureKind) -> None:
    failure = Failure.of(kind)
    assert isinstance(failure.scope, Scope)
    assert failure.retryable is (kind in RETRYABLE_KINDS)
    assert failure.maybe_sent is (kind is FailureKind.LOST_ANSWER)


def test_a_bad_number_is_about_the_recipient_and_a_suspended_account_about_the_account() -> None:
    assert Failure.of(FailureKind.INVALID_NUMBER).scope is Scope.RECIPIENT
    assert Failure.of(FailureKind.ACCOUNT).scope is Scope.ACCOUNT


def test_a_full_queue_waits_five_minutes_at_least() -> None:
    assert Failure.of(FailureKind.QUEUE_FULL).min_delay_s == 300.0


def test_what_the_table_knows_better_overrides_the_kind() -> None:
    failure = Failure.of(FailureKind.UNREACHABLE, retryable=True, scope=Scope.PROVIDER, min_delay_s=60)
    assert (failure.retryable, failure.scope, failure.min_delay_s) == (True, Scope.PROVIDER, 60)


@pytest.mark.parametrize("hint_s", [-0.001, -1, -math.inf, math.nan])
def test_a_hint_that_cannot_be_is_none(hint_s: float) -> None:
    assert Failure.of(FailureKind.RATE_LIMITED, retry_after_s=hint_s).retry_after_s is None


@pytest.mark.parametrize("hint_s", [math.inf, 10**400, LONGEST_DELAY_S + 1])
def test_a_hint_that_is_too_long_is_cut_to_the_longest_delay(hint_s: float) -> None:
    assert Failure.of(FailureKind.RATE_LIMITED, retry_after_s=hint_s).retry_after_s == LONGEST_DELAY_S


@pytest.mark.parametrize("delay_s", [-1, math.nan, math.inf, LONGEST_DELAY_S + 1])
def test_an_impossible_minimum_is_refused(delay_s: float) -> None:
    with pytest.raises(ValueError, match="min_delay_s must be from 0 to"):
        Failure.of(FailureKind.OTHER, min_delay_s=delay_s)


def test_kind_and_scope_may_be_given_by_name() -> None:
    failure = Failure("rate_limited", "account", retryable=True)  # type: ignore[arg-type]
    assert failure.kind is FailureKind.RATE_LIMITED
    assert failure.scope is Scope.ACCOUNT


@pytest.mark.parametrize(("kind", "scope"), [("too_fast", "account"), ("rate_limited", "everybody"), (None, None)])
def test_a_kind_or_scope_that_does_not_exist_is_refused(kind: Any, scope: Any) -> None:
    with pytest.raises(ValueError, match=r"(kind|scope) must be one of .*, got "):
        Failure(kind, scope, retryable=True)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_kind_by_its_name_makes_the_same_failure_as_its_member(kind: FailureKind) -> None:
    assert Failure.of(kind.value) == Failure.of(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["too_fast", None, 7, []])
def test_a_failure_of_no_kind_is_refused_by_the_field(kind: Any) -> None:
    with pytest.raises(ValueError, match="kind must be one of rate_limited, queue_full"):
        Failure.of(kind)


def test_what_is_said_of_a_wrong_kind_shows_no_number() -> None:
    with pytest.raises(ValueError, match="kind must be one of") as caught:
        Failure.of("no route to +14155550101")  # type: ignore[arg-type]
    assert "+1415" not in str(caught.value)


def test_a_lost_answer_may_always_have_been_sent() -> None:
    assert Failure(FailureKind.LOST_ANSWER, Scope.PROVIDER, retryable=True).maybe_sent
    assert Failure.of(FailureKind.LOST_ANSWER, maybe_sent=False).maybe_sent
    assert replace(BUSY, kind=FailureKind.LOST_ANSWER).maybe_sent


def test_a_detail_shows_no_phone_number_whoever_wrote_it() -> None:
    failure = Failure.of(FailureKind.OTHER, detail="cannot send to +14155550101, code 21211")
    assert failure.detail == "cannot send to ***01, code 21211"
    assert replace(failure) == failure


@given(failures())
def test_copies_of_a_failure_are_equal_and_look_alike(failure: Failure) -> None:
    copies = [
        copy.copy(failure),
        pickle.loads(pickle.dumps(failure)),
        replace(failure),
        Failure.from_dict(json.loads(json.dumps(failure.to_dict()))),
    ]
    assert all(one == failure and hash(one) == hash(failure) and repr(one) == repr(failure) for one in copies)


def test_a_failure_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        BUSY.retryable = False  # type: ignore[misc]


def test_a_failure_in_json_has_every_field() -> None:
    assert list(BUSY.to_dict()) == [field.name for field in fields(Failure)]


@given(st.dictionaries(st.sampled_from([*BUSY.to_dict(), "colour"]), hostile_values, min_size=1))
def test_a_corrupt_failure_is_refused_or_a_failure(changes: dict[str, Any]) -> None:
    try:
        failure = Failure.from_dict(BUSY.to_dict() | changes)
    except ValueError:
        return
    assert Failure.from_dict(json.loads(json.dumps(failure.to_dict()))) == failure


@pytest.mark.parametrize("data", [None, [], "failure", {}, {"kind": "other"}, {1: 2}])
def test_what_is_no_failure_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="failure"):
        Failure.from_dict(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("detail", None),
        ("provider", 5),
        ("code", 1.5),
        ("code", True),
        ("code", object()),
        ("http_status", "429"),
        ("retryable", "no"),
        ("maybe_sent", None),
        ("min_delay_s", "5"),
        ("retry_after_s", "5"),
    ],
)
def test_a_field_of_a_wrong_type_is_refused_where_the_failure_is_made(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} of a failure cannot be a"):
        Failure.of(FailureKind.RATE_LIMITED, **{field: value})


def test_a_status_may_be_a_member_of_the_standard_library() -> None:
    assert Failure.of(FailureKind.RATE_LIMITED, http_status=HTTPStatus.TOO_MANY_REQUESTS).http_status == 429


@pytest.mark.parametrize(
    ("field", "value"),
    [("retryable", 1), ("maybe_sent", "no"), ("code", True), ("code", 1.5), ("http_status", "429"), ("detail", None)],
)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Failure.from_dict(BUSY.to_dict() | {field: value})


def test_a_number_in_a_code_is_masked_as_in_the_detail() -> None:
    failure = Failure.of(FailureKind.OTHER, code="bad recipient +15005550006")
    assert failure.code == "bad recipient ***06"
    assert Failure.from_dict(failure.to_dict()) == failure


@pytest.mark.parametrize("code", [None, 20429, "20429", "too_fast", "EAI_AGAIN"])
def test_a_code_is_kept_as_the_provider_gave_it(code: int | str | None) -> None:
    assert Failure.of(FailureKind.OTHER, code=code).code == code
