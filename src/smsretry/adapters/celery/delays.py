"""How long a task may wait in a queue before its broker hands it out again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery
from celery.utils.quorum_queues import detect_quorum_queues

from smsretry.adapters._seam import BrokerLimits

_HANDED_OUT_AGAIN: Final[Mapping[str, tuple[str, float]]] = {
    # A task with an ETA waits inside a worker, unacknowledged. kombu's defaults, by the name of the option:
    "redis": ("visibility_timeout", 3_600.0),
    "sqs": ("visibility_timeout", 1_800.0),
    "pgmq": ("visibility_timeout", 1_800.0),
    # RabbitMQ closes the channel of a consumer that holds a message for 30 minutes, which ends the worker. It is a
    # setting of the server (rabbitmq.conf), so the option stands for whoever changed it.
    "amqp": ("consumer_timeout", 1_800.0),
}
_SHARE: Final = 0.5
"""The part of that time which a wait may take up; the rest is for a busy worker and the attempt itself."""


def broker_of(app: Celery) -> tuple[str, Mapping[str, Any]]:
    """Return the transport of ``app`` (kombu's ``driver_type``) and its options; opens no connection."""
    with app.connection_for_write() as connection:
        return connection.transport.driver_type, connection.transport_options or {}


def limits_of(app: Celery) -> BrokerLimits:
    """Return what the broker of ``app`` allows of one wait."""
    transport, options = broker_of(app)
    quorum, _ = detect_quorum_queues(app, transport)
    return broker_limits(transport, options, quorum=quorum)


def broker_limits(transport: str, options: Mapping[str, Any], *, quorum: bool = False) -> BrokerLimits:
    """Return the limits of a kombu transport (its ``driver_type``) with its ``broker_transport_options``.

    One that hands nothing out again has none.
    """
    _, again_s = handed_out_again(transport, options)
    if again_s == math.inf:
        return BrokerLimits()
    return BrokerLimits(longest_wait_s=max(again_s * _SHARE, 1.0 if quorum else 0.0), whole_seconds=quorum)


def handed_out_again(transport: str, options: Mapping[str, Any]) -> tuple[str, float]:
    """Return the option that says when a transport hands a held message out again, and after how many seconds.

    Infinity stands for never.
    """
    if transport not in _HANDED_OUT_AGAIN:
        return "", math.inf
    option, usual_s = _HANDED_OUT_AGAIN[transport]
    return option, float(options.get(option) or usual_s)
