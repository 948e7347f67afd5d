"""Read phone numbers as people write them, with Google's rules where the extra ``phone`` is installed."""

from __future__ import annotations

import re
from typing import Final

from smsretry.errors import ConfigurationError

try:
    import phonenumbers
except ModuleNotFoundError as _error:
    if _error.name != "phonenumbers":
        raise
    phonenumbers = None  # type: ignore[assignment]  # E.164 is taken without it

INSTALL: Final = "pip install 'smsretry[phone]'"

_E164: Final = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)


class UnreadableNumber(ValueError):
    """Say why a cell holds no number that can be texted, without repeating it."""


class Numbers:
    """Read numbers; those without a country's code belong to ``region``, such as ``"US"`` or ``"DE"``.

    A number is taken where its length is possible in its country: whether somebody has it, only the provider knows.
    Letters are refused, since a number with an O in place of a 0 must not become another one, and so are extensions.

    Without the extra ``phone`` only E.164 (``+14155550101``) is taken. Raises `ConfigurationError` for a region that is
    none, and for any where the extra is missing.
    """

    def __init__(self, region: str | None = None) -> None:
        self._region = region
        if region is None:
            return
        if phonenumbers is None:
            raise ConfigurationError(f"A region needs the library phonenumbers. Install it: {INSTALL}")
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ConfigurationError(
                f"region must be a country's code of two capital letters such as 'US', got {region!r}. Correct it."
            )

    def read(self, text: str) -> str:
        """Return ``text`` in E.164; raise `UnreadableNumber` that says why it cannot be."""
        text = text.strip()
        if phonenumbers is None:
            return _as_it_is(text)
        if any(character.isalpha() for character in text):
            raise UnreadableNumber("has letters")
        try:
            number = phonenumbers.parse(text, self._region)
        except phonenumbers.NumberParseException as error:
            without_country = error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE
            raise UnreadableNumber(self._without_country() if without_country else "is no phone number") from None
        if number.extension is not None:
            raise UnreadableNumber("has an extension")
        # is_possible_number also takes what can only be dialled within a town.
        if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
            raise UnreadableNumber("has too few or too many digits for its country")
        return _checked(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))

    def _without_country(self) -> str:
        if self._region is None:
            return "has no country's code, and no region is given"
        return "has a country's code that is none"


def _as_it_is(text: str) -> str:
    if not _E164.fullmatch(text):
        raise UnreadableNumber(f"is not in E.164 such as +14155550101: for other forms {INSTALL}")
    return text


def _checked(number: str) -> str:
    if not _E164.fullmatch(number):
        raise UnreadableNumber("is no phone number")
    return number
