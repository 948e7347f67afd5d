"""Who must not be texted: one entry for each number and sender."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

from smsretry.core.mask import mask_number, shown
from smsretry.core.message import check_to, is_e164

LONGEST_ADDRESS: Final = 64
"""The most characters of a sender."""
_SHORT_CODE: Final = re.compile(r"\d{3,8}", re.ASCII)
_NUMBER: Final = re.compile(r"[\d\s().+-]+", re.ASCII)
"""What somebody means as a number, however he writes it."""


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
    Both are compared letter by letter with those of a message, so that numbers must be in E.164 here too. ``since`` is
    aware UTC; a list writes its own time where it is None. Raises ValueError that names the field.
    """

    to: str = field(repr=False)
    sender: str = ""
    reason: SuppressionReason = SuppressionReason.OPTED_OUT
    code: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        check_to(self.to)
        _check_sender(self.sender)
        object.__setattr__(self, "reason", SuppressionReason(self.reason))
        if self.since is not None and self.since.utcoffset() is None:
            msg = f"since must be an aware datetime or None, got {self.since!r}. Use datetime.now(UTC)."
            raise ValueError(msg)


def _check_sender(sender: object) -> None:
    if not isinstance(sender, str) or len(sender) > LONGEST_ADDRESS or not sender.isprintable():
        msg = f"sender must be a str of up to {LONGEST_ADDRESS} printable characters, got {shown(sender)}."
        raise ValueError(msg)
    if _NUMBER.fullmatch(sender) and not is_e164(sender) and not _SHORT_CODE.fullmatch(sender):
        got = mask_number(sender)
        msg = f"sender must be in E.164 such as +15005550006 where it is a number, got {got!r}. Add + and the country."
        raise ValueError(msg)
