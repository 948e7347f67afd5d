"""Let a worker handle the messages of all checks side by side, so that their waits overlap."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import unittest
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from smsretry.core.message import Message
from smsretry.testing.adapter_contract.site import Site
from smsretry.testing.sink_contract import ContractBroken

RESULTS_VARIABLE: Final = "SMSRETRY_ADAPTER_RESULTS"
WORDS: Final = "for your eyes only"
"""A word that is in every text."""
DELAY_S: Final = 1.5
"""How long the message waits that is queued for later."""
_STEP_S: Final = 0.02
_IMPATIENCE_S: Final = 2.0
"""How long is waited once something was waited for in vain: all messages had that time."""
_RECOVER_EVERY_S: Final = 0.5


class NotOffered(unittest.SkipTest):
    """Say what a harness does not offer, so that a check is skipped."""


class AdapterHarness(ABC):
    """Say how the queue under test is used; a check whose method is not there is skipped."""

    name: ClassVar[str]
    """The name of the adapter, such as ``"rq"``."""
    slack_s: ClassVar[float] = 1.0
    """What the queue, and a busy machine, may add to a wait."""
    patience_s: ClassVar[float] = 30.0
    """How long the checks wait for a message to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def versions(self) -> Mapping[str, str]:
        """Return the versions of the queue and its server, for the table of results."""
        return {}

    @abstractmethod
    def start(self) -> None:
        """Start a worker, which uses ``Site(self.folder)``; it may be called again after `kill` and `stop`."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the worker, and wait for its end."""

    @abstractmethod
    def send(self, message: Message, *, journaled: bool = False, delay_s: float = 0.0) -> Any:
        """Queue ``message`` with the adapter, in a process that is not the worker; return what stands for the job.

        The ready task sends with ``Site.dispatcher(journaled=journaled)``, or the async one.
        """

    def redeliver(self, message: Message) -> Any:
        """Queue a journaled ``message`` once more, as a broker does that delivers twice: by default with `send`."""
        return self.send(message, journaled=True)

    def send_own(self, message: Message) -> Any:
        """Queue a task of an application's own, whose body calls the adapter's `deliver` with ``message``."""
        del message
        raise NotOffered("the harness has no task of an application's own")

    def kill(self) -> None:
        """End the worker, and all of its processes, with SIGKILL."""
        raise NotOffered("the harness does not kill its worker")

    def result(self, job: Any) -> object:
        """Return what the queue keeps of a job: ``receipt.to_dict()``, or the exception; None where it goes on."""
        del job
        raise NotOffered("the queue keeps no results")

    def left(self) -> int:
        """Return how many jobs the queue holds that it will run, now or later."""
        raise NotOffered("the harness does not say what is left in the queue")

    def visible(self) -> str:
        """Return what the queue shows of its jobs: its dashboard, events, metadata and the worker's log."""
        raise NotOffered("the harness does not say what the queue shows")


class Trial:
    """Start the worker of ``harness``, queue the messages of every check, and wait for their ends when asked."""

    def __init__(self, harness: AdapterHarness) -> None:
        self.harness = harness
        self.site = Site(harness.folder)
        self.jobs: dict[str, Any] = {}
        """What stands for the job of a message, by its name."""
        self.results: dict[str, str] = {}
        """What came of each check: ``holds``, or ``broken`` or ``skipped`` with the reason."""
        self._messages: dict[str, Message] = {}
        self._began: dict[str, float] = {}
        self._shown: list[str] = []
        self._patience_s = harness.patience_s

    def __enter__(self) -> Self:
        self.harness.start()
        try:
            self._queue_all()
        except BaseException:
            self.harness.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.harness.stop()
        if folder := os.environ.get(RESULTS_VARIABLE):
            self.write_results(Path(folder))

    def run(self, check: Callable[[Trial], None]) -> None:
        """Run one check and keep what came of it."""
        name = check.__name__.removeprefix("check_")
        try:
            check(self)
        except NotOffered as error:
            self.results[name] = f"skipped: {error}"
            raise
        except BaseException as error:
            self.results[name] = f"broken: {error}"
            raise
        self.results[name] = "holds"

    def write_results(self, folder: Path) -> None:
        """Write what came of the checks to ``<name>.json`` in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        told = {"name": self.harness.name, "versions": dict(self.harness.versions), "checks": self.results}
        (folder / f"{self.harness.name}.json").write_text(json.dumps(told, indent=2) + "\n")

    def id(self, name: str) -> str:
        """Return the id of a message by its name."""
        return str(self._messages[name].id)

    def message(self, name: str) -> Message:
        """Return a message by its name."""
        return self._messages[name]

    def began(self, name: str) -> float:
        """Return when a message was queued, in seconds since 1970."""
        return self._began[name]

    def end(self, name: str) -> str:
        """Wait for the end of a message: ``accepted``, or the reason why not."""
        self.eventually(lambda: self.site.end(self.id(name)) is not None, f"message {name!r} to end")
        return str(self.site.end(self.id(name)))

    def eventually(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds."""
        deadline = time.monotonic() + self._patience_s
        while not condition():
            if time.monotonic() > deadline:
                self._patience_s = _IMPATIENCE_S
                raise ContractBroken(f"Nothing is lost: waited in vain for {what}.")
            time.sleep(_STEP_S)

    def queue(self, name: str, queue: Callable[[Message], Any], *answers: str, **fields: Any) -> None:
        """Queue a message of this name, through one of the harness's ways."""
        fields = {"to": f"+1555010{len(self._messages):04d}", "body": f"{WORDS} {name}", **fields}
        metadata = {**fields.pop("metadata", {}), "answers": list(answers)}
        message = Message(**fields, id=f"{name}:{uuid.uuid4().hex}", metadata=metadata)
        self._messages[name], self._began[name] = message, time.time()
        self.jobs[name] = queue(message)

    def shown(self) -> str:
        """Return what the queue shows now, and what it showed while messages waited."""
        return "\n".join([*self._shown, self.harness.visible()])

    def result(self, name: str) -> object:
        """Return what the queue keeps of the job of a message, as soon as it keeps it."""
        kept: list[object] = []

        def is_kept() -> bool:
            kept.append(self.harness.result(self.jobs[name]))
            return kept[-1] is not None

        self.eventually(is_kept, f"the result of message {name!r}")
        return kept[-1]

    def names(self) -> list[str]:
        """List the names of all messages."""
        return list(self._messages)

    def numbers(self) -> list[str]:
        """List the numbers of all messages."""
        return [message.to for message in self._messages.values()]

    def kill_once(self) -> None:
        """Kill the worker while it sends one message and another waits; let a new one go on, until both end."""
        harness, site = self.harness, self.site
        if type(harness).kill is AdapterHarness.kill:
            harness.kill()  # says that it is not offered, before a send hangs
        if "held" not in self.jobs:
            journaled = functools.partial(harness.send, journaled=True)
            self.queue("waiting", functools.partial(journaled, delay_s=DELAY_S), "taken")
            self.queue("held", journaled, "stuck")
            self.eventually(lambda: site.sent(self.id("held")), "the send in which the worker is killed")
            harness.kill()
            harness.start()
        with site.store() as store:
            recover = functools.partial(store.recover, _Journaled(harness), grace_s=_RECOVER_EVERY_S)
            self.eventually(lambda: self._have_ended("held", "waiting", recover=recover), "what a killed worker held")

    def _have_ended(self, *names: str, recover: Callable[[], object]) -> bool:
        if all(self.site.end(self.id(name)) for name in names):
            return True
        recover()
        time.sleep(_RECOVER_EVERY_S)
        return False

    def _queue_all(self) -> None:
        plain, journaled = self.harness.send, functools.partial(self.harness.send, journaled=True)
        self.queue("busy", plain, "busy")
        self.queue("refused", plain, "invalid")
        self.queue("next", plain, "taken")
        self.queue("unsure", plain, "silent")
        self.queue("doubtful", plain, "drop", "busy", "busy", "busy", "taken", **_RICH)
        self.queue("later", functools.partial(plain, delay_s=DELAY_S), "taken")
        self.queue("twice", journaled, "busy", "taken")
        self.harness.redeliver(self.message("twice"))
        try:
            self.queue("own", self.harness.send_own, "busy", "busy", "taken")
        except NotOffered:
            del self._messages["own"]  # the check says so
        with contextlib.suppress(NotOffered):  # the check says so
            self._shown.append(self.harness.visible())


class _Journaled:
    """Be a queue for `smsretry.store.recover`."""

    def __init__(self, harness: AdapterHarness) -> None:
        self._harness = harness

    def send(self, message: Message, /) -> object:
        return self._harness.send(message, journaled=True)


_RICH: Final[Mapping[str, Any]] = {
    "body": f"{WORDS} Grüße \N{PARTY POPPER} “quoted” \\ \n{{}}",
    "campaign": "spring ’26",
    "sender_id": "+15005550006",
    "media_urls": ("https://example.com/a.png",),
    "send_before": datetime.now(UTC) + timedelta(days=365),
    "metadata": {"order": 17, "tags": ["a", None, True, 1.5], "nested": {"ü": {"x": []}}},
}
"""A message that holds everything that a serializer may break."""
