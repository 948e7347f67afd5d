"""What an adapter promises, one function for each promise."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import ClassVar, Final

from smsretry.core.message import Receipt
from smsretry.core.outcome import GiveUpReason
from smsretry.errors import NotAccepted, SendFailed, SendUnknown
from smsretry.testing.adapter_contract.site import INVALID, LOST, POLICY
from smsretry.testing.adapter_contract.trial import DELAY_S, WORDS, Trial
from smsretry.testing.sink_contract import ContractBroken

_EARLY_S: Final = 0.05
"""Clocks are read twice."""


def check_waits_equal_the_schedule(trial: Trial) -> None:
    """Let every attempt fail: the waits between them must be those of the policy, all of them."""
    trial.end("busy")
    schedule, times = POLICY.schedule(), [sent.at for sent in trial.site.sent(trial.id("busy"))]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    _expect("There is an attempt after every wait of the policy", len(schedule), len(waits))
    for scheduled_s, wait_s in zip(schedule, waits, strict=True):
        _is_in_time("A retry comes after the wait of the policy", scheduled_s, wait_s, trial)


def check_a_delay_is_waited_for(trial: Trial) -> None:
    """Queue a message for later: its first attempt must come then."""
    trial.end("later")
    wait_s = trial.site.sent(trial.id("later"))[0].at - trial.began("later")
    _is_in_time("What is queued for later is sent then", DELAY_S, wait_s, trial)


def check_exhausted_retries_fail_for_good(trial: Trial) -> None:
    """Let every attempt fail: after the last one of the policy the message must end, and the job with it."""
    _expect("The policy says when it is enough", GiveUpReason.RETRIES_EXHAUSTED.value, trial.end("busy"))
    _expect("A message has one end", POLICY.max_retries + 1, len(trial.site.handled(trial.id("busy"))))


def check_a_permanent_failure_is_one_attempt(trial: Trial) -> None:
    """Refuse a number: it must be asked for once, and the message must end."""
    _expect("A permanent failure ends the message", GiveUpReason.PERMANENT.value, trial.end("refused"))
    trial.end("busy")  # by then a repeat of the queue's own would have come
    _expect("A permanent failure is one attempt", 1, len(trial.site.handled(trial.id("refused"))))


def check_a_deferral_costs_no_retry(trial: Trial) -> None:
    """Lose an answer, so that the message waits for a look-up: it must have all of its retries left."""
    _expect("Deferrals do not use up retries", "accepted", trial.end("doubtful"))
    runs = trial.site.handled(trial.id("doubtful"))
    _holds("A doubt is waited for", any(run.outcome == "Deferred" for run in runs))
    _expect("Deferrals are no attempts", POLICY.max_retries + 1, len(trial.site.sent(trial.id("doubtful"))))


def check_the_state_survives_the_queue(trial: Trial) -> None:
    """Compare the state and the message of each run with what the run before left: they must be the same."""
    trial.end("doubtful")
    message, runs = trial.message("doubtful"), trial.site.handled(trial.id("doubtful"))
    for run in runs:
        _expect("The message comes out as it went in", message.to_dict(), run.message)
    for before, after in itertools.pairwise(runs):
        _expect("The state comes out as it went in", before.left, after.given)


def check_a_failure_leaves_the_next_message_alone(trial: Trial) -> None:
    """Refuse one message: those beside it must be sent."""
    ends = [trial.end(name) for name in ("refused", "next", "later")]
    _expect("One failure is one message's", ["permanent", "accepted", "accepted"], ends)
    _expect("One message is one text", [1, 1], [trial.site.texts(trial.id(name)) for name in ("next", "later")])


def check_an_own_task_carries_its_state(trial: Trial) -> None:
    """Send from a task of an application's own: its retries must count, and its arguments stay."""
    if "own" not in trial.jobs:
        trial.harness.send_own(trial.message("next"))  # says that it is not offered
    _expect("A task of an application's own sends", "accepted", trial.end("own"))
    message, runs = trial.message("own"), trial.site.handled(trial.id("own"))
    for run in runs:
        _expect("The arguments come out as they went in", message.to_dict(), run.message)
    _expect("Each run makes one attempt", ["RetryAfter", "RetryAfter", "Accepted"], [run.outcome for run in runs])
    for before, after in itertools.pairwise(runs):
        _expect("The state comes out as it went in", before.left, after.given)


def check_a_repeated_delivery_is_one_text(trial: Trial) -> None:
    """Deliver a journaled message twice at once, and again after its end: one text, and the end is told again."""
    _expect("A message that is delivered twice is sent", "accepted", trial.end("twice"))
    ends = _count_ends(trial, "twice")
    trial.harness.redeliver(trial.message("twice"))
    trial.eventually(lambda: _count_ends(trial, "twice") > ends, "the end to be told again")
    _expect("A repeated delivery is no second text", 1, trial.site.texts(trial.id("twice")))


def check_results_come_back_whole(trial: Trial) -> None:
    """Read what the queue keeps of its jobs: the receipt, and the exception with all that it says."""
    for name in ("next", "refused", "unsure"):
        trial.end(name)
    receipt = trial.result("next")
    is_whole = isinstance(receipt, dict) and Receipt.from_dict(receipt).provider_id == f"sid-{trial.id('next')}"
    _holds("The receipt comes back", is_whole)
    refused = SendFailed(trial.id("refused"), GiveUpReason.PERMANENT, 1, INVALID.to_dict())
    unsure = SendUnknown(trial.id("unsure"), GiveUpReason.OUTCOME_UNKNOWN, 1, LOST.to_dict())
    for name, wanted in {"refused": refused, "unsure": unsure}.items():
        error = trial.result(name)
        if not isinstance(error, NotAccepted):
            raise ContractBroken(f"The exception of a message that has ended comes back: got {type(error).__name__}.")
        _expect("The exception comes back as the one it was", (type(wanted), wanted.args), (type(error), error.args))


def check_nothing_personal_is_shown(trial: Trial) -> None:
    """Read what the queue shows of its jobs: neither a number nor a text may be there."""
    for name in ("busy", "refused", "next", "doubtful", "unsure", "later"):
        trial.end(name)
    shown = trial.shown()
    _holds("No text is shown", WORDS not in shown)
    _expect("No number is shown", [], [number[-2:] for number in trial.numbers() if number[1:] in shown])


def check_nothing_is_left_in_the_queue(trial: Trial) -> None:
    """Wait until every message has ended: the queue must hold no job any more, such as a repeat for later."""
    for name in trial.names():
        trial.end(name)
    trial.eventually(lambda: trial.harness.left() == 0, "the queue to be empty")


def check_a_killed_send_is_one_text(trial: Trial) -> None:
    """Kill the worker in the middle of a send: the message must end, as accepted, and with one text."""
    trial.kill_once()
    _expect("What a killed worker had sent is found", "accepted", trial.end("held"))
    _expect("A killed send is no second text", 1, len(trial.site.sent(trial.id("held"))))


def check_a_killed_wait_is_one_text(trial: Trial) -> None:
    """Kill the worker while a message waits in it or its queue: the message must be sent, once."""
    trial.kill_once()
    _expect("What waits when a worker is killed is sent", "accepted", trial.end("waiting"))
    _expect("A killed wait is no second text", 1, trial.site.texts(trial.id("waiting")))


CHECKS: Final[tuple[Callable[[Trial], None], ...]] = (
    check_waits_equal_the_schedule,
    check_a_delay_is_waited_for,
    check_exhausted_retries_fail_for_good,
    check_a_permanent_failure_is_one_attempt,
    check_a_deferral_costs_no_retry,
    check_the_state_survives_the_queue,
    check_a_failure_leaves_the_next_message_alone,
    check_an_own_task_carries_its_state,
    check_a_repeated_delivery_is_one_text,
    check_results_come_back_whole,
    check_nothing_personal_is_shown,
    check_nothing_is_left_in_the_queue,
    check_a_killed_send_is_one_text,
    check_a_killed_wait_is_one_text,
)
"""Every check: call each with a `Trial`, in this order; the last two kill the worker."""


class AdapterContract:
    """Run every check as a test of pytest; a subclass, named ``Test…``, sets ``trial`` in a fixture of its class."""

    trial: ClassVar[Trial]

    def test_waits_equal_the_schedule(self) -> None:
        """Run `check_waits_equal_the_schedule`."""
        self.trial.run(check_waits_equal_the_schedule)

    def test_a_delay_is_waited_for(self) -> None:
        """Run `check_a_delay_is_waited_for`."""
        self.trial.run(check_a_delay_is_waited_for)

    def test_exhausted_retries_fail_for_good(self) -> None:
        """Run `check_exhausted_retries_fail_for_good`."""
        self.trial.run(check_exhausted_retries_fail_for_good)

    def test_a_permanent_failure_is_one_attempt(self) -> None:
        """Run `check_a_permanent_failure_is_one_attempt`."""
        self.trial.run(check_a_permanent_failure_is_one_attempt)

    def test_a_deferral_costs_no_retry(self) -> None:
        """Run `check_a_deferral_costs_no_retry`."""
        self.trial.run(check_a_deferral_costs_no_retry)

    def test_the_state_survives_the_queue(self) -> None:
        """Run `check_the_state_survives_the_queue`."""
        self.trial.run(check_the_state_survives_the_queue)

    def test_a_failure_leaves_the_next_message_alone(self) -> None:
        """Run `check_a_failure_leaves_the_next_message_alone`."""
        self.trial.run(check_a_failure_leaves_the_next_message_alone)

    def test_an_own_task_carries_its_state(self) -> None:
        """Run `check_an_own_task_carries_its_state`."""
        self.trial.run(check_an_own_task_carries_its_state)

    def test_a_repeated_delivery_is_one_text(self) -> None:
        """Run `check_a_repeated_delivery_is_one_text`."""
        self.trial.run(check_a_repeated_delivery_is_one_text)

    def test_results_come_back_whole(self) -> None:
        """Run `check_results_come_back_whole`."""
        self.trial.run(check_results_come_back_whole)

    def test_nothing_personal_is_shown(self) -> None:
        """Run `check_nothing_personal_is_shown`."""
        self.trial.run(check_nothing_personal_is_shown)

    def test_nothing_is_left_in_the_queue(self) -> None:
        """Run `check_nothing_is_left_in_the_queue`."""
        self.trial.run(check_nothing_is_left_in_the_queue)

    def test_a_killed_send_is_one_text(self) -> None:
        """Run `check_a_killed_send_is_one_text`."""
        self.trial.run(check_a_killed_send_is_one_text)

    def test_a_killed_wait_is_one_text(self) -> None:
        """Run `check_a_killed_wait_is_one_text`."""
        self.trial.run(check_a_killed_wait_is_one_text)


def _count_ends(trial: Trial, name: str) -> int:
    return sum(run.outcome == "Accepted" for run in trial.site.handled(trial.id(name)))


def _is_in_time(promise: str, wanted_s: float, wait_s: float, trial: Trial) -> None:
    latest_s = wanted_s + trial.harness.slack_s
    if not wanted_s - _EARLY_S <= wait_s <= latest_s:
        raise ContractBroken(f"{promise}: expected {wanted_s:g} to {latest_s:g} s, got {wait_s:.2f} s.")


def _holds(promise: str, fact: object) -> None:
    if not fact:
        raise ContractBroken(f"{promise}, and here it does not hold.")


def _expect(promise: str, wanted: object, got: object) -> None:
    if wanted != got:
        raise ContractBroken(f"{promise}: expected {wanted!r}, got {got!r}.")
