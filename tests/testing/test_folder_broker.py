"""The broker that needs nothing but a folder."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path

import pytest
from celery import Celery

from smsretry.testing.folder_broker import folder_broker


def app_on(folder: Path) -> Celery:
    app = Celery("texts", set_as_current=False)
    app.conf.update(folder_broker(folder, polling_interval_s=0.0))
    return app


@pytest.fixture
def queue_name() -> str:
    """Lend a name of its own: kombu remembers declared queues for the whole process, whatever the folder."""
    return uuid.uuid4().hex


def test_a_message_comes_out_as_it_went_in_and_nothing_is_warned_of(tmp_path, queue_name, caplog):
    app = app_on(tmp_path / "queue")
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue(queue_name)
        queue.put({"id": "parcel:17"})
        assert queue.get_nowait().payload == {"id": "parcel:17"}
        queue.close()
    assert caplog.messages == []


def test_messages_come_out_in_order(tmp_path, queue_name):
    app = app_on(tmp_path)
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue(queue_name)
        for number in range(20):
            queue.put(number)
        assert [queue.get_nowait().payload for _ in range(20)] == list(range(20))
        queue.close()


def test_nobody_sees_half_a_message_however_often_he_looks(tmp_path, queue_name):
    app = app_on(tmp_path)
    large = "x" * 200_000
    done = threading.Event()

    def write() -> None:
        with app.connection_for_write() as connection, connection.SimpleQueue(queue_name) as queue:
            for _ in range(50):
                queue.put(large)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        for file in tmp_path.glob("*.msg"):
            json.loads(file.read_bytes())
    writer.join()
    assert len(list(tmp_path.glob(f"*.{queue_name}.msg"))) == 50
    assert list(tmp_path.glob("*.part")) == []


def test_the_folder_is_made_where_it_is_missing(tmp_path):
    settings = folder_broker(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert settings["broker_transport_options"]["data_folder_in"] == str(tmp_path / "a" / "b")
