"""What a fact changes about a message, without any database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.lives import muddled, rounds
from tests.store.told import START, accepted, failed, retry

from smsretry import Event, Failure, FailureKind
from smsretry.store.moves import (
    NO_DELIVERY,
    STATE_COUNTERS,
    Fact,
    MessageState,
    Standing,
    changes,
    fact_of,
    fact_of_skip,
    first_standing,
    moves,
)

STANDING = tuple(Standing.__dataclass_fields__)


@dataclass
class Ledger:
    """Keep messages and counters as the tables do."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)

    def note(self, fact: Fact) -> None:
        if fact.event_id in self.known:
            return
        self.known.add(fact.event_id)
        row = self.rows.get(fact.message_id)
        before = None if row is None else standing(row)
        if row is None or before is None:
            self.rows[fact.message_id] = {**NO_DELIVERY, **first_standing(fact)}
        else:
            self.rows[fact.message_id] = row | changes(before, fact)
        self.counters.update(moves(before, MessageState(self.rows[fact.message_id]["state"]), fact))


def standing(row: dict[str, Any]) -> Standing:
    return Standing(**{name: row[name] for name in STANDING if name in row} | {"state": MessageState(row["state"])})


def ledger_of(events: Sequence[Event]) -> Ledger:
    ledger = Ledger()
    for event in events:
        ledger.note(fact_of(event))
    return ledger


@given(data=st.data(), life=rounds("m"))
def test_a_message_stands_the_same_however_often_and_in_whatever_order_it_is_told(
    data: st.DataObject, life: list[Event]
) -> None:
    in_order, told = ledger_of(life), ledger_of(data.draw(muddled(life)))
    assert told.rows == in_order.rows
    assert told.counters == in_order.counters


@given(life=rounds("m"))
def test_a_message_is_counted_in_exactly_one_state(life: list[Event]) -> None:
    counters = ledger_of(life).counters
    states = [counters[name] for name in STATE_COUNTERS.values()]
    assert sorted(states)[-1:] == ([1] if life else [0])
    assert sum(states) == bool(life)


@given(life=rounds("m"))
def test_an_accepted_message_leaves_that_state_only_by_a_new_round(life: list[Event]) -> None:
    ledger, was_accepted = Ledger(), 0
    for event in life:
        ledger.note(fact_of(event))
        row = ledger.rows["m"]
        if row["round"] == was_accepted:
            assert row["state"] == "accepted"
        was_accepted = row["round"] if row["state"] == "accepted" else 0


def test_every_state_has_a_counter_of_its_own() -> None:
    assert set(STATE_COUNTERS) == set(MessageState)
    assert len(set(STATE_COUNTERS.values())) == len(MessageState)


def test_of_two_failures_the_later_one_is_the_reason() -> None:
    first = failed("m", 1, second=10.0)
    later = failed("m", 2, failure=Failure.of(FailureKind.OPTED_OUT, code=21610), second=20.0)
    for events in ([first, later], [later, first]):
        assert ledger_of(events).rows["m"]["code"] == "21610"


def test_a_late_event_of_an_earlier_round_moves_nothing_but_is_counted_as_what_it_is() -> None:
    ledger = ledger_of([accepted("m", round=2), retry("m", 3)])
    assert (ledger.rows["m"]["state"], ledger.rows["m"]["attempts"]) == ("accepted", 1)
    assert ledger.counters["sms_retried"] == 1


def test_the_number_of_retries_is_known_from_the_attempt_that_ended_it() -> None:
    assert ledger_of([accepted("m", 3)]).rows["m"]["retries"] == 2
    assert ledger_of([retry("m", 1), retry("m", 2)]).rows["m"]["retries"] == 2
    assert ledger_of([failed("m", 0)]).rows["m"]["retries"] == 0


def test_a_skip_gives_way_to_whatever_is_known_of_a_send() -> None:
    skip = fact_of_skip("m", "spring", "opted out", START)
    for facts in ([skip, fact_of(retry("m"))], [fact_of(retry("m")), skip]):
        ledger = Ledger()
        for fact in facts:
            ledger.note(fact)
        assert ledger.rows["m"]["state"] == "pending"


def test_a_number_in_a_detail_or_a_reason_is_hidden() -> None:
    detail = Failure.of(FailureKind.OTHER, detail="The number +14155550199 is\x00 bad\ud800.")
    assert fact_of(failed("m", failure=detail)).detail == "The number ***99 is bad?."
    assert fact_of_skip("m", "", "bad: +14155550199", START).reason == "bad: ***99"


def test_what_is_too_long_is_cut() -> None:
    fact = fact_of(failed("m", failure=Failure.of(FailureKind.OTHER, code="c" * 99, detail="d " * 999)))
    assert (len(fact.code or ""), len(fact.detail or "")) == (64, 500)


def test_an_event_of_another_library_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be one of smsretry\.core\.events, got str"):
        fact_of("sent")  # type: ignore[arg-type]  # that is the point
