"""What every test shares: the servers, and how hard Hypothesis tries."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.servers",)

# A shared machine stalls now and then; pytest's own timeout ends what hangs.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("SMSRETRY_HYPOTHESIS", "default"))
