"""Queue again what was lost, or failed for the account's sake, and take messages back: the commands of a journal."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from smsretry.cli.extras import check_installed
from smsretry.cli.options import EVERY, JSON, MENDABLE, STORE
from smsretry.cli.repeating import repeat

if TYPE_CHECKING:
    from smsretry.store import Recovered, SQLStore

_LOST_AFTER_S: Final = 86_400.0
"""That of `smsretry.store.SQLStore`."""

_APP = click.option("--app", metavar="MODULE[:NAME]", help="The Celery app, as for celery -A.")
_TASK = click.option("--task", metavar="NAME", help="The name of its task that sms_task made.")
_CALL = click.option(
    "--call",
    metavar="MODULE:NAME",
    help="In place of both: a ready task of any queue, or a function of (message_id, metadata) that queues.",
)


@click.command()
@STORE
@_APP
@_TASK
@_CALL
@EVERY
@click.option(
    "--grace", "grace_s", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds past their time."
)
@click.option(
    "--lost-after",
    "lost_after_s",
    default=_LOST_AFTER_S,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds past its time when a message whose text was not kept is given up.",
)
@JSON
def recover(
    *,
    url: str,
    app: str | None,
    task: str | None,
    call: str | None,
    every_s: float | None,
    grace_s: float,
    lost_after_s: float,
    as_json: bool,
) -> None:
    """Queue again what a killed worker or the broker has lost.

    Those are the messages of a journal that are past their time and that nobody works on. Run it beside workers,
    or twice at once: nothing is sent twice for it. It ends after one run, or with --every when it is interrupted.
    """
    from smsretry.cli.show import opened
    from smsretry.store import recover as run

    queue = _queue(app, task, call)
    with opened(url, lost_after_s=lost_after_s) as store:
        repeat(store, lambda: run(store, queue, grace_s=grace_s), _told(as_json=as_json), every_s=every_s)


@click.command()
@STORE
@_APP
@_TASK
@_CALL
@click.option("--campaign", required=True, help="The campaign; '' for messages without one.")
@click.option("--kind", required=True, type=click.Choice(MENDABLE), help="What they failed with.")
@JSON
def requeue(
    *,
    url: str,
    app: str | None,
    task: str | None,
    call: str | None,
    campaign: str,
    kind: str,
    as_json: bool,
) -> None:
    """Send once more what failed because the account was refused.

    Mend the account first. Each message gets a new round, with all its retries.
    """
    from smsretry.cli.show import opened
    from smsretry.store import requeue as run

    queue = _queue(app, task, call)
    with opened(url) as store:
        check_campaign(store, campaign)
        repeat(store, lambda: run(store, queue, campaign=campaign or None, kind=kind), _told(as_json=as_json))


@click.command(short_help="Take back MESSAGE_ID, unless it has ended.")
@click.argument("message_id")
@STORE
def cancel(message_id: str, url: str) -> None:
    """Take back MESSAGE_ID, unless it has ended: nobody begins to send it any more."""
    from smsretry.cli.show import no_message, opened

    with opened(url) as store:
        taken_back, record = store.cancel(message_id), store.message(message_id)
        if record is None:
            raise no_message(store, message_id)
    if not taken_back:
        raise click.ClickException(f"{message_id} has ended already: it is {record.state.value}. Nothing was changed.")
    if record.state.value == "pending":
        click.echo(
            f"{message_id} may be sent: it is asked about until that is settled, and is not sent again. "
            f"How it ends: smsretry show {message_id}"
        )
    else:
        click.echo(f"{message_id} is canceled.")


def check_campaign(store: SQLStore, campaign: str) -> None:
    """Raise where ``store`` knows no message of ``campaign``: it is misspelt, or the store is another one."""
    if store.campaign_summary(campaign or None).planned == 0:
        what = f"campaign {campaign!r}" if campaign else "message without a campaign"
        raise click.ClickException(f"There is no {what} in {store.name}. Check the --campaign and the --store.")


def _queue(app: str | None, task: str | None, call: str | None) -> Any:
    """Return what queues a message: a task of ``app``, or a function of the application's own."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as celery -A does
    match app, task, call:
        case str(), str(), None:
            check_installed("--app", "celery")
            return _task_of(_found("--app", app, _celery_app), task)
        case None, None, str():
            return _found("--call", call, _ready_or_function)
        case _:
            raise click.UsageError(
                "Name --app and --task, for a task that sms_task made, or else --call alone. What `smsretry send` "
                "began has no queue: go on with send --resume, and --retry when the account is mended."
            )


def _found(option: str, name: str, find: Callable[[str], Any]) -> Any:
    try:
        return find(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.ClickException(f"{option} {name} was not found: {error}. Name it as module:name.") from None


def _celery_app(name: str) -> Any:
    from celery.app.utils import find_app

    found = find_app(name)
    if not hasattr(found, "tasks"):
        raise ValueError(f"it is a {type(found).__name__} and no Celery app")
    found.loader.import_default_modules()
    return found


def _ready_or_function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError("it names no function")
    found = getattr(importlib.import_module(module), attribute)
    if not callable(getattr(found, "send", found)):
        raise ValueError(f"it is a {type(found).__name__}, no ready task and no function")  # noqa: TRY004  # one error for all
    return found


def _task_of(app: Any, name: str) -> Any:
    if name not in app.tasks:
        own = sorted(one for one in app.tasks if not one.startswith("celery."))
        raise click.ClickException(f"The app has no task {name!r}. It has: {', '.join(own) or 'none'}.")
    if not callable(getattr(app.tasks[name], "send", None)):
        raise click.ClickException(
            f"The task {name!r} was not made by sms_task. Name a function that queues it with --call instead."
        )
    return app.tasks[name]


def _told(*, as_json: bool) -> Callable[[Recovered], None]:
    return lambda done: _tell(done, as_json=as_json)


def _tell(done: Recovered, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(done)))
    else:
        click.echo(
            f"{done.handed_over} queued again, {done.failed} could not be queued, {done.unrecoverable} unrecoverable."
        )
    if done.without_text:
        click.echo(
            f"{done.without_text} were left as they are: their text was not kept. Queue them with --call.", err=True
        )
    if done.failed:
        click.echo("Those stay overdue: run it again when the broker is back.", err=True)
