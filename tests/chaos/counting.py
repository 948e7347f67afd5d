"""Count the texts of a run at the provider's socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from smsretry import Message
from smsretry.testing import TwilioSimulator
from tests.chaos.backends import BackendName
from tests.chaos.programs import ProgramName, Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Hold what became of the messages; what each figure means is in the package's docstring."""

    lost: int
    doubled: int
    unknown: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Hold the figures of one run."""

    program: ProgramName
    backend: BackendName
    seed: int
    messages: int
    kills: int
    freezes: int
    lost: int
    doubled: int
    unknown: int
    retries: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Say whether no text was lost or doubled."""
        return self.lost == self.doubled == 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def counted(messages: Sequence[Message], twilio: TwilioSimulator, word: Word) -> Texts:
    """Count the texts of ``messages``, beside the word of their program on those that have none."""
    texts = Counter(text.to for text in twilio.texts)
    forms = (request.form for request in twilio.requests if request.method == "POST")
    posts = Counter(form["To"][0] for form in forms if "To" in form)
    return Texts(
        lost=sum(is_lost(message, texts[message.to], word) for message in messages),
        doubled=sum(max(0, texts[message.to] - 1) for message in messages),
        unknown=len(word.unknown),
        retries=posts.total() - len(posts),
    )


def is_lost(message: Message, texts: int, word: Word) -> bool:
    """Say whether a message with so many texts is lost: see the package's docstring."""
    return message.id in word.open or (not texts and message.id not in word.refused | word.unknown)
