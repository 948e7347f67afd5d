"""The commands, run as a user runs them: each in a process of its own."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner
from tests.store.clock import pass_time

from smsretry import Accepted, AttemptState, Dispatcher, Failure, FailureKind, Message, Receipt
from smsretry.cli.commands import smsretry
from smsretry.core.lookup import Found
from smsretry.core.suppression import Suppression
from smsretry.store import SQLStore, requeue
from smsretry.testing import ScriptedSender


def run(*arguments: str, ok: bool = True, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


def test_the_help_says_in_whole_sentences_what_each_command_does():
    assert "..." not in CliRunner().invoke(smsretry, ("--help",), terminal_width=80).output.partition("Commands:")[2]


def test_the_schedule_is_shown_without_running_anything():
    assert json.loads(run("schedule", "--json").stdout) == [2, 4, 8]


def test_a_schedule_of_ones_own_is_shown():
    done = run(
        "schedule", "--max-retries", "4", "--first-delay", "10", "--multiplier", "3", "--max-delay", "60", "--json"
    )
    assert json.loads(done.stdout) == [10, 30, 60, 60]


def test_a_full_queue_has_a_schedule_of_its_own():
    waits = json.loads(run("schedule", "--kind", "queue_full", "--json").stdout)
    assert waits[0] == 300
    assert sum(waits) > 36_000


def test_the_table_adds_the_waits_up():
    shown = run("schedule").stdout
    assert "14" in shown
    assert "4 attempts at most" in shown


def test_a_kind_that_is_never_retried_says_so():
    assert "no retry" in run("schedule", "--kind", "opted_out").stdout


def test_no_retries_are_no_word_about_the_kind_of_failure():
    assert run("schedule", "--max-retries", "0").stdout == "One attempt, and no retry: --max-retries is 0.\n"


def test_a_bad_policy_is_refused_with_what_to_do():
    done = run("schedule", "--max-retries", "5000", ok=False)
    assert "max_retries must be" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (20429, "rate_limited"),
        (21211, "invalid_number"),
        (21610, "opted_out"),
        (21611, "queue_full"),
        (30007, "carrier_rejected"),
        (30003, "unreachable"),
    ],
)
def test_a_code_is_explained(code: int, kind: str):
    facts = json.loads(run("explain", str(code), "--json").stdout)
    assert facts["kind"] == kind
    assert facts["meaning"]
    assert facts["source"]
    assert facts["on_create"]
    assert facts["on_delivery"]


def test_a_code_that_nobody_listed_is_called_unmapped():
    facts = json.loads(run("explain", "99999", "--json").stdout)
    assert facts["listed"] is False
    assert "HTTP status" in facts["on_create"]
    assert "99999" in run("explain", "99999").stdout


def test_the_simulator_serves_until_it_is_ended():
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", "simulate", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert json.loads(server.stdout.readline())["url"].startswith("http://127.0.0.1:")
        server.terminate()
        assert server.wait(timeout=10) == 0


def store_url(folder, name="sms.db"):
    return f"sqlite:///{folder / name}"


def kept(folder, message_id="spring:1", name="sms.db", **fields):
    """Keep one failed message in a database of its own, and return its URL."""
    failure = Failure.of(FailureKind.CONTENT, **fields)
    with SQLStore(store_url(folder, name)) as store:
        dispatcher = Dispatcher(ScriptedSender([failure]), sink=store)
        dispatcher.attempt(Message("+14155550101", "Your table is ready.", id=message_id))
    return store_url(folder, name)


def refused(*arguments: str) -> str:
    """Run a command that cannot work, and return what it says: a few lines, and no traceback."""
    done = run(*arguments, ok=False)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 9
    return done.stderr


def test_the_history_of_a_message_is_shown_whatever_its_words_look_like(tmp_path):
    url = kept(tmp_path, "[/red] [bold]1", detail="[/nothing] was opened")
    shown = run("show", "[/red] [bold]1", "--store", url).stdout
    assert "[/red] [bold]1" in shown
    assert "[/nothing]" in shown


@pytest.mark.parametrize("options", ["?timeout=5", "?cached_statements=10"])
def test_a_message_is_found_by_a_url_with_options(tmp_path, options: str):
    assert "content" in run("show", "spring:1", "--store", kept(tmp_path) + options).stdout


def test_a_message_is_found_by_a_file_uri(tmp_path):
    kept(tmp_path)
    url = f"sqlite:///file:{tmp_path / 'sms.db'}?mode=ro&uri=true"
    assert "content" in run("show", "spring:1", "--store", url).stdout


LEASE: dict[str, Any] = {"nonce": "n", "lease_s": 60.0, "account": "a", "most_deferred_s": 60.0}


def planned(folder, message_id="spring:1"):
    """Plan one message in a database of its own, and return the store."""
    store = SQLStore(store_url(folder))
    store.plan(
        Message("+14155550101", "Your table is ready.", id=message_id), due=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    )
    return store


def shown(store, *options: str) -> str:
    done = CliRunner().invoke(smsretry, ("show", "spring:1", "--store", store.name, *options))
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_a_message_that_is_planned_is_shown_before_its_first_attempt(tmp_path):
    with planned(tmp_path) as store:
        assert "pending: planned for 2026-01-02 03:04:00, and no attempt has ended" in shown(store)
        assert json.loads(shown(store, "--json")) == []


def test_a_message_that_a_worker_holds_says_until_when(tmp_path):
    with planned(tmp_path) as store:
        store.begin(Message("+14155550101", "Your table is ready.", id="spring:1"), hint=AttemptState(), **LEASE)
        record = store.message("spring:1")
        assert record is not None
        assert f"claimed by a worker until {str(record.claimed_until)[:19]}" in shown(store)
        assert "If that worker was lost, recover queues it after that, where it runs" in shown(store)


def test_a_message_that_was_taken_back_before_its_first_attempt_is_shown(tmp_path):
    with planned(tmp_path) as store:
        store.cancel("spring:1")
        assert "It is canceled" in shown(store)


def test_an_acceptance_that_a_look_up_proved_says_so(tmp_path):
    sender = ScriptedSender(
        [Failure.of(FailureKind.LOST_ANSWER)], finds=[Found(Receipt("twilio", "SM1", datetime.now(UTC)))]
    )
    with SQLStore(store_url(tmp_path)) as store:
        dispatcher = Dispatcher(sender, journal=store)
        message = Message("+14155550101", "Your table is ready.", id="spring:1")
        dispatcher.attempt(message)
        pass_time(store, 300)
        assert isinstance(dispatcher.attempt(message), Accepted)
        assert "│ accepted │ by a look-up" in shown(store)


def test_a_message_that_must_not_be_sent_is_not_shown_as_failed(tmp_path):
    with SQLStore(store_url(tmp_path)) as store:
        store.suppress(Suppression(to="+14155550101"))
        dispatcher = Dispatcher(ScriptedSender(), journal=store, suppression=store)
        dispatcher.attempt(Message("+14155550101", "Your table is ready.", id="spring:1"))
        assert "│ not sent │ opted_out suppressed" in shown(store)
        assert "It is suppressed, since" in shown(store)
        assert "failed" not in shown(store)


def test_a_message_that_was_sent_once_more_shows_its_rounds(tmp_path):
    with SQLStore(store_url(tmp_path)) as store:
        dispatcher = Dispatcher(ScriptedSender([Failure.of(FailureKind.SENDER_CONFIG)]), journal=store)
        dispatcher.attempt(Message("+14155550101", "Your table is ready.", id="spring:1"))
        assert "round" not in shown(store)
        requeue(store, lambda message_id, _: None, campaign=None, kind="sender_config")
        dispatcher.attempt(Message("+14155550101", "Your table is ready.", id="spring:1"))
        assert "round" in shown(store)
        assert "It is accepted" in shown(store)


def test_a_long_id_is_shown_in_full(tmp_path):
    message_id = "spring:" + "1234567890" * 12
    url = kept(tmp_path, message_id)
    assert message_id in run("show", message_id, "--store", url).stdout


def test_an_unknown_message_is_told_from_an_unknown_database(tmp_path):
    assert "There is no message 'spring:2' in" in refused("show", "spring:2", "--store", kept(tmp_path))
    assert "There is no database" in refused("show", "spring:2", "--store", store_url(tmp_path, "other.db"))


def test_looking_changes_nothing_in_a_database_without_our_tables(tmp_path):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.execute("CREATE TABLE orders (id)")
    before = path.read_bytes()
    told = refused("show", "spring:1", "--store", store_url(tmp_path, "shop.db"))
    assert "no smsretry tables" in told
    assert "'smsretry_'" in told
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_database_is_told_as_one(tmp_path):
    (tmp_path / "notes.txt").write_text("no database at all, " * 100)
    assert "file is not a database" in refused("show", "spring:1", "--store", store_url(tmp_path, "notes.txt"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:secretpw@127.0.0.1:1/shop",
        "postgresql://shop:secretpw@127.0.0.1:port/shop",
        "mysql://shop:secretpw@127.0.0.1/shop",
        "shop:secretpw",
        "sqlite:///sms.db?bogus=1",
    ],
)
def test_a_store_that_cannot_be_read_is_told_without_its_password(url: str):
    assert "secretpw" not in refused("show", "spring:1", "--store", url)


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_cannot_be_is_refused(port: str):
    assert "port must be from 0 to 65535" in refused("simulate", f"--port={port}")


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        assert f"port {taken}" in refused("simulate", "--port", taken)


def test_the_simulator_helps_under_the_name_it_was_called_by():
    assert run("simulate", "--help").stdout.startswith("usage: smsretry simulate")


@pytest.mark.parametrize("code", ["7", "123456"])
def test_a_number_that_cannot_be_a_code_is_called_none(code: str):
    assert "no code" in json.loads(run("explain", code, "--json").stdout)["meaning"]


def test_options_change_the_schedule_of_a_kind_that_has_one_of_its_own():
    own = run("schedule", "--kind", "queue_full", "--max-retries", "2", "--first-delay", "60", "--json")
    assert json.loads(own.stdout) == [60, 120]
    assert json.loads(run("schedule", "--kind", "queue_full", "--max-retries", "2", "--json").stdout) == [300, 600]


def test_the_schedule_after_a_lost_answer_says_that_look_ups_come_first():
    assert "look-up" in run("schedule", "--kind", "lost_answer").stdout


@pytest.mark.parametrize(
    ("library", "words", "told"),
    [
        ("celery", ["demo"], "The demo needs celery. Install it: pip install 'smsretry[celery]'"),
        (
            "celery",
            ["recover", "--app", "a", "--task", "b"],
            "--app needs celery. Install it: pip install 'smsretry[celery]'",
        ),
        ("sqlalchemy", ["show", "booking-1"], "This command needs sqlalchemy. Install it: pip install 'smsretry[sql]'"),
        (
            "sqlalchemy",
            ["suppressed", "list"],
            "This command needs sqlalchemy. Install it: pip install 'smsretry[sql]'",
        ),
    ],
)
def test_a_command_whose_library_is_not_installed_says_what_installs_it(
    library: str, words: list[str], told: str
) -> None:
    program = f"import sys; sys.modules[{library!r}] = None\nfrom smsretry.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Error: {told}\n"
