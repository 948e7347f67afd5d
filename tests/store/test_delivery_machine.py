"""Messages and the reports about them, in every order that Hypothesis can think of.

A small provider takes texts and tells what became of them: early, late, again, under a second id, with our mark or
without. Workers begin, are refused, lose answers, and say so late or never. After every step the figures are counted
anew from the rows. ``SMSRETRY_HYPOTHESIS=thorough`` makes it take its time, and goes to PostgreSQL too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.store.clock import pass_time
from tests.store.conftest import emptied
from tests.store.counted import ARRIVED, REFUSED, counted_in, differing, rows_and_counters
from tests.store.journeys import begin, message
from tests.store.told import BUSY, LOST, NO_NUMBER

from smsretry import Accepted, Failure, FailureKind, GaveUp, GiveUpReason, Message, Outcome, Receipt
from smsretry.core.claims import Claim
from smsretry.core.delivery import DeliveryReport, DeliveryRetries, DeliveryStatus, Mark
from smsretry.core.outcome import AttemptState, RetryAfter
from smsretry.core.policy import RetryPolicy
from smsretry.judge import event_of
from smsretry.store import SQLStore

THOROUGH = settings.get_current_profile_name() == "thorough"
S = DeliveryStatus
RETRIES = DeliveryRetries(codes=frozenset({"30003"}), policy=RetryPolicy(max_retries=2, first_delay_s=600.0))
WORDS = (
    (S.QUEUED, None),
    (S.SENT, None),
    (S.DELIVERED, None),
    (S.UNDELIVERED, "30003"),
    (S.FAILED, "30003"),
    (S.UNDELIVERED, "30005"),
)
SECONDS = (100.0, 100.0, 700.0, 1_300.0, 50_000.0, 270_000.0)
"""Whole hundreds: a lease, and every other time that is none, is further away from these than a run takes."""
EXPIRED_TOKEN = Failure.of(FailureKind.AUTH, code=20003, http_status=401, provider="twilio")
HOW = ("taken", "taken", "taken", "lost", "never left", "refused", "busy", "token", "suppressed")
picks = st.integers(0, 20)


@dataclass(eq=False)
class Text:
    """A text that the provider took, and what it told of it."""

    sid: str
    name: str
    mark: Mark
    told: set[DeliveryStatus] = field(default_factory=set)


@dataclass(eq=False)
class Work:
    """A claim of a worker, and what it has to write when it has sent, or found that it need not."""

    claim: Claim
    outcome: Outcome | None = None


class Delivering(RuleBasedStateMachine):
    """Let workers, provider and application do what they may."""

    lend: Callable[[], SQLStore]

    @initialize()
    def open(self) -> None:
        self.store = emptied(type(self).lend())
        self.names: list[str] = []
        self.made = 0
        self.texts: list[Text] = []
        self.works: list[Work] = []
        self.proved: set[tuple[str, int]] = set()
        self.arrived: set[str] = set()
        self.made_two: set[tuple[str, int]] = set()
        self.seen: dict[str, tuple[int, int, int]] = {}
        self.purged: Counter[str] = Counter()
        self.waited_s = 0.0
        for _ in range(2):
            self.new_message(planned=True)

    # What the application and its workers do -----------------------------------------------------------------------

    @precondition(lambda self: len(self.names) < 3)
    @rule(planned=st.booleans())
    def add_message(self, *, planned: bool) -> None:
        self.new_message(planned=planned)

    def new_message(self, *, planned: bool) -> None:
        self.names.append(f"m{self.made}")
        self.made += 1
        if planned:
            self.store.plan(self.message(-1))

    @precondition(lambda self: self.names)
    @rule(pick=picks)
    def begin(self, pick: int) -> None:
        answer = begin(self.store, self.message(pick))
        if isinstance(answer, Claim):
            self.works.append(Work(answer))

    @precondition(lambda self: self.names)
    @rule(pick=picks, how=st.sampled_from(HOW))
    def attempt(self, pick: int, how: str) -> None:
        answer = begin(self.store, self.message(pick))
        if isinstance(answer, Claim):
            self.works.append(Work(answer))
            self.send_under(self.works[-1], how)
            self.write(self.works[-1]) if self.works and self.works[-1].claim is answer else None

    @precondition(lambda self: any(work.outcome is None for work in self.works))
    @rule(pick=picks, how=st.sampled_from(HOW))
    def send(self, pick: int, how: str) -> None:
        waiting = [work for work in self.works if work.outcome is None]
        self.send_under(waiting[pick % len(waiting)], how)

    def send_under(self, work: Work, how: str) -> None:
        state = work.claim.state
        mine = (str(work.claim.message.id), state.round)
        if how == "suppressed" and state.doubt_since is None and work.claim.dead_since is None:
            work.outcome = gave_up(Failure.of(FailureKind.OPTED_OUT), state, GiveUpReason.SUPPRESSED)
            return
        found = [text for text in self.texts if (text.name, text.mark.round) == mine]
        if work.claim.dead_since is not None:  # a sender that never finished: the provider's list tells
            work.outcome = accepted_as(found[0], looked_up=True) if found else retry_after(BUSY, state)
            return
        if not self.store.renew(work.claim, lease_s=60.0):
            self.works.remove(work)
            self.store.release(work.claim)
            return
        assert mine not in self.proved, "sent again in a round in which a report had proved a text"
        assert mine[0] not in self.arrived, "sent again after a report had said that it arrived"
        if how in {"taken", "lost"}:
            found.append(self.take(mine[0], Mark(state.round, state.retries + 1, work.claim.epoch)))
        match how:
            case "taken":
                work.outcome = accepted_as(found[-1])
            case "lost":
                work.outcome = gave_up(LOST, state, GiveUpReason.OUTCOME_UNKNOWN)
            case "refused":
                work.outcome = gave_up(NO_NUMBER, state)
            case "token":
                work.outcome = gave_up(EXPIRED_TOKEN, state)
            case _:
                work.outcome = retry_after(BUSY, state)

    @precondition(lambda self: any(work.outcome is not None for work in self.works))
    @rule(pick=picks, again=st.booleans())
    def finish(self, pick: int, *, again: bool) -> None:
        done = [work for work in self.works if work.outcome is not None]
        work = done[pick % len(done)]
        self.write(work)
        if again:
            self.works.append(work)

    def write(self, work: Work) -> None:
        self.works.remove(work)
        claim, outcome = work.claim, work.outcome
        assert outcome is not None
        self.store.finish(claim, outcome, event_of(outcome, claim.message, claim.state, claim.now, claim.now))

    @precondition(lambda self: self.works)
    @rule(pick=picks)
    def die(self, pick: int) -> None:
        self.works.pop(pick % len(self.works))

    @precondition(lambda self: self.names)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        self.store.cancel(self.names[pick % len(self.names)])

    @rule()
    def mend(self) -> None:
        for one in self.store.mended("spring", FailureKind.AUTH):
            assert one.message is not None

    @rule()
    def recover(self) -> None:
        rows = self.rows()
        for one in self.store.overdue():
            assert rows[one.message_id].state == "pending"
            assert one.message is not None

    @rule(seconds=st.sampled_from(SECONDS))
    def wait(self, seconds: float) -> None:
        self.waited_s += seconds
        pass_time(self.store, seconds)

    @precondition(lambda self: self.waited_s >= 300_000.0)
    @rule()
    def purge(self) -> None:
        self.waited_s = 0.0
        rows, before = rows_and_counters(self.store)
        self.store.purge(timedelta(days=3))
        left, after = rows_and_counters(self.store)
        gone = rows.keys() - left.keys()
        assert after == before
        self.purged.update(counted_in([rows[name] for name in gone]))
        self.names = [name for name in self.names if name not in gone]
        self.works = [work for work in self.works if work.claim.message.id not in gone]

    # What the provider tells ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.texts)
    @rule(pick=picks, word=st.sampled_from(WORDS), how=st.sampled_from(("mark", "mark", "id", "nothing")))
    def report(self, pick: int, word: tuple[DeliveryStatus, str | None], how: str) -> None:
        text = self.texts[pick % len(self.texts)]
        if how == "id" and (text.name, text.mark.round) in self.made_two:
            how = "mark"  # of which round a second text is nobody could tell
        before = self.rows().get(text.name)
        received = self.store.receive(report_of(text, word, how))
        after = self.rows().get(text.name)
        text.told.add(word[0])
        assert received.known.status in text.told
        if received.message_id is not None and received.known.status in ARRIVED:
            self.arrived.add(text.name)
        if how == "mark" and after is not None:
            self.proved.add((text.name, text.mark.round))
            assert after.state == "accepted" or after.round > text.mark.round
        if received.again is not None:
            assert before is not None
            assert after is not None
            assert (after.state, after.round) == ("pending", before.round + 1)
        if how == "mark" and S.DELIVERED in text.told and after is not None and after.state == "pending":
            assert after.claimed_until or after.sending_since, "it arrived, and is to be sent again"
        assert not self.store.receive(report_of(text, word, how)).changed

    @precondition(lambda self: len(self.names) < 5)
    @rule(how=st.sampled_from(HOW), is_sent=st.booleans(), word=st.sampled_from(WORDS))
    def arrive_while_it_is_sent_anew(self, how: str, word: tuple[DeliveryStatus, str | None], *, is_sent: bool) -> None:
        """Let a text be told as delivered between the begin of the next round and its end: chance seldom does."""
        self.new_message(planned=False)
        self.attempt(-1, "taken")
        first = len(self.texts) - 1
        self.report(first, (S.UNDELIVERED, "30003"), "mark")
        self.wait(700.0)
        self.begin(-1)
        if is_sent:
            self.send_under(self.works[-1], how)
        self.report(first, (S.DELIVERED, None), "mark")
        if is_sent:
            self.write(self.works[-1])
        if len(self.texts) > first + 1:
            self.report(first + 1, word, "mark")

    @rule(word=st.sampled_from(WORDS), known=st.booleans())
    def report_of_a_text_that_nobody_knows(self, word: tuple[DeliveryStatus, str | None], *, known: bool) -> None:
        rows = self.rows()
        text = Text("SM-unknown", "unknown", Mark(1, 1, 1))
        self.store.receive(report_of(text, word, "mark" if known else "nothing"))
        assert self.rows() == rows

    @precondition(lambda self: self.texts)
    @rule(pick=picks)
    def take_twice(self, pick: int) -> None:
        text = self.texts[pick % len(self.texts)]
        self.made_two.add((text.name, text.mark.round))
        self.take(text.name, Mark(text.mark.round, text.mark.attempt + 1, text.mark.epoch))

    @rule(word=st.sampled_from(WORDS), fails=st.booleans())
    def poll(self, word: tuple[DeliveryStatus, str | None], *, fails: bool) -> None:
        rows = self.rows()
        for one in self.store.unreported(limit=2):
            (text,) = [text for text in self.texts if text.sid == one.provider_id]
            row = rows[one.message_id]
            assert (row.state, row.provider_id, row.delivery in ARRIVED | REFUSED) == ("accepted", text.sid, False)
            if not fails:
                self.store.receive(report_of(text, word, "nothing"))
                text.told.add(word[0])

    # What holds ----------------------------------------------------------------------------------------------------

    @invariant()
    def the_figures_are_those_of_the_rows(self) -> None:
        rows, counters = rows_and_counters(self.store)
        counted = counted_in(rows.values())
        counted.update(self.purged)
        assert differing(counters, counted) == {}

    @invariant()
    def what_arrived_ends_as_delivered_or_unknown(self) -> None:
        rows = self.rows()
        for row in (rows[name] for name in self.arrived & rows.keys()):
            is_open = row.claimed_until or row.sending_since or row.doubt_since or row.state == "unknown"
            assert is_open or (row.state == "accepted" and row.delivery not in REFUSED | {"no_report"})

    @invariant()
    def each_id_has_one_text_per_round_at_most(self) -> None:
        texts = Counter((text.name, text.mark.round) for text in self.texts)
        assert {name for name, count in texts.items() if count > 1} <= self.made_two

    @invariant()
    def nothing_goes_back(self) -> None:
        for name, row in self.rows().items():
            is_taken_back = row.state == "accepted" and row.delivery in ARRIVED
            now = (row.round, row.state == "accepted", weight(row.delivery))
            assert is_taken_back or now >= self.seen.get(name, now), (name, self.seen[name], now)
            self.seen[name] = now

    @invariant()
    def a_text_is_kept_exactly_as_long_as_it_may_be_sent(self) -> None:
        for row in self.rows().values():
            if row.state == "pending":
                assert row.body is not None
            elif row.state == "accepted" and row.delivery not in ARRIVED | REFUSED | {"no_report"}:
                assert row.next_fetch is not None  # so that it ends one day
            else:
                assert row.body is None or row.kind == "auth"

    @invariant()
    def no_report_is_said_of_those_alone_that_have_none(self) -> None:
        for row in self.rows().values():
            if row.delivery == "no_report":
                told = [text.told for text in self.texts if text.sid == row.provider_id]
                assert not any(status.is_final for status in told[0])

    def teardown(self) -> None:
        """Let every text arrive: then whoever was sent one in his last round has got it."""
        if not hasattr(self, "texts"):
            return
        for text in self.texts:
            self.store.receive(report_of(text, (S.DELIVERED, None), "mark"))
        self.the_figures_are_those_of_the_rows()
        latest = {text.name: text.mark.round for text in sorted(self.texts, key=lambda text: text.mark.round)}
        for name, row in self.rows().items():
            if latest.get(name) == row.round:
                assert (row.state, row.delivery) == ("accepted", "delivered")
                assert row.body is None

    # -----------------------------------------------------------------------------------------------------------------

    def message(self, pick: int) -> Message:
        return message(self.names[pick % len(self.names)])

    def take(self, name: str, mark: Mark) -> Text:
        self.texts.append(Text(f"SM{len(self.texts)}", name, mark))
        return self.texts[-1]

    def rows(self) -> dict[str, Any]:
        return rows_and_counters(self.store)[0]


def weight(delivery: str | None) -> int:
    return (
        0
        if delivery is None
        else 100
        if delivery == "no_report"
        else 1 + list(S).index(S(delivery)) + (200 if S(delivery).is_final else 0)
    )


def report_of(text: Text, word: tuple[DeliveryStatus, str | None], how: str) -> DeliveryReport:
    status, code = word
    failure = None if code is None else Failure.of(FailureKind.UNREACHABLE, code=code, provider="twilio")
    return DeliveryReport(
        provider_id=text.sid,
        status=status,
        message_id=None if how == "nothing" else text.name,
        mark=text.mark if how == "mark" else None,
        code=code,
        failure=failure,
        received_at=datetime.now(UTC),
        provider="twilio",
    )


def accepted_as(text: Text, *, looked_up: bool = False) -> Accepted:
    return Accepted(Receipt("twilio", text.sid, datetime.now(UTC)), text.mark.attempt, looked_up)


def gave_up(failure: Failure, state: AttemptState, reason: GiveUpReason = GiveUpReason.PERMANENT) -> GaveUp:
    return GaveUp(failure, reason, state.retries + (reason is not GiveUpReason.SUPPRESSED))


def retry_after(failure: Failure, state: AttemptState) -> RetryAfter:
    following = AttemptState(retries=state.retries + 1, round=state.round, due=datetime.now(UTC))
    return RetryAfter(1.0, failure, following)


@pytest.fixture(params=["sqlite", *([pytest.param("postgresql", marks=pytest.mark.integration)] if THOROUGH else [])])
def lend(request: pytest.FixtureRequest) -> Iterator[Callable[[], SQLStore]]:
    """Lend a function that lends a store which sends anew."""
    url, prefix = "sqlite://", "smsretry_"
    if request.param == "postgresql":
        emptied(request.getfixturevalue("postgres_store"))
        url, prefix = request.getfixturevalue("postgres_url"), request.getfixturevalue("own_prefix")
    with SQLStore(url, table_prefix=prefix, delivery_retries=RETRIES) as store:
        yield lambda: store


@pytest.mark.timeout(3_600 if THOROUGH else 120)
def test_messages_and_their_reports_keep_what_is_promised_in_every_order(lend: Callable[[], SQLStore]) -> None:
    there = type("DeliveringThere", (Delivering,), {"lend": staticmethod(lend)})
    run_state_machine_as_test(
        there,
        settings=settings(
            max_examples=1_000 if THOROUGH else 20,
            stateful_step_count=60 if THOROUGH else 40,
            derandomize=not THOROUGH,
            database=None,
            print_blob=True,
        ),
    )


def walk(world: Delivering, dice: Random, moves: int) -> None:
    """Let dice decide what happens, most often what leads far: sends, reports, and time."""
    world.open()
    checks = [value for value in vars(Delivering).values() if hasattr(value, "hypothesis_stateful_invariant")]
    for _ in range(moves):
        weights, steps = zip(*ways_on(world, dice), strict=True)
        dice.choices(steps, weights)[0]()
        for check in checks:
            check(world)
    world.teardown()


def ways_on(world: Delivering, dice: Random) -> Iterator[tuple[float, Callable[[], None]]]:
    """Yield what may happen next, and how likely it is."""
    yield 7.0, lambda: world.wait(dice.choice(SECONDS))
    yield 2.0, lambda: world.poll(dice.choice(WORDS), fails=dice.random() < 0.5)
    yield 1.0, world.mend
    yield 1.0, world.recover
    if len(world.names) < 3:
        yield 2.0, lambda: world.add_message(planned=dice.random() < 0.5)
    if world.names:
        yield 8.0, lambda: world.attempt(dice.randrange(20), dice.choice(HOW))
        yield 1.0, lambda: world.begin(dice.randrange(20))
        yield 0.3, lambda: world.cancel(dice.randrange(20))
    if len(world.names) < 5:
        how_anew, word_anew, is_sent = dice.choice(HOW), dice.choice(WORDS), dice.random() < 0.5
        yield 0.5, lambda: world.arrive_while_it_is_sent_anew(how_anew, word_anew, is_sent=is_sent)
    if any(work.outcome is None for work in world.works):
        yield 3.0, lambda: world.send(dice.randrange(20), dice.choice(HOW))
    if any(work.outcome is not None for work in world.works):
        yield 2.0, lambda: world.finish(dice.randrange(20), again=dice.random() < 0.3)
    if world.works:
        yield 1.0, lambda: world.die(dice.randrange(20))
    if world.texts:
        late = [dice.randrange(len(world.texts)), dice.randrange(len(world.texts))]
        how = dice.choice(("mark", "mark", "mark", "id", "nothing"))
        yield 10.0, lambda: world.report(max(late), dice.choice(WORDS), how)
        yield 0.3, lambda: world.take_twice(dice.randrange(20))
    if world.waited_s >= 600_000.0:
        yield 0.5, world.purge


@pytest.mark.timeout(3_600 if THOROUGH else 120)
def test_they_do_so_on_random_walks(lend: Callable[[], SQLStore]) -> None:
    """Hypothesis looks for the simplest fault; dice go everywhere."""
    there = type("WalkingThere", (Delivering,), {"lend": staticmethod(lend)})
    for seed in range(2_000 if THOROUGH else 8):
        walk(there(), Random(seed), moves=80)
