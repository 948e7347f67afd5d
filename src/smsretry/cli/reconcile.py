"""Ask Twilio about texts whose delivery report never came."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from smsretry.cli.options import EVERY, JSON, STORE
from smsretry.cli.repeating import repeat
from smsretry.errors import ConfigurationError

if TYPE_CHECKING:
    from smsretry.callbacks import Polled
    from smsretry.core.delivery import DeliveryReport, DeliveryRetries, Received
    from smsretry.senders.twilio import TwilioSender
    from smsretry.store import SQLStore


@click.command(short_help="Ask Twilio about texts whose report never came.")
@STORE
@EVERY
@click.option(
    "--limit", default=1_000, show_default=True, type=click.IntRange(1), help="How many texts are asked about at most."
)
@click.option(
    "--retry-code",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Send anew after this code of Twilio's, as the stores of your application do. May be given several times.",
)
@JSON
def reconcile(*, url: str, every_s: float | None, limit: int, codes: tuple[str, ...], as_json: bool) -> None:
    """Ask Twilio about texts whose delivery report never came, and keep what it says.

    The account is that of TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN. Each text is asked about 15 minutes after it was
    accepted, and then less and less often, until Twilio has no last word after three days. Run it beside callbacks or
    in place of them, or twice at once. It ends after one run, or with --every when it is interrupted; where Twilio
    refuses the account it stops, and one run then fails. What is sent anew is queued by smsretry recover.
    """
    from smsretry.callbacks import poll
    from smsretry.cli.show import opened

    try:
        retries = _retries(codes)
        sender = _sender()
    except (ConfigurationError, ImportError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    from smsretry.callbacks.twilio import may_help  # which may lack its extra

    with opened(url, delivery_retries=retries) as store:
        asked = _Asked(store, is_left=lambda code: code not in retries.codes and may_help(code))
        repeat(
            store,
            lambda: poll(asked, sender, limit=limit, suppression=store),
            lambda polled: _tell(polled, asked.taken(), as_json=as_json, again_in_s=every_s),
            every_s=every_s,
        )


class _Asked:
    """Be the store that is polled, and count the texts that another store might send anew: ``is_left`` knows codes."""

    def __init__(self, store: SQLStore, *, is_left: Callable[[str], bool]) -> None:
        self.unreported, self.put_back = store.unreported, store.put_back
        self._store, self._is_left = store, is_left
        self._ended = Counter[str]()

    def receive(self, report: DeliveryReport, /) -> Received:
        """Write a report, and count it where it ends what might be sent anew."""
        received = self._store.receive(report)
        known = received.known
        has_failed = known.status.is_final and not known.status.has_arrived
        if received.changed and has_failed and self._is_left(known.code):
            self._ended[known.code] += 1
        return received

    def taken(self) -> Counter[str]:
        """Return how many ended with which code since this was asked last."""
        taken, self._ended = self._ended, Counter[str]()
        return taken


def _retries(codes: tuple[str, ...]) -> DeliveryRetries:
    """Return the retries after ``codes``; raise `ConfigurationError` for one after which none can help."""
    from smsretry.callbacks.twilio import check_codes
    from smsretry.core.delivery import DeliveryRetries

    check_codes(codes)
    return DeliveryRetries(codes=frozenset(codes))


def _sender() -> TwilioSender:
    """Return a sender of the account in the environment; raise `ConfigurationError` for what is missing.

    Otherwise every text would be asked about in vain.
    """
    from smsretry.senders.twilio import TwilioSender
    from smsretry.senders.twilio.account import Account, Settings

    Account.checked(Settings().completed_from(os.environ), from_env=True)
    return TwilioSender.from_env()


def _tell(polled: Polled, left: Counter[str], *, as_json: bool, again_in_s: float | None) -> None:
    """Tell what a run did; raise `click.ClickException` where the account was refused and no other run follows."""
    if as_json:
        click.echo(json.dumps(asdict(polled)))
    else:
        click.echo(
            f"{polled.asked} asked about, {polled.final} of them have their last word, "
            f"{polled.failed} could not be asked about."
        )
    for code, count in sorted(left.items()):
        click.echo(
            f"{count} ended with {code} and {'is' if count == 1 else 'are'} not sent anew. "
            f"If your application does that, name it: --retry-code {code}",
            err=True,
        )
    if polled.refused is not None:
        why = f"Twilio refused the account ({polled.refused}), so nothing more was asked."
        if again_in_s is None:
            raise click.ClickException(f"{why} Mend it, and run this again.")
        click.echo(f"{why} Next try in {again_in_s:g} s.", err=True)
