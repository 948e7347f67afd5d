"""Run one load through one program, and trouble its workers meanwhile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from smsretry import Message
from smsretry.testing import TwilioSimulator
from tests.chaos.backends import Backend, BackendName, running_backend
from tests.chaos.counting import Run, counted
from tests.chaos.evidence import write_evidence
from tests.chaos.load import LATEST_TAKE_S, SETTLE_AFTER_S, Load
from tests.chaos.programs import Program, ProgramName, program_for
from tests.chaos.settings import Settings
from tests.chaos.trouble import Trouble
from tests.chaos.workers import Workers

TICK_S: Final = 0.25
MOST_WAITING: Final = 40
"""A campaign is put into the queue little by little, a few seconds of work at a time."""
NO_TEXT_S: Final = 5.0
"""Without a text for so long, what has none yet is left to the time after the trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say what one run is; it ends after ``cap_s`` seconds at the latest."""

    program: ProgramName
    backend: BackendName
    seed: int
    messages: int
    settle_after_s: float = SETTLE_AFTER_S

    @property
    def cap_s(self) -> float:
        """Return how long the run may take."""
        return 60.0 + 0.15 * self.messages


def run(plan: Plan, folder: Path) -> Run:
    """Run ``plan`` in ``folder``, which keeps the logs of the workers; end every process that it starts."""
    load = Load.drawn(plan.messages, plan.seed)
    with load.simulator() as twilio, running_backend(plan.backend, folder) as backend:
        settings = Settings(
            celery=backend.celery,
            store_url=backend.store_url,
            twilio_url=twilio.url,
            account_sid=twilio.account_sid,
            auth_token=twilio.auth_token,
            settle_after_s=plan.settle_after_s,
            recovers_in_workers=backend.recovers_in_workers,
        )
        with program_for(plan.program, settings) as program:
            campaign = Campaign(load.messages, backend, program)
            environment = settings.environment()
            with (
                Workers(program, backend.shape, environment=environment, folder=folder) as workers,
                Trouble(workers, seed=plan.seed) as trouble,
            ):
                seconds = Watch(plan, twilio, backend, campaign, trouble).until_the_end()
            time.sleep(LATEST_TAKE_S)
            word = program.word()
            texts = counted(load.messages, twilio, word)
            write_evidence(folder / "evidence.txt", load.messages, twilio, program, word)
    return Run(
        program=plan.program,
        backend=plan.backend,
        seed=plan.seed,
        messages=plan.messages,
        kills=trouble.kills,
        freezes=trouble.freezes,
        seconds=round(seconds, 1),
        **asdict(texts),
    )


class Watch:
    """Follow a run: no trouble before the first request, none after the last text, and an end in any case."""

    def __init__(
        self, plan: Plan, twilio: TwilioSimulator, backend: Backend, campaign: Campaign, trouble: Trouble
    ) -> None:
        self._plan = plan
        self._twilio = twilio
        self._backend = backend
        self._campaign = campaign
        self._trouble = trouble
        self._texts = Stillness(lambda: twilio.text_count)
        self._requests = Stillness(lambda: twilio.posts + twilio.gets)
        self._ends_s = time.monotonic() + plan.cap_s

    def until_the_end(self) -> float:
        """Return the seconds from the first request to the end of the last message."""
        self._wait(lambda: self._twilio.posts > 0)
        began_s = time.monotonic()
        self._trouble.begin()
        crashes = self._backend.crashes
        for place, crash in enumerate(crashes, start=1):
            if self._wait(partial(self._has_texts, self._plan.messages * place // (len(crashes) + 1))):
                crash()
        self._wait(lambda: self._has_texts(self._plan.messages))
        self._trouble.calm()
        self._wait(lambda: self._trouble.is_over and self._has_ended())
        return time.monotonic() - began_s

    def _has_texts(self, enough: int) -> bool:
        """Say whether so many messages have their text, or no more are coming."""
        if self._campaign.is_queued and self._texts.lasts_s() > NO_TEXT_S:
            return True
        return len({text.to for text in self._twilio.texts}) >= enough

    def _has_ended(self) -> bool:
        still_open = self._campaign.program.open_count()
        if still_open is not None:
            return still_open == 0
        return self._requests.lasts_s() > self._backend.quiet_s and not self._backend.has_tasks()

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Wait for ``condition``, and queue more meanwhile; return whether it came true in time."""
        while time.monotonic() < self._ends_s:
            self._trouble.check()
            self._campaign.queue_some()
            with suppress(SQLAlchemyError):  # the database was away, and the old connection does not know yet
                self._campaign.program.open_count()  # its counters add up at any moment
                if condition():
                    return True
            time.sleep(TICK_S)
        return False


class Campaign:
    """Hold the messages that are not in the queue yet."""

    def __init__(self, messages: Iterable[Message], backend: Backend, program: Program) -> None:
        self.program = program
        self._unqueued = deque(messages)
        self._backend = backend

    @property
    def is_queued(self) -> bool:
        """Say whether every message was put into the queue."""
        return not self._unqueued

    def queue_some(self) -> None:
        """Queue more messages where few wait. Call it while no server is away, so that each is queued once."""
        if self._unqueued:
            few = min(len(self._unqueued), max(0, MOST_WAITING - self._backend.waiting()))
            self.program.publish([self._unqueued.popleft() for _ in range(few)])


class Stillness:
    """Measure for how long a figure has not changed, as often as it is asked."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self._figure = figure
        self._last = figure()
        self._since_s = time.monotonic()

    def lasts_s(self) -> float:
        """Return the seconds since the figure was seen to change."""
        if (now := self._figure()) != self._last:
            self._last, self._since_s = now, time.monotonic()
        return time.monotonic() - self._since_s
