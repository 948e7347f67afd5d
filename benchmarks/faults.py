"""Show what every fault of the simulator becomes: ``python -m benchmarks.faults``.

Each fault meets one send of each of the Twilio senders under the default policy, with a total timeout of ``TIMEOUT_S``.
POSTs and texts are what the simulator counted at its own socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from smsretry.core.failure import Failure
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState, Deferred, GaveUp, RetryAfter
from smsretry.core.policy import RetryPolicy
from smsretry.dispatcher import utc_now
from smsretry.errors import ConfigurationError
from smsretry.senders.twilio import AsyncTwilioSender, TwilioSender
from smsretry.testing.simulator import FAULTS, Fault, TwilioSimulator

TIMEOUT_S = 2.0
DOWN = "refused_connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    fault: str
    posts: int
    texts: int
    kind: str
    maybe_sent: str
    decision: str
    took_s: float

    def line(self) -> str:
        return (
            f"{self.fault:26} {self.posts:5} {self.texts:5}  {self.kind:16} {self.maybe_sent:10} "
            f"{self.took_s:6.2f}  {self.decision}"
        )


def main() -> None:
    """Print the tables."""
    print(f"timeout_s = {TIMEOUT_S}; retry n follows after 2**n s")
    for kind in (TwilioSender, AsyncTwilioSender):
        print_table(kind)


def print_table(kind: type[TwilioSender | AsyncTwilioSender]) -> None:
    header = f"{'fault':26} {'POSTs':>5} {'texts':>5}  {'kind':16} {'maybe sent':10} {'took s':>6}  decision"
    print(f"\n{kind.__name__}\n{header}\n{'-' * len(header)}")
    for name, fault in FAULTS.items():
        print(row(kind, name, fault).line(), flush=True)
    print(row(kind, DOWN, None).line())


def row(kind: type[TwilioSender | AsyncTwilioSender], name: str, fault: Fault | None) -> Row:
    """Send one text into ``fault``; None stands for a port that refuses."""
    with TwilioSimulator(sent_after_s=3600) as simulator, asyncio.Runner() as runner:
        sender = sender_to(kind, simulator)

        def send() -> Receipt:
            return sender.send(message()) if isinstance(sender, TwilioSender) else runner.run(sender.send(message()))

        warm_up(send, simulator)
        simulator.down() if fault is None else simulator.script(fault)
        began_s = perf_counter()
        answer = sent(send, sender.classify)
        return judged(name, simulator, answer, perf_counter() - began_s)


def judged(name: str, simulator: TwilioSimulator, answer: Receipt | Failure, took_s: float) -> Row:
    counted: dict[str, Any] = {"fault": name, "posts": simulator.posts, "texts": simulator.text_count, "took_s": took_s}
    if isinstance(answer, Receipt):
        return Row(**counted, kind="-", maybe_sent="-", decision="accepted")
    maybe_sent = "yes" if answer.maybe_sent else "no"
    return Row(**counted, kind=answer.kind.value, maybe_sent=maybe_sent, decision=decision(answer))


def sender_to(
    kind: type[TwilioSender | AsyncTwilioSender], simulator: TwilioSimulator
) -> TwilioSender | AsyncTwilioSender:
    return kind(
        simulator.account_sid,
        simulator.auth_token,
        from_number="+15005550006",
        base_url=simulator.url,
        timeout_s=TIMEOUT_S,
    )


def warm_up(send: Callable[[], Receipt], simulator: TwilioSimulator) -> None:
    """Load the client and open the connection first: neither belongs to the fault's time."""
    send()
    simulator.reset()


def sent(send: Callable[[], Receipt], classify: Callable[[Exception], Failure]) -> Receipt | Failure:
    try:
        return send()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001  # as the dispatcher does
        return classify(error)


def message() -> Message:
    return Message("+14155550123", "Your parcel is on its way.", id="benchmark")


def decision(failure: Failure) -> str:
    """Say what the default policy makes of ``failure`` on a first attempt."""
    outcome = RetryPolicy().decide(failure, AttemptState(), now=utc_now())
    match outcome:
        case RetryAfter(delay_s, _, state):
            asked = ", looked up first" if state.doubt_since is not None else ""
            return f"retry after {delay_s:g} s{asked}"
        case Deferred(delay_s):
            return f"looked up after {delay_s:g} s"
        case GaveUp(_, reason):
            return f"give up: {reason.value}"


if __name__ == "__main__":
    main()
