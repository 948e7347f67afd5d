"""Run the python of a page as a test's own, so that what is shown is what is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.test_docs import program_of

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def recipe(name: str, *changes: tuple[str, str]) -> dict[str, Any]:
    """Return what the program of a how-to page defines; each change replaces a text that is there."""
    page = HOW_TO / f"{name}.md"
    program = program_of(page.read_text("utf-8"))
    for old, new in changes:
        assert old in program, f"{page.name} has no {old}"
        program = program.replace(old, new)
    defined: dict[str, Any] = {"__name__": f"recipe_{name}"}
    exec(compile(program, str(page), "exec"), defined)
    return defined
