"""What any queue gets from `generic` that its contract does not ask for."""

from __future__ import annotations

from smsretry import Dispatcher, Failure, FailureKind, Message
from smsretry.adapters.generic import deliver
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
