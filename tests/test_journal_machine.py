"""The real dispatcher and real journals in a world where everything fails, in every order that Hypothesis can think of.

`tests.journal_world` holds the world and checks, at each step, what is promised. Here Hypothesis looks for the simplest
way to break a promise, dice go everywhere, and each rule of the protocol is taken away once: the same world must
then find the fault. ``SMSRETRY_HYPOTHESIS=thorough`` makes it take its time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
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

from smsretry import Accepted, GaveUp, GiveUpReason, OnUnknown
from smsretry.journal import MemoryJournal
from tests import journal_mutants as without
from tests.journal_keepers import InMemory, MakeJournal, postgresql_worlds, sqlite_worlds
from tests.journal_world import (
    BLINDLY,
    SETTLE_S,
    SHARES,
    WAITS_S,
    Answer,
    Fate,
    Line,
    Listing,
    Move,
    Reach,
    Recoverable,
    Setting,
    Submission,
    Text,
    Times,
    Violation,
    World,
    message_of,
    random_setting,
    walk,
)

MakeKeeper = Callable[[], Recoverable]

THOROUGH = settings.get_current_profile_name() == "thorough"
CHOICES = (OnUnknown.LOOK_UP, OnUnknown.LOOK_UP, OnUnknown.LOOK_UP, *OnUnknown)
"""Every choice; the one that looks up and sends again is what most is promised about."""

workers = st.integers(0, 2)
picks = st.integers(0, 20)
waits = st.sampled_from(WAITS_S)
settings_of_a_world = st.builds(
    Setting,
    choice=st.sampled_from(CHOICES),
    retries=st.sampled_from([3, 0, 1, 12]),
    listing_at_last=st.sampled_from([Listing.COMPLETE, Listing.FORBIDDEN]),
    refuses_at_last=st.sampled_from([False, False, True]),
)
fates = st.builds(
    Fate,
    reach=st.sampled_from([*[Reach.FINE] * 5, Reach.AWAY]),
    answer=st.sampled_from(Answer),
    listing=st.sampled_from([Listing.COMPLETE, *Listing]),
    late=st.sampled_from(SHARES),
    lag=st.sampled_from(SHARES),
)


class Sending(RuleBasedStateMachine):
    """Let workers, queue, journal and provider do what they may, and keep what is promised."""

    world: World
    keeper: MakeKeeper = InMemory

    @initialize(setting=settings_of_a_world)
    def begin(self, setting: Setting) -> None:
        self.world = World(type(self).keeper(), setting)

    @rule(to=st.integers(0, 1), body=st.integers(0, 3), deadline=picks, how=st.sampled_from(Submission))
    def submit(self, to: int, body: int, deadline: int, how: Submission) -> None:
        self.world.submit(message_of(self.world, to, body, deadline), how)

    @precondition(lambda self: self.world.queue)
    @rule(who=workers, pick=picks, early=st.booleans())
    def take(self, who: int, pick: int, *, early: bool) -> None:
        self.world.start(self.world.workers[who], pick, early=early)

    @precondition(lambda self: self.world.able)
    @rule(pick=picks, fate=fates)
    def go_on(self, pick: int, fate: Fate) -> None:
        able = self.world.able
        self.world.go_on(able[pick % len(able)], fate)

    @rule(who=workers, fate=fates)
    def finish(self, who: int, fate: Fate) -> None:
        self.world.finish(self.world.workers[who], fate)

    @rule(who=workers, redelivered=st.booleans())
    def kill(self, who: int, *, redelivered: bool) -> None:
        self.world.kill(self.world.workers[who], redelivered=redelivered)

    @rule(who=workers, seconds=waits)
    def freeze(self, who: int, seconds: float) -> None:
        self.world.freeze(self.world.workers[who], seconds)

    @rule(seconds=waits)
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule()
    def wait_for_work(self) -> None:
        self.world.wait_for_work()

    @rule(pick=picks)
    def repeat(self, pick: int) -> None:
        self.world.repeat(pick)

    @rule()
    def recover(self) -> None:
        self.world.recover()

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        self.world.cancel(pick)

    @rule()
    def send_once_more_what_failed_for_the_account(self) -> None:
        self.world.mend()

    @rule(seconds=waits)
    def refuse_the_account(self, seconds: float) -> None:
        self.world.provider.refuses_until_s = self.world.now_s + seconds

    @invariant()
    def each_id_has_one_text_per_round_at_most(self) -> None:
        if self.world.setting.choice not in BLINDLY:
            texts = Counter((text.message_id, text.round) for text in self.world.provider.texts)
            assert max(texts.values(), default=0) <= 1

    @invariant()
    def accepted_is_what_the_provider_took(self) -> None:
        taken = {text.sid: text.message_id for text in self.world.provider.texts}
        for key, tracked in self.world.known.items():
            match tracked.end:
                case Accepted(receipt):
                    assert taken.get(receipt.provider_id) == key
                case GaveUp(reason=reason) if reason is not GiveUpReason.OUTCOME_UNKNOWN:
                    assert key not in taken.values()
                case _:
                    pass

    def teardown(self) -> None:
        """Let all faults stop: then every message ends."""
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.broken:
                self.world.settle_down()
        finally:
            self.world.close()


# What is promised ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def keeper(request: pytest.FixtureRequest) -> Iterator[MakeKeeper]:
    """Lend a function that makes a world's journal, on each kind in turn."""
    match request.param:
        case "memory":
            yield InMemory
        case "sqlite":
            with sqlite_worlds() as made:
                yield made
        case _:
            with postgresql_worlds(request.getfixturevalue("postgres_url")) as made:
                yield made


def how_many(keeper: MakeKeeper, in_memory: int, in_database: int) -> int:
    """Return how many worlds to visit: databases are slow."""
    return (in_memory if keeper is InMemory else in_database) * (50 if THOROUGH else 1)


def test_messages_keep_what_is_promised_in_every_order(keeper: MakeKeeper) -> None:
    sending = type("SendingThere", (Sending,), {"keeper": staticmethod(keeper)})
    examples = how_many(keeper, 60, 4)
    run_state_machine_as_test(
        sending,
        settings=settings(
            max_examples=examples, stateful_step_count=50, derandomize=not THOROUGH, database=None, print_blob=True
        ),
    )


@pytest.mark.timeout(3_600 if THOROUGH else 120)
def test_messages_keep_what_is_promised_on_random_walks(keeper: MakeKeeper) -> None:
    """Hypothesis looks for the simplest fault; dice go everywhere."""
    for seed in range(how_many(keeper, 100, 4)):
        dice = Random(seed)
        walk(World(keeper(), random_setting(dice, CHOICES)), dice)


# What is not promised --------------------------------------------------------------------------------------------


LAG = {"lag_s": 3 * SETTLE_S}
"""A text that is listed so late looks as if it had not been taken."""
LOST = {"answers": (Answer.LOST_BUT_TAKEN,), "listings": (Listing.COMPLETE,)}


def test_a_list_that_lags_longer_than_a_doubt_takes_to_settle_doubles_texts_where_they_are_sent_again() -> None:
    assert "texted 2 times" in found(MemoryJournal, Line, Trial(setting=LAG, times=LOST), OnUnknown.LOOK_UP)


@pytest.mark.parametrize("choice", [OnUnknown.NEVER_RESEND, OnUnknown.GIVE_UP])
def test_a_list_that_lags_as_long_as_it_likes_doubles_nothing_where_nothing_is_sent_again(choice: OnUnknown) -> None:
    assert found(MemoryJournal, Line, Trial(setting=LAG, times=LOST, walks=60), choice) == ""


# A check that cannot fail is none --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How to look for a fault: where it is likely, within so many walks."""

    weights: Mapping[Move, float] = field(default_factory=dict)
    times: Mapping[str, Any] = field(default_factory=dict)
    setting: Mapping[str, Any] = field(default_factory=dict)
    walks: int = 400
    moves: int = 100


def found(make: MakeJournal, sender: type[Line], trial: Trial, choice: OnUnknown = OnUnknown.LOOK_UP) -> str:
    """Return the first fault that walks find, or nothing."""
    for seed in range(trial.walks):
        dice = Random(seed)
        setting = replace(random_setting(dice, [choice]), **trial.setting)
        times = Times.draw(dice)
        times = replace(times, weights={**times.weights, **CALM, **trial.weights}, **trial.times)
        try:
            walk(World(InMemory(make), setting, sender=sender), dice, moves=trial.moves, times=times)
        except Violation as fault:
            return str(fault)
    return ""


CALM = {Move.CANCEL: 0.0, Move.REFUSE_ACCOUNT: 0.0, Move.MEND: 0.0}
OVERLAPPING = {Move.STEP: 70.0, Move.REPEAT: 8.0, Move.WAIT: 0.0, Move.FINISH: 0.0, Move.KILL: 0.0, Move.FREEZE: 0.0}
FREEZING = {Move.STEP: 70.0, Move.FREEZE: 8.0, Move.REPEAT: 8.0, Move.KILL: 0.0}
LOST_OR_TAKEN = (Answer.LOST, Answer.LOST_BUT_TAKEN)
IN_THE_DARK = {"answers": (Answer.TAKEN,), "listings": (Listing.FORBIDDEN,), "freezes_s": (200.0, 400.0), "messages": 1}
ALIKE = {"alike": 1, "messages": 4, "answers": (Answer.LOST, Answer.TAKEN, Answer.LOST_BUT_TAKEN)}

JOURNALS = [
    pytest.param(
        without.ClaimsPerAttempt, Trial(weights={Move.REPEAT: 8.0}), "sent unasked|more sends|texted 2", id="rule 1"
    ),
    pytest.param(
        without.NoEpochs,
        Trial(
            weights=OVERLAPPING,
            times={"answers": LOST_OR_TAKEN, "listings": (Listing.COMPLETE,), "away": 0.0, "messages": 1},
            setting={"retries": 12},
        ),
        "texted 2 times",
        id="rule 2",
    ),
    pytest.param(without.NoDeadSenders, Trial(), "sent unasked|more sends|texted 2", id="rule 3"),
    pytest.param(
        without.ClaimsAfterwards, Trial(weights={Move.REPEAT: 8.0}), "sent unasked|more sends|texted 2", id="rule 4"
    ),
    pytest.param(
        without.NoRelease, Trial(weights={Move.FREEZE: 8.0}), "sent nothing became a doubt", id="rule 4, its end"
    ),
    pytest.param(
        without.DoubtOfOneAttempt,
        Trial(times={"answers": (Answer.RATE_LIMITED, Answer.LOST), "messages": 1}, setting={"retries": 12}, moves=200),
        "sent unasked",
        id="rule 8",
    ),
    pytest.param(
        without.EndsInDoubt,
        Trial(times={"answers": (Answer.LOST_BUT_TAKEN,)}, setting={"retries": 1}),
        "and the provider has",
        id="rule 8, its end",
    ),
    pytest.param(without.NoWaiting, Trial(times=ALIKE), "accepted, and the provider has", id="rule 10, waiting"),
    pytest.param(without.NoOthers, Trial(times=ALIKE), "accepted, and the provider has", id="rule 10, other ids"),
    pytest.param(
        without.SureOfUnknown,
        Trial(
            weights={Move.KILL: 0.0, Move.WAIT: 0.0, Move.FREEZE: 0.0},
            times={
                "alike": 1,
                "answers": LOST_OR_TAKEN,
                "listings": (*[Listing.FORBIDDEN] * 9, Listing.COMPLETE),
                "away": 0.0,
            },
        ),
        "accepted, and the provider has",
        id="rule 10, unknown ends",
    ),
    pytest.param(
        without.DropsLateAnswers,
        Trial(weights=FREEZING, times=IN_THE_DARK, setting={"listing_at_last": Listing.FORBIDDEN}),
        "was told its id",
        id="rule 11, late answers",
    ),
    pytest.param(
        without.DropsEvidence,
        Trial(times={**IN_THE_DARK, "away": 0.25}, setting={"listing_at_last": Listing.FORBIDDEN}),
        "was told its id",
        id="rule 11, evidence",
    ),
]


@pytest.mark.parametrize(("journal", "trial", "fault"), JOURNALS)
def test_a_journal_without_one_of_its_rules_is_found_out(journal: MakeJournal, trial: Trial, fault: str) -> None:
    assert re.search(fault, found(journal, Line, trial))


@pytest.mark.parametrize(
    ("sender", "trial"),
    [
        pytest.param(
            without.TakesErrorsForNo,
            Trial(times={"answers": (Answer.LOST_BUT_TAKEN,), "listings": (Listing.FORBIDDEN, Listing.COMPLETE)}),
            id="rule 9, refused listings",
        ),
        pytest.param(
            without.MatchesTextsOnly,
            Trial(times={"answers": (Answer.LOST_BUT_TAKEN,), "alike": 60}, moves=200),
            id="rule 10, changed texts",
        ),
        pytest.param(
            Line,
            Trial(setting={"settle_s": 0.0}, times={"answers": (Answer.LOST_BUT_TAKEN,)}),
            id="rule 9, time to settle",
        ),
    ],
)
def test_a_look_up_that_is_believed_too_early_is_found_out(sender: type[Line], trial: Trial) -> None:
    assert re.search("texted 2|and the provider has", found(MemoryJournal, sender, trial))


def test_a_lease_that_is_measured_on_a_clock_that_stands_still_is_found_out() -> None:
    trial = Trial(weights={Move.FREEZE: 8.0}, setting={"counts_frozen_time": False}, moves=200)
    assert re.search("sent after send_before|texted 2", found(MemoryJournal, Line, trial))


def test_the_world_in_which_each_fault_is_found_has_none_with_the_whole_protocol() -> None:
    for case in JOURNALS:
        trial = case.values[1]
        assert isinstance(trial, Trial)
        assert found(MemoryJournal, Line, replace(trial, walks=8)) == ""


def test_a_walk_is_the_same_again() -> None:
    def texts() -> list[Text]:
        dice = Random(7)
        world = World(InMemory(), random_setting(dice, CHOICES))
        walk(world, dice)
        return world.provider.texts

    assert texts() == texts()
