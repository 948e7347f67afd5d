"""Run a Redis and a PostgreSQL that can crash: what they were told before, they know afterwards."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

from tests import servers

DOWN_S: Final = 1.0
"""How long a server that crashed stays away, at least."""
_PORTS: Final = range(20_000, 30_000)
"""Below those that the system gives to connections, so that none takes the port while its server is away."""


class CrashingServer:
    """Keep a server running until the block ends; ``run`` lends one at ``url``, again and again on the same data."""

    def __init__(self, url: str, run: Callable[[], AbstractContextManager[object]]) -> None:
        self.url = url
        self._run = run
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._running.enter_context(self._run())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def crash(self) -> None:
        """Kill the server, and start it again a little later."""
        self._running.close()
        time.sleep(DOWN_S)
        self._running.enter_context(self._run())


@contextmanager
def crashing_redis() -> Iterator[CrashingServer]:
    """Run a Redis that writes every command to its log before it answers."""
    binary, port = servers.redis_binary(), lasting_port()
    options = ["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--daemonize", "no", "--loglevel", "warning"]

    def is_up(_: int) -> bool:
        return servers.redis_answers(port)

    @contextmanager
    def run() -> Iterator[None]:
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), *options]
        with servers.own_folder("redis") as log, servers.guarded(lambda _: command, is_up, log, signal.SIGKILL):
            yield

    with servers.own_folder("redis-data") as data, CrashingServer(f"redis://127.0.0.1:{port}/0", run) as server:
        yield server


@contextmanager
def crashing_postgres() -> Iterator[CrashingServer]:
    """Run a PostgreSQL that ends as in a crash; it need not survive a power cut, so nothing waits for the disk."""
    user, port = servers.unprivileged_user(), lasting_port()
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200"]

    def is_up(_: int) -> bool:
        return servers.postgres_answers(port)

    @contextmanager
    def run() -> Iterator[None]:
        options = [part for setting in settings for part in ("-c", setting)]
        command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *options]
        with servers.own_folder("postgres") as log:
            _give(log, user)
            with servers.guarded(lambda _: command, is_up, log, signal.SIGQUIT, user):
                yield

    with servers.own_folder("postgres-data") as folder:
        binaries, data = servers.reachable(servers.postgres_binaries(), folder, user), folder / "data"
        servers.initialise(binaries, data, user)
        with CrashingServer(f"postgresql+psycopg://smsretry@127.0.0.1:{port}/postgres", run) as server:
            yield server


def lasting_port() -> int:
    """Return a loopback port that nobody listens on, and that no connection will be given."""
    for port in Random().sample(_PORTS, 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise OSError("Of 100 ports from 20000 to 30000 each is taken. End what listens there.")


def _give(folder: Path, user: str) -> None:
    if user:
        shutil.chown(folder, user)
