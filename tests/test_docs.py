"""What README and docs show, runs.

The ```python blocks of a page run in order as one program, in a process of its own and in an empty folder.
Of the ```console blocks, the cheap commands are run and what is shown is compared; `make` and `pip install`
lines are checked against Makefile and pyproject.toml. A block after `<!-- not run: reason -->` is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smsretry.core.outcome import DeferReason, GiveUpReason

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^(?P<indent>[ ]*)```(?P<info>.*)$")
WIDTH = re.compile(r"([ ─━═])\1+")
NOT_RUN = re.compile(r"<!-- not run: \S.*-->")
CHEAP = {"explain", "schedule", "--help", "--version"}
# Shown, never run. Any other language than these, `python` and `console` is refused, so that none is missed.
SHOWN = {"text", "diff", "json", "toml", "ini", "sql", "http", "yaml", "make", "dockerfile", "csv", "html"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: its language, the line its text begins on (1-based), and its text."""

    language: str
    line: int
    text: str
    not_run: bool


def pages() -> list[Path]:
    docs = [path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "api"} & set(path.parts)]
    return [path for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(docs)] if path.exists()]


def blocks_of(page: str) -> Iterator[Block]:
    """List the fenced blocks of a page; MyST directives, such as ```{toctree}, are none of ours."""
    lines = page.splitlines()
    numbered = iter(enumerate(lines, start=1))
    for number, line in numbered:
        opening = FENCE.match(line)
        if not opening:
            continue
        body = []
        for _, inner in numbered:
            if inner.strip() == "```":
                break
            body.append(inner)
        language = opening["info"].strip()
        if not language.startswith("{"):
            before = last_words(lines[: number - 1])
            yield Block(
                language=language,
                line=number + 1,
                text=textwrap.dedent("\n".join(body)) + "\n",
                not_run=bool(NOT_RUN.fullmatch(before)),
            )


def last_words(lines: list[str]) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def program_of(page: str) -> str:
    """Return the python blocks of a page as one program whose line numbers are those of the page."""
    program = ""
    for block in blocks_of(page):
        if block.language == "python" and not block.not_run:
            program += "\n" * (block.line - 1 - program.count("\n")) + block.text
    return program


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Pair each `$ command` of a console block with the output shown under it."""
    command = ""
    output: list[str] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line.removeprefix("$ "), []
        else:
            output.append(line.rstrip())
    if command:
        yield command, output


def shown_in(shown: list[str], printed: list[str]) -> bool:
    """Say whether the lines shown are the lines printed; a line of dots stands for any number of lines."""
    if not shown:
        return True
    head, *rest = shown
    if head.strip() in {"…", "..."}:
        return any(shown_in(rest, printed[skipped:]) for skipped in range(len(printed) + 1))
    return bool(printed) and same(head, printed[0]) and shown_in(rest, printed[1:])


def same(shown: str, printed: str) -> bool:
    """Compare two lines; how wide the cells of a table are depends on the rows that a page may leave out."""
    return WIDTH.sub(r"\1", shown.rstrip()) == WIDTH.sub(r"\1", printed.rstrip())


def environment() -> dict[str, str]:
    """Return an environment in which no account of the reader's is used and no colour is printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWILIO_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return kept | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=90
    )


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def complaints(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[str]]]:
    """Run the programs of the chosen pages side by side: most of their time is start-up and waiting."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    mine = (item for item in items if item.originalname == "test_the_python_of_a_page_runs")
    chosen: list[Any] = [item.callspec.params["page"] for item in mine]
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield {
            page: pool.submit(complaint_about_python, page.read_text("utf-8"), tmp_path_factory.mktemp("page"))
            for page in chosen
        }


@pytest.mark.parametrize("page", pages(), ids=named)
def test_the_python_of_a_page_runs(page: Path, complaints: dict[Path, Future[str]]) -> None:
    assert complaints[page].result() == "", f"lines as in {named(page)}"


@pytest.mark.parametrize("page", pages(), ids=named)
def test_the_commands_of_a_page_do_what_it_shows(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page.read_text("utf-8")):
        if block.language == "console" and not block.not_run:
            for command, shown in commands_of(block):
                assert complaint_about(command, shown, tmp_path) == ""


@pytest.mark.parametrize("page", pages(), ids=named)
def test_no_block_of_a_page_is_in_a_language_that_is_never_checked(page: Path) -> None:
    languages = {block.language for block in blocks_of(page.read_text("utf-8"))}
    assert languages <= SHOWN | {"python", "console"}


def complaint_about_python(page: str, folder: Path) -> str:
    """Run the program of a page, if it has one; return what it printed where it fails."""
    program = program_of(page)
    if not program:
        return ""
    script = folder / "page.py"
    script.write_text(program, "utf-8")
    done = run([sys.executable, script.name], folder)
    return "" if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"


def complaint_about(command: str, shown: list[str], folder: Path) -> str:
    """Say what is wrong with a command of a page; nothing where it is right or not checked."""
    match shlex.split(command, comments=True):
        case ["smsretry", *arguments] if CHEAP & set(arguments):
            return complaint_about_run(["smsretry", *arguments], shown, folder)
        case ["make", *targets]:
            return complaint_about_targets(targets)
        case ["pip" | "uv", *arguments]:
            return complaint_about_extras(arguments)
        case _:
            return ""


def complaint_about_run(command: list[str], shown: list[str], folder: Path) -> str:
    program = str(Path(sys.executable).parent / command[0])
    done = run([program, *command[1:]], folder)
    if done.returncode == 0 and (not any(shown) or shown_in(shown, done.stdout.splitlines())):
        return ""
    return f"{shlex.join(command)} ended with {done.returncode} and printed\n{done.stdout}\n{done.stderr}"


def complaint_about_targets(targets: list[str]) -> str:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    unknown = {target for target in targets if "=" not in target} - known
    return f"the Makefile has no target {sorted(unknown)}" if unknown else ""


def complaint_about_extras(arguments: list[str]) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = re.findall(r"(?:smsretry|\.)\[([^\]]+)\]", " ".join(arguments))
    unknown = {extra for extras in asked for extra in extras.split(",")} - set(project["optional-dependencies"])
    return f"pyproject.toml has no extra {sorted(unknown)}" if unknown else ""


PAGE = """\
# A page

```python
x = 1
```

```{toctree}
python
```

<!-- not run: needs an account -->

```python
1 / 0
```

- indented:

  ```python
  assert x == 1
  ```

```console
$ make demo
$ smsretry schedule
2
…
8
```
"""


def test_the_program_of_a_page_keeps_the_lines_of_the_page() -> None:
    program = program_of(PAGE).splitlines()
    wanted = PAGE.splitlines()
    assert [(number, line) for number, line in enumerate(program) if line] == [
        (wanted.index("x = 1"), "x = 1"),
        (wanted.index("  assert x == 1"), "assert x == 1"),
    ]


def test_a_page_whose_python_fails_is_caught(tmp_path: Path) -> None:
    failing = PAGE.replace("assert x == 1", "assert x == 2")
    number = PAGE.splitlines().index("  assert x == 1") + 1
    assert complaint_about_python(PAGE, tmp_path) == ""
    assert f"line {number}" in complaint_about_python(failing, tmp_path)


def test_the_commands_of_a_page_are_found_with_their_output() -> None:
    console = [block for block in blocks_of(PAGE) if block.language == "console"]
    found = [pair for block in console for pair in commands_of(block)]
    assert found == [("make demo", []), ("smsretry schedule", ["2", "…", "8"])]


def test_output_is_compared_line_by_line_and_dots_stand_for_any_lines() -> None:
    assert shown_in(["2", "…", "8"], ["2", "4", "8"])
    assert shown_in(["2", "..."], ["2"])
    assert not shown_in(["2", "8"], ["2", "4", "8"])
    assert not shown_in(["2"], [])
    assert shown_in(["│ kind │ opted_out │"], ["│ kind    │ opted_out      │"])
    assert not shown_in(["│ kind │ opted_out │"], ["│ kind │ landline │"])


def test_a_target_or_an_extra_that_does_not_exist_is_caught(tmp_path: Path) -> None:
    assert "no-such-target" in complaint_about("make no-such-target", [], tmp_path)
    assert "no-such-extra" in complaint_about("pip install 'smsretry[celery,no-such-extra]'", [], tmp_path)
    assert "no-such-extra" in complaint_about("pip install '.[celery,no-such-extra]'", [], tmp_path)
    assert complaint_about("make test", [], tmp_path) == ""
    assert complaint_about("pip install 'smsretry[all]'", [], tmp_path) == ""


@pytest.mark.parametrize("reason", [*GiveUpReason, *DeferReason])
def test_the_page_of_events_tells_every_reason(reason: GiveUpReason | DeferReason) -> None:
    assert f"\n| `{reason}` | " in (ROOT / "docs/reference/events.md").read_text()
