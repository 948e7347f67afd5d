"""A queue that exists nowhere else: jobs in a table of SQLite, each with the time when it is due.

A job is gone when it is handed out, so that what a killed worker held is lost, as with many a queue.
"""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, due REAL NOT NULL);
CREATE TABLE IF NOT EXISTS ends (id TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is handed: which function is to run, and with what."""

    id: str
    kind: str
    body: Any


class ToyQueue:
    """Keep jobs in ``folder`` until they are due."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "toy.sqlite"

    def put(self, kind: str, body: Any, delay_s: float, job_id: str | None = None) -> str:
        """Queue a job that is due in ``delay_s`` seconds; a job that goes on keeps its id."""
        job_id, due = job_id or uuid.uuid4().hex, time.time() + delay_s
        with self._opened() as table:
            table.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", (job_id, kind, json.dumps(body), due))
        return job_id

    def take(self) -> Job | None:
        """Hand out one job that is due."""
        with self._opened() as table:
            due = table.execute(
                "SELECT id, kind, body, rowid FROM jobs WHERE due <= ? ORDER BY due", (time.time(),)
            ).fetchone()
            if due is None:
                return None
            table.execute("DELETE FROM jobs WHERE rowid = ?", (due[3],))
        return Job(id=due[0], kind=due[1], body=json.loads(due[2]))

    def end(self, job_id: str, value: Any) -> None:
        """Keep what a job returned or raised."""
        kept = base64.b64encode(pickle.dumps(value)).decode()
        with self._opened() as table:
            table.execute("INSERT OR REPLACE INTO ends VALUES (?, ?)", (job_id, kept))

    def result(self, job_id: str) -> Any:
        """Return what a job returned or raised; None where it has not ended."""
        with self._opened() as table:
            row = table.execute("SELECT value FROM ends WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else pickle.loads(base64.b64decode(row[0]))

    def left(self) -> int:
        """Return how many jobs are to be handed out."""
        with self._opened() as table:
            return int(table.execute("SELECT count(*) FROM jobs").fetchone()[0])

    def shown(self) -> str:
        """Return what a dashboard would show: ids, kinds and times."""
        with self._opened() as table:
            return repr(table.execute("SELECT id, kind, due FROM jobs").fetchall())

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=30, isolation_level=None)) as table:
            table.executescript(_TABLES)
            table.execute("BEGIN IMMEDIATE")
            yield table
            table.execute("COMMIT")
