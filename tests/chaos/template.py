"""Fork workers from a process that has loaded the application: one starts in a tenth of a second instead of two.

    python -m tests.chaos.template MODULE COMMAND OPTION...

For each line on its standard input it forks a process that runs ``celery worker`` on ``MODULE.app``, or ``smsretry``
with any other command, and answers with its pid. It leads the process group of what it forked, children and orphans
included, and kills the whole group when its input ends: so nothing outlives whoever started it, however that ended.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from celery import Celery

from smsretry.cli.commands import smsretry

WHAT_A_WORKER_LOADS: Final = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.app.routes",
    "celery.app.trace",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.asynpool",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.events.receiver",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.loops",
    "celery.worker.strategy",
    "kombu.pidbox",
    "kombu.mixins",
    "smsretry.adapters.celery.request",
)


def main(module: str, command: str, *options: str) -> NoReturn:
    """Fork workers until the input ends."""
    app: Celery = importlib.import_module(module).app
    app.loader.import_default_modules()
    app.finalize()
    for name in WHAT_A_WORKER_LOADS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need not be waited for
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            work(app, command, options)
        print(pid, flush=True)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


def work(app: Celery, command: str, options: tuple[str, ...]) -> NoReturn:
    """Run the command, without a hold on the pipes of the template."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        if command == "worker":
            app.worker_main([command, *options])
        else:
            smsretry.main([command, *options])
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
