"""What lets `recover` run beside a worker that awaits, and a dispatcher be made once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from types import SimpleNamespace

from smsretry import Dispatcher
from smsretry.adapters import _seam as seam
from smsretry.testing import ScriptedSender

LEAVES = """
import asyncio
from smsretry import Message
from smsretry.adapters._seam import recover_in_loop
from smsretry.store import SQLStore

async def never(message_id, metadata):
    await asyncio.Event().wait()

async def main():
    store = SQLStore("sqlite:///{path}")
    store.plan([Message("+15005550006", "Hello", id=f"m-{{n}}") for n in range(20)])
    await asyncio.sleep(0.05)
    sweep = asyncio.create_task(recover_in_loop(store, never, grace_s=0.01))
    await asyncio.sleep(0.2)

asyncio.run(main())
"""


def test_a_worker_that_ends_does_not_wait_for_a_sweep_that_waits_for_it(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", LEAVES.format(path=tmp_path / "sms.db")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("could not be queued")) == (0, 0)


def test_what_a_queue_raises_comes_back_out_of_the_loop():
    class Store:
        def recover(self, requeue: object, *, grace_s: float) -> int:
            return requeue("m-1", {})  # type: ignore[operator,no-any-return]

    async def seven(message_id: str, metadata: object) -> int:
        return 7

    assert asyncio.run(seam.recover_in_loop(Store(), seven, grace_s=1.0)) == 7


def test_a_sweep_that_is_canceled_ends_though_the_loop_goes_on():
    ended = threading.Event()

    class Store:
        def recover(self, requeue: object, *, grace_s: float) -> None:
            try:
                requeue("m-1", {})  # type: ignore[operator]
            finally:
                ended.set()

    async def main() -> bool:
        begun = asyncio.Event()

        async def never(message_id: str, metadata: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        sweep = asyncio.create_task(seam.recover_in_loop(Store(), never, grace_s=1.0))
        await begun.wait()
        sweep.cancel()
        return await asyncio.to_thread(ended.wait, 5.0)

    assert asyncio.run(main())


def test_a_function_that_each_run_makes_anew_is_told_of_once(caplog):
    holder = SimpleNamespace()
    for _ in range(3):
        seam.kept_on(holder, Dispatcher, lambda: Dispatcher(ScriptedSender())).get()
    assert caplog.text.count("at the top of its module") == 1


def test_a_function_that_stays_makes_one_dispatcher_and_no_noise(caplog):
    holder = SimpleNamespace()

    def make() -> Dispatcher:
        return Dispatcher(ScriptedSender())

    assert len({id(seam.kept_on(holder, Dispatcher, make).get()) for _ in range(3)}) == 1
    assert caplog.text == ""
