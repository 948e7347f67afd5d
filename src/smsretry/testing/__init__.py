"""Fakes, the Twilio simulator and contract kits: what an application's own tests need.

Importing it needs neither pytest nor any provider's client. For the fixture of the simulator, add
``pytest_plugins = ["smsretry.testing.pytest_plugin"]`` to ``conftest.py``.
"""

from smsretry.testing.fakes import FakeClock, RecordingSink, ScriptedSender
from smsretry.testing.simulator import TwilioSimulator

__all__ = ["FakeClock", "RecordingSink", "ScriptedSender", "TwilioSimulator"]
