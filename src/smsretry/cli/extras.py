"""Say which extra brings a library that a command needs and that is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import click

EXTRAS: Final = {"celery": "celery", "sqlalchemy": "sql", "twilio": "twilio"}
"""Libraries that commands need, and the extras that bring them."""


def check_installed(what: str, *libraries: str) -> None:
    """Raise `click.ClickException` where one of ``libraries``, all of `EXTRAS`, is missing for ``what``."""
    if missing := [library for library in libraries if find_spec(library) is None]:
        raise click.ClickException(told(what, *missing))


def told(what: str, *missing: str) -> str:
    """Return what ``what`` needs, and the command that installs it."""
    extras = ",".join(EXTRAS[library] for library in missing)
    return f"{what} needs {' and '.join(missing)}. Install {_it(missing)}: pip install 'smsretry[{extras}]'"


def _it(missing: tuple[str, ...]) -> str:
    return "it" if len(missing) == 1 else "them"
