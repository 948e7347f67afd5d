"""How the documentation is built: `make docs`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import smsretry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.config import Config

project = "smsretry"
author = "the smsretry authors"
project_copyright = "2026, the smsretry authors"
version = release = smsretry.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "py:obj"
# An annotation says `Request` where two modules have one.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,
    # Celery copies its own options into a task class as soon as that is looked at, and SQLAlchemy asks for these two.
    "exclude-members": "ignore_result, priority, rate_limit, reject_on_worker_lost, request_stack, "
    "retry_on_worker_lost, serializer, soft_time_limit, store_errors_even_if_ignored, time_limit, track_started, "
    "typing, cache_ok, inherit_cache",
}
# What Celery and SQLAlchemy say about a method that we override refers to pages of theirs.
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True  # the value of one is that of the machine which builds: os.environ

html_theme = "furo"
html_title = f"smsretry {release}"
html_copy_source = False

API = Path(__file__).parent / "reference" / "api"
FRONT_DOOR = "smsretry"
NO_INTERFACE = ("smsretry.cli", "smsretry.adapters.celery.request")
"""The command is described in command-line.md, and one of its modules reads the environment; the other is Celery's."""


def public_modules() -> Iterator[str]:
    """List the modules whose path has no underscore in it, without those that are no interface."""
    yield FRONT_DOOR
    for module in pkgutil.walk_packages(smsretry.__path__, f"{FRONT_DOOR}."):
        private = any(part.startswith("_") for part in module.name.split("."))
        if not private and not module.name.startswith(NO_INTERFACE):
            yield module.name


def api_page(name: str) -> str:
    """Return the page of one module; names that it only hands on are linked, not told twice."""
    handed_on = "".join(f"- {{py:obj}}`{public} <{home}>`\n" for public, home in sorted(names_handed_on(name)))
    listing = f"\nNames imported from here, and where each is described:\n\n{handed_on}" if handed_on else ""
    return f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n{listing}"


def names_handed_on(name: str) -> Iterator[tuple[str, str]]:
    """Pair the names in a module's __all__ that are defined elsewhere with their homes."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        home = getattr(getattr(module, public), "__module__", name) or name
        if home != name and home.startswith(FRONT_DOOR):
            yield public, f"{home}.{public}"


def write_api_pages(app: Sphinx, config: Config) -> None:  # noqa: ARG001 - the signature of the event
    """Write a page per public module, and remove those of modules that are gone."""
    API.mkdir(exist_ok=True)
    wanted = {API / f"{name}.md": api_page(name) for name in public_modules()}
    for stale in set(API.glob("*.md")) - set(wanted):
        stale.unlink()
    for page, text in wanted.items():
        if not page.exists() or page.read_text("utf-8") != text:
            page.write_text(text, "utf-8")


def setup(app: Sphinx) -> None:
    """Tell Sphinx to write the reference before it looks for pages."""
    app.connect("config-inited", write_api_pages)
