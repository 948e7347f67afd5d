"""The contract kit for adapters names what a broken one breaks; right ones are in tests/queues."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.queues.test_generic import ToyHarness
from tests.queues.worker_process import ROOT

from smsretry import Message, NotAccepted, SendFailed
from smsretry.adapters.generic import GenericQueue, deliver
from smsretry.testing.adapter_contract import CHECKS, AdapterContract, AdapterHarness, NotOffered, Site, Trial
from smsretry.testing.sink_contract import ContractBroken


class ThreadHarness(AdapterHarness):
    """Be a queue in memory whose worker is a thread, so that there is nothing to kill; each mutant breaks a part."""

    name = "thread"
    patience_s = 8.0
    slack_s = 2.5
    """All mutants are tried at once, in one process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.site, self.waiting, self.kept, self.numbers = Site(folder), [], {}, itertools.count()
        self.lock, self.ended, self.seen = threading.Lock(), threading.Event(), []
        self.plain = GenericQueue(self.site.dispatcher(), again=self.putting("plain"))
        self.journal = self.site.dispatcher(journaled=True)
        self.journaled = GenericQueue(self.journal, again=self.putting("journaled"))
        self.thread = threading.Thread(target=self.work)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        return (self.journaled if journaled else self.plain).send(message, delay_s=delay_s)

    def send_own(self, message: Message) -> Any:
        return self.put("own", {"message": message.to_dict(), "state": None}, 0.0)

    def result(self, job: Any) -> object:
        return self.kept.get(job)

    def visible(self) -> str:
        with self.lock:
            return json.dumps([self.seen, [(due, job) for due, _, _, _, job in self.waiting]])

    def left(self) -> int:
        with self.lock:
            return len(self.waiting)

    def putting(self, kind: str) -> Callable[[dict[str, Any], float], Any]:
        return lambda envelope, delay_s: self.put(kind, envelope, delay_s)

    def put(self, kind: str, body: dict[str, Any], delay_s: float) -> Any:
        with self.lock:
            entry = (time.time() + delay_s, next(self.numbers), kind, json.dumps(body), body["message"]["id"])
            heapq.heappush(self.waiting, entry)
        return entry[-1]

    def take(self) -> tuple[str, dict[str, Any]] | None:
        with self.lock:
            if not self.waiting or self.waiting[0][0] > time.time():
                return None
            _, _, kind, body, job = heapq.heappop(self.waiting)
            self.seen.append((kind, job))
        return kind, json.loads(body)

    def work(self) -> None:
        while not self.ended.wait(0.01):
            while (job := self.take()) is not None:
                self.run(*job)

    def run(self, kind: str, body: dict[str, Any]) -> None:
        try:
            receipt = self.handle(kind, body)
        except NotAccepted as error:
            self.fail(kind, body, error)
        else:
            if receipt is not None:
                self.kept[body["message"]["id"]] = receipt.to_dict()

    def handle(self, kind: str, body: dict[str, Any]) -> Any:
        match kind:
            case "plain":
                return self.plain.run(body)
            case "journaled":
                return self.journaled.run(body)
            case _:
                message, again = Message.from_dict(body["message"]), self.again_own(body)
                return deliver(self.site.dispatcher(), message, state=body["state"], again=again)

    def again_own(self, body: dict[str, Any]) -> Callable[[str, float], Any]:
        return lambda state, delay_s: self.put("own", {**body, "state": state}, delay_s)

    def fail(self, kind: str, body: dict[str, Any], error: NotAccepted) -> None:
        self.kept[body["message"]["id"]] = error


class Early(ThreadHarness):
    """Run a job in a part of its time, and forget when it was due."""

    def put(self, kind, body, delay_s):
        state = body["state"] if kind == "own" else {**body["state"], "due": None}
        return super().put(kind, {**body, "state": state}, delay_s / 8)


class Late(ThreadHarness):
    slack_s = 0.5

    def put(self, kind, body, delay_s):
        return super().put(kind, body, delay_s + 0.6)


class Capped(ThreadHarness):
    """Leave the queue's own limit of three retries on."""

    def put(self, kind, body, delay_s):
        runs = sum(job == body["message"]["id"] for _, job in self.seen)
        return super().put(kind, body, delay_s) if runs < 4 else body["message"]["id"]


class Forgetful(ThreadHarness):
    """Send each retry as if it were the first attempt."""

    def put(self, kind, body, delay_s):
        return super().put(kind, {**body, "state": None if kind == "own" else {"v": 1}}, delay_s)


class Counting(ThreadHarness):
    """Count each deferral as a retry."""

    def put(self, kind, body, delay_s):
        state = body["state"] or {}
        if kind != "own" and state.get("deferrals"):
            body = {**body, "state": {**state, "retries": 4}}
        return super().put(kind, body, delay_s)


class Repeating(ThreadHarness):
    """Let the queue repeat what has failed for good."""

    def fail(self, kind, body, error):
        super().fail(kind, body, error)
        if sum(job == body["message"]["id"] for _, job in self.seen) < 9:
            self.put(kind, body, 0.0)


class Mangling(ThreadHarness):
    """Carry nothing but ASCII."""

    def take(self):
        job = super().take()
        return job and (job[0], json.loads(json.dumps(job[1], ensure_ascii=False).encode("ascii", "replace")))


class Stopping(ThreadHarness):
    """Lose the next job where one fails."""

    def fail(self, kind, body, error):
        super().fail(kind, body, error)
        self.take()


class Telling(ThreadHarness):
    """Keep the text of an exception in place of the exception."""

    def fail(self, kind, body, error):
        self.kept[body["message"]["id"]] = str(error)


class Chatty(ThreadHarness):
    """Show what is in the envelopes."""

    def take(self):
        job = super().take()
        if job is not None:
            self.seen.append((json.dumps(job[1]), None))
        return job


class Unjournaled(ThreadHarness):
    """Send what is delivered again as if nobody knew it."""

    def handle(self, kind, body):
        return super().handle("own" if kind == "own" else "plain", body)


class UnknowingOwn(ThreadHarness):
    """Run an application's own task without its state."""

    def again_own(self, body):
        return lambda state, delay_s: self.put("own", body, delay_s)


class Doubling(ThreadHarness):
    """Publish each retry twice."""

    def put(self, kind, body, delay_s):
        if kind == "plain" and body["state"].get("retries"):
            super().put(kind, body, delay_s)
        return super().put(kind, body, delay_s)


class ForgettingDeferral(ThreadHarness):
    """Drop the state of what was put off."""

    def put(self, kind, body, delay_s):
        deferred = kind == "plain" and body["state"].get("deferrals")
        return super().put(kind, {**body, "state": {"v": 1}} if deferred else body, delay_s)


class RepeatingLater(ThreadHarness):
    """Let the queue repeat what has failed for good, when nobody looks any more."""

    def fail(self, kind, body, error):
        super().fail(kind, body, error)
        self.put(kind, body, 60.0)


class Describing(ThreadHarness):
    """Describe a job by its number."""

    def take(self):
        job = super().take()
        if job is not None and "to" in job[1].get("message", {}):
            self.seen.append((f"send a text to {job[1]['message']['to']}", None))
        return job


class Certain(ThreadHarness):
    """Call what is unknown failed."""

    def fail(self, kind, body, error):
        super().fail(kind, body, SendFailed(*error.args))


class Rewriting(ThreadHarness):
    """Run an application's own task again with other arguments."""

    def again_own(self, body):
        changed = {**body, "message": {**body["message"], "body": "Hello?"}}
        return lambda state, delay_s: self.put("own", {**changed, "state": state}, delay_s)


class HastyOwn(ThreadHarness):
    """Run an application's own task again at once, and drop its state's time."""

    def again_own(self, body):
        def again(state, delay_s):
            hurried = json.dumps({**json.loads(state), "due": None})
            self.put("own", {**body, "state": hurried}, 0.0)

        return again


class UnjournaledProcess(ToyHarness):
    """Let a worker that may be killed know no journal."""

    patience_s = 6.0
    options = ("unjournaled",)


BREAKS: dict[type[AdapterHarness], set[str]] = {
    Early: {"waits_equal_the_schedule"},
    Late: {"waits_equal_the_schedule", "a_delay_is_waited_for"},
    Capped: {"waits_equal_the_schedule", "exhausted_retries_fail_for_good", "a_deferral_costs_no_retry"},
    Forgetful: {"waits_equal_the_schedule", "exhausted_retries_fail_for_good", "the_state_survives_the_queue"},
    Counting: {"a_deferral_costs_no_retry", "the_state_survives_the_queue"},
    Repeating: {"a_permanent_failure_is_one_attempt", "exhausted_retries_fail_for_good"},
    Mangling: {"the_state_survives_the_queue"},
    Stopping: {"a_failure_leaves_the_next_message_alone"},
    Telling: {"results_come_back_whole"},
    Chatty: {"nothing_personal_is_shown"},
    Unjournaled: {"a_repeated_delivery_is_one_text"},
    UnknowingOwn: {"an_own_task_carries_its_state"},
    Doubling: {"waits_equal_the_schedule", "exhausted_retries_fail_for_good"},
    ForgettingDeferral: {"the_state_survives_the_queue"},
    RepeatingLater: {"nothing_is_left_in_the_queue"},
    Describing: {"nothing_personal_is_shown"},
    Certain: {"results_come_back_whole"},
    Rewriting: {"an_own_task_carries_its_state"},
    HastyOwn: {"an_own_task_carries_its_state"},
    UnjournaledProcess: {"a_repeated_delivery_is_one_text", "a_killed_send_is_one_text"},
}


def results_of(harness: AdapterHarness) -> dict[str, str]:
    with Trial(harness) as trial:
        for check in CHECKS:
            with contextlib.suppress(ContractBroken, NotOffered):
                trial.run(check)
    return trial.results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[type[AdapterHarness], dict[str, str]]]:
    """Try all mutants at once: they wait most of the time."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(BREAKS) + 1) as pool:
        patch.delenv("SMSRETRY_ADAPTER_RESULTS", raising=False)
        kinds = (ThreadHarness, *BREAKS)
        trying = {kind: pool.submit(results_of, kind(tmp_path_factory.mktemp(kind.__name__))) for kind in kinds}
        yield {kind: tried.result() for kind, tried in trying.items()}


@pytest.mark.parametrize("mutant", BREAKS, ids=lambda mutant: mutant.__name__)
def test_what_a_broken_adapter_breaks_is_named(results, mutant):
    broken = {name for name, result in results[mutant].items() if result.startswith("broken")}
    assert broken >= BREAKS[mutant], results[mutant]


def test_a_right_adapter_is_let_through_and_what_it_does_not_offer_is_skipped(results):
    skipped = {name for name, result in results[ThreadHarness].items() if result.startswith("skipped")}
    assert skipped == {"a_killed_send_is_one_text", "a_killed_wait_is_one_text"}
    held = {name for name, result in results[ThreadHarness].items() if result == "holds"}
    assert held | skipped == {check.__name__.removeprefix("check_") for check in CHECKS}


def test_the_class_for_pytest_runs_every_check():
    tests = {name for name in vars(AdapterContract) if name.startswith("test_")}
    assert tests == {check.__name__.replace("check_", "test_", 1) for check in CHECKS}


class Minimal(AdapterHarness):
    name = "minimal"

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any: ...


def test_results_are_written_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SMSRETRY_ADAPTER_RESULTS", str(tmp_path / "results"))
    with Trial(Minimal(tmp_path)) as trial, pytest.raises(NotOffered):
        trial.run(CHECKS[7])
    written = json.loads((tmp_path / "results" / "minimal.json").read_text())
    why = "skipped: the harness has no task of an application's own"
    assert written == {"name": "minimal", "versions": {}, "checks": {"an_own_task_carries_its_state": why}}


WITHOUT_PYTEST = """
import runpy, sys
sys.modules["pytest"] = None
runpy.run_module("tests.testing.plain_adapter", run_name="__main__")
"""


def test_the_checks_are_plain_functions_that_need_no_pytest(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "SMSRETRY_ADAPTER_RESULTS"}
    command = [sys.executable, "-c", WITHOUT_PYTEST, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == {check.__name__.removeprefix("check_") for check in CHECKS}
    offered = {name: result for name, result in told.items() if not result.startswith("skipped")}
    assert set(offered.values()) == {"holds"}, offered
    assert len(offered) == 8


def test_a_note_of_which_only_a_part_is_written_yet_is_read_later(tmp_path):
    site = Site(tmp_path)
    site.note("sent", "m-1", at=1.0, pid=7, answer="taken")
    with (tmp_path / "sent.jsonl").open("a") as file:
        file.write('{"id": "m-1", "at": 2.0, "pid"')
    assert site.texts("m-1") == 1
