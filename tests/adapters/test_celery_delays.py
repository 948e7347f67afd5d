"""How long a task may wait in one go, by broker."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from smsretry.adapters.celery.delays import BrokerLimits, broker_limits, limits_of
from smsretry.adapters.celery.envelope import held, state_in

DELAYS = st.floats(min_value=0.001, max_value=366 * 86_400.0)


@pytest.mark.parametrize(
    ("transport", "options", "longest_s"),
    [
        ("redis", {}, 1_800.0),
        ("redis", {"visibility_timeout": 3}, 1.5),
        ("redis", {"visibility_timeout": None}, 1_800.0),
        ("sqs", {}, 900.0),
        ("sqs", {"visibility_timeout": 43_200}, 21_600.0),
        ("pgmq", {}, 900.0),
        ("amqp", {}, 900.0),
        ("amqp", {"consumer_timeout": 7_200}, 3_600.0),
        ("filesystem", {"visibility_timeout": 3}, math.inf),
        ("memory", {}, math.inf),
        ("sql", {}, math.inf),
    ],
)
def test_a_wait_takes_half_of_what_the_broker_allows(transport, options, longest_s):
    assert broker_limits(transport, options) == BrokerLimits(longest_wait_s=longest_s)


def test_a_wait_within_the_limit_is_one_hop_of_exactly_that_length():
    assert BrokerLimits(longest_wait_s=10.0).countdown(7.25) == 7.25


def test_without_a_limit_the_longest_wait_is_one_hop():
    assert BrokerLimits().countdown(366 * 86_400.0) == 366 * 86_400.0


@pytest.mark.parametrize("delay_s", [0.0, -1.0, -1e9])
@pytest.mark.parametrize("quorum", [True, False])
def test_what_is_due_does_not_wait(delay_s, quorum):
    assert broker_limits("amqp", {}, quorum=quorum).countdown(delay_s) == 0.0


@pytest.mark.parametrize(("delay_s", "countdown"), [(0.001, 1.0), (0.999, 1.0), (1.0, 1.0), (1.2, 2.0), (8.0, 8.0)])
def test_a_quorum_queue_waits_whole_seconds_and_one_at_least(delay_s, countdown):
    assert broker_limits("amqp", {}, quorum=True).countdown(delay_s) == countdown


@given(delay_s=DELAYS, longest_s=st.floats(min_value=1.0, max_value=43_200.0), quorum=st.booleans())
def test_no_hop_is_longer_than_the_limit_or_shorter_than_what_is_left(delay_s, longest_s, quorum):
    limits = BrokerLimits(longest_wait_s=longest_s, whole_seconds=quorum)
    hop_s = limits.countdown(delay_s)
    assert 0.0 < hop_s <= (math.ceil(longest_s) if quorum else longest_s * (1.0 + 1e-9))
    assert hop_s >= min(delay_s, longest_s / 2)


@given(delay_s=st.floats(min_value=0.001, max_value=10_000.0), longest_s=st.floats(min_value=2.0, max_value=900.0))
def test_hop_after_hop_ends_exactly_when_the_message_is_due(delay_s, longest_s):
    limits = BrokerLimits(longest_wait_s=longest_s)
    left_s, hops = delay_s, 0
    while left_s > 0.5:  # what is nearer than that is sent
        hop_s = limits.countdown(left_s)
        left_s -= hop_s
        hops += 1
    assert abs(left_s) < 1e-6 or hops == 0
    assert hops <= math.ceil(delay_s / longest_s) + 1


# --- what an application is configured for; nothing is connected ---

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def celery_app(url: str, **settings: Any) -> Celery:
    app = Celery("texts", broker=url, set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.mark.parametrize(
    ("url", "settings", "limits"),
    [
        ("redis://127.0.0.1:9/0", {}, BrokerLimits(longest_wait_s=1_800.0)),
        (
            "redis://127.0.0.1:9/0",
            {"broker_transport_options": {"visibility_timeout": 60}},
            BrokerLimits(longest_wait_s=30.0),
        ),
        ("amqp://127.0.0.1:9//", {}, BrokerLimits(longest_wait_s=900.0)),
        (
            "amqp://127.0.0.1:9//",
            {"task_default_queue_type": "quorum"},
            BrokerLimits(longest_wait_s=900.0, whole_seconds=True),
        ),
        ("memory://", {}, BrokerLimits()),
    ],
)
def test_the_limits_are_those_of_the_broker_that_the_app_publishes_to(url, settings, limits):
    assert limits_of(celery_app(url, **settings)) == limits


@pytest.mark.parametrize("options", [{"countdown": 90}, {"eta": NOW + timedelta(seconds=90)}])
def test_a_long_countdown_is_cut_and_the_state_says_when_it_is_over(options):
    app = celery_app("redis://127.0.0.1:9/0", broker_transport_options={"visibility_timeout": 60})
    changed = held({**options, "headers": {"trace": "abc"}, "queue": "texts"}, app, NOW)
    assert (changed["countdown"], changed["eta"], changed["queue"]) == (30.0, None, "texts")
    assert changed["headers"]["trace"] == "abc"
    assert state_in(changed["headers"]).due == NOW + timedelta(seconds=90)


@pytest.mark.parametrize(
    "options", [{}, {"countdown": 0}, {"countdown": 30}, {"eta": NOW + timedelta(seconds=30)}, {"eta": None}]
)
def test_a_wait_that_the_broker_bears_is_left_as_it_is(options):
    app = celery_app("redis://127.0.0.1:9/0", broker_transport_options={"visibility_timeout": 60})
    assert held(options, app, NOW) == options


def test_a_quorum_queue_is_never_given_a_fraction_of_a_second():
    app = celery_app("amqp://127.0.0.1:9//", task_default_queue_type="quorum")
    assert held({"countdown": 0.2}, app, NOW)["countdown"] == 1.0
