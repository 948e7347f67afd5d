"""Many workers at once: processes, threads and forks, on an empty database, with figures that are exact."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.store.told import accepted, retry
from tests.store.worker import COMMON_MESSAGES, OWN_MESSAGES, WORKERS

from smsretry.store import CampaignSummary, SQLStore

ROOT = Path(__file__).parents[2]


def work_at_once(url: str, prefix: str) -> None:
    """Let eight new processes meet an empty database at the same moment, and tell 800 events."""
    command = [sys.executable, "-W", "error", "-m", "tests.store.worker", url, prefix]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def expected(campaign: str) -> CampaignSummary:
    own = WORKERS * OWN_MESSAGES
    return CampaignSummary(
        campaign=campaign,
        pending=0,
        sent=own // 4 + COMMON_MESSAGES,
        failed=own // 2,
        expired=0,
        unknown=own // 4,
        skipped=0,
        canceled=0,
        retried=2 * own,
        deferred=0,
        doubled=0,
    )


def test_eight_processes_on_an_empty_sqlite_file_count_exactly(file_url: str) -> None:
    work_at_once(file_url, "smsretry_")
    with SQLStore(file_url) as store:
        assert store.campaign_summary("spring") == expected("spring")


@pytest.mark.integration
def test_eight_processes_on_an_empty_postgresql_count_exactly(empty_postgres_url: str) -> None:
    work_at_once(empty_postgres_url, "smsretry_")
    with SQLStore(empty_postgres_url) as store:
        assert store.campaign_summary("spring") == expected("spring")


def test_threads_of_one_store_count_exactly(store: SQLStore) -> None:
    gate = threading.Barrier(6)

    def work(number: int) -> None:
        gate.wait()
        for message in range(10):
            store.record(retry(f"{number}-{message}"))
            store.record(accepted(f"{number}-{message}", 2))
            store.record(accepted(f"common-{message}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summary = store.campaign_summary("spring")
    assert (summary.planned, summary.sent, summary.retried) == (70, 70, 60)


def fork_at_work(*arguments: str) -> None:
    """Run the scenarios of tests/store/forked.py in a new process."""
    command = [sys.executable, "-W", "error", "-m", "tests.store.forked", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_process_goes_on_in_the_same_file_when_its_parent_has_closed_it(file_url: str) -> None:
    fork_at_work(f"url={file_url}", "url=sqlite://")  # and a database in memory refuses what would be lost
    with SQLStore(file_url, table_prefix="url_") as store:
        assert store.campaign_summary("spring").sent == 43


@pytest.mark.integration
def test_a_forked_process_opens_its_own_connections_to_postgresql(empty_postgres_url: str) -> None:
    fork_at_work(f"url={empty_postgres_url}", f"engine={empty_postgres_url}")
    for handed_in in ("url", "engine"):
        with SQLStore(empty_postgres_url, table_prefix=f"{handed_in}_") as store:
            assert store.campaign_summary("spring").sent == 43
