"""Do something to a store once, or again and again, whether or not its database is there each time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from smsretry.store import SQLStore

Done = TypeVar("Done")


def repeat(
    store: SQLStore, work: Callable[[], Done], tell: Callable[[Done], None], *, every_s: float | None = None
) -> None:
    """Do ``work`` on ``store`` and ``tell`` what it did; with ``every_s`` again and again, until interrupted.

    Raises `click.ClickException` where the database fails and it is done only once.
    """
    ends: tuple[type[BaseException], ...] = () if every_s is None else (KeyboardInterrupt,)
    with contextlib.suppress(*ends):
        while True:
            _tried(store, work, tell, again_in_s=every_s)
            if every_s is None:
                break
            time.sleep(every_s)


def _tried(
    store: SQLStore, work: Callable[[], Done], tell: Callable[[Done], None], *, again_in_s: float | None
) -> None:
    from smsretry.cli.show import fault_of

    try:
        done = work()
    except Exception as error:
        why = fault_of(store, error)
        if again_in_s is None:
            msg = f"{why} Check the --store. What was not done yet stays as it is: run it again."
            raise click.ClickException(msg) from error
        click.echo(f"{why} Next try in {again_in_s:g} s.", err=True)
    else:
        tell(done)
