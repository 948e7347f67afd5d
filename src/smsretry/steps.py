"""What one attempt asks of whoever runs it, step by step, so that plain and async code share every decision.

The decisions are generators. Each yields what is to be done next and gets the answer back, or the exception that it
raised; what they return is the result. A dispatcher runs them: one calls, the other awaits.

A step is a `smsretry.Message`, which is to be sent, or one of the classes below. (A class of its own for the step that
every attempt takes would make an attempt a tenth dearer.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from smsretry.core.delivery import Mark
from smsretry.core.message import Message
from smsretry.ports import FairLimiter, Journal, SuppressionList

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SendChecked:
    """Send ``message``, and go through the steps of ``check`` when its first byte is about to leave.

    ``mark`` names the send, for a provider that reports on it later.
    """

    message: Message
    check: Callable[[], Steps[None]]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Find:
    """Ask the provider for ``message``; answer with the `LookUp`."""

    message: Message
    since: datetime
    exclude: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """Call ``question`` with the journal; answer with what it returns."""

    question: Callable[[Journal], Any]


@dataclass(frozen=True, slots=True)
class AskLimiter:
    """Call ``question`` with the rate limiter; answer with what it returns."""

    question: Callable[[FairLimiter], Any]


@dataclass(frozen=True, slots=True)
class AskList:
    """Call ``question`` with the list of who must not be texted; answer with what it returns."""

    question: Callable[[SuppressionList], Any]


Question = SendChecked | Find | Ask | AskLimiter | AskList
Step = Message | Question
Steps = Generator[Step, Any, T]
