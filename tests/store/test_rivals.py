"""Processes that are given the same messages send each of them once, and none of them finds the database locked."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.store.conftest import emptied
from tests.store.counted import counted_in, differing, rows_and_counters
from tests.store.journeys import miscounted
from tests.store.rivals import BEGINS, MESSAGES, WORKERS

from smsretry.store import SQLStore

ROOT = Path(__file__).parents[2]


def play(scenario: str, url: str, prefix: str, folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.store.rivals", scenario, url, prefix, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def check_that_each_was_sent_once(url: str, prefix: str, folder: Path) -> None:
    play("same", url, prefix, folder)
    texts = Counter((folder / "texts").read_text().split())
    assert texts == Counter({f"m{number}": 1 for number in range(MESSAGES)})
    with SQLStore(url, table_prefix=prefix) as store:
        summary = store.campaign_summary("spring")
        assert (summary.planned, summary.sent, summary.doubled) == (MESSAGES, MESSAGES, 0)
        assert miscounted(store) == {}


def test_eight_processes_given_the_same_messages_send_each_once_on_sqlite(file_url: str, tmp_path: Path) -> None:
    check_that_each_was_sent_once(file_url, "smsretry_", tmp_path)


@pytest.mark.integration
def test_eight_processes_given_the_same_messages_send_each_once_on_postgresql(
    postgres_url: str, postgres_store: SQLStore, own_prefix: str, tmp_path: Path
) -> None:
    emptied(postgres_store)
    check_that_each_was_sent_once(postgres_url, own_prefix, tmp_path)


def check_that_deliveries_add_up(url: str, prefix: str, folder: Path) -> None:
    play("deliveries", url, prefix, folder)
    texts = [line.split() for line in (folder / "texts").read_text().splitlines()]
    rounds = Counter((name, mark.partition(".")[0]) for name, _, mark in texts)
    assert set(rounds.values()) == {1}
    assert max(int(number) for _, number in rounds) > 1
    with SQLStore(url, table_prefix=prefix) as store:
        rows, counters = rows_and_counters(store)
        assert differing(counters, counted_in(rows.values())) == {}
        summary = store.campaign_summary("spring")
        assert (summary.doubled, summary.delivery_retries > 0, summary.delivered > 0) == (0, True, True)


def test_processes_that_send_report_ask_and_cancel_at_once_add_up_on_sqlite(file_url: str, tmp_path: Path) -> None:
    check_that_deliveries_add_up(file_url, "smsretry_", tmp_path)


@pytest.mark.integration
def test_processes_that_send_report_ask_and_cancel_at_once_add_up_on_postgresql(
    postgres_url: str, postgres_store: SQLStore, own_prefix: str, tmp_path: Path
) -> None:
    emptied(postgres_store)
    check_that_deliveries_add_up(postgres_url, own_prefix, tmp_path)


def test_no_process_finds_a_sqlite_file_locked(file_url: str, tmp_path: Path) -> None:
    play("begins", file_url, "smsretry_", tmp_path)
    with SQLStore(file_url) as store:
        assert store.campaign_summary("spring").pending == WORKERS * BEGINS
