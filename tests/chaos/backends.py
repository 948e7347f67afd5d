"""Lend what a run needs beside its workers: a broker that outlives them, and a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, ClassVar, Final, assert_never

import redis

from smsretry.testing.folder_broker import folder_broker
from tests.chaos.crashing import CrashingServer, crashing_postgres, crashing_redis
from tests.chaos.workers import Pool, Shape

VISIBILITY_TIMEOUT_S: Final = 15
"""After this the broker hands out again what a dead worker held: longer than any wait of the programs."""
RESTORE_INTERVAL_S: Final = 2
"""How often the broker is searched for that; a hundred seconds by default."""
QUEUE: Final = "celery"
_CELERY: Final = {
    "task_ignore_result": True,
    "worker_enable_remote_control": False,
    "worker_lost_wait": 1.0,  # ten seconds by default, in which the task of a killed child keeps its place
    "worker_proc_alive_timeout": 30.0,  # a child that is frozen as it starts would end its worker after four seconds
    "broker_connection_retry_on_startup": True,
}


@unique
class BackendName(StrEnum):
    """Name the brokers and databases that a run may use."""

    SERVERS = "redis+postgresql"
    """A real Redis and a real PostgreSQL, each killed and started anew in the middle."""
    EMBEDDED = "embedded"
    """A folder and a SQLite file; the broker loses what a killed worker held."""


class Backend(ABC):
    """Hold the broker and the database of one run: ``celery`` are the settings of the application."""

    celery: dict[str, Any]
    store_url: str
    shape: ClassVar[Shape]
    """The workers that suit the broker."""
    quiet_s: ClassVar[float]
    """Without a request for so long, and without a task to be seen, nothing comes any more."""
    recovers_in_workers: ClassVar[bool]
    """Whether our own workers run `recover` in threads, or a process does it beside them."""

    @abstractmethod
    def waiting(self) -> int:
        """Count the tasks that no worker has fetched."""

    @abstractmethod
    def has_tasks(self) -> bool:
        """Say whether the broker holds a task, as far as it can be seen."""

    @property
    def crashes(self) -> tuple[Callable[[], None], ...]:
        """Return what kills a server and starts it anew, one for each."""
        return ()


@contextmanager
def running_backend(name: BackendName, folder: Path) -> Iterator[Backend]:
    """Run the broker and the database until the block ends; raise `ServerMissing` where a server is not installed."""
    match name:
        case BackendName.EMBEDDED:
            yield Embedded(folder)
        case BackendName.SERVERS:
            with crashing_redis() as broker, crashing_postgres() as database:
                yield Servers(broker, database)
        case _:
            assert_never(name)


class Embedded(Backend):
    """Keep the queue in a folder and the records in a SQLite file.

    The workers are single processes: over a broker without an event loop, the processes of Celery's pool share a lock,
    and one that is killed while it waits for work stops the others for ever.
    """

    shape = Shape(workers=6, pool=Pool.THREADS, concurrency=4)
    quiet_s = 8.0  # longer than any wait of the programs, which pass in the worker that holds the task
    recovers_in_workers = False

    def __init__(self, folder: Path) -> None:
        self._queue = folder / "queue"
        broker = folder_broker(self._queue, polling_interval_s=0.02)
        self.celery = {**broker, **_CELERY, "worker_prefetch_multiplier": 1}  # what a worker holds dies with it
        self.store_url = f"sqlite:///{folder / 'sms.db'}"

    def waiting(self) -> int:
        """Count the tasks in the folder."""
        return sum(1 for _ in self._queue.glob(f"*.{QUEUE}.msg"))

    def has_tasks(self) -> bool:
        """Say whether a task lies in the folder; what a worker holds, nobody can see."""
        return self.waiting() > 0


class Servers(Backend):
    """Keep the queue in Redis and the records in PostgreSQL."""

    shape = Shape(workers=4, pool=Pool.PREFORK, concurrency=2)
    quiet_s = 0.5
    recovers_in_workers = True

    def __init__(self, broker: CrashingServer, database: CrashingServer) -> None:
        self._servers = (broker, database)
        options = {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 2 * RESTORE_INTERVAL_S,  # else a worker killed in a search ends all for 5 minutes
            "unacked_restore_interval": 2,
        }
        self.celery = {"broker_url": broker.url, "broker_transport_options": options, **_CELERY}
        self.store_url = database.url

    def waiting(self) -> int:
        """Count the tasks in Redis."""
        with self._client() as client:
            return int(client.llen(QUEUE))

    def has_tasks(self) -> bool:
        """Say whether a task waits, or was handed out and not acknowledged."""
        with self._client() as client:
            return bool(client.llen(QUEUE) or client.hlen("unacked"))

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(str(self.celery["broker_url"]))

    @property
    def crashes(self) -> tuple[Callable[[], None], ...]:
        """Return the crash of each server."""
        return tuple(server.crash for server in self._servers)
