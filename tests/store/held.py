"""Send a campaign whose account's token has expired: ``python -m tests.store.held [MESSAGES [MINUTES]]``.

It prints how many requests the provider refused until the token was renewed, and how often each text was taken.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.store.clock import pass_time
from tests.store.journeys import message, miscounted

from smsretry import Dispatcher, Failure, FailureKind, Message, Receipt
from smsretry.errors import ProviderError
from smsretry.store import SQLStore

REFUSED = Failure.of(FailureKind.AUTH, code=20003, http_status=401, provider="twilio")
WORKERS = 8


@dataclass(slots=True)
class Account:
    """Refuse every text while the token is ``expired``, and take it afterwards."""

    expired: bool = True
    refused: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def send(self, one: Message, /) -> Receipt:
        if self.expired:
            self.refused.append(str(one.id))
            raise ProviderError(REFUSED)
        self.texts.append(str(one.id))
        return Receipt("twilio", f"SM-{one.id}", datetime.now(UTC))


@dataclass(slots=True)
class Campaign:
    """Hold a planned campaign, and let 8 workers attempt all of it once a minute."""

    store: SQLStore
    messages: list[Message]
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        self.store.plan(self.messages)

    def run(self, minutes: int) -> None:
        """Let the token be renewed after ``minutes``, and go on until every message has ended."""
        for _ in range(minutes):
            self._attempt_all()
            self._check(pending=len(self.messages))
        self.account.expired = False
        while self.store.campaign_summary("spring").pending:
            self._attempt_all()
        self._check(pending=0)

    def _attempt_all(self) -> None:
        dispatcher = Dispatcher(self.account, journal=self.store)
        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(dispatcher.attempt, self.messages))
        pass_time(self.store, 61)

    def _check(self, *, pending: int) -> None:
        summary = self.store.campaign_summary("spring")
        expected = (pending, len(self.messages) - pending, len(self.messages), {})
        assert (summary.pending, summary.sent, summary.planned, miscounted(self.store)) == expected, summary


def campaign_of(store: SQLStore, count: int) -> Campaign:
    """Plan ``count`` messages, each to a number of its own."""
    return Campaign(store, [message(f"m{number}", to=f"+1500{number:07}") for number in range(count)])


def main(count: int = 10_000, minutes: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder, SQLStore(f"sqlite:///{Path(folder) / 'sms.db'}") as store:
        began_s = time.monotonic()
        campaign = campaign_of(store, count)
        campaign.run(minutes)
        taken = Counter(Counter(campaign.account.texts).values())
        print(f"{count} messages, a token that had expired {minutes} minutes ago, {time.monotonic() - began_s:.0f} s:")
        print(f"{len(campaign.account.refused)} requests were refused.")
        print(f"{taken[1]} texts were taken once, {sum(taken.values()) - taken[1]} more often.")
        print(f"{store.campaign_summary('spring')}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
