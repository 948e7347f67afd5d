"""Say what becomes of texts that were taken, and how their sender is told.

A text ends as one `Fate`. `CallbackPlan` gives fates, and troubles of the callbacks, their shares of all texts; a
script says it for single ones. `Course` is what was decided for one text: when its status changes, and which callbacks
go out.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum, unique
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final, Self, TypeAlias

from smsretry.testing.simulator.chance import Chance, Draw, chosen

Span: TypeAlias = tuple[float, float]
"""The least and the most of something in seconds; each text draws its own."""

LONGEST_S: Final = 86_400.0


@unique
class TextStatus(StrEnum):
    """Say how far a text has come, in Twilio's words."""

    ACCEPTED = "accepted"
    """Taken; a messaging service has yet to choose its sender. No callback tells it."""
    QUEUED = "queued"
    """Waiting to be sent. A callback tells it only where a messaging service had accepted the text before."""
    SENDING = "sending"
    """On the way to the carrier."""
    SENT = "sent"
    """The carrier has it. Often the last that is heard."""
    DELIVERED = "delivered"
    """The handset has it. Final."""
    UNDELIVERED = "undelivered"
    """The carrier says that it did not arrive. Final."""
    FAILED = "failed"
    """It was never handed to a carrier. Final."""


WITH_CODE: Final = frozenset({TextStatus.UNDELIVERED, TextStatus.FAILED})
"""The statuses that come with an error code."""
FINAL: Final = WITH_CODE | {TextStatus.DELIVERED}
"""The statuses after which none comes."""
_TO_SENT: Final = (TextStatus.QUEUED, TextStatus.SENDING, TextStatus.SENT)


def checked_status(status: object) -> TextStatus:
    """Return ``status`` as one that a callback can tell; raise ValueError for any other."""
    known = [each.value for each in TextStatus if each is not TextStatus.ACCEPTED]
    if status not in known:
        raise ValueError(f"A text ends, and a callback tells, one of: {', '.join(known)}; got {status!r}.")
    return TextStatus(str(status))


@dataclass(frozen=True, slots=True)
class Fate:
    """Name a status with its error code: where a text ends, or what a callback tells.

    Raises ValueError for a status that no text ends in and no callback tells (accepted), for undelivered or failed
    without a code, and for any other with one.
    """

    status: TextStatus
    code: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", checked_status(self.status))
        if self.status in WITH_CODE and not isinstance(self.code, int):
            raise ValueError(f"A text is {self.status} with an error code, got {self.code!r}. Give one such as 30003.")
        if self.status not in WITH_CODE and self.code is not None:
            raise ValueError(f"A text is {self.status} without an error code, got {self.code!r}. Leave it out.")


SENT: Final = Fate(TextStatus.SENT)
DELIVERED: Final = Fate(TextStatus.DELIVERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackPlan:
    """Say what becomes of the texts that are taken, and how well their senders are told.

    ``undelivered`` and ``failed`` give error codes their share of the texts (``{30003: 0.1}``), ``stay_sent`` is the
    share whose last word is sent; the rest is delivered. ``step_s`` is how long a text takes from one status to the
    next: the least and the most, in seconds.

    Each status but the first is told by a callback to the StatusCallback of the create, where it has one. The
    callbacks of one text go out one after the other, each ``late_s`` seconds or more after what it tells came true.
    ``doubled`` and ``lost`` are shares of the callbacks. Of ``shuffled``, a share of the texts, they come in any order,
    though none before it is true. Of ``before_answer``, a share of the texts too, the first callback is answered before
    the create is; of the others none goes out before that answer has left, or was lost.

    A callback that is answered with a 5xx, or not within ``timeout_s`` seconds, is repeated up to ``repeats`` times,
    each ``repeat_after_s`` seconds later; by default never, as with Twilio. ``connections`` are open at most.

    Raises ValueError for shares that are none or do not add up, and for times and counts that are none.
    """

    undelivered: Mapping[int, float] = field(default_factory=dict[int, float])
    failed: Mapping[int, float] = field(default_factory=dict[int, float])
    stay_sent: float = 0.0
    doubled: float = 0.0
    lost: float = 0.0
    shuffled: float = 0.0
    before_answer: float = 0.0
    step_s: Span = (0.0, 0.0)
    late_s: Span = (0.0, 0.0)
    repeats: int = 0
    repeat_after_s: float = 1.0
    timeout_s: float = 15.0
    connections: int = 8
    _fates: tuple[tuple[Fate, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("stay_sent", "doubled", "lost", "shuffled", "before_answer"):
            _check_share(name, getattr(self, name))
        for name in ("undelivered", "failed"):
            shares = getattr(self, name)
            for code, share in shares.items():
                _check_share(f"{name}[{code}]", share)
            object.__setattr__(self, name, MappingProxyType(dict(shares)))
        for name in ("step_s", "late_s"):
            object.__setattr__(self, name, _checked_span(name, getattr(self, name)))
        for name, least in (("repeats", 0), ("connections", 1)):
            _check_count(name, getattr(self, name), least)
        _checked_span("repeat_after_s", (self.repeat_after_s, self.repeat_after_s))
        _checked_span("timeout_s", (self.timeout_s, self.timeout_s))
        object.__setattr__(self, "_fates", self._listed())

    def _listed(self) -> tuple[tuple[Fate, float], ...]:
        listed = [(Fate(TextStatus.UNDELIVERED, code), share) for code, share in self.undelivered.items()]
        listed += [(Fate(TextStatus.FAILED, code), share) for code, share in self.failed.items()]
        listed.append((SENT, self.stay_sent))
        if (total := sum(share for _, share in listed)) > 1 + 1e-9:
            raise ValueError(
                "The shares of undelivered, failed and stay_sent must add up to 1 at most, "
                f"got {total}. What is left of 1 is delivered."
            )
        return tuple(listed)

    def fate(self, draw: Draw) -> Fate:
        """Return what becomes of the text with this chance."""
        return chosen(self._fates, draw.share("fate")) or DELIVERED

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the plan that a JSON object describes, by the names of the fields; raise ValueError."""
        if not isinstance(data, Mapping):
            raise ValueError(f"A plan of callbacks must be a JSON object, got {type(data).__name__}.")  # noqa: TRY004
        known = [each.name for each in fields(cls) if each.init]
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"A plan of callbacks has no field {unknown[0]!r}. It has: {', '.join(known)}.")
        try:
            return cls(**{name: _read(name, value) for name, value in data.items()})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"A field of the plan of callbacks has the wrong type: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Say what becomes of one text, beyond what shares and chance decide.

    ``told`` are its callbacks in this order, None for the usual ones; ``before_answer`` is as in `CallbackPlan`.
    """

    fate: Fate
    told: tuple[Fate, ...] | None = None
    before_answer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Hold one callback that is to go out: what it tells, and when, in seconds after the text sets out."""

    fate: Fate
    after_s: float
    is_double: bool = False
    has_date: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Hold what was decided for one text: its fate, the steps to it, and what its sender is told.

    The seconds of ``steps`` and of ``callbacks`` count from the moment at which the text sets out. ``lost`` counts the
    callbacks that never go out.
    """

    fate: Fate
    steps: tuple[tuple[float, Fate], ...]
    callbacks: tuple[Told, ...]
    lost: int
    before_answer: bool
    plan: CallbackPlan

    def at(self, since_s: float) -> tuple[float, Fate] | None:
        """Return the step that the text has made ``since_s`` seconds after it set out, None before the first."""
        return next((step for step in reversed(self.steps) if step[0] <= since_s), None)

    def sent_s(self) -> float | None:
        """Return the seconds until the text is sent, None where it never is."""
        return next((after_s for after_s, fate in self.steps if fate.status is TextStatus.SENT), None)

    @property
    def end_s(self) -> float:
        """Return the seconds until the last step."""
        return self.steps[-1][0] if self.steps else 0.0


class Fates:
    """Decide the course of each text: by script first, then by a plan and seeded chance; safe in any thread."""

    def __init__(self, *, seed: int, plan: CallbackPlan | None) -> None:
        self._lock = threading.Lock()
        self._chance = Chance(seed)
        self._plan = plan
        self._scripts: defaultdict[str | None, deque[Script]] = defaultdict(deque)

    def plan(self, plan: CallbackPlan | None) -> None:
        """Follow ``plan`` from now on; None leaves texts without a script alone."""
        with self._lock:
            self._plan = plan

    def script(self, script: Script, *, to: str | None) -> None:
        """Let the next text without a script follow this one; with ``to``, the next to this number."""
        with self._lock:
            self._scripts[to].append(script)

    @property
    def unplayed(self) -> int:
        """Count the scripts that no text has followed yet."""
        with self._lock:
            return sum(len(scripts) for scripts in self._scripts.values())

    def decides(self, to: str) -> bool:
        """Return whether a text to this number would be given a course."""
        with self._lock:
            return self._plan is not None or any(self._scripts.get(key) for key in (to, None))

    def next_course(self, *, to: str, identity: bytes, by_service: bool) -> Course | None:
        """Return the course of a text that was taken, and count it; None where nobody said what becomes of it."""
        with self._lock:
            script = next((scripts.popleft() for key in (to, None) if (scripts := self._scripts.get(key))), None)
            if script is None and self._plan is None:
                return None
            return _course(self._plan or CallbackPlan(), script, self._chance.draw(identity), by_service=by_service)


def _course(plan: CallbackPlan, script: Script | None, draw: Draw, *, by_service: bool) -> Course:
    fate = script.fate if script else plan.fate(draw)
    way = _way(fate, by_service=by_service)
    ends_s = accumulate(draw.within(plan.step_s, f"step {each.status}") for each in way)
    steps = tuple(zip(ends_s, way, strict=True))
    callbacks, lost = _usual(plan, steps, draw) if script is None or script.told is None else (script.told, 0)
    before_answer = script.before_answer if script else draw.share("before answer") < plan.before_answer
    told = _timed(callbacks, steps, plan, draw)
    if before_answer and told:
        steps, told = _hurried(steps, told)
    return Course(fate=fate, steps=steps, callbacks=told, lost=lost, before_answer=before_answer, plan=plan)


def _way(fate: Fate, *, by_service: bool) -> tuple[Fate, ...]:
    """Return what a text goes through after its first status, which is accepted with a service and queued without."""
    if fate.status in _TO_SENT:
        passed = _TO_SENT[: _TO_SENT.index(fate.status) + 1]
        way = tuple(Fate(status) for status in passed)
    else:
        passed = _TO_SENT[:1] if fate.status is TextStatus.FAILED else _TO_SENT
        way = (*(Fate(status) for status in passed), fate)
    return way if by_service else way[1:]


def _usual(plan: CallbackPlan, steps: Sequence[tuple[float, Fate]], draw: Draw) -> tuple[tuple[Fate, ...], int]:
    kept = [fate for _, fate in steps if draw.share(f"lost {fate.status}") >= plan.lost]
    told = [fate for fate in kept for _ in range(2 if draw.share(f"doubled {fate.status}") < plan.doubled else 1)]
    if draw.share("shuffled") < plan.shuffled:
        places = sorted(range(len(told)), key=lambda place: draw.share(f"place {place}"))
        told = [told[place] for place in places]
    return tuple(told), len(steps) - len(kept)


def _timed(
    told: Sequence[Fate], steps: Sequence[tuple[float, Fate]], plan: CallbackPlan, draw: Draw
) -> tuple[Told, ...]:
    """Give each callback its time: after those before it, and never before what it tells is true."""
    true_s = {fate: after_s for after_s, fate in steps}
    late_s = (draw.within(plan.late_s, f"late {place}") for place in range(len(told)))
    due_s = accumulate((true_s.get(fate, 0.0) + late for fate, late in zip(told, late_s, strict=True)), max)
    return tuple(
        Told(
            fate=fate,
            after_s=after_s,
            is_double=fate in told[:place],
            has_date=fate.status in FINAL and draw.share("date") < 0.5,
        )
        for place, (fate, after_s) in enumerate(zip(told, due_s, strict=True))
    )


def _hurried(
    steps: Sequence[tuple[float, Fate]], told: Sequence[Told]
) -> tuple[tuple[tuple[float, Fate], ...], tuple[Told, ...]]:
    """Let the first callback be due at once, and all that follows so much earlier: an answer waits for it."""
    early_s = told[0].after_s
    return (
        tuple((max(0.0, after_s - early_s), fate) for after_s, fate in steps),
        tuple(replace(each, after_s=each.after_s - early_s) for each in told),
    )


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, got {share}. Write 0.1 for 10 %.")


def _check_count(name: str, count: int, least: int) -> None:
    if not isinstance(count, int) or count < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {count!r}.")


def _checked_span(name: str, span: Span) -> Span:
    low, high = span
    if not 0 <= low <= high <= LONGEST_S:
        raise ValueError(f"{name} must be from 0 to {LONGEST_S:.0f} seconds, the least first, got {span}.")
    return low, high


def _read(name: str, value: Any) -> Any:
    if name in {"undelivered", "failed"}:
        return {int(code): share for code, share in value.items()}
    return tuple(value) if isinstance(value, list) else value
