"""Ask Twilio about texts whose delivery report never came."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from smsretry.cli.options import EVERY, JSON, STORE
from smsretry.cli.repeating import repeat
from smsretry.errors import ConfigurationError

if TYPE_CHECKING:
    from smsretry.callbacks import Polled
    from smsretry.core.delivery import DeliveryRetries
    from smsretry.senders.twilio import TwilioSender


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
    accepted, and then less and less often, for three days. Run it beside callbacks or in place of them, or twice at
    once. It ends after one run, or with --every when it is interrupted. What is sent anew is queued by smsretry
    recover.
    """
    from smsretry.callbacks import poll
    from smsretry.cli.show import opened

    try:
        retries = _retries(codes)
        sender = _sender()
    except (ConfigurationError, ModuleNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    with opened(url, delivery_retries=retries) as store:
        repeat(
            store,
            lambda: poll(store, sender, limit=limit),
            lambda polled: _tell(polled, as_json=as_json),
            every_s=every_s,
        )


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


def _tell(polled: Polled, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(polled)))
    else:
        click.echo(
            f"{polled.asked} asked about, {polled.final} of them have their last word, "
            f"{polled.failed} could not be asked about."
        )
