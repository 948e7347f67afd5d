"""Let the tests of the plain sender ask the async one the same questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from smsretry.core.delivery import DeliveryReport
from smsretry.core.failure import Failure
from smsretry.core.message import Message, Receipt
from smsretry.ports import LookUp
from smsretry.senders.twilio import AsyncTwilioSender, TwilioSender


class Sender(Protocol):
    """What both senders have, once the async one is driven by a loop."""

    classify: Callable[[Exception], Failure]

    @property
    def rate_key(self) -> str | None: ...

    @property
    def account_key(self) -> str: ...

    def send(self, message: Message, /) -> Receipt: ...

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp: ...

    def fetch(self, provider_id: str, /) -> DeliveryReport: ...

    def close(self) -> None: ...


class InALoop:
    """Drive an async sender from plain code; its loop stands still between the calls, and ends with `end`."""

    def __init__(self, sender: AsyncTwilioSender) -> None:
        self.sender = sender
        self.classify = sender.classify
        self._runner = asyncio.Runner()

    def __repr__(self) -> str:
        return repr(self.sender)

    @property
    def rate_key(self) -> str | None:
        return self.sender.rate_key

    @property
    def account_key(self) -> str:
        return self.sender.account_key

    def send(self, message: Message) -> Receipt:
        return self._runner.run(self.sender.send(message))

    def find(self, message: Message, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        return self._runner.run(self.sender.find(message, since=since, exclude=exclude))

    def fetch(self, provider_id: str) -> DeliveryReport:
        return self._runner.run(self.sender.fetch(provider_id))

    def close(self) -> None:
        self._runner.run(self.sender.close())

    def end(self) -> None:
        self._runner.close()


class NewSender(Protocol):
    """Make a plain sender, or an async one that is driven; its arguments are the sender's own."""

    name: str

    def __call__(self, *args: Any, **options: Any) -> Sender: ...

    def from_env(self, env: Mapping[str, str], **options: Any) -> Sender: ...


class NewPlain:
    name = "TwilioSender"

    def __call__(self, *args: Any, **options: Any) -> Sender:
        return TwilioSender(*args, **options)

    def from_env(self, env: Mapping[str, str], **options: Any) -> Sender:
        return TwilioSender.from_env(env, **options)

    def end(self) -> None:
        """Do nothing: what it opened is closed by whoever opened it, or with the process."""


class NewAsync:
    name = "AsyncTwilioSender"

    def __init__(self) -> None:
        self._driven: list[InALoop] = []

    def __call__(self, *args: Any, **options: Any) -> Sender:
        return self._drive(AsyncTwilioSender(*args, **options))

    def from_env(self, env: Mapping[str, str], **options: Any) -> Sender:
        return self._drive(AsyncTwilioSender.from_env(env, **options))

    def end(self) -> None:
        for driven in self._driven:
            driven.end()

    def _drive(self, sender: AsyncTwilioSender) -> InALoop:
        self._driven.append(InALoop(sender))
        return self._driven[-1]
