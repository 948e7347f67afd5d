"""A short run of the chaos: the long one is ``make chaos``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.backends import BackendName
from tests.chaos.programs import ProgramName
from tests.chaos.run import Plan, run

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_run_among_killed_workers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    result = run(Plan(program=ProgramName.OWN, backend=BackendName.EMBEDDED, seed=2, messages=30), tmp_path)
    assert (result.messages, result.lost, result.doubled) == (30, 0, 0)
    assert result.kills > 0
    assert result.retries > 0
