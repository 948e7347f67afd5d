"""Send many messages from one process: read them as they come, so many at once, and let the others wait for nothing.

`run_campaign` takes a plain dispatcher, with threads, or an async one, in a loop of its own; `run_campaign_async` runs
in yours. A message that waits for its retry holds no place, and no failure of one message stops the others.
"""

from smsretry.campaign.agenda import Progress
from smsretry.campaign.tasks import run_campaign_async
from smsretry.campaign.threads import run_campaign

__all__ = ["Progress", "run_campaign", "run_campaign_async"]
