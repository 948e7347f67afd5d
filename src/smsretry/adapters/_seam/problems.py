"""Name the settings of a queue that would break a promise, each in one warning with its remedy."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from smsretry.adapters._seam.run import Failed
from smsretry.adapters._seam.source import CanPlan, Source
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


def usual(name: str, dispatcher: Dispatcher | AsyncDispatcher, source: Source[Any] | None) -> Iterator[str]:
    """Say what is wrong with a journal, whatever the queue; ``source`` is that of a ready task."""
    yield from forgotten(name, dispatcher)
    if source is not None:
        yield from plans_nothing(name, source, dispatcher)


def forgotten(name: str, dispatcher: Dispatcher | AsyncDispatcher) -> Iterator[str]:
    """Say where the journal of ``dispatcher`` does not outlive its process."""
    journal: Any = dispatcher.journal
    if journal is not None and not isinstance(journal, CanPlan):
        yield (
            f"{name}: its journal ({type(journal).__name__}) lives in one process and is forgotten "
            "with it, so other worker processes send what this one has sent. Use smsretry.store.SQLStore."
        )


def plans_nothing(name: str, source: Source[Any], dispatcher: Dispatcher | AsyncDispatcher) -> Iterator[str]:
    """Say where a dispatcher that a function made has a journal that its ready task does not know."""
    if not source.is_journaled and isinstance(dispatcher.journal, CanPlan):
        yield (
            f"{name}: its dispatcher has a journal that the ready task does not know, so send() plans nothing, and "
            "what the queue loses is lost. Pass it where the task is made, beside make_dispatcher: journal=store."
        )


def no_recover(name: str, every: str, elsewhere: str) -> str:
    """Say that nobody queues again what a journal knows; ``every`` and ``elsewhere`` are the adapter's own calls."""
    return (
        f"{name}: there is a journal and no recover, so a message that a killed worker or the queue loses waits for "
        f"ever. Call {every}. Where it runs elsewhere (cron, or smsretry recover --every 60), call {elsewhere}."
    )


def cut_off(name: str, option: str, limit_s: float | None, timeout_s: float | None, *, per_s: int = 1) -> Iterator[str]:
    """Say where ``option``, a limit of the time of a run, may end a send that takes up to ``timeout_s`` seconds.

    ``per_s`` is how many of the option's units are a second.
    """
    if limit_s is not None and timeout_s is not None and limit_s <= timeout_s:
        yield (
            f"{name}: {option} is {limit_s:g} s and one send may take {timeout_s:g} s (the sender's timeout_s), "
            f"so a send may be cut off, and nobody knows how it ended. Set {option} to "
            f"{(2 * timeout_s + 5) * per_s:.10g} or more."
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
