"""Offer the simulator as a pytest fixture; opt in with ``pytest_plugins = ["smsretry.testing.pytest_plugin"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smsretry.testing.simulator import TwilioSimulator

MARKER = "twilio_simulator"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker whose keywords the fixture passes on."""
    config.addinivalue_line("markers", f"{MARKER}(**options): keyword arguments for the twilio_simulator fixture")


@pytest.fixture
def twilio_simulator(request: pytest.FixtureRequest) -> Iterator[TwilioSimulator]:
    """Serve Twilio's Messages API for one test, with the keywords of ``@pytest.mark.twilio_simulator(...)``, if any."""
    marker = request.node.get_closest_marker(MARKER)
    if marker and marker.args:
        raise pytest.UsageError(f"@pytest.mark.{MARKER} takes keywords alone, such as seed=5, got {marker.args!r}.")
    with TwilioSimulator(**(marker.kwargs if marker else {})) as simulator:
        yield simulator
