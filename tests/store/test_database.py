"""How a store comes to its database: what it opens and when, its tables, its errors."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.store.told import accepted, at, retry

from smsretry import ConfigurationError
from smsretry.store import SQLStore
from smsretry.store.schema import SHARDS, DatabaseNow, UtcDateTime, shard_of


def pragma(path: Path, name: str) -> Any:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


def test_constructing_a_store_opens_nothing(tmp_path: Path) -> None:
    SQLStore(f"sqlite:///{tmp_path / 'sms.db'}")
    SQLStore("postgresql+psycopg://nobody:secret@127.0.0.1:1/nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_kept_with_a_write_ahead_log(tmp_path: Path, file_url: str) -> None:
    with SQLStore(file_url) as store:
        store.record(accepted("m"))
    assert pragma(tmp_path / "sms.db", "journal_mode") == "wal"
    assert pragma(tmp_path / "sms.db", "integrity_check") == "ok"


def test_a_commit_survives_a_power_cut_and_a_writer_waits_its_turn(file_url: str) -> None:
    with SQLStore(file_url, busy_timeout_s=12.0) as store, store._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 12_000


def test_a_writer_waits_for_another_application_at_the_same_file(tmp_path: Path, file_url: str) -> None:
    with SQLStore(file_url) as store:
        store.create_tables()
        other = sqlite3.connect(tmp_path / "sms.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, other.execute, ["COMMIT"])
        timer.start()
        store.record(accepted("m"))
        timer.join()
        other.close()
        assert store.campaign_summary("spring").sent == 1


def test_a_store_waits_for_whoever_holds_a_new_file_but_not_for_ever(tmp_path: Path, file_url: str) -> None:
    other = sqlite3.connect(tmp_path / "sms.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    with SQLStore(file_url, busy_timeout_s=0.05) as hasty, pytest.raises(sa.exc.OperationalError, match="locked"):
        hasty.create_tables()
    timer = threading.Timer(0.2, other.execute, ["COMMIT"])
    timer.start()
    with SQLStore(file_url) as store:
        store.create_tables()
    timer.join()
    other.close()


def test_a_store_that_was_closed_opens_again(file_url: str) -> None:
    with SQLStore(file_url) as in_file:
        for number in range(2):
            in_file.record(accepted(f"m{number}"))
            in_file.close()
        assert in_file.campaign_summary("spring").sent == 2


def test_a_store_in_memory_that_was_closed_begins_empty() -> None:
    with SQLStore("sqlite://") as store:
        store.record(accepted("m"))
        store.close()
        assert store.campaign_summary("spring").sent == 0


def test_several_stores_share_a_database_under_their_prefixes(file_url: str) -> None:
    with SQLStore(file_url) as one, SQLStore(file_url, table_prefix="other_") as other:
        one.record(accepted("m"))
        assert other.campaign_summary("spring").sent == 0
        tables = {"other_meta", "other_messages", "other_attempts", "other_counters", "other_holds"}
        tables |= {"other_reports", "other_suppressed"}
        assert set(other.metadata.tables) == tables


def test_the_metadata_makes_the_same_tables_that_a_store_makes_itself(file_url: str) -> None:
    engine = sa.create_engine(file_url)
    with SQLStore(engine) as migrated:
        migrated.metadata.create_all(engine)  # as Alembic does; nobody has noted a version
        migrated.record(accepted("m"))
        assert migrated.campaign_summary("spring").sent == 1
    engine.dispose()


def test_what_the_journal_will_need_has_its_defaults(store: SQLStore) -> None:
    store.record(accepted("m"))
    messages = store.metadata.tables[next(name for name in store.metadata.tables if name.endswith("messages"))]
    with store._database.reading() as connection:
        row = connection.execute(sa.select(messages)).mappings().one()
    assert (row["epoch"], row["looks"], row["hand_overs"]) == (0, 0, 0)
    unset = ("nonce", "claimed_until", "doubt_since", "settles_at", "handed_over_at", "send_before", "body")
    assert [row[name] for name in unset] == [None] * len(unset)


def test_tables_of_a_newer_version_are_refused(open_store: Callable[[], SQLStore]) -> None:
    present = open_store()
    meta = next(table for table in present.metadata.tables.values() if table.name.endswith("meta"))
    present.create_tables()

    def become(version: str) -> None:
        marked = sa.update(meta).where(meta.c.name == "schema_version").values(value=version)
        present._database.write(lambda connection: connection.execute(marked))

    become("7")
    with pytest.raises(ConfigurationError, match=r"have schema version 7 and this smsretry knows version 4\. Upgrade"):
        open_store().record(accepted("m"))
    become("4")
    open_store().record(accepted("m"))


def test_an_engine_of_the_application_is_used_as_it_is_and_stays_open(file_url: str) -> None:
    engine = sa.create_engine(file_url)
    with SQLStore(engine) as store, engine.begin() as own:
        own.exec_driver_sql("SELECT 1")
        store.record(accepted("m"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sum(sms_sent) FROM smsretry_counters").scalar() == 1
        assert connection.get_isolation_level() == "SERIALIZABLE"
    engine.dispose()


def test_an_engine_that_begins_by_itself_still_takes_the_write_lock_first(file_url: str) -> None:
    engine = sa.create_engine(file_url)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    with SQLStore(engine) as store:
        store.record(accepted("m"))
        assert store.campaign_summary("spring").sent == 1
    engine.dispose()


@pytest.mark.integration
def test_a_connection_that_was_cut_is_opened_again(empty_postgres_url: str) -> None:
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    engine = sa.create_engine(empty_postgres_url)
    with SQLStore(empty_postgres_url) as store:
        store.record(retry("m"))
        with engine.begin() as connection:
            assert connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {others}").scalars().all() == [True]
        store.record(accepted("m", 2))
        assert store.campaign_summary("spring").sent == 1
    engine.dispose()


@pytest.mark.integration
def test_a_transaction_that_the_database_wants_again_is_tried_three_times(postgres_store: SQLStore) -> None:
    tries = []

    def collide(connection: sa.Connection) -> None:
        tries.append(connection)
        connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'collided' USING ERRCODE = '40P01'; END $$")

    with pytest.raises(sa.exc.OperationalError, match="collided"):
        postgres_store._database.write(collide)
    assert len(tries) == 3


def test_a_database_that_is_away_raises_for_the_dispatcher_to_log() -> None:
    store = SQLStore("postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(sa.exc.OperationalError):
        store.record(accepted("m"))


def test_the_database_tells_the_time_itself_and_it_compares_with_what_is_stored(store: SQLStore) -> None:
    with store._database.reading() as connection:
        now = connection.execute(sa.select(DatabaseNow())).scalar_one()
        past = sa.select(sa.literal(at(0), UtcDateTime()) < DatabaseNow())
        assert now.utcoffset() is not None
        assert connection.scalar(past)
        assert not connection.scalar(sa.select(sa.literal(now.replace(year=9999), UtcDateTime()) < DatabaseNow()))


def test_a_message_always_moves_the_same_shard() -> None:
    shards = {shard_of(f"spring:{number}") for number in range(500)}
    assert shards == set(range(SHARDS))
    assert shard_of("m") == shard_of("m")


def test_a_password_is_not_shown() -> None:
    store = SQLStore("postgresql://shop:secret@db.example/shop")
    assert repr(store) == "SQLStore('postgresql+psycopg://shop:***@db.example/shop', table_prefix='smsretry_')"


def test_an_error_of_the_database_shows_nothing_of_a_message(file_url: str) -> None:
    with SQLStore(file_url) as store:
        store.create_tables()
        store._database.write(lambda connection: connection.exec_driver_sql("DROP TABLE smsretry_counters"))
        with pytest.raises(sa.exc.OperationalError) as caught:
            store.record(accepted("order-of-ann"))
    assert "order-of-ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sms.db", "url is no database URL .* Use 'sqlite:///sms.db'"),
        (7, "url must be a str or a SQLAlchemy Engine, got int"),
        ("mysql://shop:secret@db/shop", "works on SQLite and PostgreSQL, got 'mysql'"),
        ("nosuch://db", "works on SQLite and PostgreSQL, got 'nosuch'"),
        ("sqlite+nosuch:///sms.db", r"does not fit the driver 'sqlite\+nosuch'"),
        ("postgresql+pg8000://db/shop", "The driver of postgresql is not installed: pg8000. .* pip install pg8000"),
        ("sqlite+aiosqlite:///x.db", r"needs a driver that is not async, got 'sqlite\+aiosqlite'"),
        ("postgresql+asyncpg://db/shop", r"needs a driver that is not async, got 'postgresql\+asyncpg'"),
        ("postgresql+psycopg_async://db/shop", r"needs a driver that is not async, got 'postgresql\+psycopg_async'"),
        ("sqlite://db.example/sms.db", "or there is no such driver.*three slashes"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_repeating_it(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        SQLStore(url)
    assert "secret" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    store = SQLStore(f"sqlite:///{tmp_path / 'nowhere' / 'sms.db'}")
    with pytest.raises(ConfigurationError, match=r"The folder of the database does not exist: .*/nowhere\. Make it"):
        store.record(accepted("m"))


@pytest.mark.parametrize("busy_timeout_s", [-1, 0, "x", None, True, float("nan"), float("inf"), 1e30])
def test_a_patience_that_cannot_be_is_refused(busy_timeout_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="busy_timeout_s must be more than 0 and 86400 at most"):
        SQLStore("sqlite://", busy_timeout_s=busy_timeout_s)


@pytest.mark.parametrize("prefix", ["sqlite_", "pg_", "1st_", "Sms_", "sms-", "x" * 31, "sms;drop", None])
def test_a_prefix_that_is_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="table_prefix must be up to 30 of a-z, 0-9 and _"):
        SQLStore("sqlite://", table_prefix=prefix)


def without(module: str, statement: str) -> str:
    """Run a statement in a process where a module is not installed; return what it was told."""
    program = f"import sys; sys.modules[{module!r}] = None\n{statement}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.splitlines()[-1]


def test_without_sqlalchemy_the_extra_is_named() -> None:
    wanted = "ModuleNotFoundError: smsretry.store needs SQLAlchemy. Install it: pip install 'smsretry[sql]'"
    assert without("sqlalchemy", "from smsretry.store import SQLStore") == wanted


def test_without_psycopg_the_extra_is_named() -> None:
    told = without("psycopg", "from smsretry.store import SQLStore; SQLStore('postgresql://db/shop')")
    assert told.endswith("not installed: psycopg. Install it: pip install 'smsretry[postgresql]'")
