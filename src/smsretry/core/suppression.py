"""Who must not be texted: one entry for each number and sender."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique

from smsretry.core.delivery import is_text_id
from smsretry.core.mask import shown

LONGEST_ADDRESS = 64
"""The most characters of a number, or a channel's address, and of a sender."""


@unique
class SuppressionReason(StrEnum):
    """Say why a number must not be texted."""

    OPTED_OUT = "opted_out"
    """The recipient said stop, to us or to the provider."""
    REFUSED = "refused"
    """The provider refused the number with a code after which nobody should try again."""
    IMPORTED = "imported"
    """It came in a list of the application's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Hold one entry: ``sender`` must not text ``to``; '' stands for every sender.

    ``sender`` is one of our numbers, or a provider's name of a group of them, such as a Messaging Service's SID.
    ``since`` is aware UTC; a list writes its own time where it is None. Raises ValueError that names the field.
    """

    to: str = field(repr=False)
    sender: str = ""
    reason: SuppressionReason = SuppressionReason.OPTED_OUT
    code: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        if not is_text_id(self.to) or len(self.to) > LONGEST_ADDRESS:
            msg = f"to must be a number of 1 to {LONGEST_ADDRESS} printable characters, got {shown(self.to)}."
            raise ValueError(msg)
        if self.sender != "" and (not is_text_id(self.sender) or len(self.sender) > LONGEST_ADDRESS):
            msg = f"sender must be a str of up to {LONGEST_ADDRESS} printable characters, got {shown(self.sender)}."
            raise ValueError(msg)
        object.__setattr__(self, "reason", SuppressionReason(self.reason))
        if self.since is not None and self.since.utcoffset() is None:
            msg = f"since must be an aware datetime or None, got {self.since!r}. Use datetime.now(UTC)."
            raise ValueError(msg)
