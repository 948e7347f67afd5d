"""Ask the provider about texts whose last word has not come: callbacks are lost, and nobody repeats them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from smsretry.core.delivery import DeliveryReport, Received
from smsretry.core.failure import FailureKind
from smsretry.core.suppression import Suppression
from smsretry.errors import ConfigurationError, ProviderError, reason_of
from smsretry.ports import CanFetch, DeliveryLog, SuppressionList
from smsretry.senders.twilio_reports import opt_out_in

_log: Final = logging.getLogger("smsretry")
_ENDS_A_POLL: Final = frozenset({FailureKind.AUTH, FailureKind.ACCOUNT, FailureKind.SENDER_CONFIG})
"""Kinds after which every other question would be refused too."""


class CanQueue(Protocol):
    """Queue a message: what a ready task of an adapter does."""

    def send(self, message: Any, /) -> object:
        """Queue ``message``."""
        ...


class CanAsk(DeliveryLog, Protocol):
    """Say which texts have no last word: `smsretry.store.SQLStore` does."""

    def unreported(self, *, limit: int = ..., after_s: float = ...) -> Sequence[Any]:
        """Take texts that are to be asked about."""
        ...

    def put_back(self, texts: Sequence[Any], /) -> None:
        """Let ``texts``, which were taken and not asked about, be taken again at once."""
        ...


class CanSuppress(Protocol):
    """Take who must not be texted: `smsretry.ports.SuppressionList` does."""

    def suppress(self, entry: Suppression, /) -> None:
        """Put ``entry`` on the list."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """Count what a poll did."""

    asked: int
    """Texts that the provider was asked about."""
    final: int
    """Of these: those that have their last word now."""
    failed: int
    """Of these: those of which the provider did not say anything; they are asked about again later."""
    refused: str | None = None
    """Why the provider refuses the account, such as ``auth 20003``: then nobody was asked further."""


def poll(
    store: CanAsk,
    sender: CanFetch,
    queue: CanQueue | None = None,
    *,
    limit: int = 1_000,
    after_s: float = 900.0,
    suppression: CanSuppress | None = None,
) -> Polled:
    """Ask ``sender`` about up to ``limit`` texts of ``store`` whose last word has not come, and write what it says.

    Run it every few minutes: each text is asked about ``after_s`` seconds after it was accepted (0 to 900), and then
    less and less often, until an answer after 72 hours brings no last word, or nobody has answered for 14 days. Where
    the provider refuses the account itself it stops, and what was not asked about is next time. ``queue`` is a ready
    task of an adapter: a message that is sent anew for a delivery failure is queued there; without it,
    `smsretry.store.recover` queues it. ``suppression`` takes who has opted out, as the provider says; by default it is
    the store, where that can. Any number may run side by side.

    Raises `smsretry.ConfigurationError` for parts that cannot do it, before anybody is asked.
    """
    _check_parts(store, sender, suppression)
    check_queue(queue)
    run = _Poll(store, sender, suppression or own_list(store), queue)
    while run.asked < limit and (due := store.unreported(limit=min(100, limit - run.asked), after_s=after_s)):
        for number, one in enumerate(due):
            run.ask(one.provider_id)
            if run.refused is not None:
                store.put_back(due[number:])
                return run.polled
    return run.polled


@dataclass(slots=True)
class _Poll:
    """Hold who is asked, and count what came of it."""

    store: CanAsk
    sender: CanFetch
    suppression: CanSuppress | None
    queue: CanQueue | None
    asked: int = 0
    final: int = 0
    failed: int = 0
    refused: str | None = None

    @property
    def polled(self) -> Polled:
        return Polled(asked=self.asked, final=self.final, failed=self.failed, refused=self.refused)

    def ask(self, provider_id: str) -> None:
        """Ask about one text, and write what is said."""
        self.asked += 1
        try:
            report = self.sender.fetch(provider_id)
            note_opt_out(self.suppression, report)
            received = self.store.receive(report)  # which text it is says of which round it is
        except Exception as error:  # noqa: BLE001  # whatever a client or a database raises: it is asked again
            self._fail(provider_id, error)
            return
        self.final += received.known.status.is_final
        queue_again(self.queue, received)

    def _fail(self, provider_id: str, error: Exception) -> None:
        self.failed += 1
        failure = error.failure if isinstance(error, ProviderError) else None
        why = "" if failure is None else f"{failure.kind} {failure.code or failure.http_status or ''}".rstrip()
        _log.warning("%s could not be asked about (%s%s).", provider_id, reason_of(error), why and f": {why}")
        if failure is not None and failure.kind in _ENDS_A_POLL:
            self.refused = why


def note_opt_out(known: CanSuppress | None, report: DeliveryReport) -> None:
    """Put on the list who has opted out, as ``report`` says."""
    if known is not None and (entry := opt_out_in(report)) is not None:
        known.suppress(entry)


def own_list(store: object) -> SuppressionList | None:
    """Return ``store`` where it is a list of who must not be texted too."""
    has_list = all(callable(getattr(store, verb, None)) for verb in ("suppressed", "suppress", "lift"))
    return cast("SuppressionList", store) if has_list else None


def queue_again(queue: CanQueue | None, received: Received) -> None:
    """Queue the message that is sent anew after a report, where there is one; what fails is left to `recover`."""
    if queue is None or received.again is None:
        return
    try:
        queue.send(received.again)
    except Exception as error:  # noqa: BLE001  # a queue raises what it likes, and the report is written
        _log.error("%s is left to recover (%s).", received.message_id, reason_of(error))


def check_queue(queue: object) -> None:
    """Raise `smsretry.ConfigurationError` for what queues no message here: it would be found out at the first retry."""
    if queue is not None and not _is_plain(queue, "send"):
        raise ConfigurationError(
            "queue must be a ready task with a method send(message) that is not awaited, "
            f"got {type(queue).__name__}. Pass what sms_task returned, or leave it out: recover queues as well."
        )


def _check_parts(store: object, sender: object, suppression: object) -> None:
    if not all(_is_plain(store, verb) for verb in ("unreported", "put_back", "receive")):
        raise ConfigurationError(
            f"store must be an SQLStore, got {type(store).__name__}. The store comes first: poll(store, sender)."
        )
    if not _is_plain(sender, "fetch"):
        raise ConfigurationError(
            "sender must be a TwilioSender, or have a method fetch(provider_id) that is not awaited, "
            f"got {type(sender).__name__}. Pass the sender itself, and not its dispatcher."
        )
    if suppression is not None and not _is_plain(suppression, "suppress"):
        raise ConfigurationError(
            "suppression must have a method suppress(entry) that is not awaited, "
            f"got {type(suppression).__name__}. Pass an SQLStore, or leave it out for the store itself."
        )


def _is_plain(part: object, verb: str) -> bool:
    called = getattr(part, verb, None)
    return callable(called) and not inspect.iscoroutinefunction(called)
