"""Name the settings of a queue that would break a promise, each in one warning with its remedy."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from smsretry.adapters._seam.run import Failed
from smsretry.adapters._seam.source import CanPlan
from smsretry.dispatcher import AsyncDispatcher, Dispatcher
from smsretry.errors import ConfigurationError

_log: Final = logging.getLogger("smsretry")
_DONE: Final = "_smsretry_told"


def warn(problems: Iterable[str]) -> None:
    """Log each of ``problems`` at level WARNING."""
    for problem in problems:
        _log.warning("%s", problem)


def once(holder: object, what: str) -> bool:
    """Say whether this is the first time in this process that ``holder``, a queue's task, asks for ``what``."""
    done: dict[str, int] = vars(holder).setdefault(_DONE, {})
    is_first = done.get(what) != os.getpid()
    done[what] = os.getpid()
    return is_first


def tell_not_set_up(holder: object, name: str, plan: object) -> None:
    """Log, once in a process, that the sender of ``name`` is not set up: a queue may be silent on what has ended."""
    cause = plan.error.__cause__ if isinstance(plan, Failed) else None
    if isinstance(cause, ConfigurationError) and once(holder, "not set up"):
        _log.error("%s: its sender is not set up, so texts fail as sender_config: %s", name, cause)


def forgotten(name: str, dispatcher: Dispatcher | AsyncDispatcher) -> Iterator[str]:
    """Say where the journal of ``dispatcher`` does not outlive its process."""
    journal: Any = dispatcher.journal
    if journal is not None and not isinstance(journal, CanPlan):
        yield (
            f"{name}: its journal ({type(journal).__name__}) lives in one process and is forgotten "
            "with it, so other worker processes send what this one has sent. Use smsretry.store.SQLStore."
        )


def cut_off(name: str, option: str, limit_s: float | None, timeout_s: float | None) -> Iterator[str]:
    """Say where ``option``, a limit of the time of a run, may end a send that takes up to ``timeout_s`` seconds."""
    if limit_s is not None and timeout_s is not None and limit_s <= timeout_s:
        yield (
            f"{name}: {option} is {limit_s:g} s and one send may take {timeout_s:g} s (the sender's timeout_s), "
            f"so a send may be cut off, and nobody knows how it ended. Set {option} to {2 * timeout_s + 5:g} or more."
        )


def held_s(dispatcher: Dispatcher | AsyncDispatcher) -> float:
    """Return how long a worker may be at a message: a send, or a claim in the journal; 0 where nobody says."""
    return (dispatcher.timeout_s or 0.0) if dispatcher.journal is None else dispatcher.lease_s


def handed_out_again(name: str, option: str, again_s: float, longest_s: float, where: str) -> Iterator[str]:
    """Say where ``option`` lets the broker hand a message out again that a worker is still at."""
    if again_s <= longest_s:
        yield (
            f"{name}: the broker hands a message out again after {again_s:g} s ({option}), and a worker may be at "
            f"it for {longest_s:g} s. Set {option} in {where} to {2 * longest_s:g} or more."
        )
