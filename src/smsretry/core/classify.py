"""Turn any exception of a sender into one `Failure`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, assert_never

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.http import failure_of_status, http_date, retry_after_s
from smsretry.core.mask import mask_numbers_in
from smsretry.core.network import Departure, attribute, departure_of, innermost, names_of
from smsretry.errors import ConfigurationError, InvalidMessage, NotAccepted, ProviderError, SendFailed

LONGEST_DETAIL: Final = 300
"""Characters of a provider's words that a `Failure` keeps."""

_MOST_MEMBERS: Final = 1_000
_STATUS_OF: Final = {
    "requests.exceptions.HTTPError": ("response", "status_code"),
    "httpx.HTTPStatusError": ("response", "status_code"),
    "aiohttp.client_exceptions.ClientResponseError": ("", "status"),
    "urllib.error.HTTPError": ("", "code"),
}
"""Where the exceptions that stand for an answer keep it, and its status."""


def classify_error(error: Exception) -> Failure:
    """Classify ``error`` by its type and attributes; what nobody listed may have been sent. Never raises.

    It knows the library's own exceptions, the network exceptions of `smsretry.core.network` and the HTTP status errors
    of the same clients. A group is judged by its members: one that may have been sent decides. The ``detail`` names
    types and codes only, since the text of a foreign exception may hold a number.
    """
    if issubclass(type(error), ExceptionGroup):
        failures = [_classify_one(member) for member in _members(error)]
        return max(failures, key=lambda failure: failure.maybe_sent)
    return _classify_one(error)


def chain(*classifiers: Callable[[Exception], Failure | None]) -> Callable[[Exception], Failure]:
    """Return a classifier that asks each of ``classifiers`` in turn and `classify_error` last."""

    def classify(error: Exception) -> Failure:
        for classifier in classifiers:
            if (failure := classifier(error)) is not None:
                return failure
        return classify_error(error)

    return classify


def named(error: BaseException) -> str:
    """Return the type of ``error`` and of what it wraps: what may be told of an exception whose text is not ours."""
    inner = innermost(error)
    name = type(error).__qualname__
    return (name if inner is error else f"{name}: {type(inner).__qualname__}")[:LONGEST_DETAIL]


def said(text: object) -> str:
    """Return a provider's own words on one line, phone numbers masked and cut to `LONGEST_DETAIL` characters."""
    if not isinstance(text, str):
        return ""
    return " ".join(mask_numbers_in(text[: 4 * LONGEST_DETAIL]).split())[:LONGEST_DETAIL]


def hint_s(headers: object, now: datetime | None = None) -> float | None:
    """Return the Retry-After of ``headers`` in seconds, None without a usable one. Never raises.

    A date counts from the answer's own Date, which knows no difference between two clocks, else from ``now``.
    """
    asked, date = header(headers, "Retry-After"), header(headers, "Date")
    since = (http_date(date) if asked and date else None) or now
    return retry_after_s(asked, since or _LAST_MOMENT)


def header(headers: object, name: str) -> str | None:
    """Return a header of a foreign mapping, None where it has none, is none, or raises."""
    get: Any = attribute(headers, "get")
    try:
        value = get(name) if callable(get) else None
    except Exception:  # noqa: BLE001  # a foreign mapping may raise anything, and judging an error must not
        return None
    return value if isinstance(value, str) else None


_LAST_MOMENT: Final = datetime.fromisoformat("9999-12-31T00:00:00+00:00")
"""Stands where no clock is known: every date lies before it, and so is no hint."""


def _classify_one(error: Exception) -> Failure:
    kind = type(error)  # isinstance would ask the exception itself, which may raise
    if issubclass(kind, ProviderError):
        return _stated(error)
    if issubclass(kind, NotAccepted):
        return _ended(error)
    if issubclass(kind, InvalidMessage):
        return Failure.of(FailureKind.CONTENT, detail=_own_words(error))
    if issubclass(kind, ConfigurationError):
        return Failure.of(FailureKind.SENDER_CONFIG, detail=_own_words(error))
    return _of_client(error)


def _of_client(error: Exception) -> Failure:
    match departure_of(error):
        case Departure.NOT_SENT:
            return Failure.of(FailureKind.TEMPORARY, detail=named(error))
        case Departure.UNSENDABLE:
            return Failure.of(FailureKind.SENDER_CONFIG, detail=named(error))
        case Departure.MAYBE_SENT:
            return _answered(error) or Failure.of(FailureKind.LOST_ANSWER, detail=named(error))
        case None:
            return Failure.of(FailureKind.LOST_ANSWER, detail=named(error), unmapped=True)
        case _ as unreachable:
            assert_never(unreachable)


def _answered(error: Exception) -> Failure | None:
    place = next((_STATUS_OF[name] for name in names_of(error) if name in _STATUS_OF), None)
    if place is None:
        return None
    answer = attribute(error, place[0]) if place[0] else error
    status, headers = attribute(answer, place[1]), attribute(answer, "headers")
    # To an answer that it could not read aiohttp gives a status of its own, and no headers.
    if headers is None or not isinstance(status, int):
        return None
    return failure_of_status(int(status), retry_after_s=hint_s(headers))


def _stated(error: Exception) -> Failure:
    failure = attribute(error, "failure")
    if isinstance(failure, Failure):
        return failure
    return Failure.of(FailureKind.LOST_ANSWER, detail=named(error), unmapped=True)  # its args were changed


def _ended(error: Exception) -> Failure:
    """Judge the end that another dispatcher came to: it retried, so nothing is tried again."""
    failure = attribute(error, "failure")
    if not isinstance(failure, Failure):
        return Failure.of(FailureKind.LOST_ANSWER, detail=named(error), unmapped=True)  # its args were changed
    if not issubclass(type(error), SendFailed):
        return replace(failure, retryable=False, maybe_sent=True)
    kind = FailureKind.OTHER if failure.kind is FailureKind.LOST_ANSWER else failure.kind  # a look-up settled it
    return replace(failure, kind=kind, retryable=False, maybe_sent=False)


def _own_words(error: Exception) -> str:
    args = attribute(error, "args")
    return " ".join(map(said, args if isinstance(args, tuple) else ())).strip() or named(error)


def _members(group: Exception) -> Iterator[Exception]:
    """Yield the exceptions of a group and of the groups in it; one that goes on too long stands for the rest."""
    ahead: list[Exception] = [group]
    for _ in range(_MOST_MEMBERS):
        each = ahead.pop(0)
        if issubclass(type(each), ExceptionGroup):
            ahead = [*(attribute(each, "exceptions") or ()), *ahead]
        else:
            yield each
        if not ahead:
            return
    yield group
