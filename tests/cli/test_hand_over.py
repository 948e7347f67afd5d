"""The commands of a journal, on the Celery application of a shop."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smsretry import AttemptState, Dispatcher, Failure, FailureKind, GaveUp, Message
from smsretry.cli.commands import smsretry
from smsretry.store import MessageState, SQLStore
from smsretry.testing import ScriptedSender

SHOP = """
from celery import Celery

from smsretry.adapters.celery import sms_task
from smsretry.testing.folder_broker import folder_broker

app = Celery("shop")
app.conf.update(folder_broker("queue"))
send_sms = sms_task(app, lambda: None, name="shop.send_sms")


@app.task(name="shop.remind", shared=False)
def remind(customer):
    ...


ready = 17


def queue_again(message_id, metadata):
    remind.delay(metadata["customer"])
"""
READY = """
from pathlib import Path


class Texts:
    def send(self, message):
        Path("sent").write_text(message.id)


texts = Texts()
"""
ON_SHOP = ("--app", "shop", "--task", "shop.send_sms")
LATE = datetime.now(UTC) - timedelta(hours=1)
MESSAGE = Message("+15005550006", "Your parcel is here", id="parcel:17", campaign="spring", metadata={"customer": 17})


@pytest.fixture(autouse=True)
def shop(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "shop.py").write_text(SHOP)
    known = list(sys.path)
    with contextlib.chdir(tmp_path):
        yield tmp_path
    sys.path[:] = known
    sys.modules.pop("shop", None)


@pytest.fixture
def store(shop: Path) -> Iterator[SQLStore]:
    with SQLStore("sqlite:///sms.db") as opened:
        opened.create_tables()
        yield opened


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def here(*arguments: str) -> Result:
    return CliRunner().invoke(smsretry, arguments)


def queued(folder: Path) -> list[Any]:
    return [json.loads(file.read_text()) for file in sorted((folder / "queue").glob("*.msg"))]


def state(store: SQLStore) -> MessageState:
    record = store.message(str(MESSAGE.id))
    assert record is not None
    return record.state


def failed(store: SQLStore, kind: FailureKind) -> None:
    ended = Dispatcher(ScriptedSender([Failure.of(kind)]), journal=store).attempt(MESSAGE)
    assert isinstance(ended, GaveUp)


def test_an_overdue_message_is_queued_again_through_its_task(store, shop):
    store.plan(MESSAGE, due=LATE)
    assert run("recover", *ON_SHOP).stdout == "1 queued again, 0 could not be queued, 0 unrecoverable.\n"
    [found] = queued(shop)
    assert found["headers"]["task"] == "shop.send_sms"
    assert found["headers"]["id"] == MESSAGE.id
    assert json.loads(run("recover", *ON_SHOP, "--json").stdout)["handed_over"] == 0


def test_a_function_of_the_application_queues_its_own_task(store, shop):
    store.plan(MESSAGE, due=LATE)
    run("recover", "--call", "shop:queue_again")
    [found] = queued(shop)
    assert found["headers"]["task"] == "shop.remind"


def test_a_ready_task_of_any_queue_is_called_by_its_name(store, shop):
    (shop / "shop.py").write_text(READY)
    store.plan(MESSAGE, due=LATE)
    assert "1 queued again" in run("recover", "--call", "shop:texts").stdout
    assert (shop / "sent").read_text() == "parcel:17"


def test_a_message_whose_text_was_not_kept_is_left_to_a_function(store, shop):
    with SQLStore("sqlite:///sms.db", keep_bodies=False) as keeping_none:
        keeping_none.plan(MESSAGE, due=LATE)
    assert "1 were left as they are: their text was not kept" in run("recover", *ON_SHOP).stderr
    assert (state(store), queued(shop)) == (MessageState.PENDING, [])


def test_a_message_whose_text_was_not_kept_is_given_up_in_the_end(store, shop):
    with SQLStore("sqlite:///sms.db", keep_bodies=False) as keeping_none:
        keeping_none.plan(MESSAGE, due=LATE)
    assert "1 unrecoverable" in run("recover", *ON_SHOP, "--lost-after", "600").stdout
    assert (state(store), queued(shop)) == (MessageState.FAILED, [])


def test_recover_goes_on_until_it_is_interrupted(store, shop):
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", "recover", *ON_SHOP, "--every", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.readline()
        store.plan(MESSAGE, due=LATE)
        deadline = time.monotonic() + 30
        while not queued(shop) and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=10) == 0
    assert len(queued(shop)) == 1


def test_what_failed_for_the_accounts_sake_is_sent_once_more(store, shop):
    failed(store, FailureKind.SENDER_CONFIG)
    assert state(store) is MessageState.FAILED
    run("requeue", *ON_SHOP, "--campaign", "spring", "--kind", "sender_config")
    assert state(store) is MessageState.PENDING
    assert len(queued(shop)) == 1


def test_a_planned_message_is_taken_back_once(store):
    store.plan(MESSAGE)
    done = here("cancel", "parcel:17")
    assert (done.exit_code, done.output) == (0, "parcel:17 is canceled.\n")
    assert state(store) is MessageState.CANCELED
    again = here("cancel", "parcel:17")
    assert again.exit_code == 1
    assert "has ended already: it is canceled" in again.output


def test_a_message_that_is_being_sent_or_in_doubt_is_not_said_to_be_canceled(store):
    claims: dict[str, Any] = {"nonce": "n", "lease_s": 60.0, "account": "a", "most_deferred_s": 60.0}
    store.begin(MESSAGE, hint=AttemptState(), **claims)
    done = here("cancel", "parcel:17")
    assert (done.exit_code, "is canceled" in done.output) == (0, False)
    assert "not sent again. How it ends: smsretry show parcel:17" in done.output
    assert state(store) is MessageState.PENDING


def test_a_message_in_doubt_is_taken_back_only_when_that_is_settled(store):
    doubt = AttemptState(retries=1, doubt_since=LATE, settles_at=LATE)
    lost = Failure.of(FailureKind.LOST_ANSWER)
    Dispatcher(ScriptedSender([lost]), journal=store).attempt(MESSAGE, doubt)
    done = here("cancel", "parcel:17")
    assert done.exit_code == 0
    assert "is not sent again" in done.output
    assert "is canceled" not in done.output
    assert state(store) is MessageState.PENDING


@pytest.mark.parametrize("command", [("cancel", "parcel:17"), ("recover", *ON_SHOP)], ids=["cancel", "recover"])
def test_no_command_makes_a_database(command, shop):
    done = here(*command, "--store", "sqlite+pysqlite:///made.db")
    assert done.exit_code == 1
    assert "There is no database" in done.output
    assert not (shop / "made.db").exists()


@pytest.mark.parametrize("url", ["sqlite:///broken.db", "postgresql+psycopg://user:secret@127.0.0.1:1/texts"])
def test_a_database_that_cannot_be_used_is_told_in_a_line(url, shop):
    (shop / "broken.db").write_bytes(b"no database" * 100)
    done = here("cancel", "parcel:17", "--store", url)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "cannot be used" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize("command", [("recover",), ("requeue", "--campaign", "spring", "--kind", "auth")])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:///broken.db", "file is not a database"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/texts", "onnection refused"),
        (
            "sqlite:///older.db",
            "schema version 1 and this smsretry knows version 4. Go on with the smsretry that made them",
        ),
    ],
)
def test_what_queues_again_names_the_store_and_the_reason(url, why, command, shop):
    (shop / "broken.db").write_bytes(b"no database" * 100)
    with contextlib.closing(sqlite3.connect(shop / "older.db")) as older:
        older.execute("CREATE TABLE smsretry_meta (name PRIMARY KEY, value)")
        older.execute("INSERT INTO smsretry_meta VALUES ('schema_version', '1')")
        older.commit()
    done = here(*command, *ON_SHOP, "--store", url)
    told = " ".join(done.output.split())
    assert done.exit_code == 1
    assert url.replace("secret", "***") in told
    assert why in told
    assert "Check the --store." in told
    assert "secret" not in told


def test_recover_waits_for_a_database_that_is_not_made_yet(shop):
    command = [sys.executable, "-c", "from smsretry.cli import main; main()", "recover", *ON_SHOP, "--every", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert "There is no database" in running.stderr.readline()
        with SQLStore("sqlite:///sms.db") as opened:
            opened.create_tables()
        assert "queued again" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("recover", "--app", "shop"), "Name --app and --task"),
        (("recover", *ON_SHOP, "--call", "shop:queue_again"), "Name --app and --task"),
        (("recover", "--app", "shop", "--task", "shop.nothing"), "shop.remind, shop.send_sms."),
        (("recover", "--app", "shop", "--task", "shop.remind"), "was not made by sms_task"),
        (("recover", "--app", "nowhere", "--task", "a"), "--app nowhere was not found"),
        (("recover", "--app", "shop:SHOP", "--task", "a"), "--app shop:SHOP was not found"),
        (("recover", "--call", "shop:nothing"), "--call shop:nothing was not found"),
        (("recover", "--call", "shop:ready"), "it is a int, no ready task and no function"),
        (("recover", "--call", "shop"), "--call shop was not found: it names no function. Name it as module:name"),
        (("recover", *ON_SHOP, "--store", "sqlite:///other.db"), "There is no database at"),
        (("recover", *ON_SHOP, "--store", "other.db"), "There is no database at"),
        (("recover", *ON_SHOP, "--store", "non:sense"), "url is no database URL"),
        (("recover", *ON_SHOP, "--every", "0"), "--every"),
        (("requeue", *ON_SHOP, "--campaign", "spring", "--kind", "opted_out"), "'opted_out' is not one of"),
        (
            ("requeue", *ON_SHOP, "--campaign", "nope", "--kind", "auth"),
            "There is no campaign 'nope' in sqlite:///sms.db",
        ),
        (("requeue", *ON_SHOP, "--campaign", "", "--kind", "auth"), "There is no message without a campaign in"),
        (("cancel", "parcel:99"), "There is no message 'parcel:99'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_with_what_to_do(store, arguments, says):
    done = here(*arguments)
    assert done.exit_code != 0
    assert says in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_the_kinds_are_those_whose_texts_are_kept():
    from smsretry.cli import options
    from smsretry.store.kept import MENDABLE

    assert set(options.MENDABLE) == MENDABLE
