"""The options that several commands share."""

from __future__ import annotations

from typing import Final

import click

from smsretry.core.failure import FailureKind

MENDABLE: Final = tuple(
    kind.value
    for kind in (FailureKind.AUTH, FailureKind.ACCOUNT, FailureKind.SENDER_CONFIG, FailureKind.GEO_PERMISSION)
)
"""What `smsretry.store.requeue` takes; importing it here would cost every command the time for SQLAlchemy."""

STORE = click.option(
    "--store", "url", default="sqlite:///sms.db", show_default=True, help="A SQLite file, or the URL of a database."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
EVERY = click.option(
    "--every", "every_s", type=click.FloatRange(min=0, min_open=True), help="Again and again, in seconds."
)
