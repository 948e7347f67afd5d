"""The module of the worker with which Dramatiq keeps the contract of adapters; VARIABLE holds its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Actor
from dramatiq.broker import Broker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from smsretry import Message, NotAccepted
from smsretry.adapters.dramatiq import SMSTask, deliver, recover_elsewhere, sms_task
from smsretry.testing.adapter_contract import Site

VARIABLE = "SMSRETRY_TEST_DRAMATIQ"


def broker_of(settings: Mapping[str, Any]) -> Broker:
    """Return the broker of producers and workers."""
    url: str = settings["url"]
    broker: Broker
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        broker = RabbitmqBroker(url=url, confirm_delivery=True)
    else:
        from dramatiq.brokers.redis import RedisBroker

        broker = RedisBroker(url=url, namespace=settings["name"], **settings.get("options", {}))
    if settings.get("results"):
        broker.add_middleware(Results(backend=RedisBackend(url=settings["results"], namespace=settings["name"])))
    return broker


def ready(broker: Broker, settings: Mapping[str, Any], name: str, dispatcher: Any, **more: Any) -> SMSTask:
    """Register a ready task on the queue of this harness alone."""
    return sms_task(broker, dispatcher, name=f"contract.{name}", queue_name=settings["name"], **more)


def own(order: str) -> None:
    """Be an actor of an application's own."""
    message = Message.from_dict(json.loads(Path(order).read_text()))
    deliver(own_actor, site.dispatcher, message)


def declared_own(broker: Broker, settings: Mapping[str, Any]) -> Actor[[str], None]:
    options = {"throws": NotAccepted, "max_retries": 1}
    return Actor(
        own, broker=broker, actor_name="contract.own", queue_name=settings["name"], priority=0, options=options
    )


if VARIABLE in os.environ:
    settings = json.loads(os.environ[VARIABLE])
    site = Site(settings["folder"])
    broker = broker_of(settings)
    dramatiq.set_broker(broker)
    recover_elsewhere(broker)  # the checks run it
    ready(broker, settings, "plain", site.dispatcher)
    ready(broker, settings, "journaled", site.dispatcher(journaled=True))
    own_actor = declared_own(broker, settings)
