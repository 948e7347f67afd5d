"""The demo, run as a user runs it."""

from __future__ import annotations

import re

import pytest
from tests.cli.test_commands import run

from smsretry.store import SQLStore


@pytest.mark.integration
@pytest.mark.slow
def test_the_demo_sends_a_campaign_through_a_worker_and_loses_and_doubles_nothing(tmp_path):
    shown = run("demo", "--messages", "50", "--seed", "1", "--folder", str(tmp_path), timeout_s=100).stdout
    assert re.search(r"texts doubled\W+0 ", shown)
    assert re.search(r"texts lost\W+0 ", shown)
    summary = SQLStore(f"sqlite:///{tmp_path / 'sms.db'}").campaign_summary("demo")
    assert summary.planned == 50
    assert summary.pending == 0
    assert summary.failed >= 4
    # Twilio is always too busy for this number, and away for a while as for every other.
    history = run("show", "demo:3", "--store", f"sqlite:///{tmp_path / 'sms.db'}").stdout
    assert "rate_limited" in history
    assert "retries_exhausted" in history
    assert len(re.findall(r"20429|connection", history)) >= 4
