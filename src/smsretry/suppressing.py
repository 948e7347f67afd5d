"""Ask before a send whether its recipient may be texted, and note whom the provider says that he may not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message
from smsretry.core.outcome import AttemptState, GaveUp, GiveUpReason
from smsretry.core.suppression import Suppression
from smsretry.errors import reason_of
from smsretry.steps import AskList, Steps

_SLOWEST: Final = 6
"""A message whose list is away comes back after ``2**6`` seconds at the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressing:
    """Ask a list of who must not be texted; ``sender`` says which of our numbers a message goes out from."""

    sender: object

    def ending(self, message: Message, state: AttemptState) -> Steps[GaveUp | float | None]:
        """Return the end of a message whose recipient must not be texted, and None for any other.

        Where the list cannot be read, return for how many seconds the message is to be put off.
        """
        sender = self.sender_of(message)
        try:
            entry = yield AskList(lambda known: known.suppressed(message.to, sender))
        except Exception as error:  # noqa: BLE001  # whatever a database raises: nothing was sent
            _complain("The list of who must not be texted cannot be read (%s): messages wait.", error)
            return 2.0 ** min(state.deferrals, _SLOWEST)
        if not isinstance(entry, Suppression):
            return None
        detail = f"on the list of who must not be texted: {entry.reason.value.replace('_', ' ')}"
        failure = Failure.of(FailureKind.OPTED_OUT, code=entry.code, detail=detail)
        return GaveUp(failure, GiveUpReason.SUPPRESSED, state.retries)

    def note(self, message: Message, failure: Failure) -> Steps[None]:
        """Put the recipient on the list, who has opted out as the provider says."""
        code = None if failure.code is None else str(failure.code)
        try:
            entry = Suppression(to=message.to, sender=self.sender_of(message), code=code)  # a sender's key may be any
            yield AskList(lambda known: known.suppress(entry))
        except Exception as error:  # noqa: BLE001  # the next refusal says it again
            _complain("A number that opted out could not be put on the list (%s).", error)

    def sender_of(self, message: Message) -> str:
        """Return from which of our numbers, or groups of them, ``message`` goes out; '' where nobody says."""
        return str(message.sender_id or getattr(self.sender, "rate_key", None) or "")


def _complain(text: str, error: Exception) -> None:
    import logging

    logging.getLogger("smsretry").error(text, reason_of(error))
