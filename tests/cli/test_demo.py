"""The demo, run as a user runs it."""

from __future__ import annotations

import json
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
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as store:
        summary = store.campaign_summary("demo")
    assert summary.planned == 50
    assert summary.pending == 0
    assert summary.failed >= 4
    # Twilio is always too busy for this number, and away for a while as for every other.
    busy = json.loads(run("show", "demo:3", "--json", "--store", f"sqlite:///{tmp_path / 'sms.db'}").stdout)
    assert [one["attempt"] for one in busy] == [1, 2, 3, 4]
    assert {one["kind"] for one in busy} >= {"rate_limited"}
    assert busy[-1]["reason"] == "retries_exhausted"
