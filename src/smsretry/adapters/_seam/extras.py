"""Say which extra brings a queue that is not installed."""

from __future__ import annotations


def missing(queue: str, extra: str, error: ImportError) -> ImportError:
    """Return what the adapter of ``queue`` raises where its import failed."""
    return ImportError(
        f"smsretry.adapters.{extra} needs {queue} ({error}). Install it: pip install 'smsretry[{extra}]'"
    )
