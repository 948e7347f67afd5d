"""Each adapter is imported with what its extra brings and nothing else, and says what to install without it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ADAPTERS = ["celery", "dramatiq", "huey", "procrastinate", "rq", "saq", "taskiq"]
HIDDEN = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
import smsretry.adapters.{adapter}
"""


def brought_by(extra: str) -> set[str]:
    """Return the distributions that ``pip install 'smsretry[extra]'`` brings."""
    brought: set[str] = set()
    waiting = [Requirement(f"smsretry[{extra}]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        brought.add(name)
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # for another platform
            continue
        waiting += [one for one in needed if applies(one, extras)]
    return brought


def applies(needed: Requirement, extras: frozenset[str]) -> bool:
    marker = needed.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def imported(adapter: str, *, hidden: list[str]) -> subprocess.CompletedProcess[str]:
    program = HIDDEN.format(hidden=hidden, adapter=adapter)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_needs_nothing_that_its_extra_does_not_bring(adapter):
    brought = brought_by(adapter)
    hidden = [
        module
        for module, owners in packages_distributions().items()
        if not brought & {canonicalize_name(owner) for owner in owners}
    ]
    assert "pytest" in hidden
    done = imported(adapter, hidden=hidden)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_without_its_queue_an_adapter_says_what_to_install(adapter):
    done = imported(adapter, hidden=[adapter])
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"ImportError: smsretry.adapters.{adapter} needs ")
    assert f"Install it: pip install 'smsretry[{adapter}]'" in said
