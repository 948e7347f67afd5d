"""Run decisions that need calls in between, by calling or by awaiting: the two shells of every adapter.

A decision is a generator. It yields what is to be called, without arguments, and gets back what that returned, or the
exception that it raised; what the generator returns is the result. (A dispatcher runs steps of its own in loops like
these: shared ones, with one more call for each step, would make an attempt 4 % dearer.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blocking:
    """Be a call that would block a loop, such as one to a database."""

    call: Callable[[], Any]

    def __call__(self) -> Any:
        """Make the call."""
        return self.call()


Steps = Generator[Callable[[], Any], Any, T]


def called(steps: Steps[T]) -> T:
    """Return the result of ``steps``, calling what they ask for."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step()
            except BaseException as error:  # noqa: BLE001  # the steps decide about it, as if they had called
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast("T", end.value)


async def awaited(steps: Steps[T]) -> T:
    """Return the result of ``steps``, awaiting what they ask for; what blocks is called in a thread."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await _answer(step)
            except BaseException as error:  # noqa: BLE001  # the steps decide about it, as if they had called
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast("T", end.value)


async def _answer(step: Callable[[], Any]) -> Any:
    if isinstance(step, Blocking):
        import asyncio  # only whoever runs a loop pays for it

        return await asyncio.to_thread(step)
    answer = step()
    return await answer if isinstance(answer, Awaitable) else answer
