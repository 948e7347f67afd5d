"""Imports point one way, and the front door is light.

    core ← ports ← steps ← limiting ← judge ← journaled ← dispatcher ← adapters | campaign | cli

Senders, sinks, store, journal, limits, contacts and callbacks know core, ports and errors only, and callbacks the
senders; no adapter knows another; third-party modules are imported in the module of their own extra only.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
PACKAGE = "smsretry"
FRONT_DOOR = "(front door)"

SHELL = frozenset({"core", "errors", "ports"})
PUBLIC = SHELL | {FRONT_DOOR, "dispatcher"}
EDGES = frozenset({"adapters", "senders", "sinks", "store", "limits", "campaign", "callbacks", "journal", "contacts"})
MAY_KNOW = {
    "core": frozenset({"core", "errors"}),
    "errors": frozenset({"core", "errors"}),
    "ports": SHELL,
    "steps": SHELL | {"steps"},
    "limiting": SHELL | {"steps", "limiting"},
    "suppressing": SHELL | {"steps", "suppressing"},
    "judge": SHELL | {"steps", "limiting", "suppressing", "judge"},
    "journaled": SHELL | {"steps", "judge", "journaled"},
    "journal": SHELL | {"journal"},
    "wiring": SHELL | {"wiring"},
    "dispatcher": SHELL | {"steps", "limiting", "suppressing", "judge", "journaled", "wiring", "dispatcher"},
    FRONT_DOOR: SHELL | {"dispatcher"},
    "senders": SHELL | {"senders"},
    "sinks": SHELL | {"sinks"},
    "store": SHELL | {"store"},
    "limits": SHELL | {"limits"},
    "callbacks": SHELL | {"callbacks", "senders"},  # they share a provider's words and table of codes
    "contacts": SHELL | {"contacts"},
    "adapters": PUBLIC | {"adapters"},
    "campaign": PUBLIC | {"campaign"},
    "testing": PUBLIC | EDGES | {"testing"},
    "cli": PUBLIC | EDGES | {"testing", "cli"},
}
# The longest name that fits a module says what it may import beside the standard library.
THIRD_PARTY = {
    "smsretry": frozenset({"typing_extensions"}),
    "smsretry.senders.twilio": frozenset({"twilio", "requests", "urllib3", "typing_extensions"}),
    "smsretry.senders.twilio.async_http": frozenset(
        {"aiohttp", "multidict", "yarl", "twilio", "requests", "urllib3", "typing_extensions"}
    ),
    "smsretry.adapters.celery": frozenset({"celery", "kombu", "billiard", "vine", "typing_extensions"}),
    "smsretry.adapters.dramatiq": frozenset({"dramatiq", "typing_extensions"}),
    "smsretry.adapters.rq": frozenset({"rq", "redis", "typing_extensions"}),
    "smsretry.adapters.procrastinate": frozenset({"procrastinate", "typing_extensions"}),
    "smsretry.adapters.huey": frozenset({"huey", "typing_extensions"}),
    "smsretry.adapters.saq": frozenset({"saq", "typing_extensions"}),
    "smsretry.adapters.taskiq": frozenset({"taskiq", "anyio", "typing_extensions"}),
    "smsretry.callbacks.twilio": frozenset({"twilio", "typing_extensions"}),
    "smsretry.contacts.phone": frozenset({"phonenumbers", "typing_extensions"}),
    "smsretry.store": frozenset({"sqlalchemy", "typing_extensions"}),
    "smsretry.limits.redis": frozenset({"redis", "typing_extensions"}),
    "smsretry.cli": frozenset({"click", "rich", "celery", "kombu", "sqlalchemy", "typing_extensions"}),
    "smsretry.testing.folder_broker": frozenset({"kombu", "typing_extensions"}),
    "smsretry.testing.pytest_plugin": frozenset({"pytest", "typing_extensions"}),
}
# The core is handed clocks, chance and identities as values; it fetches none of them itself.
EFFECTS = frozenset(
    {"asyncio", "concurrent", "logging", "multiprocessing", "os", "random", "secrets", "socket", "sqlite3"}
    | {"subprocess", "tempfile", "threading", "time", "urllib.request", "uuid"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, as a statement names it."""

    line: int
    target: str


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((SRC / PACKAGE).rglob("*.py")):
        yield ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"), path


def imports_in(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """List what a module imports, at its top, inside functions, and by importlib."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (Import(line=node.lineno, target=name.name) for name in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                origin = resolved(base or "", level, module, is_package=is_package)
                yield from (Import(line=node.lineno, target=f"{origin}.{name.name}") for name in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str() as target), *_],
            ):
                yield Import(line=node.lineno, target=target)
            case _:
                pass


def resolved(base: str, level: int, module: str, *, is_package: bool) -> str:
    """Turn a relative import into the absolute name that it stands for."""
    if level == 0:
        return base
    parts = module.split(".")
    kept = parts[: len(parts) - level + is_package]
    return ".".join([*kept, base] if base else kept)


def room_of(name: str) -> str:
    """Name the room that a module of ours, or a name imported from one, belongs to."""
    first = name.split(".")[1] if "." in name else ""
    return first if first in MAY_KNOW else FRONT_DOOR


def complaints(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Say which imports of a module point the wrong way."""
    return [
        f"{module}:{found.line} imports {found.target}: {reason}"
        for found in imports_in(source, module, is_package=is_package)
        if (reason := objection(module, found.target))
    ]


def objection(module: str, target: str) -> str:
    """Say why a module may not import a target; nothing where it may."""
    top = target.split(".", maxsplit=1)[0]
    if top == PACKAGE:
        return objection_to_ours(module, target)
    if top in sys.stdlib_module_names:
        return objection_to_effect(module, target)
    if top not in third_party_of(module):
        return f"{top} belongs in the module of its own extra"
    return ""


def objection_to_ours(module: str, target: str) -> str:
    room, known = room_of(module), room_of(target)
    if known not in MAY_KNOW[room]:
        return f"{room} may know {', '.join(sorted(MAY_KNOW[room]))} and not {known}"
    if room == known == "adapters" and foreign_adapter(module, target):
        return "no adapter knows another"
    return ""


def foreign_adapter(module: str, target: str) -> bool:
    """Say whether a target is another adapter; what begins with an underscore is shared among them."""
    ours, theirs = module.split(".")[2:3], target.split(".")[2:3]
    return ours != theirs and not "".join(theirs).startswith("_")


def objection_to_effect(module: str, target: str) -> str:
    if room_of(module) != "core":
        return ""
    if any(f"{target}.".startswith(f"{effect}.") for effect in EFFECTS):
        return "core is pure: clock, chance, identity and I/O come in as values"
    return ""


def third_party_of(module: str) -> frozenset[str]:
    fitting = [name for name in THIRD_PARTY if f"{module}.".startswith(f"{name}.")]
    return THIRD_PARTY[max(fitting, key=len)]


def loaded_by(statement: str) -> frozenset[str]:
    """Name the modules that a statement loads in a new process."""
    program = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return frozenset(json.loads(done.stdout))


def third_party(loaded: frozenset[str]) -> set[str]:
    tops = {name.split(".")[0] for name in loaded}
    return tops - set(sys.stdlib_module_names) - {PACKAGE, "typing_extensions"}


def test_every_import_points_the_right_way() -> None:
    found = [
        complaint
        for module, path in modules()
        for complaint in complaints(path.read_text("utf-8"), module, is_package=path.name == "__init__.py")
    ]
    assert found == []


def test_every_module_is_in_a_room_of_the_plan() -> None:
    homeless = {name for name, _ in modules() if name != PACKAGE and room_of(name) == FRONT_DOOR}
    assert homeless == set(), "add the room to MAY_KNOW and say what it may know"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("smsretry.core.policy", "from smsretry.ports import Clock"),
        ("smsretry.core.policy", "from smsretry import ports"),
        ("smsretry.core.policy", "import smsretry"),
        ("smsretry.core.policy", "from .. import dispatcher"),
        ("smsretry.core.policy", "from ..ports import Clock"),
        ("smsretry.core.policy", "import random"),
        ("smsretry.core.policy", "def f():\n    from time import monotonic"),
        ("smsretry.core.policy", "import urllib.request"),
        ("smsretry.core.classify", "import requests"),
        ("smsretry.core.classify", "import importlib\nimportlib.import_module('twilio.base')"),
        ("smsretry.ports", "from smsretry.dispatcher import Dispatcher"),
        ("smsretry.dispatcher", "from smsretry.adapters.celery import sms_task"),
        ("smsretry.dispatcher", "from smsretry.store import SQLStore"),
        ("smsretry.errors", "from smsretry.ports import Clock"),
        ("smsretry", "from smsretry.sinks.log import LogSink"),
        ("smsretry.sinks.log", "from smsretry.dispatcher import Dispatcher"),
        ("smsretry.sinks.log", "from smsretry import Dispatcher"),
        ("smsretry.sinks.log", "import sqlalchemy"),
        ("smsretry.senders.twilio.http", "from smsretry.store import SQLStore"),
        ("smsretry.senders.twilio.http", "import celery"),
        ("smsretry.store.schema", "from smsretry.senders.twilio import TwilioSender"),
        ("smsretry.limits.memory", "import redis"),
        ("smsretry.limits.memory", "from smsretry.dispatcher import Dispatcher"),
        ("smsretry.callbacks.twilio", "from smsretry.store import SQLStore"),
        ("smsretry.contacts.messages", "from smsretry.store import SQLStore"),
        ("smsretry.contacts.messages", "import phonenumbers"),
        ("smsretry.adapters.celery", "from smsretry.adapters.callables import retrying"),
        ("smsretry.adapters.celery", "from smsretry.store import SQLStore"),
        ("smsretry.adapters.celery", "from smsretry.testing import FakeClock"),
        ("smsretry.adapters.callables", "import celery"),
        ("smsretry.testing.simulator", "import pytest"),
        ("smsretry.testing.contracts", "from smsretry.cli import main"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_caught(module: str, source: str) -> None:
    assert len(complaints(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("smsretry.core.policy", "from smsretry.core.failure import Failure\nfrom .failure import Scope\nimport math"),
        ("smsretry.core.message", "from smsretry.errors import InvalidMessage"),
        ("smsretry.core.classify", "import typing_extensions\nfrom urllib.parse import urlsplit"),
        ("smsretry.errors", "from smsretry.core.failure import Failure"),
        (
            "smsretry.senders.twilio.http",
            "import requests\nfrom twilio.http import HttpClient\nfrom .codes import TABLE",
        ),
        ("smsretry.limits.redis", "import redis.asyncio\nfrom smsretry.core.line import Rate"),
        ("smsretry.store.sql", "import sqlalchemy as sa\nfrom smsretry.ports import AnalyticsSink"),
        ("smsretry.adapters.celery", "import celery\nfrom smsretry.adapters._envelope import opened"),
        (
            "smsretry.adapters.celery.task",
            "from smsretry.adapters.celery.delays import hops\nfrom smsretry import Message",
        ),
        ("smsretry.testing.pytest_plugin", "import pytest"),
        ("smsretry.cli.demo", "import click\nfrom smsretry.testing import TwilioSimulator"),
    ],
)
def test_an_import_that_points_the_right_way_is_let_through(module: str, source: str) -> None:
    assert complaints(source, module) == []


def test_a_relative_import_in_a_package_is_resolved_from_the_package() -> None:
    assert complaints("from ..dispatcher import Dispatcher", "smsretry.core", is_package=True) != []
    assert complaints("from .failure import Failure", "smsretry.core", is_package=True) == []


def test_the_front_door_loads_no_third_party_module_and_not_asyncio() -> None:
    loaded = loaded_by("import smsretry")
    assert third_party(loaded) == set()
    assert "asyncio" not in loaded


def test_the_front_door_opens_core_ports_dispatcher_and_errors_only() -> None:
    ours = {name for name in loaded_by("import smsretry") if name.startswith(f"{PACKAGE}.")}
    assert {room_of(name) for name in ours} <= SHELL | {"dispatcher"}


def test_the_fakes_load_no_third_party_module() -> None:
    assert third_party(loaded_by("import smsretry.testing")) == set()
