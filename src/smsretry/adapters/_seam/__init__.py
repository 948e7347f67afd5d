"""What every adapter does, whatever its queue: an adapter adds its queue's words and nothing else.

::

    source = Source(Dispatcher, …)    where the dispatcher comes from, and the journal
    source.send(message, publish, …)  write it down before it is queued, where there is a journal
    Run.of(source.get(), message, …)  what one run of a job brings
    attempt(run)                      ─▶ Done | Again | Failed
    deliver(run, publish)             ─▶ Done | Again | Failed | HandBack, with the next run published

`attempt` serves a queue that is told of the next run by an exception or a return value; `deliver` one into which an
adapter puts the next run itself. Each has an awaited twin. The decisions are generators of the calls that they need
(`smsretry.adapters._seam.steps`), so that plain and async queues share them.
"""

from smsretry.adapters._seam.ends import end_in, end_written
from smsretry.adapters._seam.envelope import (
    STATE_KEY,
    Envelope,
    check_message,
    packed,
    seconds_until,
    state_in,
    unpacked,
    written,
)
from smsretry.adapters._seam.extras import missing
from smsretry.adapters._seam.recovery import (
    CanCancel,
    CanRecover,
    Recovery,
    Sweeper,
    check_recovery,
    is_open,
    recover_in_loop,
    sweep_in_loop,
    taken_back,
)
from smsretry.adapters._seam.run import (
    EARLY_S,
    Again,
    Done,
    Failed,
    HandBack,
    Plan,
    Run,
    at_once,
    attempt,
    attempt_async,
    deliver,
    deliver_async,
    ended,
    told,
)
from smsretry.adapters._seam.source import CanPlan, Source, check_name, kept_on, only_once, refuse_without_id
from smsretry.adapters._seam.waits import BrokerLimits

__all__ = [
    "EARLY_S",
    "STATE_KEY",
    "Again",
    "BrokerLimits",
    "CanCancel",
    "CanPlan",
    "CanRecover",
    "Done",
    "Envelope",
    "Failed",
    "HandBack",
    "Plan",
    "Recovery",
    "Run",
    "Source",
    "Sweeper",
    "at_once",
    "attempt",
    "attempt_async",
    "check_message",
    "check_name",
    "check_recovery",
    "deliver",
    "deliver_async",
    "end_in",
    "end_written",
    "ended",
    "is_open",
    "kept_on",
    "missing",
    "only_once",
    "packed",
    "recover_in_loop",
    "refuse_without_id",
    "seconds_until",
    "state_in",
    "sweep_in_loop",
    "taken_back",
    "told",
    "unpacked",
    "written",
]
