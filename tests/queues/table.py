"""Write the table of docs/reference/queues.md from what the contract kit wrote: `make queues`.

python -m tests.queues.table FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from smsretry.testing.adapter_contract import CHECKS

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "queues.md"
BEGIN: Final = "<!-- what follows is written by: make queues -->"
PROMISES: Final = {check.__name__.removeprefix("check_"): str(check.__doc__).partition("\n")[0] for check in CHECKS}
MARKS: Final = {"holds": "✓", "broken": "**broken**"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of the checks of one adapter."""

    name: str
    versions: dict[str, str]
    checks: dict[str, str]

    @classmethod
    def from_file(cls, file: Path) -> Self:
        told: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return cls(**told)


def written(results: list[Result]) -> str:
    """Return the promises by number, adapters and promises, and the reasons of what does not hold or was not run."""
    numbers = {name: str(number) for number, name in enumerate(PROMISES, 1)}
    told = [[one.name, *(mark(one, name) for name in PROMISES), versions(one)] for one in results]
    return "\n".join(
        [
            *(f"{numbers[name]}. **{name.replace('_', ' ')}.** {words}" for name, words in PROMISES.items()),
            "",
            *rows(["adapter and server", *numbers.values(), "versions"], told),
            *(f"- {one.name}, {numbers[name]}: {why}" for one in results for name, why in reasons(one)),
        ]
    )


def rows(head: list[str], body: list[list[str]]) -> list[str]:
    return [row(head), row(["---"] * len(head)), *map(row, body), ""]


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def versions(result: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in result.versions.items())


def mark(result: Result, name: str) -> str:
    """Return a cell; a check without a result was not run."""
    return MARKS.get(result.checks.get(name, "").partition(":")[0], "–")


def reasons(result: Result) -> list[tuple[str, str]]:
    return [(name, why) for name, why in result.checks.items() if name in PROMISES and why != "holds"]


def with_table(page: str, table: str) -> str:
    return page.partition(BEGIN)[0] + f"{BEGIN}\n\n{table.rstrip()}\n"


def main(folder: Path) -> None:
    results = [Result.from_file(file) for file in sorted(folder.glob("*.json"), key=lambda file: file.stem)]
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), written(results)), "utf-8")
    print(f"{len(results)} adapters: {PAGE.name} is written.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
