"""Many workers at once: processes, forks and threads, on an empty database, with figures that are exact."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.store.processes import COMMON_MESSAGES, FORKS, OWN_MESSAGES, WORKERS
from tests.store.told import accepted, retry

from smsretry.store import CampaignSummary, SQLStore

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sqlite_told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a file that the scenarios of processes.py have told."""
    url = f"sqlite:///{tmp_path_factory.mktemp('told')}/sms.db"
    play("", f"eight={url}", f"url={url}", f"beside={url}", "memory=sqlite://")
    return url


@pytest.fixture(scope="module")
def postgres_told(postgres_url: str, own_prefix: str) -> Iterator[str]:
    """Return the URL of a database that the scenarios of processes.py have told."""
    play(own_prefix, f"eight={postgres_url}", f"url={postgres_url}", f"engine={postgres_url}")
    yield postgres_url
    engine = sa.create_engine(postgres_url)
    for scenario in ("eight", "url", "engine"):
        SQLStore(engine, table_prefix=f"{own_prefix}{scenario}_").metadata.drop_all(engine)
    engine.dispose()


def play(*arguments: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.store.processes", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def summary_in(url: str, prefix: str) -> CampaignSummary:
    with SQLStore(url, table_prefix=prefix) as store:
        return store.campaign_summary("spring")


def of_eight_workers() -> CampaignSummary:
    own = WORKERS * OWN_MESSAGES
    none = dict.fromkeys(CampaignSummary.__dataclass_fields__.keys() - {"campaign"}, 0)
    counted = {"sent": own // 4 + COMMON_MESSAGES, "failed": own // 2, "unknown": own // 4, "retried": 2 * own}
    return CampaignSummary(campaign="spring", **(none | counted))


def test_eight_processes_on_an_empty_sqlite_file_count_exactly(sqlite_told: str) -> None:
    assert summary_in(sqlite_told, "eight_") == of_eight_workers()


@pytest.mark.integration
def test_eight_processes_on_an_empty_postgresql_count_exactly(postgres_told: str, own_prefix: str) -> None:
    assert summary_in(postgres_told, f"{own_prefix}eight_") == of_eight_workers()


def test_a_forked_process_goes_on_in_the_same_file_when_its_parent_has_closed_it(sqlite_told: str) -> None:
    assert summary_in(sqlite_told, "url_").sent == 43


def test_a_process_that_forks_while_its_threads_write_leaves_every_child_a_file_that_it_can_write(
    sqlite_told: str,
) -> None:
    assert summary_in(sqlite_told, "beside_").sent == FORKS + 1


@pytest.mark.integration
@pytest.mark.parametrize("handed_in", ["url", "engine"])
def test_a_forked_process_opens_its_own_connections(postgres_told: str, own_prefix: str, handed_in: str) -> None:
    assert summary_in(postgres_told, f"{own_prefix}{handed_in}_").sent == 43


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
