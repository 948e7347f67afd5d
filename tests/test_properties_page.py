"""The page of the properties names a test for each, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "properties.md"
ROW = re.compile(r"^\| (?P<number>\d+) \| (?P<words>.+) \| (?P<tests>.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PROMISED = set(range(1, 24))


def rows(page: str) -> dict[int, str]:
    """Return what the last column says of each number."""
    return {int(row["number"]): row["tests"] for row in ROW.finditer(page)}


def gaps(page: str) -> list[str]:
    """Say which numbers have no test, and which tests do not exist."""
    told = rows(page)
    missing = [f"{number} has no test" for number in sorted(PROMISED) if not NAMED.search(told.get(number, ""))]
    named = {pair for tests in told.values() for pair in NAMED.findall(tests)}
    unknown = [
        f"{path}::{name} does not exist" for path, name in sorted(named) if name not in functions_of(ROOT / path)
    ]
    return missing + unknown


@cache
def functions_of(path: Path) -> set[str]:
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_property_has_a_test_that_exists() -> None:
    assert gaps(PAGE.read_text("utf-8")) == []


def test_the_page_has_every_number_once() -> None:
    numbers = [int(row["number"]) for row in ROW.finditer(PAGE.read_text("utf-8"))]
    assert numbers == list(range(1, 24))


def test_a_gap_is_found() -> None:
    page = PAGE.read_text("utf-8")
    assert gaps(page.replace("test_the_backoff_never_shrinks", "test_nothing")) == [
        "tests/core/test_policy.py::test_nothing does not exist"
    ]
    row = next(row[0] for row in ROW.finditer(page) if row["number"] == "14")
    assert gaps(page.replace(row, "")) == ["14 has no test"]
    assert gaps(page.replace("tests/test_errors.py", "tests/test_missing.py"))[0].endswith("does not exist")
