"""The servers of the tests start, answer, and leave nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import servers

ROOT = Path(__file__).parent.parent
OWNER = """
import sys
from tests import servers
with getattr(servers, sys.argv[1])() as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def happens(condition: Callable[[], bool], within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.integration
def test_a_redis_answers_on_loopback(redis_url: str) -> None:
    import redis

    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


@pytest.mark.integration
def test_a_postgresql_answers_on_loopback(postgres_url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.integration
def test_a_database_made_for_one_test_is_empty(empty_postgres_url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(empty_postgres_url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


def started_below(folder: str) -> list[str]:
    """List the processes whose environment names this folder, where the system shows it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


FINDERS: dict[str, Callable[[], object]] = {
    "running_redis": servers.redis_binary,
    "running_postgres": servers.postgres_binaries,
    "running_rabbitmq": servers.rabbitmq_binaries,
}


@pytest.mark.integration
@pytest.mark.parametrize("running", FINDERS)
def test_a_server_does_not_outlive_a_test_run_that_is_killed(running: str) -> None:
    try:
        FINDERS[running]()
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # PostgreSQL may have to run as another account than root
        command = [sys.executable, "-c", OWNER, running]
        environment = os.environ | {"TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as owner:
            assert owner.stdout is not None
            pid = int(owner.stdout.readline())
            assert exists(pid)
            if Path("/proc/self/environ").exists():
                assert len(started_below(folder)) >= 2  # the owner and a guard: Redis hides its environment
            owner.send_signal(signal.SIGKILL)
        assert happens(lambda: not exists(pid))
        assert happens(lambda: not started_below(folder)), started_below(folder)
        assert happens(lambda: not list(Path(folder).iterdir()))


def test_a_missing_server_says_what_to_install() -> None:
    def nothing_found() -> None:
        raise servers.ServerMissing("No Redis: install redis-server.")

    with pytest.raises(pytest.skip.Exception, match=r"install redis-server\. Or set SMSRETRY_TEST_X\."):
        next(servers.lend("SMSRETRY_TEST_X", nothing_found))  # type: ignore[arg-type]
