"""The way to the database: an engine per process, the transaction that each kind of database needs, the tables made.

SQLite writes under ``BEGIN IMMEDIATE``: a transaction that reads first and writes later fails as "locked" as soon as
two processes do it. PostgreSQL runs in READ COMMITTED, where a row that was waited for is read as it now is.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite

from smsretry.errors import ConfigurationError
from smsretry.store.durability import warn_unless_durable
from smsretry.store.forks import ForkGate
from smsretry.store.grouping import Turns
from smsretry.store.schema import SCHEMA_VERSION, Schema

T = TypeVar("T")

_ISOLATION: Final = {"sqlite": "AUTOCOMMIT", "postgresql": "READ COMMITTED"}
"""AUTOCOMMIT keeps the driver from beginning transactions by itself: we say BEGIN IMMEDIATE."""
_PASSING: Final = frozenset({"40001", "40P01"})
"""SQLSTATEs of PostgreSQL that ask for the transaction again: serialization failure, deadlock."""
_KEY_ROW: Final = "fingerprint_key"
"""The row of the table meta with the secret that fingerprints of texts are made with."""
LONGEST_PATIENCE_S: Final = 86_400.0
"""A day: SQLite counts milliseconds in 32 bits, which are 24 days."""
_POOL: Final = {"pool_size": 15, "max_overflow": 0}
"""As many connections at the most as SQLAlchemy opens unless told otherwise; but all of them are kept."""
_MOST_TRIES: Final = 3
_PAUSE_S: Final = 0.02


class _Insert(Protocol):
    """Be the insert of a dialect that knows ON CONFLICT."""

    def __call__(self, table: sa.Table, /) -> postgresql.Insert | sqlite.Insert: ...


@dataclass(slots=True)
class _Opened:
    """Hold the engine of one process, and whether the tables are known to be there."""

    engine: sa.Engine
    ready: bool = False
    secret: bytes | None = None
    """What fingerprints are made with, once it was read."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: Turns = field(default_factory=Turns)


class Database:
    """Run work in transactions on the database of ``url``, or on an engine of the application as it is.

    Where it does not ``create``, it takes the database as it is: no file and no table is made, no mode is set.

    It opens nothing until it is used; a forked process opens its own connections. Raises `ConfigurationError` for a URL
    that is none, a database other than SQLite and PostgreSQL, and a driver that is not installed.
    """

    def __init__(
        self, url: str | sa.URL | sa.Engine, schema: Schema, *, busy_timeout_s: float, create: bool = True
    ) -> None:
        _check_patience(busy_timeout_s)
        self._schema = schema
        self._create = create
        self._busy_timeout_s = busy_timeout_s
        self._lent = url if isinstance(url, sa.Engine) else None
        self._url = url.url if isinstance(url, sa.Engine) else checked_url(url)
        self.kind = self._url.get_backend_name()
        _check_kind(self.kind)
        engine = self._engine_here()
        _check_sync(engine.dialect, engine.url)
        self.insert: _Insert = sqlite.insert if self.kind == "sqlite" else postgresql.insert
        self._by_pid = {os.getpid(): _Opened(engine)}
        self._inherited: list[sa.Pool] = []
        self._gate = ForkGate()
        if self._is_file:
            _mind_forks(self)

    @property
    def name(self) -> str:
        """Return the URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def place(self) -> str:
        """Return the name, and of a relative SQLite file where it lies: that follows from the working directory."""
        is_relative = self._is_file and not _file_of(self._url).is_absolute()
        return f"{self.name} ({_file_of(self._url).absolute()})" if is_relative else self.name

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in one transaction that may write, and commit.

        It is run again where the database or the connection to it asks for that, so it must come out the same when a
        commit whose answer was lost has already done it. On SQLite the works of threads that wait share a transaction.
        """
        return self._here().turns.write(work, self._written) if self.kind == "sqlite" else self._written(work)

    def _written(self, work: Callable[[sa.Connection], T]) -> T:
        for tried in range(1, _MOST_TRIES):
            with contextlib.suppress(_Again):
                return self._write_once(work)
            time.sleep(_PAUSE_S * tried * random.uniform(0.5, 1.5))  # whoever met in a deadlock does not meet again
        try:
            return self._write_once(work)
        except _Again as again:
            raise again.error from None

    def secret(self, connection: sa.Connection) -> bytes:
        """Return what the fingerprints in this database are made with."""
        opened = self._here()
        secret = opened.secret
        if secret is None:
            name, value = self._schema.meta.c.name, self._schema.meta.c.value
            secret = bytes.fromhex(connection.execute(sa.select(value).where(name == _KEY_ROW)).scalar_one())
            opened.secret = secret
            warn_unless_durable(connection, self.name)  # only a journal needs the secret
        return secret

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Lend a connection on which everything that is read belongs together."""
        with self._gate.transaction(), self._ready_engine().connect() as connection:
            if self.kind == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                if self.kind == "sqlite" and not _has_begun(connection):
                    connection.exec_driver_sql("BEGIN")
                yield connection

    def prepare(self) -> None:
        """Make the tables where they are missing; raise `ConfigurationError` where they are of another version."""
        with self._gate.transaction():
            self._ready_engine()

    def close(self) -> None:
        """Close the connections of this process; an engine of the application stays as it is."""
        opened = self._by_pid.get(os.getpid())
        if self._lent is None and opened is not None:
            opened.engine.dispose()
            opened.ready = False  # what was in memory is gone, and a file may be another one by then
            opened.secret = None

    def before_fork(self) -> None:
        """Let no connection to a SQLite file be open while this process forks: `ForkGate` says why."""
        self._gate.close(self._busy_timeout_s)
        self.close()

    def after_fork_in_parent(self) -> None:
        """Let transactions begin again."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """Begin with a gate that nobody holds."""
        self._gate.renew()

    @property
    def _is_file(self) -> bool:
        """Say whether it is a SQLite file that we open ourselves."""
        return self._lent is None and self.kind == "sqlite" and not is_memory(self._url)

    def _write_once(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            with self._gate.transaction(), self._ready_engine().begin() as connection:
                if self.kind == "sqlite":
                    begin_immediate(connection)
                return work(connection)
        except exc.DBAPIError as error:
            if passes(error):
                raise _Again(error) from error
            raise

    def _ready_engine(self) -> sa.Engine:
        opened = self._here()
        if not opened.ready:
            with opened.lock:
                if not opened.ready:
                    self._make_ready(opened.engine)
                    opened.ready = True
        return opened.engine

    def _make_ready(self, engine: sa.Engine) -> None:
        if self._is_file:
            self._ready_file(engine)
        with engine.connect() as connection:
            version = version_in(connection, self._schema)
        if version is None and not self._create:
            msg = f"There are no smsretry tables with the prefix {self._schema.prefix!r} in {self.name}."
            raise ConfigurationError(msg)
        if version is None:
            version = make_tables(engine, self._schema, self.insert)
        _check_version(version, self._schema, self.name)

    def _ready_file(self, engine: sa.Engine) -> None:
        if self._create:
            _check_folder(self._url)
            use_wal(engine, patience_s=self._busy_timeout_s)
        elif not _file_of(self._url).is_file():
            msg = f"There is no database at {self.place}."
            raise ConfigurationError(msg)

    def _here(self) -> _Opened:
        pid = os.getpid()
        opened = self._by_pid.get(pid)
        return self._by_pid.setdefault(pid, self._reopened()) if opened is None else opened

    def _reopened(self) -> _Opened:
        """Open anew after a fork: two processes on one connection would read each other's answers."""
        if self.kind == "sqlite" and is_memory(self._url):
            msg = "A SQLite database in memory lives in one process, and this one was forked. Use a file: sqlite:///sms.db"
            raise ConfigurationError(msg)
        if self._lent is not None:
            self._inherited.append(self._lent.pool)  # drivers warn of connections that nobody holds, or close them
            self._lent.dispose(close=False)
        return _Opened(self._engine_here())

    def _engine_here(self) -> sa.Engine:
        if self._lent is None:
            return built_engine(self._url, busy_timeout_s=self._busy_timeout_s)
        engine = self._lent.execution_options(isolation_level=_ISOLATION[self.kind])  # a copy that shares its pool
        engine.hide_parameters = True
        return engine


class _Again(Exception):
    """Ask for the transaction to be run again, because of ``error``."""

    def __init__(self, error: exc.DBAPIError) -> None:
        super().__init__(error)
        self.error = error


def checked_url(url: str | sa.URL) -> sa.URL:
    """Return ``url`` with the driver of PostgreSQL that our extra installs, where it names none."""
    if not isinstance(url, (str, sa.URL)):
        msg = f"url must be a str or a SQLAlchemy Engine, got {type(url).__name__}. Use 'sqlite:///sms.db'."
        raise ConfigurationError(msg)
    try:
        made = sa.make_url(url)
    except (exc.ArgumentError, ValueError):  # a port that is no number is the latter
        msg = (
            "url is no database URL (it is not repeated here, since it may hold a password). "
            "Use 'sqlite:///sms.db' or 'postgresql+psycopg://user:password@host/database'."
        )
        raise ConfigurationError(msg) from None
    return made.set(drivername="postgresql+psycopg") if made.drivername in {"postgres", "postgresql"} else made


def built_engine(url: sa.URL, *, busy_timeout_s: float) -> sa.Engine:
    """Return an engine that opens nothing yet and keeps parameters out of its errors."""
    backend = url.get_backend_name()
    options: dict[str, Any] = {"hide_parameters": True, "isolation_level": _ISOLATION[backend], **_POOL}
    if backend == "sqlite":
        options["connect_args"] = {"timeout": busy_timeout_s, "check_same_thread": False}
    if backend == "sqlite" and is_memory(url):  # one connection is the database: threads take turns
        options |= {"poolclass": sa.QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": busy_timeout_s}
    try:
        _check_sync(url.get_dialect(), url)  # before its driver is missed
        engine = sa.create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise ConfigurationError(_missing_driver(backend, error)) from error
    except (exc.ArgumentError, TypeError):
        msg = (
            f"url does not fit the driver {url.drivername!r}, or there is no such driver. "
            "Use 'sqlite:///sms.db' (three slashes) or 'postgresql+psycopg://user:password@host/database'."
        )
        raise ConfigurationError(msg) from None  # the cause may repeat the URL
    if backend == "sqlite":
        event.listen(engine, "connect", _make_durable)
    return engine


def is_memory(url: sa.URL) -> bool:
    """Say whether a SQLite URL names no file."""
    database = url.database or ""
    return database in {"", ":memory:"} or ":memory:" in database or url.query.get("mode") == "memory"


def begin_immediate(connection: sa.Connection) -> None:
    """Take the write lock of SQLite now, and wait for it, rather than fail in the middle."""
    if _has_begun(connection):
        connection.exec_driver_sql("COMMIT")  # an engine of the application that begins by itself: nothing is in it yet
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _has_begun(connection: sa.Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


def _mind_forks(database: Database) -> None:
    known = weakref.ref(database)

    def hook(act: Callable[[Database], None]) -> Callable[[], None]:
        def run() -> None:
            if (alive := known()) is not None:
                act(alive)

        return run

    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(
            before=hook(Database.before_fork),
            after_in_parent=hook(Database.after_fork_in_parent),
            after_in_child=hook(Database.after_fork_in_child),
        )


def use_wal(engine: sa.Engine, *, patience_s: float) -> None:
    """Let readers and a writer of a SQLite file work side by side; the file remembers it."""
    deadline = time.monotonic() + patience_s
    while not _switched_to_wal(engine, give_up=time.monotonic() > deadline):
        time.sleep(_PAUSE_S)


def _switched_to_wal(engine: sa.Engine, *, give_up: bool) -> bool:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL").close()
    except exc.OperationalError as error:
        if give_up or "locked" not in str(error.orig):
            raise
        return False  # SQLite does not wait by itself where two processes switch at once
    return True


def version_in(connection: sa.Connection, schema: Schema) -> str | None:
    """Return the version of the tables, or None where they are not (or not all) there."""
    if not sa.inspect(connection).has_table(schema.meta.name):
        return None
    return connection.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.name == "schema_version"))


def make_tables(engine: sa.Engine, schema: Schema, insert: _Insert) -> str | None:
    """Make what is missing, one process at a time, and return the version that is there then."""
    marks = [
        {"name": "schema_version", "value": str(SCHEMA_VERSION)},
        {"name": _KEY_ROW, "value": secrets.token_hex(32)},
    ]
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            begin_immediate(connection)
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_key(schema))))
        schema.metadata.create_all(connection, checkfirst=True)
        connection.execute(insert(schema.meta).values(marks).on_conflict_do_nothing(index_elements=["name"]))
        return version_in(connection, schema)


def passes(error: exc.DBAPIError) -> bool:
    """Say whether the same transaction may well succeed at once: a lost connection, a deadlock."""
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _PASSING


def _lock_key(schema: Schema) -> int:
    return zlib.crc32(f"smsretry schema {schema.prefix}".encode())


def _make_durable(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=FULL").close()  # a claim that a power cut undoes would let a text go twice


def _check_kind(kind: str) -> None:
    if kind not in _ISOLATION:
        msg = f"SQLStore works on SQLite and PostgreSQL, got {kind!r}. Use 'sqlite:///…' or 'postgresql+psycopg://…'."
        raise ConfigurationError(msg)


def _check_patience(busy_timeout_s: Any) -> None:
    is_number = isinstance(busy_timeout_s, (int, float)) and not isinstance(busy_timeout_s, bool)
    if not is_number or not 0 < busy_timeout_s <= LONGEST_PATIENCE_S:
        msg = (
            f"busy_timeout_s must be more than 0 and {LONGEST_PATIENCE_S:.0f} at most, got {busy_timeout_s!r}. "
            "Give it in seconds."
        )
        raise ConfigurationError(msg)


def _check_sync(dialect: sa.Dialect | type[sa.Dialect], url: sa.URL) -> None:
    if dialect.is_async:
        msg = (
            f"SQLStore needs a driver that is not async, got {url.drivername!r}. "
            "Use 'sqlite:///…' or 'postgresql+psycopg://…'."
        )
        raise ConfigurationError(msg)


def _file_of(url: sa.URL) -> Path:
    """Return the file of a SQLite URL, which may name it by a URI of SQLite's own."""
    database = url.database or ""
    return Path(unquote(urlsplit(database).path) if database.startswith("file:") else database)


def _check_folder(url: sa.URL) -> None:
    folder = _file_of(url).parent
    if not folder.is_dir():
        msg = f"The folder of the database does not exist: {folder}. Make it, or name another file."
        raise ConfigurationError(msg)


def _check_version(found: str | None, schema: Schema, name: str) -> None:
    if found != str(SCHEMA_VERSION):
        is_older = found is not None and found.isdecimal() and int(found) < SCHEMA_VERSION
        remedy = "Go on with the smsretry that made them" if is_older else "Upgrade smsretry in this process"
        msg = (
            f"The tables {schema.prefix}* in {name} have schema version {found} and this smsretry knows version "
            f"{SCHEMA_VERSION}. {remedy}, or use another table_prefix."
        )
        raise ConfigurationError(msg)


def _missing_driver(backend: str, error: ModuleNotFoundError) -> str:
    package = "'smsretry[postgresql]'" if error.name == "psycopg" else error.name
    return f"The driver of {backend} is not installed: {error.name}. Install it: pip install {package}"
