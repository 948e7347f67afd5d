"""Take each text along its course, and tell its sender by callbacks; all of it inside the server's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from smsretry.testing.simulator.courier import Courier, Routes, Target
from smsretry.testing.simulator.fates import CallbackPlan, Course, Fates, Told
from smsretry.testing.simulator.ledger import Callback, Ledger, Params, Text
from smsretry.testing.simulator.rules import identity_of
from smsretry.testing.simulator.webhooks import callback_form, webhook_headers

LONGEST_HOLD_S: Final = 2.0
"""An answer waits so long at most for the callback that comes before it: an application may need the answer first."""


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Passage:
    """Join one create's answer with the callbacks of its text: what each of the two waits for."""

    taken: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    is_held: bool = False
    _send: Callable[[], object] = _nothing

    def hold(self) -> None:
        """Keep the answer until `release`, or `LONGEST_HOLD_S` at most."""
        self.is_held = True
        asyncio.get_running_loop().call_later(LONGEST_HOLD_S, self.release)

    def release(self) -> None:
        """Let the answer leave."""
        self.is_held = False
        send, self._send = self._send, _nothing
        send()

    def when_free(self, send: Callable[[], object]) -> None:
        """Call ``send`` once the answer, which is held, may leave."""
        self._send = send


class Callbacks:
    """Send the callbacks of one run: from `reset` to `reset` of a simulator."""

    def __init__(
        self, ledger: Ledger, fates: Fates, courier: Courier, routes: Routes, *, account_sid: str, auth_token: str
    ) -> None:
        self.fates = fates
        self._ledger = ledger
        self._courier = courier
        self._routes = routes
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._tasks: set[asyncio.Task[None]] = set()
        self._free: dict[int, asyncio.Semaphore] = {}
        self._is_stopped = False

    def objection(self, params: Params) -> str | None:
        """Return why the callbacks of a create cannot be sent to its StatusCallback, None where they can."""
        url = _callback_url(params)
        if not url or not self.fates.decides(params["To"][0]):
            return None
        try:
            self._routes.target(url)
        except ValueError as error:
            return str(error)
        return None

    def expect(self, text: Text, *, is_late: bool) -> Passage | None:
        """Decide the course of a text that is about to be taken, and let it set out in time; None where it has none.

        A text that is taken late (``is_late``) holds no answer up.
        """
        if self._is_stopped:
            return None
        by_service = text.messaging_service_sid is not None
        course = self.fates.next_course(to=text.to, identity=identity_of(text.params), by_service=by_service)
        if course is None:
            return None
        url = _callback_url(text.params)
        target = self._routes.target(url) if url else None
        if target is None:
            course = replace(course, callbacks=(), lost=0)
        self._ledger.decided(text.sid, course)
        passage = Passage()
        if course.before_answer and course.callbacks and not is_late:
            passage.hold()
        task = asyncio.get_running_loop().create_task(self._run(text, course, passage, target))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return passage

    async def end(self) -> None:
        """Send no more, and wait until nothing is under way; texts taken after a new start are told of again."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._free.clear()
        self._is_stopped = False

    def stop(self) -> None:
        """Send no more, also of texts that are yet to be taken."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ledger.came_to_end()

    async def _run(self, text: Text, course: Course, passage: Passage, target: Target | None) -> None:
        await passage.taken.wait()
        if not course.before_answer:
            await passage.answered.wait()
        self._ledger.set_out(text.sid)
        began_s = self._ledger.elapsed_s()
        if target is not None:
            for told in course.callbacks:
                await self._until(began_s + told.after_s)
                await self._call(text, told, target, course.plan)
                passage.release()
        await self._until(began_s + course.end_s)

    async def _until(self, at_s: float) -> None:
        if (wait_s := at_s - self._ledger.elapsed_s()) > 0:
            await asyncio.sleep(wait_s)

    async def _call(self, text: Text, told: Told, target: Target, plan: CallbackPlan) -> None:
        url = _callback_url(text.params)
        done_at = datetime.now(UTC) if told.has_date else None
        form = callback_form(text, told.fate, account_sid=self._account_sid, done_at=done_at)
        headers = webhook_headers(url, form, auth_token=self._auth_token)
        for attempt in range(plan.repeats + 1):
            if attempt:
                await asyncio.sleep(plan.repeat_after_s)
            status = await self._posted(target, form, headers, plan)
            self._ledger.called_back(
                Callback(
                    sid=text.sid,
                    status=told.fate.status,
                    code=told.fate.code,
                    url=url,
                    form=form,
                    answer=status,
                    is_double=told.is_double,
                    is_repeat=attempt > 0,
                    at=datetime.now(UTC),
                    at_s=self._ledger.elapsed_s(),
                )
            )
            if status is not None and status < 500:
                break

    async def _posted(
        self, target: Target, form: dict[str, str], headers: dict[str, str], plan: CallbackPlan
    ) -> int | None:
        free = self._free.setdefault(plan.connections, asyncio.Semaphore(plan.connections))
        async with free:
            with suppress(OSError):
                return (await self._courier.post(target, form, headers, timeout_s=plan.timeout_s)).status
        return None


def _callback_url(params: Params) -> str:
    return params.get("StatusCallback", [""])[0]
