"""Write down what happened to the messages that a run lost, doubled or left unknown: to be read by whoever asks why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from smsretry import Message
from smsretry.testing import TwilioSimulator
from tests.chaos.counting import is_lost
from tests.chaos.programs import Program, Word

Line = tuple[datetime, str]


def write_evidence(
    file: Path, messages: Iterable[Message], twilio: TwilioSimulator, program: Program, word: Word
) -> None:
    """Write into ``file``, in the order of time, what the provider and the program know of each such message."""
    with file.open("w") as written:
        for message in messages:
            texts = len(twilio.texts_to(message.to))
            lost = is_lost(message, texts, word)
            if lost or texts > 1 or message.id in word.unknown:
                written.write(f"{message.id}: {texts} texts{', lost' if lost else ''}\n")
                lines = [*_at_the_provider(message, twilio), *program.history(str(message.id))]
                written.writelines(f"    {at:%H:%M:%S.%f} {what}\n" for at, what in sorted(lines))


def _at_the_provider(message: Message, twilio: TwilioSimulator) -> Iterator[Line]:
    for request in twilio.requests:
        numbers = request.form.get("To", request.query.get("To", []))
        if message.to in numbers:
            yield request.at, f"provider: {request.method}, {request.fault or 'served'}"
    for text in twilio.texts_to(message.to):
        yield text.at, f"provider: took {text.sid}"
