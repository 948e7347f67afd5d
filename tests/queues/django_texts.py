"""The tasks of docs/how-to/django-tasks.md, and what its reader has already; import it in a site that is set up."""

from __future__ import annotations

import importlib
import importlib.util
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from smsretry import Message
from smsretry.adapters.generic import GenericQueue, deliver
from smsretry.testing.adapter_contract import Site

# Before Django 6 a backport stands in.
tasks = "django.tasks" if importlib.util.find_spec("django.tasks") else "django_tasks"
task: Any = importlib.import_module(tasks).task
site = Site(settings.FOLDER)
store = site.store()


def make_dispatcher():
    return site.dispatcher(journaled=True)


def render(customer_id):
    return Message.from_dict(json.loads(Path(customer_id).read_text()))


# --- as on the page ---


@task
def send_sms(envelope):
    receipt = texts.run(envelope)
    return None if receipt is None else receipt.to_dict()


def again(envelope, delay_s):
    due = timezone.now() + timedelta(seconds=delay_s)
    return send_sms.using(run_after=due).enqueue(envelope)


texts = GenericQueue(make_dispatcher, again=again, journal=store)


@task
def remind(customer_id, state=None):
    def again(state, delay_s):
        due = timezone.now() + timedelta(seconds=delay_s)
        remind.using(run_after=due).enqueue(customer_id, state)

    receipt = deliver(dispatcher, render(customer_id), state=state, again=again)
    return None if receipt is None else receipt.to_dict()


# --- the same without a journal ---

dispatcher = site.dispatcher()


@task
def send_plain(envelope):
    receipt = plain.run(envelope)
    return None if receipt is None else receipt.to_dict()


def again_plain(envelope, delay_s):
    due = timezone.now() + timedelta(seconds=delay_s)
    return send_plain.using(run_after=due).enqueue(envelope)


plain = GenericQueue(site.dispatcher, again=again_plain)
