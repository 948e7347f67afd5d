"""Run the simulator as a command: ``python -m smsretry.testing.simulator``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from types import FrameType
from typing import Final

from smsretry.testing.simulator.fates import CallbackPlan
from smsretry.testing.simulator.faults import FAULTS
from smsretry.testing.simulator.simulator import ACCOUNT_SID, AUTH_TOKEN, TwilioSimulator

NAME: Final = "python -m smsretry.testing.simulator"


def main(arguments: Sequence[str] | None = None, *, name: str = NAME) -> int:
    """Serve until SIGINT or SIGTERM; the first line on stdout is a JSON object with url, account_sid and auth_token.

    ``name`` is what the command calls itself. Ends with an error where the port is not free.
    """
    simulator = simulator_from(arguments, name=name)
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        simulator.start()
    except OSError as error:
        sys.exit(
            f"{name}: port {simulator.port} cannot be taken ({error.strerror or error}). Use --port 0 for a free one."
        )
    with closing(simulator):
        sys.stdout.write(json.dumps(_introduction(simulator)) + "\n")
        sys.stdout.flush()
        ended.wait()
    return 0


def simulator_from(arguments: Sequence[str] | None, *, name: str = NAME) -> TwilioSimulator:
    """Return the simulator that the command line describes; end the process with a usage message for a bad one."""
    parser = _parser(name)
    options = vars(parser.parse_args(arguments))
    rates, look_up_rates = dict(options.pop("rate")), dict(options.pop("look_up_rate"))
    try:
        return TwilioSimulator(rates=rates, look_up_rates=look_up_rates, **options)
    except ValueError as error:
        parser.error(str(error))


def _introduction(simulator: TwilioSimulator) -> dict[str, str]:
    return {"url": simulator.url, "account_sid": simulator.account_sid, "auth_token": simulator.auth_token}


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command,
        description="Stand in for Twilio's Messages API on a loopback port.",
        epilog=f"Faults: {', '.join(FAULTS)}.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (%(default)s)")
    parser.add_argument("--account-sid", default=ACCOUNT_SID)
    parser.add_argument("--auth-token", default=AUTH_TOKEN)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the faults by rate, and of the plan of callbacks (%(default)s)"
    )
    for name, what in (("--rate", "creates"), ("--look-up-rate", "look-ups")):
        parser.add_argument(
            name, type=_rate, action="append", default=[], metavar="FAULT=SHARE", help=f"let {what} fail; repeatable"
        )
    parser.add_argument(
        "--callbacks",
        type=_plan,
        metavar="JSON",
        help='send status callbacks, by a plan such as {"undelivered": {"30003": 0.1}, "lost": 0.05}; {} delivers all',
    )
    parser.add_argument("--latency-s", type=float, default=0.0, help="seconds before every answer (%(default)s)")
    parser.add_argument("--list-lag-s", type=float, default=0.0, help="seconds until look-ups see a text (%(default)s)")
    parser.add_argument("--test-credentials", action="store_true", help="refuse every look-up")
    return parser


def _rate(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a share must look like rate_limited=0.1, got {text!r}") from None


def _plan(text: str) -> CallbackPlan:
    try:
        return CallbackPlan.from_dict(json.loads(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
