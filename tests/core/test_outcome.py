"""What an attempt ends in, and the state that travels to the next one."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import NOW, ended, hostile_values, states

from smsretry import Accepted, AttemptState, Failure, FailureKind, GaveUp, GiveUpReason, Receipt
from smsretry.core.outcome import MOST_COUNTED

NEW = AttemptState()
BUSY = Failure.of(FailureKind.RATE_LIMITED)
ENDING = GaveUp(BUSY, GiveUpReason.RETRIES_EXHAUSTED, 4)
DOUBTFUL = AttemptState(
    retries=3, doubt_since=NOW, looks=2, deferrals=2, settles_at=NOW, deferred_since=NOW, due=NOW, ending=ENDING
)


def test_a_new_message_starts_with_nothing_to_remember() -> None:
    assert NEW.to_dict() == {"v": 1}
    assert AttemptState.from_dict({"v": 1}) == NEW


@given(states())
def test_a_state_comes_back_whole_from_json(state: AttemptState) -> None:
    assert AttemptState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False))) == state


@given(states())
def test_copies_of_a_state_are_equal_and_look_alike(state: AttemptState) -> None:
    copies = [copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state)), replace(state)]
    assert all(one == state and hash(one) == hash(state) and repr(one) == repr(state) for one in copies)


@given(states(), st.integers(0, MOST_COUNTED))
def test_replacing_one_field_of_a_state_keeps_every_other(state: AttemptState, retries: int) -> None:
    changed = replace(state, retries=retries)
    assert changed.retries == retries
    others = [one.name for one in fields(state) if one.name != "retries"]
    assert [getattr(changed, name) for name in others] == [getattr(state, name) for name in others]


@given(states())
def test_a_scheduled_retry_changes_the_count_and_the_time_and_uses_the_slot_up(state: AttemptState) -> None:
    later = replace(state, retries=min(state.retries, MOST_COUNTED - 1))
    assert later.with_retry(NOW) == replace(later, retries=later.retries + 1, due=NOW, slot=None)


@given(states(), st.none() | st.just("a place"))
def test_a_slot_changes_nothing_else(state: AttemptState, slot: str | None) -> None:
    assert state.with_slot(slot) == replace(state, slot=slot)


@given(states(), st.integers(1, 1000))
def test_a_deferral_remembers_when_the_run_of_deferrals_began(state: AttemptState, seconds: int) -> None:
    due = NOW + timedelta(seconds=seconds)
    once = replace(state, deferrals=0).with_deferral(NOW, due)
    twice = once.with_deferral(NOW + timedelta(seconds=1), due)
    assert (once.deferrals, twice.deferrals, once.due) == (1, 2, due)
    assert once.deferred_since == twice.deferred_since == (state.deferred_since or NOW)


def test_a_state_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        NEW.retries = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        NEW.with_retry(NOW).retries = 7  # type: ignore[misc]


# Corrupt states

IMPOSSIBLE_COUNTS = [-1, 0.0, 1.0, 1.5, True, "1", None, math.nan, math.inf, MOST_COUNTED + 1, 10**400, [], {}]


@pytest.mark.parametrize("field", ["retries", "looks", "deferrals", "round"])
@pytest.mark.parametrize("value", [*IMPOSSIBLE_COUNTS])
def test_a_count_that_cannot_be_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a whole number"):
        AttemptState(doubt_since=NOW, **{field: value})
    with pytest.raises(ValueError, match=f"{field} must be a whole number"):
        AttemptState.from_dict(DOUBTFUL.to_dict() | {field: value})


@pytest.mark.parametrize("field", ["doubt_since", "due", "settles_at", "deferred_since"])
@pytest.mark.parametrize(
    "value",
    [*("", "soon", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", 7, 0.0, [], {}, True, "2026-01-01")],
)
def test_a_time_that_cannot_be_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        AttemptState.from_dict(DOUBTFUL.to_dict() | {field: value})


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 7])  # noqa: DTZ001
def test_a_state_holds_aware_times_only(value: Any) -> None:
    with pytest.raises(ValueError, match="due must be an aware datetime or None"):
        AttemptState(due=value)


@pytest.mark.parametrize("field", ["provider_id", "message_id"])
@pytest.mark.parametrize("value", ["", 7, b"SM1", [], True])
def test_an_id_that_cannot_be_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a str"):
        AttemptState.from_dict(NEW.to_dict() | {field: value})


@pytest.mark.parametrize("version", [0, 2, -1, "1", 1.0, True, None, [], 10**400])
def test_a_state_of_another_version_is_refused(version: Any) -> None:
    with pytest.raises(ValueError, match="Upgrade the process that reads it"):
        AttemptState(version=version)
    with pytest.raises(ValueError, match="Upgrade the process that reads it"):
        AttemptState.from_dict({"v": version, "a field of that version": 1})


def test_a_state_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version None"):
        AttemptState.from_dict({"retries": 1})


@pytest.mark.parametrize("fields_", [{"looks": 1}, {"settles_at": NOW}, {"ending": ENDING}])
def test_without_a_doubt_there_is_nothing_to_settle(fields_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need doubt_since"):
        AttemptState(**fields_)
    assert AttemptState(doubt_since=NOW, **fields_).doubt_since == NOW


def test_a_field_that_a_state_has_not_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="A state has no field 'patience'"):
        AttemptState.from_dict(NEW.to_dict() | {"patience": 1})


@pytest.mark.parametrize("data", [None, [], "state", 7, [["v", 1]]])
def test_what_is_no_object_is_no_state(data: Any) -> None:
    with pytest.raises(ValueError, match="must be a JSON object"):
        AttemptState.from_dict(data)


@given(st.dictionaries(st.sampled_from([*DOUBTFUL.to_dict(), "colour", "version"]), hostile_values, min_size=1))
def test_a_corrupt_state_is_refused_loudly_or_is_a_state(changes: dict[str, Any]) -> None:
    try:
        state = AttemptState.from_dict(DOUBTFUL.to_dict() | changes)
    except ValueError:
        return
    assert AttemptState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


# The end


@given(ended())
def test_an_end_comes_back_whole_from_json(ending: GaveUp) -> None:
    assert GaveUp.from_dict(json.loads(json.dumps(ending.to_dict()))) == ending


def test_the_exception_behind_an_end_is_no_part_of_its_value() -> None:
    caused = replace(ENDING, cause=OSError("secret"))
    assert caused == ENDING
    assert "secret" not in repr(caused)
    assert caused.to_dict() == ENDING.to_dict()


@given(st.dictionaries(st.sampled_from([*ENDING.to_dict()]), hostile_values, min_size=1))
def test_a_corrupt_end_is_refused_or_is_an_end(changes: dict[str, Any]) -> None:
    try:
        ending = GaveUp.from_dict(ENDING.to_dict() | changes)
    except ValueError:
        return
    assert GaveUp.from_dict(json.loads(json.dumps(ending.to_dict()))) == ending


@pytest.mark.parametrize("data", [None, [], "end", 7, {}, {"failure": BUSY.to_dict()}])
def test_what_is_no_end_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="end of a message"):
        GaveUp.from_dict(data)


@pytest.mark.parametrize("ending", [5, "failed", {"attempts": 1}, Accepted(Receipt("acme", "A1", NOW))])
def test_the_end_in_a_state_is_one_that_was_given_up(ending: Any) -> None:
    with pytest.raises(ValueError, match="ending must be a GaveUp or None"):
        AttemptState(doubt_since=NOW, ending=ending)
