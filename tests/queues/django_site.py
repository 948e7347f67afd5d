"""A Django site in a folder, and its worker: python -m tests.queues.django_site FOLDER."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, cast

import django
from django.conf import settings
from django.core.management import call_command


def set_up(folder: Path) -> None:
    """Set this process up for the site in ``folder``."""
    backport = ["django_tasks"] if importlib.util.find_spec("django_tasks") else []
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "django.db", "OPTIONS": {"timeout": 30}}
    cast("Any", settings).configure(
        INSTALLED_APPS=["django_tasks_db", *backport],
        DATABASES={"default": database},
        TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        LOGGING_CONFIG=None,
        FOLDER=folder,
    )
    django.setup()


if __name__ == "__main__":
    set_up(Path(sys.argv[1]))
    call_command("db_worker", interval=0.05, startup_delay=False, reload=False)
