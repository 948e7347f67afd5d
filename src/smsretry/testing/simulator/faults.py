"""Name what can go wrong between a request and its answer.

A fault is a frozen value, and the set is closed: `Fault` is the union. Each says in ``taken`` whether the text is sent
all the same, and in ``taken_after_s`` how many seconds after the request that happens: a provider may take a request
whose sender has long given up. On look-ups, which send nothing, both are ignored.

=============== =====================================================================
`Normal`        serve as usual; a placeholder in a script
`RateLimited`   429 with code 20429, with or without a Retry-After
`Refused`       a 4xx with a code of Twilio's: invalid number, opted out, suspended …
`ServerError`   a 5xx, with Twilio's JSON or a gateway's HTML
`Redirected`    a 3xx that points at the same address
`OddSuccess`    a 2xx whose body holds no message
`Delayed`       the usual answer, later
`Slow`          the usual answer, one byte at a time
`Cut`           the first part of the usual answer, then the connection closes
`Reset`         no answer: the connection is reset
`Closed`        no answer: the connection is closed in good order
`Hang`          no answer, and the connection stays open
=============== =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum, StrEnum, unique
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeAlias


@unique
class Part(StrEnum):
    """Say which part of an answer is meant."""

    STATUS_LINE = "status_line"
    """From the first byte on."""
    HEADERS = "headers"
    """What follows the status line."""
    BODY = "body"
    """What follows the empty line."""


@unique
class Body(StrEnum):
    """Say what an answer carries where a message, or an error of Twilio's, is expected."""

    TWILIO = "twilio"
    """Twilio's own JSON error body."""
    HTML = "html"
    """A page, as a gateway or a captive portal sends."""
    EMPTY = "empty"
    """Nothing, with ``Content-Length: 0``."""
    LIST = "list"
    """The JSON text ``[]``."""
    NULL = "null"
    """The JSON text ``null``."""


@unique
class HintForm(StrEnum):
    """Say how a Retry-After is written."""

    SECONDS = "seconds"
    """A whole number of seconds."""
    HTTP_DATE = "http_date"
    """A date of the form ``Mon, 23 Nov 2026 18:00:00 GMT``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """Serve the request as usual."""

    taken: ClassVar[bool] = True
    taken_after_s: ClassVar[float] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimited:
    """Answer 429 with code 20429, and with a Retry-After where ``retry_after_s`` is given. Never taken."""

    retry_after_s: float | None = None
    hint_form: HintForm = HintForm.SECONDS
    taken: ClassVar[bool] = False
    taken_after_s: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if self.retry_after_s is not None:
            _check_seconds("retry_after_s", self.retry_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Answer ``status`` (4xx) with the error ``code`` and Twilio's JSON body. Never taken.

    Without a ``message`` the simulator writes one that names the number, as Twilio's do.
    """

    code: int
    status: int = 400
    message: str | None = field(default=None, repr=False)
    taken: ClassVar[bool] = False
    taken_after_s: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _check_status(self.status, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerError:
    """Answer ``status`` (5xx) with Twilio's JSON body (``code``, else 20000 + status) or another one."""

    status: int = 500
    code: int | None = None
    body: Body = Body.TWILIO
    retry_after_s: float | None = None
    taken: bool = False
    taken_after_s: float = 0.0

    def __post_init__(self) -> None:
        _check_status(self.status, 5)
        _check_taken(taken=self.taken, taken_after_s=self.taken_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirected:
    """Answer ``status`` (3xx) with a Location that is the request's own address. Never taken."""

    status: int = 307
    taken: ClassVar[bool] = False
    taken_after_s: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _check_status(self.status, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class OddSuccess:
    """Answer ``status`` (2xx) with a body that holds no message."""

    body: Body = Body.EMPTY
    status: int = 201
    taken: bool = True
    taken_after_s: float = 0.0

    def __post_init__(self) -> None:
        _check_status(self.status, 2)
        _check_taken(taken=self.taken, taken_after_s=self.taken_after_s)
        if self.body is Body.TWILIO:
            raise ValueError("body of an OddSuccess must not be Body.TWILIO. Use Normal() for the usual answer.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delayed:
    """Answer as usual ``delay_s`` seconds after the request, and take the text at once, or within that time.

    With ``taken_after_s`` a sender that dies while it waits leaves a text that is taken after its end.
    """

    delay_s: float
    taken: ClassVar[bool] = True
    taken_after_s: float = 0.0

    def __post_init__(self) -> None:
        _check_seconds("delay_s", self.delay_s)
        _check_seconds("taken_after_s", self.taken_after_s)
        if self.taken_after_s > self.delay_s:
            raise ValueError(
                f"taken_after_s must be delay_s ({self.delay_s}) at most, got {self.taken_after_s}. "
                "Nobody is told of a text before it is taken."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Take the text and answer as usual, with ``interval_s`` seconds before each byte from ``part`` on."""

    part: Part = Part.BODY
    interval_s: float = 1.0
    taken: ClassVar[bool] = True
    taken_after_s: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _check_seconds("interval_s", self.interval_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Take the text, send the usual answer up to the middle of ``part``, and close the connection.

    Cut in the status line it ends after the status code (``HTTP/1.1 201``), cut in the headers within the first one;
    some clients read either as a whole answer with an empty body.
    """

    part: Part = Part.BODY
    taken: ClassVar[bool] = True
    taken_after_s: ClassVar[float] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Reset the connection (RST) in place of an answer, before or after the text is ``taken``."""

    taken: bool
    taken_after_s: float = 0.0

    def __post_init__(self) -> None:
        _check_taken(taken=self.taken, taken_after_s=self.taken_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Close the connection (FIN) in place of an answer, before or after the text is ``taken``."""

    taken: bool
    taken_after_s: float = 0.0

    def __post_init__(self) -> None:
        _check_taken(taken=self.taken, taken_after_s=self.taken_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Never answer, and keep the connection open until the client leaves."""

    taken: bool = True
    taken_after_s: float = 0.0

    def __post_init__(self) -> None:
        _check_taken(taken=self.taken, taken_after_s=self.taken_after_s)


Fault: TypeAlias = (
    Normal
    | RateLimited
    | Refused
    | ServerError
    | Redirected
    | OddSuccess
    | Delayed
    | Slow
    | Cut
    | Reset
    | Closed
    | Hang
)


def _check_seconds(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be 0 or more and finite, got {value}. Give it in seconds.")


def _check_status(status: int, family: int) -> None:
    if status // 100 != family:
        raise ValueError(f"status must be {family}xx for this fault, got {status}. Choose the fault by the status.")


def _check_taken(*, taken: bool, taken_after_s: float) -> None:
    _check_seconds("taken_after_s", taken_after_s)
    if taken_after_s and not taken:
        raise ValueError(f"taken_after_s is {taken_after_s} but taken is False. Set taken=True for a late take.")


FAULTS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        "rate_limited": RateLimited(),
        "rate_limited_with_seconds": RateLimited(retry_after_s=1),
        "rate_limited_with_date": RateLimited(retry_after_s=2, hint_form=HintForm.HTTP_DATE),
        "invalid_number": Refused(code=21211),
        "opted_out": Refused(code=21610),
        "queue_full": Refused(code=21611),
        "carrier_rejected": Refused(code=30007),
        "bad_credentials": Refused(code=20003, status=401),
        "suspended": Refused(code=20403, status=403),
        "server_error": ServerError(status=500),
        "server_error_taken": ServerError(status=500, taken=True),
        "server_error_page": ServerError(status=500, body=Body.HTML, taken=True),
        "bad_gateway": ServerError(status=502, body=Body.HTML),
        "bad_gateway_taken": ServerError(status=502, body=Body.HTML, taken=True),
        "unavailable": ServerError(status=503),
        "unavailable_page": ServerError(status=503, body=Body.HTML),
        "gateway_timeout": ServerError(status=504),
        "gateway_timeout_taken": ServerError(status=504, body=Body.HTML, taken=True),
        "redirected": Redirected(),
        "empty_success": OddSuccess(body=Body.EMPTY),
        "page_success": OddSuccess(body=Body.HTML),
        "list_success": OddSuccess(body=Body.LIST),
        "null_success": OddSuccess(body=Body.NULL),
        "delayed": Delayed(delay_s=1.0),
        "slow_headers": Slow(part=Part.HEADERS),
        "slow_body": Slow(part=Part.BODY),
        "cut_status_line": Cut(part=Part.STATUS_LINE),
        "cut_headers": Cut(part=Part.HEADERS),
        "cut_body": Cut(part=Part.BODY),
        "lost_before_taken": Reset(taken=False),
        "lost_after_taken": Reset(taken=True),
        "lost_and_taken_late": Reset(taken=True, taken_after_s=1.0),
        "closed_before_taken": Closed(taken=False),
        "closed_after_taken": Closed(taken=True),
        "hang": Hang(taken=True),
        "hang_before_taken": Hang(taken=False),
    }
)
"""A value of every kind under a name, for rates, the command line and tables that go through them all."""

_KINDS: Final[Mapping[str, type[Fault]]] = MappingProxyType(
    {
        "normal": Normal,
        "rate_limited": RateLimited,
        "refused": Refused,
        "server_error": ServerError,
        "redirected": Redirected,
        "odd_success": OddSuccess,
        "delayed": Delayed,
        "slow": Slow,
        "cut": Cut,
        "reset": Reset,
        "closed": Closed,
        "hang": Hang,
    }
)
_KIND_OF: Final = {fault_type: kind for kind, fault_type in _KINDS.items()}


def fault_named(name: str) -> Fault:
    """Return the fault of `FAULTS` under ``name``; raise ValueError with the known names."""
    if name not in FAULTS:
        raise ValueError(f"There is no fault named {name!r}. Use one of: {', '.join(FAULTS)}.")
    return FAULTS[name]


def fault_to_dict(fault: Fault) -> dict[str, Any]:
    """Return ``fault`` as a JSON object, its kind under ``kind``."""
    return {"kind": _KIND_OF[type(fault)], **asdict(fault)}


def fault_from_dict(data: Mapping[str, Any] | str) -> Fault:
    """Return the fault that `fault_to_dict` wrote, or that `FAULTS` has under a name; raise ValueError."""
    if isinstance(data, str):
        return fault_named(data)
    if not isinstance(data, Mapping):
        raise ValueError(f"A fault must be a name or an object with a kind, got {type(data).__name__}.")  # noqa: TRY004
    given = dict(data)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"kind must be one of: {', '.join(_KINDS)}, got {kind!r}.")
    return _built(_KINDS[kind], given)


def _built(fault_type: type[Fault], given: Mapping[str, Any]) -> Fault:
    known = [each.name for each in fields(fault_type)]
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{fault_type.__name__} has no field {unknown[0]!r}. It has: {', '.join(known) or 'none'}.")
    try:
        return fault_type(**{name: _read(name, value) for name, value in given.items()})
    except TypeError as error:
        raise ValueError(f"{fault_type.__name__} lacks a field: {error}") from None


_ENUMS: Final[Mapping[str, type[Enum]]] = {"part": Part, "body": Body, "hint_form": HintForm}


def _read(name: str, value: Any) -> Any:
    return _ENUMS[name](value) if name in _ENUMS else value
