"""Measure what an import costs beside tenacity and stamina: ``python -m benchmarks.import_time``.

Each import runs in a process of its own, with its bytecode cached, and all take turns, so that a slow moment of the
machine meets all; the median counts. ``import smsretry`` loads a public name when it is first used; the line with the
star loads all of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Final

ROUNDS: Final = 30
NOTHING: Final = "pass"
STATEMENTS: Final = (
    NOTHING,
    "import smsretry",
    "from smsretry import Message",
    "from smsretry import *",
    "import tenacity",
    "import stamina",
)


def measured(rounds: int) -> dict[str, float]:
    """Return the median time of a process in ms, by what it imports."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(rounds + 1):
            for statement in STATEMENTS:
                taken_ms = timed(statement, environment)
                if turn:  # the first one writes the bytecode
                    times[statement].append(taken_ms)
    return {statement: statistics.median(values) for statement, values in times.items()}


def timed(statement: str, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return (time.perf_counter() - began) * 1e3


def main(rounds: int = ROUNDS) -> None:
    print(f"Python {sys.version.split()[0]}, medians of {rounds} processes\n")
    medians = measured(rounds)
    base = medians[NOTHING]
    print(f"{'statement':<32}{'ms':>8}{'beyond nothing':>18}")
    for statement, median in medians.items():
        print(f"{statement:<32}{median:>8.1f}{median - base:>18.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
