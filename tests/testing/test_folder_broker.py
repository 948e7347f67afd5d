"""The broker in a folder: what is read is whole."""

from __future__ import annotations

import threading
from queue import Empty

import pytest
from celery import Celery

from smsretry.testing.folder_broker import folder_broker

MESSAGES = 300


@pytest.fixture
def app(tmp_path):
    app = Celery("folder")
    app.conf.update(folder_broker(tmp_path / "queue"))
    return app


def test_a_message_is_never_read_before_it_is_whole(app):
    def publish() -> None:
        with app.connection_for_write() as connection:
            queue = connection.SimpleQueue("texts")
            for number in range(MESSAGES):
                queue.put({"number": number, "text": "x" * 20_000})

    publisher = threading.Thread(target=publish)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("texts")
        publisher.start()
        numbers = []
        while len(numbers) < MESSAGES:
            try:
                message = queue.get(block=False)
            except Empty:  # read as fast as it goes, so that it looks in between
                continue
            message.ack()
            numbers.append(message.payload["number"])
    publisher.join()
    assert sorted(numbers) == list(range(MESSAGES))


def test_the_folder_is_made_where_it_is_missing(tmp_path):
    folder_broker(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
