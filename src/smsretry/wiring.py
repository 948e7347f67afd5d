"""Check the parts that a dispatcher is put together from, so that a wrong one is told at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from smsretry.core.outcome import AttemptState
from smsretry.core.policy import RetryPolicy
from smsretry.errors import ConfigurationError, InvalidMessage

_COROUTINE: Final = 0x80
_NOT_PLAIN: Final = 0x20 | _COROUTINE | 0x200
"""The flags of a code object that mark a generator, a coroutine and an async generator: ``inspect.CO_GENERATOR`` …"""

_JOURNAL_VERBS: Final = ("begin", "finish", "renew", "release", "others", "hold", "reopen")


def check_sender(sender: object, *, is_async: bool = False) -> None:
    """Raise `ConfigurationError` where ``sender`` cannot send, or not in the way of the dispatcher that it is for."""
    if isinstance(sender, type) or not callable(getattr(sender, "send", None)):
        raise ConfigurationError(f"sender must have a method send(message), got {_shown(sender)}. Pass a sender.")
    if not is_async:
        _check_plain("send", sender)
    elif not _flags_of(sender, "send") & _COROUTINE:
        what = f"{type(sender).__name__}.send"
        raise ConfigurationError(
            f"{what} must be an async function, got a plain one. Give this sender to a Dispatcher."
        )


def check_limiter(limiter: object, *, is_async: bool = False) -> None:
    """Raise `ConfigurationError` where ``limiter`` cannot say when to send."""
    verbs = [verb for verb in ("take_turn", "reserve") if callable(getattr(limiter, verb, None))]
    if isinstance(limiter, type) or not verbs:
        raise ConfigurationError(
            f"limiter must have a method reserve(key, cost, now), got {_shown(limiter)}. Pass a rate limiter."
        )
    if not is_async:
        _check_plain(verbs[0], limiter)


def check_suppression(known: object) -> None:
    """Raise `ConfigurationError` where ``known`` cannot say who must not be texted."""
    for verb in ("suppressed", "suppress"):
        if isinstance(known, type) or not callable(getattr(known, verb, None)):
            raise ConfigurationError(
                f"suppression must have a method {verb}(…), got {_shown(known)}. Pass SQLStore(url), say."
            )


def check_arguments(message: object, state: object) -> None:
    """Raise `InvalidMessage` where ``message`` is none, and `ConfigurationError` where ``state`` is none."""
    if not hasattr(message, "send_before"):
        raise InvalidMessage(f"message must be a smsretry.Message, got {_shown(message)}. Nothing was sent.")
    if not isinstance(state, AttemptState):
        remedy = "Pass the state of the last outcome, or AttemptState.from_dict(...) of what was kept."
        raise ConfigurationError(f"state must be an AttemptState, got {_shown(state)}. {remedy}")


def runs_in_loop(part: object, verb: str) -> bool:
    """Say whether a part of an async dispatcher may be called in its loop: it is async, or has ``blocks = False``."""
    return bool(_flags_of(part, verb) & _COROUTINE) or not getattr(part, "blocks", True)


def check_policy(policy: object) -> None:
    """Raise `ConfigurationError` where ``policy`` is none."""
    if not isinstance(policy, RetryPolicy):
        raise ConfigurationError(f"policy must be a RetryPolicy, got {_shown(policy)}. Leave it out for the default.")


def check_callable(name: str, value: object) -> None:
    """Raise `ConfigurationError` where ``value`` cannot be called."""
    if not callable(value):
        raise ConfigurationError(f"{name} must be a function, got {_shown(value)}. Leave it out for the default.")


def check_clock(clock: Any) -> None:
    """Raise `ConfigurationError` where ``clock`` does not tell aware times: naive ones cannot be compared with them."""
    check_callable("clock", clock)
    told = clock()
    if not isinstance(told, datetime) or told.utcoffset() is None:
        what = "a naive datetime" if isinstance(told, datetime) else f"a {type(told).__name__}"
        raise ConfigurationError(f"clock must return an aware datetime, got {what}. Use lambda: datetime.now(UTC).")


def checked_sinks(sink: Any, *, is_async: bool = False) -> tuple[Any, ...]:
    """Return one sink or several as a tuple; raise `ConfigurationError` where one cannot record."""
    sinks: tuple[Any, ...] = (sink,) if not isinstance(sink, Iterable) or hasattr(sink, "record") else tuple(sink)
    for one in sinks:
        if isinstance(one, type) or not callable(getattr(one, "record", None)):
            raise ConfigurationError(
                f"sink must have a method record(event), got {_shown(one)}. Pass one, or several in a list."
            )
        if not is_async:
            _check_plain("record", one)
    return sinks


def check_journal(journal: object, *, is_async: bool = False) -> None:
    """Raise `ConfigurationError` where ``journal`` lacks a verb, or only promises to run one that is called plainly."""
    for verb in _JOURNAL_VERBS:
        if isinstance(journal, type) or not callable(getattr(journal, verb, None)):
            got = _shown(journal)
            raise ConfigurationError(f"journal must have a method {verb}(…), got {got}. Pass SQLStore(url), say.")
        if not is_async:
            _check_plain(verb, journal)


def _check_plain(name: str, part: object) -> None:
    if _flags_of(part, name) & _NOT_PLAIN:
        what = f"{type(part).__name__}.{name}"
        raise ConfigurationError(
            f"{what} must be a plain function, got one that only promises to run. Let it do its work."
        )


def _flags_of(part: object, name: str) -> int:
    flags = getattr(getattr(getattr(part, name), "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def _shown(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
