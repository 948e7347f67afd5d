"""The front door: every public name is there, and a process pays for what it uses only."""

from __future__ import annotations

import subprocess
import sys

import pytest

import smsretry


def loaded_by(statement: str) -> set[str]:
    """Name the modules of ours that a statement loads in a process of its own."""
    program = f"{statement}\nimport sys\nprint(*[name for name in sys.modules if name.startswith('smsretry')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", smsretry.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(smsretry, name)
    assert name in dir(smsretry)
    assert isinstance(value, str) or value.__doc__


def test_every_public_name_has_one_home() -> None:
    homes = smsretry._ROOMS
    assert {*homes, "__version__"} == set(smsretry.__all__)
    assert smsretry.__all__ == sorted(smsretry.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'smsretry' has no attribute 'configure'"):
        _ = smsretry.configure  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_front_door_alone_loads_nothing() -> None:
    assert loaded_by("import smsretry") == {"smsretry"}


def test_a_process_that_only_builds_messages_loads_no_dispatcher() -> None:
    loaded = loaded_by("from smsretry import Message")
    assert "smsretry.core.message" in loaded
    assert not loaded & {"smsretry.dispatcher", "smsretry.core.policy", "smsretry.core.classify"}


def test_the_star_brings_every_public_name() -> None:
    program = "from smsretry import *; import smsretry; print(set(smsretry.__all__) - set(dir()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_all_public_names_together_load_no_third_party_module_and_not_asyncio() -> None:
    program = "import sys; before = set(sys.modules)\nfrom smsretry import *\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    tops = {name.split(".")[0] for name in done.stdout.split()}
    assert tops - set(sys.stdlib_module_names) == {"smsretry"}
    assert not tops & {"asyncio", "json", "uuid", "logging"}
