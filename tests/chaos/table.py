"""Show the runs as a table, and keep them as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from tests.chaos.counting import Run

_FIGURES = ("messages", "kills", "freezes", "lost", "doubled", "unknown", "retries")


def table_of(runs: Sequence[Run]) -> Table:
    """Return the runs, those of one backend and seed beside each other."""
    table = Table("backend", "seed", "program", title="Texts, counted at the provider's socket", box=None)
    for name in (*_FIGURES, "seconds"):
        table.add_column(name, justify="right")
    for run in sorted(runs, key=lambda run: (run.backend, run.seed)):
        figures = [_figure(name, getattr(run, name)) for name in _FIGURES]
        table.add_row(run.backend, str(run.seed), run.program, *figures, f"{run.seconds:.0f}")
    return table


def line_of(run: Run) -> str:
    """Return one run as a line."""
    figures = ", ".join(f"{name} {getattr(run, name)}" for name in _FIGURES[1:])
    return f"{run.program} on {run.backend}, seed {run.seed}: {figures}, {run.seconds:.0f} s"


def write_json(runs: Sequence[Run], file: Path) -> None:
    """Write all runs into ``file``, whose folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"runs": [run.to_dict() for run in runs]}, indent=1) + "\n")


def _figure(name: str, value: int) -> str:
    return f"[bold]{value}[/]" if name in {"lost", "doubled"} else str(value)
