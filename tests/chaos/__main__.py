"""Run the chaos from the command line: see the package."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console

from tests.chaos.backends import BackendName
from tests.chaos.counting import Run
from tests.chaos.load import SETTLE_AFTER_S
from tests.chaos.programs import ProgramName
from tests.chaos.run import Plan, run
from tests.chaos.table import line_of, table_of, write_json
from tests.chaos.workers import ROOT
from tests.servers import ServerMissing

RESULTS: Final = ROOT / "build" / "chaos.json"
TOO_SHORT: Final = ROOT / "build" / "chaos-settle-too-short.json"
"""Where runs are kept whose settle time breaks the condition of the promise."""
SHORT_MESSAGES: Final = 200
WIDTH: Final = 120
INTERRUPTED: Final = 130
NOT_INSTALLED: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Make every run that the command line asks for; return 1 where this library lost or doubled a text."""
    signal.signal(signal.SIGTERM, _leave)
    asked = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    runs: list[Run] = []
    results = RESULTS if asked.settle_after >= SETTLE_AFTER_S else TOO_SHORT
    try:
        for plan in plans(asked):
            runs.append(_run(plan, asked.keep))
            console.print(line_of(runs[-1]), highlight=False)
            write_json(runs, results)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ServerMissing as missing:
        console.print(str(missing))
        return NOT_INSTALLED
    finally:
        console.print(table_of(runs))
    return int(not all(one.is_clean for one in runs if one.program is ProgramName.OWN))


def plans(asked: argparse.Namespace) -> list[Plan]:
    """Return the runs that the command line asks for."""
    seeds = asked.seeds[:1] if asked.short else asked.seeds
    messages = min(asked.messages, SHORT_MESSAGES) if asked.short else asked.messages
    return [
        Plan(program=program, backend=backend, seed=seed, messages=messages, settle_after_s=asked.settle_after)
        for seed, backend, program in itertools.product(seeds, asked.backends, asked.programs)
    ]


def _run(plan: Plan, keep: Path | None) -> Run:
    with _folder(plan, keep) as folder:
        return run(plan, folder)


@contextmanager
def _folder(plan: Plan, keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="smsretry-chaos-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    folder = keep.resolve() / f"{plan.program}-{plan.backend}-{plan.seed}"
    folder.mkdir(parents=True)
    yield folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Kill and freeze workers, and count the texts lost and doubled."
    )
    parser.add_argument("--messages", type=int, default=2000, help="of each run (%(default)s)")
    parser.add_argument("--seeds", type=_numbers, default=[1, 2, 3, 4, 5], metavar="1,2,3", help="one run for each")
    for option, names in (("--programs", ProgramName), ("--backends", BackendName)):
        parser.add_argument(option, nargs="+", type=names, choices=list(names), default=list(names))
    parser.add_argument("--short", action="store_true", help=f"{SHORT_MESSAGES} messages and the first seed only")
    parser.add_argument(
        "--settle-after",
        type=float,
        default=SETTLE_AFTER_S,
        metavar="SECONDS",
        help="both settle times of smsretry (%(default)s); less breaks its promise, and it may double",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the logs and the evidence there")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End as on Ctrl-C, so that every process is ended."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
