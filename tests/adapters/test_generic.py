"""What any queue gets from `generic` that its contract does not ask for."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from smsretry import (
    AsyncDispatcher,
    AttemptState,
    ConfigurationError,
    Dispatcher,
    Failure,
    FailureKind,
    InvalidMessage,
    Message,
    SendFailed,
    SendUnknown,
)
from smsretry.adapters.generic import AsyncGenericQueue, GenericQueue, deliver
from smsretry.errors import ProviderError
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


class Talkative:
    """Raise what clients raise, which tells the number and the text."""

    def send(self, message: Message, /) -> Any:
        raise ValueError(f"cannot send {message.body!r} to {message.to}")


class StatesIt(Talkative):
    """State the failure, and have such an exception behind it."""

    def send(self, message: Message, /) -> Any:
        try:
            super().send(message)
        except ValueError as error:
            raise ProviderError(Failure.of(FailureKind.INVALID_NUMBER, code=7)) from error


@pytest.mark.parametrize("sender", [Talkative(), StatesIt()])
def test_what_a_queue_keeps_of_an_end_tells_neither_number_nor_text_and_says_where_it_was(sender):
    with pytest.raises((SendFailed, SendUnknown)) as raised:
        GenericQueue(Dispatcher(sender), again=lambda envelope, delay_s: None).run(WHOLE)
    kept = "".join(traceback.format_exception(raised.value))
    assert ("5005550006" in kept, "'Hello'" in kept) == (False, False)
    assert ("It was a ValueError" if type(sender) is Talkative else "invalid_number 7") in kept


class Interrupt(BaseException):
    """Be what a queue raises in a run that takes too long."""


@pytest.mark.parametrize(
    ("failure", "end", "told"),
    [(FailureKind.RATE_LIMITED, Interrupt, "send it anew"), (FailureKind.LOST_ANSWER, SendUnknown, "ends as unknown")],
)
def test_a_run_that_is_interrupted_while_its_next_one_is_queued_is_told_of(caplog, failure, end, told):
    def again(envelope: dict[str, Any], delay_s: float) -> None:
        raise Interrupt

    texts = GenericQueue(Dispatcher(ScriptedSender([Failure.of(failure)])), again=again, interrupts=(Interrupt,))
    with pytest.raises(end):
        texts.run(WHOLE)
    assert told in caplog.text


def test_a_canceled_job_that_was_queueing_its_next_run_is_told_of(caplog):
    async def again(envelope: dict[str, Any], delay_s: float) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        dispatcher = AsyncDispatcher(Busy())
        texts = AsyncGenericQueue(dispatcher, again=again, interrupts=(asyncio.CancelledError,))
        job = asyncio.create_task(texts.run(WHOLE))
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(run())
    assert "could not be published (CancelledError)" in caplog.text


class Busy:
    """Be a provider that has too much to do."""

    async def send(self, message: Message, /) -> Any:
        raise ProviderError(Failure.of(FailureKind.RATE_LIMITED))


@pytest.mark.parametrize(
    "limits",
    [
        {"longest_wait_s": 0},
        {"longest_wait_s": -5},
        {"longest_wait_s": float("nan")},
        {"longest_wait_s": "3"},
        {"longest_wait_s": 0.5, "whole_seconds": True},
    ],
)
def test_limits_that_no_queue_has_are_refused_before_anything_is_sent(limits):
    sender = ScriptedSender()
    with pytest.raises(ConfigurationError, match="longest_wait_s must be"):
        GenericQueue(Dispatcher(sender), again=lambda envelope, delay_s: None, **limits)
    with pytest.raises(ConfigurationError, match="longest_wait_s must be"):
        deliver(Dispatcher(sender), Message("+15005550006", "Hello"), state=None, again=print, **limits)
    assert sender.sent == []


def test_a_wait_of_whole_seconds_is_no_longer_than_the_queue_bears():
    asked: list[float] = []
    limits: dict[str, Any] = {"longest_wait_s": 1.5, "whole_seconds": True}
    texts = GenericQueue(Dispatcher(ScriptedSender()), again=lambda envelope, delay_s: asked.append(delay_s), **limits)
    texts.send(Message("+15005550006", "Hello"), delay_s=3.0)
    assert asked == [1.0]


def test_a_delay_is_counted_by_the_clock_of_the_dispatcher():
    clock, sender = FakeClock(), ScriptedSender()
    jobs: list[tuple[dict[str, Any], float]] = []
    texts = GenericQueue(
        Dispatcher(sender, clock=clock), again=lambda envelope, delay_s: jobs.append((envelope, delay_s))
    )
    texts.send(Message("+15005550006", "Hello"), delay_s=60.0)
    [(envelope, delay_s)] = jobs
    clock.advance(delay_s)
    assert texts.run(envelope) is not None


def test_a_state_of_a_later_version_is_not_called_corrupt():
    texts = GenericQueue(Dispatcher(ScriptedSender()), again=lambda envelope, delay_s: None)
    with pytest.raises(InvalidMessage, match="Upgrade the process") as raised:
        texts.run({**WHOLE, "state": {**WHOLE["state"], "v": 99}})
    assert ("corrupt" in str(raised.value), "anew" in str(raised.value)) == (False, False)
