"""What every adapter does, whatever its queue: an adapter adds its queue's words and nothing else.

::

    source = Source(Dispatcher, …)    where the dispatcher comes from, and the journal
    source.send(message, publish, …)  write it down, where there is a journal, and publish its first run
    Run.of(source.get(), message, …)  what one run of a job brings
    attempt(run)                      ─▶ Done | Again | Failed
    deliver(run, publish)             ─▶ Done | Again | Failed | HandBack, with the next run published

`attempt` serves a queue that is told of the next run by an exception or a return value; `deliver` one into which an
adapter puts the next run itself. Each has an awaited twin. The decisions are generators of the calls that they need
(`smsretry.adapters._seam.steps`), so that plain and async queues share them.
"""

from smsretry.adapters._seam.ends import end_in, end_read, end_told, end_written, taken_written, with_notes
from smsretry.adapters._seam.envelope import (
    NEW,
    STATE_KEY,
    Envelope,
    check_message,
    packed,
    state_in,
    unpacked,
    written,
)
from smsretry.adapters._seam.extras import missing
from smsretry.adapters._seam.recovery import (
    CanRecover,
    Recovery,
    Requeue,
    Sweeper,
    check_recovery,
    recover_in_loop,
    recovers,
    recovery_name,
    revoked,
    set_recovers,
    sweep_in_loop,
    taken_back,
)
from smsretry.adapters._seam.run import (
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
from smsretry.adapters._seam.source import (
    AsyncDispatcherSource,
    CanPlan,
    DispatcherSource,
    Source,
    check_name,
    kept_on,
    only_once,
    refuse_without_id,
)
from smsretry.adapters._seam.waits import BrokerLimits

__all__ = [
    "NEW",
    "STATE_KEY",
    "Again",
    "AsyncDispatcherSource",
    "BrokerLimits",
    "CanPlan",
    "CanRecover",
    "DispatcherSource",
    "Done",
    "Envelope",
    "Failed",
    "HandBack",
    "Plan",
    "Recovery",
    "Requeue",
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
    "end_read",
    "end_told",
    "end_written",
    "ended",
    "kept_on",
    "missing",
    "only_once",
    "packed",
    "recover_in_loop",
    "recovers",
    "recovery_name",
    "refuse_without_id",
    "revoked",
    "set_recovers",
    "state_in",
    "sweep_in_loop",
    "taken_back",
    "taken_written",
    "told",
    "unpacked",
    "with_notes",
    "written",
]
