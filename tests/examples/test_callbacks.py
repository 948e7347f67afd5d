"""The examples for Flask, FastAPI and Django take Twilio's callbacks, over real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.callbacks.serving import asked
from tests.callbacks.signed import FROM, PUBLIC, TO, TOKEN, form, inbound, json_body, report
from tests.examples.callback_server import EXAMPLES

from smsretry import Accepted, Dispatcher, Message
from smsretry.core.delivery import Mark, callback_url
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator

ROOT = Path(__file__).parents[2]
TARGETS = [
    "/sms",
    callback_url("/sms?kept=a+b&empty=", "order 7/é+%", Mark(1, 2, 3)),
    "/sms?twice=1&twice=2&bare&plus=a+b&space=a%20b&sign=a%2Bb&low=%c3%a9&again=a?b=c",
]


@dataclass(frozen=True)
class Site:
    """One example that runs in a process of its own."""

    port: int
    store: SQLStore


@pytest.fixture(scope="module", params=EXAMPLES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    url = f"sqlite:///{tmp_path_factory.mktemp('site') / 'sms.db'}"
    env = {**os.environ, "TWILIO_AUTH_TOKEN": TOKEN, "PUBLIC_URL": PUBLIC, "SMSRETRY_DATABASE_URL": url}
    command = [sys.executable, "-W", "error", "-m", "tests.examples.callback_server", request.param]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with SQLStore(url) as store, subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:
        assert process.stdout is not None
        yield Site(int(process.stdout.readline()), store)
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize("target", TARGETS)
def test_a_signed_request_is_taken_as_it_was_asked(site: Site, target: str) -> None:
    answer = asked(site.port, *form([*report("sent"), ("Empty", ""), ("Name", "Zoë & Co")], target))
    assert answer.status == 204


@pytest.mark.parametrize("target", TARGETS[1:])
def test_a_request_that_was_signed_for_another_url_is_refused(site: Site, target: str) -> None:
    method, _, headers, body = form(report("sent"))
    assert asked(site.port, method, target, headers, body).status == 403


def test_a_request_without_a_signature_changes_nothing(site: Site) -> None:
    method, target, _, body = form(inbound("STOP", To="+15005550009"))
    assert asked(site.port, method, target, {"Content-Type": "application/x-www-form-urlencoded"}, body).status == 403
    assert site.store.suppressed(TO, "+15005550009") is None


def test_somebody_who_says_stop_is_put_on_the_list(site: Site) -> None:
    answer = asked(site.port, *form(inbound("STOP", To=FROM)))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/xml; charset=utf-8")
    assert site.store.suppressed(TO, FROM) is not None


def test_a_json_body_is_taken_as_it_came(site: Site) -> None:
    assert asked(site.port, *json_body({"MessageSid": "SM1", "MessageStatus": "sent", "Name": "Zoë\n"})).status == 204


def test_a_body_that_nobody_sends_is_refused(site: Site) -> None:
    method, target, headers, _ = form(report("sent"))
    assert asked(site.port, method, target, headers, 70_000 * b"a").status == 413


def test_nothing_else_is_answered(site: Site) -> None:
    assert asked(site.port, "GET", "/sms", {}, b"").status == 405


def test_a_text_is_sent_and_reported_behind_a_proxy(site: Site) -> None:
    url = f"{PUBLIC}/sms?kept=a+b"
    with TwilioSimulator(auth_token=TOKEN, routes={PUBLIC: f"http://127.0.0.1:{site.port}"}) as twilio:
        account = (twilio.account_sid, TOKEN)
        sender = TwilioSender(*account, from_number=FROM, base_url=twilio.url, status_callback_url=url)
        twilio.script_fate("delivered")
        outcome = Dispatcher(sender, journal=site.store).attempt(Message(TO, "Hello.", id="order 7/é"))
        sender.close()
        assert isinstance(outcome, Accepted)
        assert twilio.drain()
    record = site.store.message("order 7/é")
    assert record is not None
    assert (record.state, record.delivery) == ("accepted", "delivered")
