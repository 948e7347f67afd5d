"""What any queue gets from `generic` that its contract does not ask for."""

from __future__ import annotations

from typing import Any

import pytest

from smsretry import AttemptState, Dispatcher, Failure, FailureKind, InvalidMessage, Message
from smsretry.adapters.generic import GenericQueue, deliver
from smsretry.journal import MemoryJournal
from smsretry.store import SQLStore
from smsretry.testing import FakeClock, ScriptedSender


def test_a_message_without_an_id_is_the_same_message_in_the_next_run():
    clock, sender = FakeClock(), ScriptedSender([Failure.of(FailureKind.RATE_LIMITED)])
    dispatcher = Dispatcher(sender, clock=clock)
    states: list[str | None] = [None]

    def again(state: str, delay_s: float) -> None:
        clock.advance(delay_s)
        states.append(state)

    for _ in range(2):
        deliver(dispatcher, Message("+15005550006", "Your parcel is at the door"), state=states[-1], again=again)
    first, second = sender.sent
    assert first.id == second.id


def test_a_task_of_ones_own_waits_in_hops_of_whole_seconds_that_the_queue_bears():
    clock, sender = FakeClock(), ScriptedSender([Failure.of(FailureKind.RATE_LIMITED, retry_after_s=10.5)])
    dispatcher = Dispatcher(sender, clock=clock)
    runs: list[tuple[str | None, float]] = [(None, 0.0)]
    while len(sender.sent) < 2:
        state, delay_s = runs[-1]
        clock.advance(delay_s)
        deliver(
            dispatcher,
            Message("+15005550006", "Hello", id="m-1"),
            state=state,
            again=lambda state, delay_s: runs.append((state, delay_s)),
            longest_wait_s=4.0,
            whole_seconds=True,
        )
    assert [delay_s for _, delay_s in runs] == [0.0, 4.0, 4.0, 3.0]


WHOLE: dict[str, Any] = {
    "v": 1,
    "message": Message("+15005550006", "Hello", id="m-1").to_dict(),
    "state": AttemptState().to_dict(),
}


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {**WHOLE, "v": 2},
        {**WHOLE, "state": {**WHOLE["state"], "v": 99}},
        {**WHOLE, "message": {**WHOLE["message"], "to": 7}},
        {**WHOLE, "more": 1},
        "m-1",
    ],
    ids=["nothing", "another version", "a later state", "no message", "more", "no envelope"],
)
def test_what_cannot_be_read_sends_nothing_and_is_told_as_what_no_repeat_will_mend(envelope):
    sender = ScriptedSender()
    texts = GenericQueue(Dispatcher(sender), again=lambda envelope, delay_s: None)
    with pytest.raises(InvalidMessage):
        texts.run(envelope)
    assert sender.sent == []


def test_a_dispatcher_that_cannot_be_made_raises_and_is_made_at_the_next_run():
    sender, away = ScriptedSender(), [OSError("no secrets")]

    def make() -> Dispatcher:
        if away:
            raise away.pop()
        return Dispatcher(sender)

    texts = GenericQueue(make, again=lambda envelope, delay_s: None)
    with pytest.raises(OSError, match="no secrets"):
        texts.run(WHOLE)
    assert texts.run(WHOLE) is not None
    assert len(sender.sent) == 1


@pytest.mark.parametrize("journal", ["store", "memory"])
def test_a_journal_that_keeps_no_promise_is_told_once(tmp_path, caplog, journal):
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        kept = store if journal == "store" else MemoryJournal()
        texts = GenericQueue(lambda: Dispatcher(ScriptedSender(), journal=kept), again=lambda envelope, delay_s: None)
        texts.run(WHOLE)
        texts.run(WHOLE)
    [problem] = [record.getMessage() for record in caplog.records if record.name == "smsretry"]
    assert ("journal=store" if journal == "store" else "lives in one process") in problem
