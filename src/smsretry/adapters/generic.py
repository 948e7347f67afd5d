"""Send from any queue that can run a function later: give it one function that queues an envelope with a delay.

`GenericQueue` and `AsyncGenericQueue` are whole: `send` queues, `run` is what the worker calls with what was queued.
`deliver` and `deliver_async` send from a task that an application has already; the state of the attempts is then one
more argument of it, a short text.

Either way one run is one attempt, and the policy counts. Switch off the queue's own repeats, and let it fail for good
whatever raises `smsretry.NotAccepted` or `smsretry.InvalidMessage`. An envelope is JSON, with the number and the text
in it: keep it out of what the queue shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from smsretry.adapters import _seam as seam
from smsretry.adapters._seam import problems
from smsretry.adapters._seam.envelope import state_of, text_of
from smsretry.adapters._seam.run import DispatcherT
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import AttemptState
from smsretry.dispatcher import AsyncDispatcher, Dispatcher

__all__ = ["AsyncGenericQueue", "GenericQueue", "deliver", "deliver_async"]

Enqueue = Callable[[dict[str, Any], float], Any]
"""Queue an envelope, a JSON object, to be run in so many seconds, 0 or more; an async one is awaited."""
Rerun = Callable[[str, float], Any]
"""Queue the application's own task once more, with this state, to be run in so many seconds."""
Interrupts = tuple[type[BaseException], ...]


class _Queue(Generic[DispatcherT]):
    """Hold what a plain and an async queue share."""

    _kind: type[DispatcherT]

    def __init__(
        self,
        dispatcher: DispatcherT | Callable[[], DispatcherT],
        again: Enqueue,
        *,
        journal: seam.CanPlan | None = None,
        longest_wait_s: float = math.inf,
        whole_seconds: bool = False,
        interrupts: Interrupts = (),
    ) -> None:
        self._source = seam.Source(self._kind, dispatcher, journal=journal)
        self._again = again
        self._limits = seam.BrokerLimits(longest_wait_s=longest_wait_s, whole_seconds=whole_seconds)
        self._interrupts = interrupts

    def _run(self, envelope: Mapping[str, Any], job_id: str | None) -> seam.Run[DispatcherT]:
        came, dispatcher = seam.Envelope.from_dict(envelope), self._source.get()
        if problems.once(self, "checked"):
            problems.warn(problems.usual(type(self).__name__, dispatcher, self._source))
        return seam.Run.of(dispatcher, came.message, came.state, job_id=job_id, interrupts=self._interrupts)

    def _publish(self, again: seam.Again) -> Any:
        return self._again(again.envelope(), self._limits.countdown(again.delay_s))

    def _told(self, plan: seam.Plan | seam.HandBack) -> Receipt | None:
        problems.tell_not_set_up(self, type(self).__name__, plan)
        return seam.told(plan)


class GenericQueue(_Queue[Dispatcher]):
    """Send through a queue of which only ``again(envelope, delay_s)`` is known.

    ::

        texts = GenericQueue(make_dispatcher, again=lambda envelope, delay_s: put(json.dumps(envelope), delay_s))
        texts.send(message)                     # wherever texts are wanted
        texts.run(json.loads(taken))            # in the worker, for each envelope

    ``dispatcher`` is a `smsretry.Dispatcher`, or a function that makes one: it is called once in each process, at first
    use. ``journal`` is what `send` plans in; needed only where a function makes the dispatcher. ``longest_wait_s`` is
    the longest delay that the queue bears: what is longer is waited for in hops. With ``whole_seconds`` delays are
    rounded up to whole numbers. ``interrupts`` are the exceptions that the queue raises in a run that takes too long.

    `send` makes it a queue for `smsretry.store.recover`. Raises `smsretry.ConfigurationError` for a dispatcher that is
    none, and for a journal that is not the dispatcher's.
    """

    _kind = Dispatcher

    def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> Any:
        """Queue ``message``, to be sent in ``delay_s`` seconds; return what ``again`` returned.

        ``state`` is that of a message whose attempts began elsewhere. With a journal the message is planned in it
        first, and needs an id of its own. Raises `smsretry.InvalidMessage` where it has none, and where the journal
        knows its id with another recipient or text; then nothing is queued.
        """
        return self._source.send(message, self._publish, delay_s=delay_s, state=state, in_task=True)

    def run(self, envelope: Mapping[str, Any], *, job_id: str | None = None) -> Receipt | None:
        """Make one attempt to send what was queued as ``envelope``, in the worker.

        Return the `smsretry.Receipt` where the text was accepted, and None where another run was queued. Raise
        `smsretry.NotAccepted` where the message has ended, and `smsretry.InvalidMessage` where ``envelope`` cannot be
        read: fail the job, and do not repeat it. Raise what ``again`` raised where the next run could not be queued,
        and what the function that makes the dispatcher raised: repeat the job if the queue can. ``job_id``, where the
        queue's repeats share it, becomes the id of a message that has none.
        """
        return self._told(seam.deliver(self._run(envelope, job_id), self._publish))


class AsyncGenericQueue(_Queue[AsyncDispatcher]):
    """Be a `GenericQueue` in a running loop, for an `smsretry.AsyncDispatcher`; an async ``again`` is awaited."""

    _kind = AsyncDispatcher

    async def send(self, message: Message, *, delay_s: float = 0.0, state: AttemptState = seam.NEW) -> Any:
        """Queue ``message``: see `GenericQueue.send`."""
        return await self._source.send_async(message, self._publish, delay_s=delay_s, state=state, in_task=True)

    async def run(self, envelope: Mapping[str, Any], *, job_id: str | None = None) -> Receipt | None:
        """Make one attempt to send what was queued as ``envelope``: see `GenericQueue.run`."""
        return self._told(await seam.deliver_async(self._run(envelope, job_id), self._publish))

    async def recover(self, store: seam.CanRecover, *, grace_s: float = 60.0) -> Any:
        """Queue again what nobody works on any more: `smsretry.store.recover`, for a queue that is awaited."""
        return await seam.recover_in_loop(store, self, grace_s=grace_s)


def deliver(
    dispatcher: Dispatcher,
    message: Message,
    *,
    state: str | None,
    again: Rerun,
    job_id: str | None = None,
    longest_wait_s: float = math.inf,
    whole_seconds: bool = False,
    interrupts: Interrupts = (),
) -> Receipt | None:
    """Make one attempt to send ``message`` from the body of an application's own task.

    ``state`` is the argument with which the task was run, None the first time, and ``again(state, delay_s)`` queues the
    task once more with the same arguments and a new state::

        def remind(customer_id, state=None):
            def again(state, delay_s):
                put_later(delay_s, remind, customer_id, state)

            return deliver(dispatcher, render(customer_id), state=state, again=again)

    Each run repeats the whole body, so render the same text every time; with a journal the text of the first run is the
    one that is sent. What else it takes is that of `GenericQueue`. Returns and raises what `GenericQueue.run` does.
    """
    limits = seam.BrokerLimits(longest_wait_s=longest_wait_s, whole_seconds=whole_seconds)
    run = seam.Run.of(dispatcher, message, state_of(state), job_id=job_id, rerun=True, interrupts=interrupts)
    return seam.told(seam.deliver(run, _Republish(again, limits)))


async def deliver_async(
    dispatcher: AsyncDispatcher,
    message: Message,
    *,
    state: str | None,
    again: Rerun,
    job_id: str | None = None,
    longest_wait_s: float = math.inf,
    whole_seconds: bool = False,
    interrupts: Interrupts = (),
) -> Receipt | None:
    """Make one attempt as `deliver` does, in a running loop; an async ``again`` is awaited."""
    limits = seam.BrokerLimits(longest_wait_s=longest_wait_s, whole_seconds=whole_seconds)
    run = seam.Run.of(dispatcher, message, state_of(state), job_id=job_id, rerun=True, interrupts=interrupts)
    return seam.told(await seam.deliver_async(run, _Republish(again, limits)))


@dataclass(frozen=True, slots=True)
class _Republish:
    """Queue an application's own task once more."""

    again: Rerun
    limits: seam.BrokerLimits

    def __call__(self, following: seam.Again) -> Any:
        return self.again(text_of(following.state), self.limits.countdown(following.delay_s))
