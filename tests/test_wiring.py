"""What a dispatcher is put together from is checked when it is made."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import pytest

from smsretry import AsyncDispatcher, ConfigurationError, Dispatcher, InvalidMessage, Message
from smsretry.journal import MemoryJournal
from smsretry.testing import RecordingSink, ScriptedSender
from tests.shells import AwaitedAsking


class AsyncSender:
    async def send(self, message: Any) -> None: ...


class GeneratorSender:
    def send(self, message: Any) -> Any:
        yield message


class AsyncSink:
    async def record(self, event: Any) -> None: ...


@pytest.mark.parametrize("sender", [None, object(), ScriptedSender, "twilio"])
def test_a_sender_that_cannot_send_is_refused(sender: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"sender must have a method send\(message\), got "):
        Dispatcher(sender)


@pytest.mark.parametrize("sender", [AsyncSender(), GeneratorSender()])
def test_a_sender_that_would_only_promise_to_send_is_refused(sender: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Sender\.send must be a plain function"):
        Dispatcher(sender)


@pytest.mark.parametrize("policy", [None, {}, 3])
def test_a_policy_that_is_none_is_refused(policy: Any) -> None:
    with pytest.raises(ConfigurationError, match="policy must be a RetryPolicy, got"):
        Dispatcher(ScriptedSender(), policy=policy)


@pytest.mark.parametrize("sink", [RecordingSink, [RecordingSink], [None], "sqlite:///sms.db", {"a": 1}])
def test_a_sink_that_cannot_record_is_refused(sink: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"sink must have a method record\(event\), got"):
        Dispatcher(ScriptedSender(), sink=sink)


def test_a_sink_that_would_only_promise_to_record_is_refused() -> None:
    sink: Any = AsyncSink()
    with pytest.raises(ConfigurationError, match=r"AsyncSink\.record must be a plain function"):
        Dispatcher(ScriptedSender(), sink=sink)


class HalfAJournal:
    def begin(self, message: Any, **asked: Any) -> None: ...

    def renew(self, claim: Any, **asked: Any) -> None: ...


class AsyncBegin:
    def __init__(self, journal: MemoryJournal) -> None:
        for verb in ("renew", "finish", "release", "others", "hold", "reopen"):
            setattr(self, verb, getattr(journal, verb))

    async def begin(self, message: Any, **asked: Any) -> Any: ...


@pytest.mark.parametrize("shell", [Dispatcher, AsyncDispatcher])
@pytest.mark.parametrize("journal", ["sqlite:///sms.db", object(), MemoryJournal, HalfAJournal()])
def test_a_journal_that_cannot_do_all_that_a_journal_does_is_refused(shell: Any, journal: Any) -> None:
    sender = ScriptedSender() if shell is Dispatcher else AsyncSender()
    with pytest.raises(ConfigurationError, match=r"journal must have a method (begin|finish)\(…\), got .*SQLStore"):
        shell(sender, journal=journal)


def test_a_journal_that_would_only_promise_to_begin_is_refused_by_a_plain_dispatcher() -> None:
    journal: Any = AsyncBegin(MemoryJournal())
    with pytest.raises(ConfigurationError, match=r"AsyncBegin\.begin must be a plain function"):
        Dispatcher(ScriptedSender(), journal=journal)
    AsyncDispatcher(AsyncSender(), journal=journal)  # type: ignore[arg-type]  # one that awaits it


@pytest.mark.parametrize(("clock", "got"), [(datetime.now, "a naive datetime"), (time.time, "a float")])
def test_a_clock_that_does_not_tell_aware_times_is_refused(clock: Any, got: str) -> None:
    with pytest.raises(ConfigurationError, match=f"clock must return an aware datetime, got {got}"):
        Dispatcher(ScriptedSender(), clock=clock)


@pytest.mark.parametrize("name", ["clock", "classify", "draw"])
def test_what_must_be_called_is_refused_where_it_cannot_be(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be a function, got str"):
        Dispatcher(ScriptedSender(), **{name: "x"})


@pytest.mark.parametrize("lease_s", ["60", None, True])
def test_a_lease_that_is_no_number_is_refused(lease_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="lease_s must be a number of seconds, got"):
        Dispatcher(ScriptedSender(), journal=MemoryJournal(), lease_s=lease_s)


def attempted_in_a_loop(sender: Any, **parts: Any) -> Any:
    shell: Any = AsyncDispatcher(AwaitedAsking(sender), **parts)
    return lambda *arguments: asyncio.run(shell.attempt(*arguments))


@pytest.mark.parametrize("state", [{}, None])
@pytest.mark.parametrize("message_id", ["booking-1", None])
def test_an_attempt_with_what_is_no_state_is_told_and_sends_nothing(state: Any, message_id: str | None) -> None:
    sender, message = ScriptedSender(), Message("+15005550006", "Your table is ready.", id=message_id)
    journaled: dict[str, Any] = {} if message_id is None else {"journal": MemoryJournal()}
    for attempt in (
        Dispatcher(sender).attempt,
        Dispatcher(sender, **journaled).attempt,
        attempted_in_a_loop(sender),
        attempted_in_a_loop(sender, **journaled),
    ):
        with pytest.raises(ConfigurationError, match=r"state must be an AttemptState, got .*AttemptState\.from_dict"):
            attempt(message, state)
    assert sender.sent == []


def test_an_attempt_of_what_is_no_message_is_told() -> None:
    sender, message = ScriptedSender(), {"to": "+15005550006"}
    for attempt in (Dispatcher(sender).attempt, Dispatcher(sender, journal=MemoryJournal()).attempt):
        with pytest.raises(InvalidMessage, match=r"message must be a smsretry\.Message, got dict"):
            attempt(message)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(InvalidMessage, match=r"message must be a smsretry\.Message, got dict"):
        attempted_in_a_loop(sender)(message)
