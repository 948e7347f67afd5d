"""A short run of the chaos: the long one is ``make chaos``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.backends import BackendName
from tests.chaos.processes import all_processes
from tests.chaos.programs import ProgramName
from tests.chaos.run import Plan, run

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_run_counts_what_it_did_and_leaves_no_process_behind(tmp_path: Path):
    before = {one.group for one in all_processes()}
    plan = Plan(program=ProgramName.OWN, backend=BackendName.EMBEDDED, seed=1, messages=30)
    result = run(plan, tmp_path)
    assert (result.messages, result.doubled) == (30, 0)
    assert result.retries > 0
    assert not {one.group for one in all_processes() if one.parent == 1 or not one.is_dead} - before
