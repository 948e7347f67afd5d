"""The adapters are alike: whoever knows one knows the others, but for the words of their queue."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsretry import AttemptState, ConfigurationError, Dispatcher, Message
from smsretry.adapters import _seam as seam
from smsretry.adapters.generic import GenericQueue
from smsretry.testing import ScriptedSender

ADAPTERS = ["celery", "dramatiq", "huey", "procrastinate", "rq", "saq", "taskiq"]
KEEPS_EXCEPTIONS = {"celery", "taskiq"}
KEEPS_NO_RESULTS = {"procrastinate"}
MESSAGE = Message("+15550100001", "Hello.", id="m-1")


def of(adapter: str) -> Any:
    return importlib.import_module(f"smsretry.adapters.{adapter}")


def parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_ready_task_is_made_alike(adapter):
    module = of(adapter)
    queue, dispatcher, *named, options = parameters(module.sms_task)
    assert queue.kind is dispatcher.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert (dispatcher.name, options.kind) == ("dispatcher", inspect.Parameter.VAR_KEYWORD)
    assert {one.kind for one in named} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {one.name: one.default for one in named}
    assert defaults["name"] is inspect.Parameter.empty
    assert defaults["journal"] is None


@pytest.mark.parametrize("send", [*(of(adapter).SMSTask.send for adapter in ADAPTERS), GenericQueue.send])
def test_a_ready_task_sends_alike(send):
    _, message, *named = parameters(send)
    assert message.name == "message"
    assert {one.kind for one in named} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {one.name: one.default for one in named}
    assert (defaults["delay_s"], defaults["state"]) == (0.0, AttemptState())


@pytest.mark.parametrize("adapter", [*ADAPTERS])
def test_a_task_of_an_applications_own_delivers_alike(adapter):
    _, dispatcher, message, *more = parameters(of(adapter).deliver)
    assert (dispatcher.name, message.name) == ("dispatcher", "message")
    assert {one.kind for one in more} <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_names_are_the_same_in_every_adapter(adapter):
    offered = set(of(adapter).__all__)
    recover = "recover_job" if adapter == "saq" else "recover_every"  # SAQ's worker is given its periodic jobs
    assert offered >= {"SMSTask", "deliver", "recover_elsewhere", "sms_task", recover}
    assert ("end_of" in offered) == (adapter not in KEEPS_EXCEPTIONS | KEEPS_NO_RESULTS)


def put_into(jobs: list[tuple[dict[str, Any], float]]) -> GenericQueue:
    def put(envelope: dict[str, Any], delay_s: float) -> None:
        jobs.append((json.loads(json.dumps(envelope)), delay_s))

    return GenericQueue(Dispatcher(ScriptedSender()), again=put)


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(("delay_s", "due_in_s", "wait_s"), [(0, 60, 60), (60, None, 60), (90, 60, 90), (5, 60, 60)])
def test_what_began_elsewhere_is_not_sent_before_it_is_due(delay_s, due_in_s, wait_s):
    jobs: list[tuple[dict[str, Any], float]] = []
    due = None if due_in_s is None else in_seconds(due_in_s)
    put_into(jobs).send(MESSAGE, delay_s=delay_s, state=AttemptState(retries=1, due=due))
    [(envelope, asked_s)] = jobs
    came = seam.Envelope.from_dict(envelope)
    assert asked_s == pytest.approx(wait_s, abs=1)
    assert came.state.retries == 1
    assert came.state.due is not None
    assert (came.state.due - in_seconds(wait_s)).total_seconds() == pytest.approx(0, abs=1)


@pytest.mark.parametrize("delay_s", [-5.0, 0.0])
def test_what_is_past_is_sent_now(delay_s):
    jobs: list[tuple[dict[str, Any], float]] = []
    put_into(jobs).send(MESSAGE, delay_s=delay_s, state=AttemptState(due=in_seconds(-60)))
    [(envelope, asked_s)] = jobs
    assert asked_s == 0.0
    assert seam.Envelope.from_dict(envelope).state.due is None


@pytest.mark.parametrize(
    "wrong",
    [{"delay_s": math.nan}, {"delay_s": math.inf}, {"delay_s": 1e12}, {"delay_s": "60"}, {"state": {"v": 1}}],
)
def test_a_wrong_delay_or_state_queues_nothing_and_says_so(wrong):
    jobs: list[tuple[dict[str, Any], float]] = []
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must"):
        put_into(jobs).send(MESSAGE, **wrong)
    assert jobs == []
