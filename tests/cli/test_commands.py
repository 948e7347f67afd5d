"""The commands, run as a user runs them: each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(*arguments: str, ok: bool = True, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


def test_the_schedule_is_shown_without_running_anything():
    assert json.loads(run("schedule", "--json").stdout) == [2, 4, 8]


def test_a_schedule_of_ones_own_is_shown():
    done = run(
        "schedule", "--max-retries", "4", "--first-delay", "10", "--multiplier", "3", "--max-delay", "60", "--json"
    )
    assert json.loads(done.stdout) == [10, 30, 60, 60]


def test_a_full_queue_has_a_schedule_of_its_own():
    waits = json.loads(run("schedule", "--kind", "queue_full", "--json").stdout)
    assert waits[0] == 300
    assert sum(waits) > 36_000


def test_the_table_adds_the_waits_up():
    shown = run("schedule").stdout
    assert "14" in shown
    assert "4 attempts at most" in shown


def test_a_kind_that_is_never_retried_says_so():
    assert "no retry" in run("schedule", "--kind", "opted_out").stdout


def test_a_bad_policy_is_refused_with_what_to_do():
    done = run("schedule", "--max-retries", "5000", ok=False)
    assert "max_retries must be" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (20429, "rate_limited"),
        (21211, "invalid_number"),
        (21610, "opted_out"),
        (21611, "queue_full"),
        (30007, "carrier_rejected"),
        (30003, "unreachable"),
    ],
)
def test_a_code_is_explained(code: int, kind: str):
    facts = json.loads(run("explain", str(code), "--json").stdout)
    assert facts["kind"] == kind
    assert facts["meaning"]
    assert facts["source"]
    assert facts["on_create"]
    assert facts["on_delivery"]


def test_a_code_that_nobody_listed_is_called_unmapped():
    facts = json.loads(run("explain", "99999", "--json").stdout)
    assert facts["listed"] is False
    assert "HTTP status" in facts["on_create"]
    assert "99999" in run("explain", "99999").stdout


def test_a_message_that_nobody_knows_is_an_error(tmp_path):
    done = run("show", "spring:1", "--store", f"sqlite:///{tmp_path / 'sms.db'}", ok=False)
    assert "no message 'spring:1'" in done.stderr


def test_the_simulator_serves_until_it_is_ended():
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", "simulate", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert json.loads(server.stdout.readline())["url"].startswith("http://127.0.0.1:")
        server.terminate()
        assert server.wait(timeout=10) == 0
