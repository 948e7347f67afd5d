"""Threads that write together get their own results and errors, and only after their commit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from tests.store.journeys import claimed, message

from smsretry import InvalidMessage
from smsretry.core.claims import Claim
from smsretry.store import SQLStore
from smsretry.store.grouping import Turns, Work

NOTHING: Any = None


class Disk:
    """Run work as a database does, and keep how many works each commit held; the first one takes until it may end."""

    def __init__(self) -> None:
        self.commits: list[int] = []
        self.begun, self.may_end = threading.Event(), threading.Event()

    def write(self, work: Work[Any]) -> Any:
        first = not self.begun.is_set()
        self.begun.set()
        results = work(NOTHING)
        if first:
            assert self.may_end.wait(20)
        self.commits.append(len(results))
        return results


def in_threads(turns: Turns, disk: Disk, works: list[Callable[[], Any]]) -> list[Any]:
    """Run the first of ``works``, and, while its commit takes its time, all others; return results and errors."""
    answers: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        try:
            answers[number] = turns.write(lambda _: works[number](), disk.write)
        except Exception as error:
            answers[number] = error
        except SystemExit:
            answers[number] = "interrupted"

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    threads[0].start()
    assert disk.begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    while len(turns._waiting) < len(works) - 1:
        threading.Event().wait(0.001)
    disk.may_end.set()
    for thread in threads:
        thread.join()
    return answers


def test_works_that_come_while_another_is_committed_share_a_commit() -> None:
    disk = Disk()
    answers = in_threads(Turns(), disk, [lambda number=number: number for number in range(9)])
    assert (answers, disk.commits) == (list(range(9)), [1, 8])


def test_a_commit_holds_so_many_works_and_no_more() -> None:
    disk = Disk()
    answers = in_threads(Turns(), disk, [lambda number=number: number for number in range(41)])
    assert (answers, disk.commits) == (list(range(41)), [1, 32, 8])


def test_a_work_that_fails_takes_no_other_with_it() -> None:
    def fail() -> None:
        raise ValueError("mine")

    disk = Disk()
    answers = in_threads(Turns(), disk, [lambda: 0, lambda: 1, fail, lambda: 3])
    assert repr(answers) == "[0, 1, ValueError('mine'), 3]"
    assert disk.commits == [1, 1, 1]


def test_whoever_is_interrupted_leaves_the_others_their_turn() -> None:
    turns, disk = Turns(), Disk()
    disk.may_end.set()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.write(lambda _: interrupt(), disk.write)
    assert turns.write(lambda _: "done", disk.write) == "done"
    assert disk.commits == [1]


def test_an_interrupted_writer_puts_the_works_of_others_back() -> None:
    turns, disk = Turns(), Disk()
    first = threading.Event()

    def interrupted_once() -> str:
        if not first.is_set():
            first.set()
            raise SystemExit
        return "done"

    answers = in_threads(turns, disk, [lambda: 0, interrupted_once, lambda: 2])
    assert answers in ([0, "interrupted", 2], [0, "done", "interrupted"])  # whoever wrote for both


def test_a_time_limit_that_strikes_whoever_writes_is_raised_there_and_costs_no_other_its_result() -> None:
    struck = threading.Event()

    class LimitedDisk(Disk):
        def write(self, work: Work[Any]) -> Any:
            results = super().write(work)
            if len(results) > 1 and not struck.is_set():
                struck.set()
                raise TimeoutError("soft time limit")
            return results

    answers = in_threads(Turns(), LimitedDisk(), [lambda: 0, lambda: 1, lambda: 2])
    assert repr(answers) in {"[0, TimeoutError('soft time limit'), 2]", "[0, 1, TimeoutError('soft time limit')]"}


def test_a_refused_message_costs_no_other_thread_its_claim(file_url: str) -> None:
    with SQLStore(file_url) as store:
        claimed(store, message("used"))
        gate, answers = threading.Barrier(9), list[object]()

        def begin(one: Any) -> None:
            gate.wait()
            try:
                answers.append(claimed(store, one))
            except InvalidMessage as error:
                answers.append(error)

        others = [message(f"m{number}", to=f"+1500555001{number}") for number in range(8)]
        threads = [threading.Thread(target=begin, args=(one,)) for one in [*others, message("used", "another")]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(answer, Claim) for answer in answers) == 8
        assert sum(isinstance(answer, InvalidMessage) for answer in answers) == 1
        assert store.campaign_summary("spring").pending == 9


def test_a_thread_returns_only_when_its_work_is_committed(file_url: str) -> None:
    with SQLStore(file_url) as store:
        store.create_tables()
        engine, wrong = sa.create_engine(file_url), list[str]()

        def begin(number: int) -> None:
            for turn in range(10):
                name = f"m{number}-{turn}"
                claimed(store, message(name, to=f"+15005550{number}{turn}"))
                with engine.connect() as other:
                    found = other.exec_driver_sql("SELECT epoch FROM smsretry_messages WHERE id = ?", (name,)).scalar()
                if found != 1:
                    wrong.append(name)

        threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.dispose()
        assert wrong == []
