"""The harness itself: what it draws, how it counts, and that nothing outlives it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsretry.testing import TwilioSimulator
from tests.chaos.counting import Texts, counted
from tests.chaos.load import FAULTY, LATEST_TAKE_S, LIST_LAG_S, MOST_FAULTS, SETTLE_AFTER_S, WEIGHTS, Load
from tests.chaos.processes import Group, all_processes
from tests.chaos.programs import Word
from tests.chaos.trouble import LONGEST_FREEZE_S
from tests.testing.plain_client import create, eventually

LEADER = ["sh", "-c", "while read _; do sleep 60 & echo $!; done; kill -KILL 0"]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    group = Group(LEADER, environment={}, folder=tmp_path, log=tmp_path / "log")
    yield group
    group.end()


def pids() -> set[int]:
    return {one.pid for one in all_processes() if not one.is_dead}


def test_a_seed_draws_the_same_load_again() -> None:
    assert Load.drawn(50, 1) == Load.drawn(50, 1)
    assert Load.drawn(50, 1).faults != Load.drawn(50, 2).faults


def test_every_message_is_taken_after_its_faults_and_each_kind_of_fault_is_met() -> None:
    faults = list(Load.drawn(2000, 1).faults.values())
    assert max(map(len, faults)) == MOST_FAULTS
    assert sum(map(len, faults)) / 2000 == pytest.approx(FAULTY + FAULTY**2, abs=0.05)
    assert {fault for many in faults for fault in many} == set(WEIGHTS)


def test_a_text_is_taken_and_listed_before_any_doubt_of_ours_settles() -> None:
    assert max(fault.taken_after_s for fault in WEIGHTS) <= LATEST_TAKE_S
    assert LONGEST_FREEZE_S + LATEST_TAKE_S + LIST_LAG_S <= SETTLE_AFTER_S


def test_texts_are_counted_at_the_socket_and_unknown_ones_are_not_lost_in_silence() -> None:
    messages = Load.drawn(5, 1).messages
    with TwilioSimulator() as twilio:
        for message in (messages[0], messages[1], messages[1], messages[1]):
            create(twilio, To=message.to, Body=message.body)
        word = Word(unknown=frozenset({str(messages[2].id)}), refused=frozenset({str(messages[3].id)}))
        assert counted(messages, twilio, word) == Texts(lost=1, doubled=2, unknown=1, retries=2)


def test_a_message_that_has_not_ended_is_lost_with_or_without_a_text() -> None:
    messages = Load.drawn(2, 1).messages
    with TwilioSimulator() as twilio:
        create(twilio, To=messages[0].to, Body=messages[0].body)
        open_ = Word(open=frozenset(str(message.id) for message in messages))
        assert counted(messages, twilio, open_).lost == 2


@pytest.mark.integration
def test_a_killed_worker_is_noticed_and_another_one_takes_its_place(group: Group) -> None:
    group.start()
    assert group.is_working()
    assert group.signal(signal.SIGKILL, [group.worker]) == [group.worker]
    assert eventually(lambda: not group.is_working())
    first = group.worker
    group.start()
    assert group.worker != first
    assert group.is_working()


@pytest.mark.integration
def test_nothing_outside_of_a_group_is_signalled(group: Group) -> None:
    group.start()
    assert group.signal(signal.SIGKILL, [1]) == []


@pytest.mark.integration
def test_a_group_ends_with_everything_in_it_also_what_is_frozen(group: Group) -> None:
    group.start()
    started = [group.worker]
    group.signal(signal.SIGSTOP, started)
    group.start()
    started.append(group.worker)
    group.end()
    assert eventually(lambda: not pids().intersection(started))
    group.end()
