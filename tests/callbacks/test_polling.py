"""Twilio is asked about texts whose report never came: the real sender, our simulator, and time that is moved."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.callbacks.signed import FROM, TO
from tests.store.clock import pass_time

from smsretry import Accepted, Dispatcher, Message
from smsretry.callbacks import Polled, poll
from smsretry.core.delivery import DeliveryReport, DeliveryRetries, Mark
from smsretry.core.suppression import Suppression
from smsretry.errors import ConfigurationError
from smsretry.senders.twilio import TwilioSender
from smsretry.senders.twilio_reports import report_of
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator

QUARTER_OF_AN_HOUR = 15 * 60
HOUR = 3_600
RETRIES = DeliveryRetries(codes={"30003"})


@pytest.fixture(scope="module")
def running() -> Iterator[TwilioSimulator]:
    with TwilioSimulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running: TwilioSimulator) -> TwilioSimulator:
    running.reset()
    return running


@pytest.fixture
def sender(simulator: TwilioSimulator) -> Iterator[TwilioSender]:
    account = (simulator.account_sid, simulator.auth_token)
    sender = TwilioSender(*account, from_number=FROM, base_url=simulator.url, timeout_s=5)
    yield sender
    sender.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}", delivery_retries=RETRIES) as opened:
        yield opened


class Queue:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message, /) -> None:
        self.sent.append(message)


def text(store: SQLStore, sender: TwilioSender, name: str = "m") -> str:
    """Send a text that nobody will report about, and return its SID."""
    outcome = Dispatcher(sender, journal=store).attempt(Message(TO, f"For {name}.", id=name, campaign="spring"))
    assert isinstance(outcome, Accepted)
    return outcome.receipt.provider_id


def standing(store: SQLStore, name: str = "m") -> tuple[str, str | None, str | None]:
    record = store.message(name)
    assert record is not None
    return record.state.value, record.delivery, record.delivery_code


def test_a_text_whose_report_was_lost_is_asked_about_a_quarter_of_an_hour_later(store, sender, simulator):
    simulator.script_fate("delivered")
    text(store, sender)
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR - 60)
    assert poll(store, sender) == Polled(asked=0, final=0, failed=0)
    pass_time(store, 61)
    assert poll(store, sender) == Polled(asked=1, final=1, failed=0)
    assert standing(store) == ("accepted", "delivered", None)
    pass_time(store, HOUR)
    assert poll(store, sender) == Polled(asked=0, final=0, failed=0)
    assert simulator.gets == 1


def test_a_text_is_asked_about_sooner_where_that_is_wished_and_only_the_first_time(store, sender, simulator):
    text(store, sender)
    assert poll(store, sender, after_s=60) == Polled(asked=0, final=0, failed=0)
    assert poll(store, sender, after_s=0) == Polled(asked=1, final=0, failed=0)
    assert poll(store, sender, after_s=0) == Polled(asked=0, final=0, failed=0)
    pass_time(store, HOUR / 2 + 1)
    assert poll(store, sender, after_s=0) == Polled(asked=1, final=0, failed=0)
    text(store, sender, "later")
    pass_time(store, 61)
    assert poll(store, sender, after_s=60).asked == 1


@pytest.mark.parametrize("after_s", [-1, 901, float("nan")])
def test_a_time_after_which_nobody_is_asked_is_refused(store, sender, after_s):
    with pytest.raises(ConfigurationError, match="after_s must be from 0 to 900"):
        poll(store, sender, after_s=after_s)


def test_a_text_without_a_last_word_is_asked_about_less_and_less_until_three_days_are_over(store, sender, simulator):
    text(store, sender)
    asked = []
    for hour in range(100):
        pass_time(store, HOUR)
        asked += [hour + 1] * poll(store, sender).asked
    assert asked == [1, 2, 3, 5, 9, 17, 29, 41, 53, 65, 77]
    assert standing(store) == ("accepted", "no_report", None)
    summary = store.campaign_summary("spring")
    assert (summary.sent, summary.no_report, summary.awaiting) == (1, 1, 0)
    assert simulator.gets == len(asked)


def test_a_text_that_did_not_arrive_is_sent_anew_where_that_was_asked_for(store, sender, simulator):
    queue = Queue()
    simulator.script_fate("undelivered", 30003)
    first = text(store, sender)
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    assert poll(store, sender, queue) == Polled(asked=1, final=1, failed=0)
    assert [message.id for message in queue.sent] == ["m"]
    assert standing(store)[0] == "pending"
    pass_time(store, QUARTER_OF_AN_HOUR)
    simulator.script_fate("delivered")
    again = Dispatcher(sender, journal=store).attempt(queue.sent[0])
    assert isinstance(again, Accepted)
    assert again.receipt.provider_id != first
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    assert poll(store, sender, queue).final == 1
    summary = store.campaign_summary("spring")
    assert (summary.sent, summary.delivered, summary.delivered_after_retry, summary.doubled) == (1, 1, 1, 0)


def test_without_a_queue_recover_sends_it_anew(store, sender, simulator):
    queue = Queue()
    simulator.script_fate("undelivered", 30003)
    text(store, sender)
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    poll(store, sender)
    pass_time(store, QUARTER_OF_AN_HOUR)
    assert store.recover(queue).handed_over == 1
    assert [message.id for message in queue.sent] == ["m"]


@pytest.mark.parametrize("fault", ["unavailable", "closed_before_taken"])
def test_a_text_that_twilio_says_nothing_of_is_asked_about_again(store, sender, simulator, fault, caplog):
    simulator.script_fate("delivered")
    sid = text(store, sender)
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    simulator.always(fault, on="look_up")
    with caplog.at_level(logging.WARNING, logger="smsretry"):
        assert poll(store, sender) == Polled(asked=1, final=0, failed=1)
    assert sid in caplog.text
    assert TO not in caplog.text
    simulator.always(None, on="look_up")
    assert poll(store, sender).asked == 0
    pass_time(store, HOUR)
    assert poll(store, sender) == Polled(asked=1, final=1, failed=0)


@pytest.mark.parametrize("refusal", [("bad_credentials", "auth 20003"), ("suspended", "account 20403")])
def test_nobody_is_asked_for_an_account_that_is_refused_and_all_are_asked_soon(
    store, sender, simulator, refusal, caplog
):
    fault, why = refusal
    for number in range(3):
        simulator.script_fate("delivered")
        text(store, sender, f"m{number}")
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    simulator.always(fault, on="look_up")
    with caplog.at_level(logging.WARNING, logger="smsretry"):
        assert poll(store, sender) == Polled(asked=1, final=0, failed=1, refused=why)
    assert f"could not be asked about (ProviderError: {why})." in caplog.text
    assert simulator.gets == 1
    simulator.always(None, on="look_up")
    assert poll(store, sender) == Polled(asked=3, final=3, failed=0)


def test_an_account_refused_for_days_ends_no_text(store, sender, simulator):
    simulator.script_fate("delivered")
    text(store, sender)
    assert simulator.drain()
    simulator.always("bad_credentials", on="look_up")
    for _ in range(20):
        pass_time(store, 12 * HOUR)
        assert poll(store, sender).refused == "auth 20003"
    simulator.always(None, on="look_up")
    assert poll(store, sender) == Polled(asked=1, final=1, failed=0)
    assert standing(store) == ("accepted", "delivered", None)


def test_pollers_side_by_side_ask_about_each_text_once(store, sender, simulator):
    for number in range(24):
        simulator.script_fate("delivered")
        text(store, sender, f"m{number}")
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    done: list[Polled] = []
    threads = [threading.Thread(target=lambda: done.append(poll(store, sender, limit=9))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.asked for one in done) == sum(one.final for one in done) == simulator.gets == 24
    assert max(one.asked for one in done) <= 9
    assert store.campaign_summary("spring").delivered == 24


class Overtaken:
    """Be the sender, of whose question the answer is overtaken by the callback."""

    def __init__(self, sender: TwilioSender, store: SQLStore) -> None:
        self._sender, self._store = sender, store

    def fetch(self, provider_id: str, /) -> DeliveryReport:
        fetched = self._sender.fetch(provider_id)
        told = report_of(provider_id, "undelivered", "30003", datetime.now(UTC), message_id="m", mark=Mark(1, 1, 1))
        assert self._store.receive(told).again is not None
        return fetched


def test_an_answer_that_a_callback_has_overtaken_is_not_taken_for_the_next_round(store, sender, simulator):
    simulator.script_fate("undelivered", 30003)
    text(store, sender)
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    assert poll(store, Overtaken(sender, store)).asked == 1
    record = store.message("m")
    assert record is not None
    assert (record.state, record.round, record.delivery_retries) == ("pending", 2, 1)
    assert len([row for row in store.history("m") if row.outcome == "accepted"]) == 1


def test_texts_that_end_without_a_report_keep_nobody_from_being_asked_about(store, sender, simulator):
    taken = [text(store, sender, f"old{number}") for number in range(3)]
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    assert len(store.unreported()) == len(taken)  # and no answer comes
    pass_time(store, 15 * 24 * HOUR)
    simulator.script_fate("delivered")
    text(store, sender)
    assert simulator.drain()
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    assert len(store.unreported(limit=2)) == 1
    assert store.campaign_summary("spring").no_report == len(taken)


class Awaited:
    async def send(self, message: Message, /) -> None:
        raise AssertionError

    async def fetch(self, provider_id: str, /) -> DeliveryReport:
        raise AssertionError


def test_parts_that_cannot_poll_are_told_before_anybody_is_asked(store, sender, simulator):
    text(store, sender)
    pass_time(store, QUARTER_OF_AN_HOUR + 1)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((sender, store), "store must be an SQLStore, got TwilioSender"),
        ((None, sender), "store must be an SQLStore, got NoneType"),
        ((store, Dispatcher(sender, journal=store)), "sender must be a TwilioSender, .* got Dispatcher"),
        ((store, Awaited()), "sender must be a TwilioSender, .* got Awaited"),
        ((store, sender, "high"), "queue must be a ready task .* got str"),
        ((store, sender, Awaited()), "queue must be a ready task .* got Awaited"),
    ]
    for parts, why in wrong:
        with pytest.raises(ConfigurationError, match=why):
            poll(*parts)
    assert poll(store, sender).asked == 1


def test_a_database_that_is_away_is_told_to_the_caller(sender):
    with SQLStore("sqlite:////nowhere/at/all.db") as away, pytest.raises(ConfigurationError, match="does not exist"):
        poll(away, sender)


def test_who_opted_out_as_a_fetched_report_says_is_put_on_the_stores_list(store, sender, simulator):
    simulator.script_fate("undelivered", 21610)
    text(store, sender)
    assert simulator.drain()
    assert poll(store, sender, after_s=0) == Polled(asked=1, final=1, failed=0)
    entry = store.suppressed(TO, FROM)
    assert entry is not None
    assert (entry.sender, entry.reason, entry.code) == (FROM, "opted_out", "21610")
    assert store.suppressed(TO, "+15005550001") is None


def test_who_opted_out_is_put_on_the_list_that_is_given(store, sender, simulator):
    simulator.script_fate("undelivered", 21610)
    text(store, sender)
    assert simulator.drain()
    with SQLStore("sqlite://") as other:
        poll(store, sender, after_s=0, suppression=other)
        assert other.suppressed(TO, FROM) is not None
    assert store.suppressed(TO, FROM) is None


class NoList:
    """Be a list that is away."""

    def suppress(self, entry: Suppression, /) -> None:
        raise OSError


def test_a_report_is_fetched_again_where_the_list_was_away(store, sender, simulator):
    simulator.script_fate("undelivered", 21610)
    text(store, sender)
    assert simulator.drain()
    assert poll(store, sender, after_s=0, suppression=NoList()) == Polled(asked=1, final=0, failed=1)
    pass_time(store, HOUR)
    assert poll(store, sender) == Polled(asked=1, final=1, failed=0)
    assert store.suppressed(TO, FROM) is not None


def test_a_list_that_takes_nobody_is_refused(store, sender):
    with pytest.raises(ConfigurationError, match=r"suppression must have a method suppress.* got object"):
        poll(store, sender, suppression=object())
