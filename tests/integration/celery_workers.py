"""Start and stop real Celery workers, and talk to them as a process that only queues does."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from tests import servers
from tests.integration.celery_sender import Attempt, attempts_of

from smsretry import Dispatcher
from smsretry.adapters.celery import SMSTask, sms_task
from smsretry.testing.folder_broker import folder_broker

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A running worker, and the application as its producers see it."""

    app: Celery
    conf: dict[str, Any]
    folder: Path
    log_file: Path
    pid: int

    def task(self, name: str) -> SMSTask:
        """Return a ready task of the worker; this process needs no sender for it."""
        found: Any = self.app.tasks.get(name)
        return found or sms_task(self.app, only_the_worker_sends, name=name)

    def attempts(self, message_id: str) -> list[Attempt]:
        """List what the sender was asked to send for one message."""
        return attempts_of(self.folder, message_id)

    def log(self) -> str:
        """Return everything that the worker has logged."""
        return self.log_file.read_text()


def only_the_worker_sends() -> Dispatcher:
    raise NotImplementedError


@contextlib.contextmanager
def running_worker(
    module: str, conf: dict[str, Any], folder: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[Worker]:
    """Run ``celery -A module worker`` until the block ends; ``conf`` is the configuration of producers too."""
    settings = json.dumps({"conf": conf, "folder": str(folder)})
    variables = {"PYTHONPATH": str(ROOT), "SMSRETRY_TEST_CELERY": settings, **(environment or {})}
    log_file = folder / f"worker-{uuid.uuid4().hex}.log"
    command = [
        *("sh", "-c", 'exec "$@" >"$0" 2>&1', str(log_file)),  # the folder of the guard goes with the worker
        "env",
        *(f"{name}={value}" for name, value in variables.items()),
        *(sys.executable, "-m", "celery", "-A", module, "worker"),
        *("--loglevel=INFO", "--without-gossip", "--without-mingle", *options),
    ]

    def is_ready(_: int) -> bool:
        return log_file.exists() and " ready." in log_file.read_text()

    with servers.own_folder("celery") as guarded, producer(conf) as app:
        try:
            with servers.guarded(lambda _: command, is_ready, guarded, signal.SIGQUIT) as (_, pid):
                yield Worker(app=app, conf=conf, folder=folder, log_file=log_file, pid=pid)
        except servers.ServerFailed as failed:
            raise servers.ServerFailed(log_file.read_text()) from failed


@contextlib.contextmanager
def together(*workers: contextlib.AbstractContextManager[Worker]) -> Iterator[list[Worker]]:
    """Start several workers at the same time, and stop them so: most of either is waiting."""
    with ThreadPoolExecutor(len(workers)) as pool:
        starting = [pool.submit(worker.__enter__) for worker in workers]
        wait(starting)
        try:
            yield [started.result() for started in starting]
        finally:
            running = [one for one, began in zip(workers, starting, strict=True) if began.exception() is None]
            wait([pool.submit(worker.__exit__, None, None, None) for worker in running])


@contextlib.contextmanager
def producer(conf: dict[str, Any]) -> Iterator[Celery]:
    """Lend the application as a process that only queues has it."""
    app = Celery("texts", set_as_current=False)
    app.conf.update(conf)
    try:
        yield app
    finally:
        app.close()


def on_files(folder: Path) -> dict[str, Any]:
    """Return the configuration of a broker that needs nothing but a folder, with results in SQLite."""
    broker = folder_broker(folder / "queue", polling_interval_s=0.05)
    return {**broker, "result_backend": f"db+sqlite:///{folder / 'results.sqlite'}"}


def on_redis(url: str, **transport_options: Any) -> dict[str, Any]:
    """Return the configuration of a Redis that is broker and result backend.

    It looks every second for what a worker has held for too long, and not, as usual, every 100 seconds.
    """
    options = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1, **transport_options}
    return {"broker_url": url, "broker_transport_options": options, "result_backend": url}


def on_quorum_queues(url: str, folder: Path) -> dict[str, Any]:
    """Return the configuration of a RabbitMQ whose quorum queues hold what waits, with results in SQLite."""
    return {
        "broker_url": url,
        "broker_transport_options": {"confirm_publish": True},
        "task_default_queue": f"texts-{uuid.uuid4().hex}",
        "task_default_queue_type": "quorum",
        "task_default_exchange_type": "topic",  # a direct one would leave waits to the workers
        "result_backend": f"db+sqlite:///{folder / 'results.sqlite'}",
    }
