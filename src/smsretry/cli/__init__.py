"""The ``smsretry`` command: a demo, and answers to "what does this code mean?", "when?" and "what happened?"."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; say which extra to install where its libraries are missing."""
    try:
        from smsretry.cli.commands import smsretry
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.exit(f"The smsretry command needs {error.name}. Install it with: pip install 'smsretry[cli]'")
    from smsretry.cli.extras import EXTRAS, told

    try:
        smsretry()
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        sys.exit(f"Error: {told('This command', error.name)}")
