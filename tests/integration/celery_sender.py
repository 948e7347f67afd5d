"""A sender for worker processes: each message brings the answers that it wants, and a file keeps every attempt."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smsretry import Failure, FailureKind, Message, Receipt
from smsretry.core.lookup import Found, LookUp, NotSeen
from smsretry.errors import ProviderError

BUSY = Failure.of(FailureKind.RATE_LIMITED, code=20429, detail="Too many requests")
INVALID = Failure.of(FailureKind.INVALID_NUMBER, code=21211, http_status=400, detail="Invalid 'To' number")
STUCK_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of the sender, as the file has it."""

    id: str
    at: float
    pid: int
    body: str
    answer: str


class FileSender:
    """Answer attempt n with word n of ``message.metadata["answers"]``; the last one is given for ever.

    ``taken``: accepted. ``busy``: a rate limit. ``invalid``: a number that does not exist. ``lost``: the text is taken
    and the answer never comes. ``stuck``: the same, and the call hangs. ``drop``: nothing is taken, nothing comes back.
    ``hung``: the same, and the call hangs.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "attempts.jsonl"

    def send(self, message: Message, /) -> Receipt:
        earlier = len(attempts_of(self._file.parent, str(message.id)))
        answers = message.metadata.get("answers", ["taken"])
        answer = answers[min(earlier, len(answers) - 1)]
        note(self._file, {"id": message.id, "at": time.time(), "body": message.body, "answer": answer})
        match answer:
            case "busy":
                raise ProviderError(BUSY)
            case "invalid":
                raise ProviderError(INVALID)
            case "lost" | "drop":
                raise TimeoutError
            case "stuck" | "hung":
                time.sleep(STUCK_S)
            case _:
                pass
        return receipt(message)

    def find(self, message: Message, /, *, since: datetime, exclude: Collection[str] = ()) -> LookUp:
        del since, exclude
        taken = {"taken", "lost", "stuck"}
        if any(attempt.answer in taken for attempt in attempts_of(self._file.parent, str(message.id))):
            return Found(receipt(message))
        return NotSeen(datetime.now(UTC))


def receipt(message: Message) -> Receipt:
    return Receipt("file", f"sid-{message.id}", datetime.now(UTC), 1, "queued")


def note(file: Path, line: dict[str, Any]) -> None:
    """Append a line in one write, so that processes do not mix theirs."""
    text = json.dumps({**line, "pid": os.getpid()}) + "\n"
    with file.open("a") as opened:
        opened.write(text)


def attempts_of(folder: Path, message_id: str) -> list[Attempt]:
    """List the attempts of one message in order."""
    file = folder / "attempts.jsonl"
    return [Attempt(**line) for line in notes_in(file) if line["id"] == message_id]


def notes_in(file: Path) -> list[dict[str, Any]]:
    """Read what `note` wrote, but for a line of which only a part is there yet."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
