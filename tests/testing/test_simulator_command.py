"""The simulator serves other processes: as a command, steered over its own port, and as a pytest fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.testing.callback_app import application
from tests.testing.plain_client import TO, create, eventually, list_messages, refuses
from twilio.request_validator import RequestValidator

from smsretry.testing.simulator import RateLimited, TwilioSimulator
from smsretry.testing.simulator.__main__ import simulator_from


def control(simulator: TwilioSimulator, wish: str, data: dict[str, Any] | None = None) -> Any:
    return control_at(simulator.url, wish, data)


def control_at(url: str, wish: str, data: dict[str, Any] | None = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    with urlopen(Request(f"{url}/__simulator__/{wish}", data=body), timeout=5) as answer:
        return json.load(answer)


def test_another_process_reads_the_counts_and_the_whole_state() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(RateLimited())
        for body in ("refused", "hello", "hello"):
            create(simulator, Body=body)
        list_messages(simulator, To=TO)
        counts = {"posts": 3, "gets": 1, "texts": 2, "texts_doubled": 1, "unplayed": 0, "under_way": 0}
        called = dict.fromkeys(("sent", "doubled", "repeated", "lost", "unanswered"), 0)
        counts |= {f"callbacks_{name}": count for name, count in called.items()}
        assert control(simulator, "counts") == counts
        state = control(simulator, "state")
        assert {name: state[name] for name in counts} == counts
        assert state["messages"] == [{"to": TO, "body": "hello", "texts": 2}]
        assert [text["body"] for text in state["taken"]] == ["hello", "hello"]
        assert [request["method"] for request in state["requests"]] == ["POST", "POST", "POST", "GET"]
        assert state["requests"][0]["fault"]["kind"] == "rate_limited"
        assert state["requests"][0]["form"]["Body"] == ["refused"]


def test_another_process_scripts_faults() -> None:
    with TwilioSimulator() as simulator:
        faults = ["rate_limited", {"kind": "server_error", "status": 503}]
        assert control(simulator, "script", {"faults": faults})["unplayed"] == 2
        assert [create(simulator).status for _ in range(3)] == [429, 503, 201]
        control(simulator, "always", {"fault": "opted_out", "to": TO})
        assert create(simulator).json["code"] == 21610
        control(simulator, "always", {"fault": None, "to": TO})
        assert create(simulator).status == 201
        control(simulator, "script", {"faults": ["server_error"], "on": "look_up"})
        assert list_messages(simulator).status == 500
        assert control(simulator, "reset", {})["posts"] == 0


def test_another_process_plans_callbacks_and_scripts_fates_and_reads_what_became_of_texts() -> None:
    with application() as app, TwilioSimulator() as simulator:
        control(simulator, "callbacks", {"plan": {"failed": {"30410": 1}, "step_s": [0, 0.01]}})
        control(simulator, "fate", {"status": "undelivered", "code": 30003, "callbacks": ["undelivered", "sent"]})
        for _ in range(2):
            create(simulator, StatusCallback=app.url)
        assert eventually(lambda: control(simulator, "counts")["under_way"] == 0)
        state = control(simulator, "state")
        assert [text["fate"] for text in state["taken"]] == [
            {"status": "undelivered", "code": 30003},
            {"status": "failed", "code": 30410},
        ]
        assert sorted(callback["form"]["MessageStatus"] for callback in state["callbacks"]) == [
            "failed",
            "sent",
            "undelivered",
        ]
        assert state["callbacks_sent"] == 3
        control(simulator, "callbacks", {"plan": None})
        create(simulator, StatusCallback=app.url)
        assert (simulator.under_way, simulator.callback_counts.sent) == (0, 3)


def test_another_process_lets_somebody_answer_stop() -> None:
    with application() as app, TwilioSimulator() as simulator:
        inbound = {"from": TO, "to": "+15005550006", "body": "STOP", "url": app.url}
        said = control(simulator, "receive", inbound | {"opt_out_type": "STOP"})
        assert said == {"status": 204, "body": ""}
        (got,) = app.got
        assert (got.form["From"], got.form["Body"], got.form["OptOutType"]) == (TO, "STOP", "STOP")
        signature = got.headers["x-twilio-signature"]
        assert RequestValidator(simulator.auth_token).validate(app.url, got.form, signature)
        assert simulator.posts == 0


def test_an_application_that_is_not_there_is_told_to_who_let_somebody_answer() -> None:
    with application() as app:
        url = app.url
    with TwilioSimulator() as simulator, pytest.raises(HTTPError) as caught:
        control(simulator, "receive", {"from": TO, "to": "+15005550006", "body": "STOP", "url": url})
    with caught.value as error:
        assert error.code == 502
        assert "did not answer" in json.load(error)["error"]


def test_a_simulator_that_closes_does_not_wait_for_an_application_that_is_silent() -> None:
    with application() as app, TwilioSimulator() as simulator, ThreadPoolExecutor(max_workers=1) as threads:
        app.says_nothing()
        inbound = {"from": TO, "to": "+15005550006", "body": "STOP", "url": app.url}
        asked = threads.submit(control, simulator, "receive", inbound)
        assert eventually(lambda: len(app.got) == 1)
        began = time.monotonic()
        simulator.close()
        assert isinstance(asked.exception(timeout=4), ConnectionError)
        assert time.monotonic() - began < 2


def test_another_process_can_cause_an_outage() -> None:
    with TwilioSimulator() as simulator:
        control(simulator, "outage", {"duration_s": 0.2})
        assert eventually(lambda: refuses(simulator))
        assert eventually(lambda: not refuses(simulator))
        assert create(simulator).status == 201


@pytest.mark.parametrize(
    ("wish", "data", "status"),
    [
        ("nonsense", None, 404),
        ("script", {"faults": ["nonsense"]}, 400),
        ("script", {"faults": ["hang"], "on": "nonsense"}, 400),
        ("outage", {"duration_s": -1}, 400),
        ("script", [1], 400),
        ("script", {"faults": "hang"}, 400),
        ("script", {"fault": "hang"}, 400),
        ("script", {"faults": [7]}, 400),
        ("script", {"faults": [{"kind": ["hang"]}]}, 400),
        ("script", {"faults": ["hang"], "to": 7}, 400),
        ("always", {"fault": 0}, 400),
        ("outage", {"for": 1}, 400),
        ("callbacks", {"plan": {"lost": 2}}, 400),
        ("callbacks", {"plan": [1]}, 400),
        ("callbacks", {"plan": {"nonsense": 1}}, 400),
        ("callbacks", {"plan": {"undelivered": 1}}, 400),
        ("callbacks", {"lost": 1}, 400),
        ("fate", {}, 400),
        ("fate", {"status": "undelivered"}, 400),
        ("fate", {"status": "delivered", "callbacks": "delivered"}, 400),
        ("receive", {"from": TO, "to": TO, "body": "STOP"}, 400),
        ("receive", {"from": TO, "to": TO, "body": 7, "url": "http://127.0.0.1"}, 400),
        ("receive", {"from": TO, "to": TO, "body": "STOP", "url": "https://sms.example.com"}, 400),
        ("receive", {"from": TO, "to": TO, "body": "STOP", "url": "http://127.0.0.1", "opt_out_type": "NO"}, 400),
        ("receive", {"nonsense": "1"}, 400),
    ],
)
def test_a_control_request_that_makes_no_sense_is_refused_with_a_reason(wish: str, data: Any, status: int) -> None:
    with TwilioSimulator() as simulator:
        with pytest.raises(HTTPError) as caught:
            control(simulator, wish, data)
        with caught.value as error:
            assert error.code == status
            assert json.load(error)["error"]
        assert simulator.posts == 0


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    line = [sys.executable, "-m", "smsretry.testing.simulator", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(timeout=10)


def test_the_command_says_where_it_serves_and_ends_quietly() -> None:
    with command("--seed", "3", "--rate", "suspended=1", "--account-sid", "AC1") as (process, said):
        assert said["account_sid"] == "AC1"
        assert control_at(said["url"], "counts")["posts"] == 0
        control_at(said["url"], "reset", {})
        process.terminate()
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_the_command_line_becomes_a_simulator() -> None:
    arguments = ["--rate", "suspended=1", "--look-up-rate", "server_error=1", "--latency-s", "0.05"]
    with simulator_from([*arguments, "--list-lag-s", "9"]) as simulator:
        began = time.monotonic()
        assert (create(simulator).status, list_messages(simulator).status) == (403, 500)
        assert time.monotonic() - began >= 0.1


def test_the_command_line_plans_callbacks() -> None:
    with application() as app, simulator_from(["--callbacks", '{"undelivered": {"30003": 1}}']) as simulator:
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert [got.form["MessageStatus"] for got in app.got] == ["sending", "sent", "undelivered"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--callbacks", "lost=1"], "argument --callbacks"),
        (["--callbacks", '{"lost": 2}'], "lost must be a share from 0 to 1"),
        (["--rate", "nonsense=1"], "no fault named 'nonsense'"),
        (["--rate", "hang"], "must look like rate_limited=0.1"),
        (["--host", "0.0.0.0"], "host must be a loopback address"),
    ],
)
def test_a_bad_command_line_is_refused_with_a_reason(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        simulator_from(arguments)
    assert words in capsys.readouterr().err


PLUGIN_TESTS = """
import pytest
from urllib.request import urlopen

def test_it_serves(twilio_simulator):
    with urlopen(twilio_simulator.url + "/__simulator__/counts") as answer:
        assert answer.status == 200

@pytest.mark.twilio_simulator(account_sid="AC1", latency_s=0.01)
def test_it_takes_options(twilio_simulator):
    assert twilio_simulator.account_sid == "AC1"

@pytest.mark.twilio_simulator(5)
def test_it_takes_keywords_alone(twilio_simulator):
    raise NotImplementedError
"""


def test_the_fixture_serves_a_suite_that_opts_in(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["smsretry.testing.pytest_plugin"]\n')
    (tmp_path / "test_app.py").write_text(PLUGIN_TESTS)
    line = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", str(tmp_path)]
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(line, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False, timeout=60)
    assert "2 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "takes keywords alone, such as seed=5, got (5,)" in ran.stdout


def test_importing_the_simulator_imports_neither_pytest_nor_a_third_party() -> None:
    code = (
        "import sys; from smsretry.testing.simulator import TwilioSimulator; "
        "print([name for name in ('pytest', 'twilio', 'requests', 'aiohttp') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "[]\n"
