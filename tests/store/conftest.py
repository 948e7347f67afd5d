"""Stores for the tests: SQLite in memory and in a file, and a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from smsretry.store import SQLStore

DATABASES = ("memory", pytest.param("postgresql", marks=pytest.mark.integration))


@pytest.fixture(scope="session")
def memory_store() -> Iterator[SQLStore]:
    """Lend one store in memory to all tests."""
    with SQLStore("sqlite://") as store:
        yield store


@pytest.fixture(scope="session")
def own_prefix() -> str:
    """Return a table prefix that no other run uses."""
    return f"t{uuid.uuid4().hex[:12]}_"


@pytest.fixture(scope="session")
def postgres_store(postgres_url: str, own_prefix: str) -> Iterator[SQLStore]:
    """Lend one store on PostgreSQL, with tables of its own, to all tests."""
    with SQLStore(postgres_url, table_prefix=own_prefix) as store:
        yield store
        with store._database._ready_engine().begin() as connection:
            store.metadata.drop_all(connection)


def emptied(store: SQLStore) -> SQLStore:
    """Remove all rows but the version: tables take longer to make than a test to run."""

    def empty(connection: sa.Connection) -> None:
        for table in store.metadata.sorted_tables:
            if not table.name.endswith("meta"):
                connection.execute(sa.delete(table))

    store.create_tables()
    store._database.write(empty)
    return store


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """Return the URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'sms.db'}"


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest) -> SQLStore:
    """Lend an empty store on each database in turn."""
    return emptied(request.getfixturevalue(f"{request.param.removesuffix('ql')}_store"))


@pytest.fixture(params=("file", pytest.param("postgresql", marks=pytest.mark.integration)))
def open_store(request: pytest.FixtureRequest, file_url: str) -> Iterator[Callable[[], SQLStore]]:
    """Lend a function that opens one more store on the same empty database, as another worker does."""
    opened: list[SQLStore] = []
    url, prefix = file_url, "smsretry_"
    if request.param == "postgresql":
        emptied(request.getfixturevalue("postgres_store"))
        url, prefix = request.getfixturevalue("postgres_url"), request.getfixturevalue("own_prefix")

    def open_one() -> SQLStore:
        opened.append(SQLStore(url, table_prefix=prefix))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
