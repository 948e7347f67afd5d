"""Tell the figures of one campaign from the database."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console

from smsretry.cli.hand_over import check_campaign
from smsretry.cli.show import opened
from smsretry.cli.telling import print_result


def tell_campaign(url: str, campaign: str, *, as_json: bool) -> None:
    """Print where the messages of ``campaign`` stand; raise `click.ClickException` where the database knows none."""
    with opened(url) as store:
        check_campaign(store, campaign)
        if as_json:
            summary = store.campaign_summary(campaign)
            click.echo(json.dumps({"planned": summary.planned, **asdict(summary), "awaiting": summary.awaiting}))
        else:
            print_result(Console(), store, campaign)
