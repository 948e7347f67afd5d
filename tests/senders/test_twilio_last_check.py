"""The last look at the claim: after connecting, before the first byte of the request."""

from __future__ import annotations

import pytest

from smsretry import Failure, FailureKind, Message
from smsretry.errors import ProviderError
from smsretry.ports import LAST_CHECK
from smsretry.senders.twilio import TwilioSender
from smsretry.testing import TwilioSimulator

MESSAGE = Message("+15005550101", "Your table is ready.", id="booking-1")


def sender_to(twilio: TwilioSimulator) -> TwilioSender:
    return TwilioSender(twilio.account_sid, twilio.auth_token, from_number="+15005550006", base_url=twilio.url)


def test_what_is_no_longer_ours_is_not_written_to_a_connection():
    def refuse() -> None:
        raise ProviderError(Failure.of(FailureKind.TEMPORARY, detail="the claim was lost"))

    with TwilioSimulator() as twilio:
        token = LAST_CHECK.set(refuse)
        try:
            with pytest.raises(ProviderError, match="the claim was lost"):
                sender_to(twilio).send(MESSAGE)
        finally:
            LAST_CHECK.reset(token)
        assert twilio.posts == 0


def test_what_is_ours_is_checked_and_sent():
    checks: list[int] = []
    with TwilioSimulator() as twilio:
        token = LAST_CHECK.set(lambda: checks.append(twilio.posts))
        try:
            sender_to(twilio).send(MESSAGE)
        finally:
            LAST_CHECK.reset(token)
        assert twilio.posts == 1
    assert checks
    assert checks[0] == 0
