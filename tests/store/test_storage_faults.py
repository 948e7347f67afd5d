"""The database fails at the worst moments: nothing is sent blindly, nothing is lost, and each text is sent once."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from tests.store.clock import pass_time
from tests.store.conftest import emptied
from tests.store.journeys import message, miscounted
from tests.store.told import BUSY, retry

from smsretry import Accepted, ConfigurationError, Dispatcher, Failure, Message, Outcome, Receipt, RetryPolicy
from smsretry.core.lookup import Found, LookUp, NotSeen
from smsretry.core.outcome import AttemptState, DeferReason, Deferred, RetryAfter
from smsretry.errors import ProviderError
from smsretry.store import SQLStore

EACH_DATABASE = ("sqlite", pytest.param("postgres", marks=pytest.mark.integration))


@dataclass(slots=True)
class Provider:
    """Take every text after ``before_answering`` was called, or refuse it; list what was taken."""

    before_answering: Callable[[], object] = lambda: None
    refuses: Failure | None = None
    texts: list[str] = field(default_factory=list)

    def send(self, one: Message, /) -> Receipt:
        self.before_answering()
        if self.refuses is not None:
            raise ProviderError(self.refuses)
        self.texts.append(str(one.id))
        return Receipt("provider", f"SM{len(self.texts)}", datetime.now(UTC))

    def find(self, one: Message, /, *, since: datetime, exclude: Any = ()) -> LookUp:
        del since, exclude
        taken = str(one.id) in self.texts
        return Found(Receipt("provider", "SM1", datetime.now(UTC))) if taken else NotSeen(datetime.now(UTC))


def attempt(store: SQLStore, provider: Provider, state: AttemptState = AttemptState()) -> Outcome:  # noqa: B008
    return Dispatcher(provider, journal=store, policy=RetryPolicy(settle_after_s=0.0)).attempt(message("m"), state)


def put_off(outcome: Outcome) -> AttemptState:
    assert isinstance(outcome, Deferred), outcome
    assert outcome.reason is DeferReason.JOURNAL_AWAY
    return replace(outcome.state, due=None)  # its time has come


def check_one_text(store: SQLStore, provider: Provider) -> None:
    assert provider.texts == ["m"]
    summary = store.campaign_summary("spring")
    assert (summary.sent, summary.pending, summary.doubled, miscounted(store)) == (1, 0, 0, {})


# Tables that another application has locked for longer than we wait.


@dataclass(frozen=True, slots=True)
class Lockable:
    """A store that waits for nobody, and another application's connection to its database."""

    store: SQLStore
    other: Any
    how: str
    """How the other application begins a transaction that keeps us out."""

    def lock(self) -> None:
        for statement in self.how.split("; "):
            self.other.execute(statement)

    def unlock(self) -> None:
        self.other.execute("ROLLBACK")


@pytest.fixture
def lockable_sqlite(file_url: str, tmp_path: Path) -> Iterator[Lockable]:
    """Lend a file that can be locked."""
    with SQLStore(file_url, busy_timeout_s=0.02) as store:
        store.create_tables()
        other = sqlite3.connect(tmp_path / "sms.db", isolation_level=None)
        yield Lockable(store, other, "BEGIN IMMEDIATE")
        other.close()


@pytest.fixture
def lockable_postgres(postgres_url: str, postgres_store: SQLStore, own_prefix: str) -> Iterator[Lockable]:
    """Lend tables in PostgreSQL that can be locked."""
    emptied(postgres_store)
    engine = sa.create_engine(postgres_url, connect_args={"options": "-c lock_timeout=20ms"})
    with (
        SQLStore(engine, table_prefix=own_prefix) as store,
        psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other,
    ):
        yield Lockable(store, other, f"BEGIN; LOCK TABLE {store._schema.messages.name} IN EXCLUSIVE MODE")
    engine.dispose()


@pytest.fixture(params=EACH_DATABASE)
def lockable(request: pytest.FixtureRequest) -> Lockable:
    """Lend a database that can be locked, of each kind in turn."""
    return request.getfixturevalue(f"lockable_{request.param}")


def test_a_lock_before_the_send_puts_the_message_off(lockable: Lockable) -> None:
    provider = Provider()
    lockable.lock()
    state = put_off(attempt(lockable.store, provider))
    assert provider.texts == []
    lockable.unlock()
    assert isinstance(attempt(lockable.store, provider, state), Accepted)
    check_one_text(lockable.store, provider)


def test_a_lock_after_the_send_leaves_evidence(lockable: Lockable) -> None:
    provider = Provider(lockable.lock)
    state = put_off(attempt(lockable.store, provider))
    assert state.provider_id == "SM1"
    lockable.unlock()
    outcome = attempt(lockable.store, provider, state)
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.provider_id == "SM1"
    check_one_text(lockable.store, provider)


def test_a_message_whose_evidence_was_lost_too_is_looked_up(lockable: Lockable) -> None:
    provider = Provider(lockable.lock)
    put_off(attempt(lockable.store, provider))
    lockable.unlock()
    pass_time(lockable.store, 61)
    outcome = settled(lockable.store, provider)
    assert isinstance(outcome, Accepted)
    assert outcome.looked_up
    check_one_text(lockable.store, provider)


def test_a_refusal_that_could_not_be_written_is_asked_about_and_then_sent(lockable: Lockable) -> None:
    provider = Provider(lockable.lock, refuses=BUSY)
    put_off(attempt(lockable.store, provider))
    lockable.unlock()
    pass_time(lockable.store, 61)
    provider.before_answering, provider.refuses = (lambda: None), None
    outcome = settled(lockable.store, provider)
    assert isinstance(outcome, Accepted)
    check_one_text(lockable.store, provider)


def settled(store: SQLStore, provider: Provider) -> Outcome:
    """Make attempts until the message has ended."""
    for _ in range(10):
        outcome = attempt(store, provider)
        if not isinstance(outcome, Deferred | RetryAfter):
            return outcome
        pass_time(store, outcome.delay_s + 1)
    raise AssertionError("the message did not end")


def test_tables_of_another_version_are_told_and_nothing_is_sent(file_url: str) -> None:
    with SQLStore(file_url) as store:
        store.plan(message("m"))
        meta = store._schema.meta
        later = sa.update(meta).where(meta.c.name == "schema_version").values(value="99")
        store._database.write(lambda connection: connection.execute(later).rowcount)
    provider = Provider()
    with SQLStore(file_url) as store, pytest.raises(ConfigurationError, match="schema version 99"):
        attempt(store, provider)
    assert provider.texts == []


# A disk that is full.


@dataclass(slots=True)
class Disk:
    """Have room for ``pages`` of a file, or for as many as it has."""

    pages: int = 1_000_000

    def limit(self, connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {self.pages}").close()


def fill_up(store: SQLStore, disk: Disk) -> None:
    """Let the disk have no room any more, and fill what is left in the pages."""
    disk.pages = 1
    for write in (plan_one, note_one):
        number = 0
        while still_writes(write, store, number):
            number += 1


def plan_one(store: SQLStore, number: int) -> None:
    store.plan(message(f"planned-{number}", campaign="other"))


def note_one(store: SQLStore, number: int) -> None:
    store.record(retry("planned-0", 1 + number, campaign="other"))


def still_writes(write: Callable[[SQLStore, int], None], store: SQLStore, number: int) -> bool:
    try:
        write(store, number)
    except sa.exc.OperationalError as error:
        return "disk is full" not in str(error)
    return True


@dataclass(frozen=True, slots=True)
class Fillable:
    """A store whose disk can be filled and emptied."""

    store: SQLStore
    fill: Callable[[], object]
    empty: Callable[[], object]


@pytest.fixture
def fillable_sqlite(file_url: str) -> Iterator[Fillable]:
    """Lend a file on a disk that can be filled."""
    disk, engine = Disk(), sa.create_engine(file_url)
    sa.event.listen(engine, "checkout", disk.limit)
    with SQLStore(engine) as store:
        store.create_tables()
        yield Fillable(store, partial(fill_up, store, disk), partial(setattr, disk, "pages", 1_000_000))
    engine.dispose()


@pytest.fixture
def fillable_postgres(postgres_url: str, postgres_store: SQLStore, own_prefix: str) -> Iterator[Fillable]:
    """Lend a PostgreSQL that says what it says when a table has no room to grow; its own disk is everybody's."""
    store = emptied(postgres_store)
    table, full = store._schema.messages.name, f"{own_prefix}full"
    body = "BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        admin: Any = connection
        admin.execute(f"CREATE FUNCTION {full}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        trigger = f"CREATE TRIGGER {full} BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION {full}()"
        empty = f"DROP TRIGGER IF EXISTS {full} ON {table}"
        yield Fillable(store, partial(admin.execute, trigger), partial(admin.execute, empty))
        admin.execute(f"DROP FUNCTION {full}() CASCADE")


@pytest.fixture(params=EACH_DATABASE)
def fillable(request: pytest.FixtureRequest) -> Fillable:
    """Lend a database on a disk that can be filled, of each kind in turn."""
    return request.getfixturevalue(f"fillable_{request.param}")


def test_a_full_disk_before_the_send_puts_the_message_off(fillable: Fillable) -> None:
    provider = Provider()
    fillable.fill()
    state = put_off(attempt(fillable.store, provider))
    assert provider.texts == []
    fillable.empty()
    assert isinstance(attempt(fillable.store, provider, state), Accepted)
    check_one_text(fillable.store, provider)


def test_a_full_disk_after_the_send_leaves_evidence(fillable: Fillable) -> None:
    provider = Provider(fillable.fill)
    state = put_off(attempt(fillable.store, provider))
    assert state.provider_id == "SM1"
    fillable.empty()
    assert isinstance(attempt(fillable.store, provider, state), Accepted)
    check_one_text(fillable.store, provider)


# A commit that fails, or whose answer is lost.


@dataclass(slots=True)
class Fault:
    """Break commits: the next ``times`` of them, ``before`` or ``after`` the database has done them."""

    when: str = ""
    times: int = 0

    def strikes(self, when: str) -> bool:
        if self.when != when or self.times == 0:
            return False
        self.times -= 1
        return True


@pytest.fixture
def fault() -> Fault:
    return Fault()


@pytest.fixture
def faulty_sqlite(file_url: str, fault: Fault) -> Iterator[SQLStore]:
    """Lend a store in a file whose commits break."""

    class Connection(sqlite3.Connection):
        def commit(self) -> None:
            if fault.strikes("before"):
                raise sqlite3.OperationalError("disk I/O error")
            super().commit()
            if fault.strikes("after"):
                raise sqlite3.OperationalError("disk I/O error")

    engine = sa.create_engine(file_url, connect_args={"factory": Connection})
    with SQLStore(engine) as store:
        store.create_tables()
        yield store
    engine.dispose()


@pytest.fixture
def faulty_postgres(postgres_url: str, postgres_store: SQLStore, own_prefix: str, fault: Fault) -> Iterator[SQLStore]:
    """Lend a store in PostgreSQL whose connection is cut off by the server at COMMIT."""
    emptied(postgres_store)
    admin = psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True)

    class Connection(psycopg.Connection[Any]):
        def commit(self) -> None:
            if fault.strikes("before"):
                cut(admin, self)
            super().commit()
            if fault.strikes("after"):
                cut(admin, self)
                self.execute("SELECT 'the answer to a commit that was done'")

    engine = sa.create_engine(postgres_url, creator=lambda: Connection.connect(postgres_url.replace("+psycopg", "")))
    with SQLStore(engine, table_prefix=own_prefix) as store:
        store.create_tables()
        yield store
    fault.times = 0
    engine.dispose()
    admin.close()


def cut(admin: psycopg.Connection[Any], victim: psycopg.Connection[Any]) -> None:
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (victim.info.backend_pid,))


@pytest.fixture(params=EACH_DATABASE)
def faulty(request: pytest.FixtureRequest) -> SQLStore:
    """Lend a store whose commits break, on each database in turn."""
    return request.getfixturevalue(f"faulty_{request.param}")


def enough(store: SQLStore) -> int:
    """Return how many commits in a row must break until a transaction is given up."""
    return 1 if store._database.kind == "sqlite" else 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_claim_whose_commit_broke_is_no_doubt(faulty: SQLStore, fault: Fault, when: str) -> None:
    provider = Provider()
    fault.when, fault.times = when, enough(faulty)
    state = put_off(attempt(faulty, provider))
    assert provider.texts == []
    outcome = attempt(faulty, provider, state)
    assert isinstance(outcome, Accepted)
    assert not outcome.looked_up
    check_one_text(faulty, provider)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_acceptance_whose_commit_broke_is_settled_by_its_evidence(faulty: SQLStore, fault: Fault, when: str) -> None:
    def break_commits() -> None:
        fault.when, fault.times = when, enough(faulty)

    provider = Provider(break_commits)
    state = put_off(attempt(faulty, provider))
    assert state.provider_id == "SM1"
    outcome = attempt(faulty, provider, state)
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.provider_id == "SM1"
    check_one_text(faulty, provider)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_retry_whose_commit_broke_is_made_once(faulty: SQLStore, fault: Fault, when: str) -> None:
    def break_commits() -> None:
        fault.when, fault.times = when, enough(faulty)

    provider = Provider(break_commits, refuses=BUSY)
    put_off(attempt(faulty, provider))
    pass_time(faulty, 61)
    provider.before_answering, provider.refuses = (lambda: None), None
    assert isinstance(settled(faulty, provider), Accepted)
    check_one_text(faulty, provider)


@pytest.mark.integration
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_is_cut_once_at_commit_is_opened_again(
    faulty_postgres: SQLStore, fault: Fault, when: str
) -> None:
    def break_one_commit() -> None:
        fault.when, fault.times = when, 1

    break_one_commit()
    provider = Provider(break_one_commit)
    assert isinstance(attempt(faulty_postgres, provider), Accepted)
    assert fault.times == 0
    check_one_text(faulty_postgres, provider)


# A connection that is cut in the middle of a transaction.


@pytest.fixture
def cuts(faulty_postgres: SQLStore, postgres_url: str) -> Iterator[list[str]]:
    """Lend a list of tables: the server cuts the connection off that begins to write to the first of them."""
    left: list[str] = []
    admin = psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True)
    engine = faulty_postgres._database._ready_engine()

    def before(connection: sa.Connection, _: object, statement: str, *__: object) -> None:
        if left and left[0] in statement and not statement.lstrip().startswith(("SELECT", "WITH")):
            left.pop(0)
            proxied: Any = connection.connection.driver_connection
            cut(admin, proxied)

    sa.event.listen(engine, "before_cursor_execute", before)
    yield left
    sa.event.remove(engine, "before_cursor_execute", before)
    admin.close()


@pytest.mark.integration
def test_a_connection_that_is_cut_in_mid_transaction_is_opened_again(
    faulty_postgres: SQLStore, cuts: list[str]
) -> None:
    cuts += ["messages", "counters", "attempts", "counters"]
    provider = Provider()
    assert isinstance(attempt(faulty_postgres, provider), Accepted)
    assert cuts == []
    check_one_text(faulty_postgres, provider)


@pytest.mark.integration
def test_a_database_that_cuts_again_and_again_before_the_send_puts_the_message_off(
    faulty_postgres: SQLStore, cuts: list[str]
) -> None:
    cuts += ["counters"] * 3
    provider = Provider()
    state = put_off(attempt(faulty_postgres, provider))
    assert provider.texts == []
    assert isinstance(attempt(faulty_postgres, provider, state), Accepted)
    check_one_text(faulty_postgres, provider)


@pytest.mark.integration
def test_a_database_that_cuts_again_and_again_after_the_send_leaves_evidence(
    faulty_postgres: SQLStore, cuts: list[str]
) -> None:
    provider = Provider(lambda: cuts.extend(["attempts"] * 3))
    state = put_off(attempt(faulty_postgres, provider))
    assert state.provider_id == "SM1"
    assert isinstance(attempt(faulty_postgres, provider, state), Accepted)
    check_one_text(faulty_postgres, provider)


# What an error shows.


@pytest.mark.parametrize("lends", [False, True], ids=["own", "lent"])
def test_no_error_of_the_database_shows_a_number_or_a_text(file_url: str, lends: bool) -> None:
    engine = sa.create_engine(file_url)
    with SQLStore(engine if lends else file_url) as store:
        store.create_tables()
        refusing = "CREATE TRIGGER full BEFORE INSERT ON smsretry_messages BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        with engine.begin() as connection:
            connection.exec_driver_sql(refusing)
        with pytest.raises(sa.exc.SQLAlchemyError, match="disk full") as caught:
            store.plan(message("m"))
    engine.dispose()
    told = "".join(traceback.format_exception(caught.value))
    assert ("A secret" in told, "5550006" in told) == (False, False)


# A database that may forget.


def warnings_of(store: SQLStore, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    for name in ("m", "n"):
        store.plan(message(name))
        attempt(store, Provider())
    return [record.getMessage() for record in caplog.records if "forget" in record.getMessage()]


@pytest.mark.parametrize("mode", ["OFF", "NORMAL", "FULL"])
def test_a_sqlite_engine_that_does_not_wait_for_the_disk_is_told_once(
    file_url: str, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    engine = sa.create_engine(file_url)
    sa.event.listen(engine, "connect", lambda own, _: own.execute(f"PRAGMA synchronous={mode}").close())
    with SQLStore(engine) as store:
        told = warnings_of(store, caplog)
    engine.dispose()
    assert len(told) == (mode != "FULL")
    assert all("synchronous=FULL" in one for one in told)


def test_a_file_of_our_own_waits_for_the_disk(file_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with SQLStore(file_url) as store:
        assert warnings_of(store, caplog) == []


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["off", "on", "local"])
def test_a_postgresql_that_does_not_wait_for_the_disk_is_told_once(
    postgres_url: str, postgres_store: SQLStore, own_prefix: str, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    emptied(postgres_store)
    engine = sa.create_engine(postgres_url, connect_args={"options": f"-c synchronous_commit={mode}"})
    with SQLStore(engine, table_prefix=own_prefix) as store:
        told = warnings_of(store, caplog)
        with engine.connect() as connection:
            fsync = connection.exec_driver_sql("SHOW fsync").scalar_one()
    engine.dispose()
    assert [("synchronous_commit" in one, "fsync" in one) for one in told] == (
        [(mode == "off", fsync == "off")] if "off" in {mode, fsync} else []
    )


def test_a_store_that_is_a_sink_alone_tells_nothing(file_url: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = sa.create_engine(file_url)
    sa.event.listen(engine, "connect", lambda own, _: own.execute("PRAGMA synchronous=OFF").close())
    with SQLStore(engine) as store:
        store.record(retry("m"))
    engine.dispose()
    assert caplog.records == []
