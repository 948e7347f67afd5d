"""The demo, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
from tests.cli.test_commands import run

from smsretry.store import SQLStore


@pytest.mark.integration
@pytest.mark.slow
def test_the_demo_sends_a_campaign_through_a_worker_and_loses_and_doubles_nothing(tmp_path):
    folder = tmp_path / "50% of it"
    shown = run("demo", "--messages", "50", "--seed", "1", "--folder", str(folder), timeout_s=100).stdout
    assert re.search(r"texts doubled\W+0 ", shown)
    assert re.search(r"texts lost\W+0 ", shown)
    assert "nothing answers for 3 s" in shown
    with SQLStore(sa.URL.create("sqlite", database=str(folder / "sms.db"))) as store:
        summary = store.campaign_summary("demo")
    assert summary.planned == 50
    assert summary.pending == 0
    assert summary.failed >= 4
    # Twilio is always too busy for this number, and away for a while as for every other.
    look_closer = shlex.split(shown.splitlines()[-1])
    assert look_closer[:2] == ["smsretry", "show"]
    busy = json.loads(run(*look_closer[1:], "--json").stdout)
    assert [one["attempt"] for one in busy] == [1, 2, 3, 4]
    assert {one["kind"] for one in busy} >= {"rate_limited"}
    assert busy[-1]["reason"] == "retries_exhausted"


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "sms.db").write_text("of an earlier run")
    done = run("demo", "--folder", str(tmp_path), ok=False)
    assert "is not empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sms.db"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    done = run("demo", "--folder", str(tmp_path / "file"), ok=False)
    assert "is a file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_takes_its_worker_and_its_folder_with_it(tmp_path, number):
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", "demo", "--messages", "10"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as demo:
        assert demo.stdin is not None
        until(lambda: any("ready" in log.read_text() for log in tmp_path.glob("*/worker.log")))
        demo.send_signal(number)
        assert demo.wait(timeout=30) == 1
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(BrokenPipeError):  # the worker had inherited the other end
            os.write(demo.stdin.fileno(), b"x")


def until(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
