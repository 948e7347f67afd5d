"""Check that an adapter for a queue keeps its promises, with a real worker and short waits.

The worker makes its dispatchers with `Site`, which leaves notes in a folder. Say how to queue and how to start the
worker in an `AdapterHarness`, and run every check with pytest::

    class TestMyQueue(AdapterContract):
        @pytest.fixture(scope="class", autouse=True)
        @classmethod
        def at_work(cls, tmp_path_factory):
            with Trial(MyHarness(tmp_path_factory.mktemp("queue"))) as cls.trial:
                yield

Without pytest, call the functions of `CHECKS` with a `Trial`. What is broken raises
`smsretry.testing.sink_contract.ContractBroken`. A check that needs what the harness does not offer raises `NotOffered`,
and pytest skips it. Where the environment names a folder in ``SMSRETRY_ADAPTER_RESULTS``, the results are written there
as JSON.
"""

from smsretry.testing.adapter_contract.checks import CHECKS, AdapterContract
from smsretry.testing.adapter_contract.site import LEASE_S, POLICY, Site
from smsretry.testing.adapter_contract.trial import AdapterHarness, NotOffered, Trial

__all__ = ["CHECKS", "LEASE_S", "POLICY", "AdapterContract", "AdapterHarness", "NotOffered", "Site", "Trial"]
