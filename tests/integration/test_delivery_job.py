"""Lost, doubled and shuffled reports beside creates that lost their answer: every message ends as is true."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.delivery_job import run

pytestmark = pytest.mark.integration


def test_every_message_ends_in_the_state_that_is_true_and_none_is_texted_twice(tmp_path: Path) -> None:
    ended = run(80, tmp_path, f"sqlite:///{tmp_path}/sms.db")
    assert ended.wrong == ()
    assert (ended.doubled, ended.summary.doubled) == (0, 0)
    assert (ended.summary.sent, ended.summary.awaiting, ended.summary.no_report) == (80, 0, 0)
    assert ended.summary.delivered == ended.truth["delivered"]
    assert ended.summary.delivery_retries == ended.summary.delivered_after_retry + ended.summary.retries_in_vain > 0
    assert ended.polled.asked > 0
    assert ended.callbacks.lost > 0
    assert set(ended.callbacks.answered) == {204}
