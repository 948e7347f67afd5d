"""How often and when a message is tried again: the arithmetic, and the decision."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import FrozenInstanceError, fields, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.strategies import (
    JUST_BELOW_ONE,
    NOW,
    certain_kinds,
    draws,
    durations,
    failures,
    hostile_values,
    permanent_failures,
    plain_failures,
    policies,
    retry_numbers,
    retryable_failures,
    undoubted_states,
)

from smsretry import (
    AttemptState,
    Deferred,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Jitter,
    OnUnknown,
    RetryAfter,
    RetryPolicy,
)
from smsretry.core.failure import LONGEST_DELAY_S, RETRYABLE_KINDS
from smsretry.core.policy import MOST_RETRIES, KindLimit

BUSY = Failure.of(FailureKind.RATE_LIMITED)
FULL = Failure.of(FailureKind.QUEUE_FULL)
LOST = Failure.of(FailureKind.LOST_ANSWER)
STATED = Failure.of(FailureKind.TEMPORARY, maybe_sent=True, http_status=500)
WRONG_NUMBER = Failure.of(FailureKind.INVALID_NUMBER)
DEFAULT = RetryPolicy()


def decided(policy: RetryPolicy, failure: Failure, state: AttemptState | None = None, **more: Any) -> Any:
    return policy.decide(failure, state or AttemptState(), **({"now": NOW} | more))


# The delay


@given(policies(), retry_numbers)
def test_a_delay_is_finite_and_usable_however_many_retries_were_made(policy: RetryPolicy, n: int) -> None:
    delay_s = policy.backoff(n)
    assert 0.0 <= delay_s <= LONGEST_DELAY_S
    assert NOW + timedelta(seconds=delay_s) >= NOW
    assert delay_s <= threading.TIMEOUT_MAX  # what time.sleep and every lock accept
    assert json.loads(json.dumps(delay_s, allow_nan=False)) == delay_s


@given(policies(), failures(), retry_numbers, draws)
def test_a_delay_with_hint_and_jitter_is_as_usable(policy: RetryPolicy, failure: Failure, n: int, draw: float) -> None:
    delay_s = policy.delay(failure, n, draw)
    assert 0.0 <= delay_s <= 2 * LONGEST_DELAY_S
    assert NOW + timedelta(seconds=delay_s) >= NOW


@pytest.mark.parametrize("policy", [DEFAULT, RetryPolicy(multiplier=1.0), RetryPolicy(multiplier=1.000001)])
def test_a_delay_takes_constant_time(policy: RetryPolicy) -> None:
    assert min(seconds_for(policy, 10**9) for _ in range(20)) < 0.001


def seconds_for(policy: RetryPolicy, n: int) -> float:
    began = time.perf_counter()
    policy.backoff(n)
    return time.perf_counter() - began


@given(retry_numbers, st.integers(0, 10**7))
def test_the_backoff_is_two_to_the_n_up_to_the_cap_and_the_cap_beyond(n: int, cap_s: int) -> None:
    model = 2**n if n < 64 else 2**64
    assert RetryPolicy(max_delay_s=cap_s).backoff(n) == min(model, cap_s)


@given(policies(), st.integers(1, 60))
def test_the_backoff_is_the_formula_of_exact_numbers(policy: RetryPolicy, n: int) -> None:
    model = Fraction(policy.first_delay_s) * Fraction(policy.multiplier) ** (n - 1)
    assert policy.backoff(n) == pytest.approx(float(min(model, Fraction(policy.max_delay_s))), rel=1e-12)


@given(policies(), retry_numbers, st.integers(0, 1000))
def test_the_backoff_never_shrinks(policy: RetryPolicy, n: int, later: int) -> None:
    assert policy.backoff(n) <= policy.backoff(n + later)


@given(st.integers(1, 60), st.floats(0.001, 10.0), durations)
def test_the_backoff_doubles_below_the_cap(n: int, first_s: float, cap_s: float) -> None:
    policy = RetryPolicy(first_delay_s=first_s, max_delay_s=cap_s)
    if policy.backoff(n + 1) < cap_s:
        assert policy.backoff(n + 1) == 2 * policy.backoff(n)


@given(retry_numbers, st.sampled_from([0.25, 0.5, 2.0, 4.0]), st.floats(0.001, 1000.0), st.floats(0.001, 1e6))
def test_scaling_base_and_cap_scales_the_delay(n: int, factor: float, first_s: float, cap_s: float) -> None:
    policy = RetryPolicy(first_delay_s=first_s, max_delay_s=cap_s)
    scaled = RetryPolicy(first_delay_s=first_s * factor, max_delay_s=cap_s * factor)
    assert scaled.backoff(n) == policy.backoff(n) * factor


@given(policies(), retry_numbers)
def test_a_cap_of_zero_means_no_wait(policy: RetryPolicy, n: int) -> None:
    assert replace(policy, max_delay_s=0.0).backoff(n) == 0.0


@pytest.mark.parametrize("n", [0, -1, 1.0, 1.5, True, "1", None])
def test_there_is_no_retry_before_the_first(n: Any) -> None:
    with pytest.raises(ValueError, match="n must be a whole number of 1 or more"):
        DEFAULT.backoff(n)


# Jitter


@given(policies(limits=False), plain_failures(), retry_numbers, draws)
def test_jitter_stays_within_the_backoff_and_never_passes_the_cap(
    policy: RetryPolicy, failure: Failure, n: int, draw: float
) -> None:
    assume(failure.kind is not FailureKind.QUEUE_FULL)  # which asks for a minimum of its own
    delay_s, longest_s = policy.delay(failure, n, draw), policy.backoff(n)
    match policy.jitter:
        case Jitter.NONE:
            assert delay_s == longest_s
        case Jitter.FULL:
            assert 0.0 <= delay_s <= longest_s
        case Jitter.EQUAL:
            assert longest_s / 2 <= delay_s <= longest_s
    assert delay_s <= policy.max_delay_s


@given(policies(), failures(), retry_numbers, draws)
def test_where_a_wait_is_asked_for_jitter_is_added_to_it(
    policy: RetryPolicy, failure: Failure, n: int, draw: float
) -> None:
    least_s = max(failure.min_delay_s, min(failure.retry_after_s or 0.0, policy.max_hint_s))
    limit = next((one for one in policy.kind_limits if one.kind is failure.kind), None)
    longest_s = max(policy.max_delay_s, limit.max_delay_s if limit else 0.0, 7_200.0)
    assert least_s <= policy.delay(failure, n, draw) <= least_s + longest_s


@pytest.mark.parametrize("jitter", [Jitter.FULL, Jitter.EQUAL])
@pytest.mark.parametrize("n", [1, 3, 50, 10**9])
@pytest.mark.parametrize("failure", [BUSY, FULL, Failure.of(FailureKind.RATE_LIMITED, retry_after_s=3_600.0)])
def test_jitter_is_alive_at_the_first_retry_and_far_beyond_the_cap(jitter: Jitter, n: int, failure: Failure) -> None:
    policy = RetryPolicy(jitter=jitter)
    counted = Counter(policy.delay(failure, n, draw / 1000) for draw in range(1000))
    assert counted.most_common(1)[0][1] <= 2


@given(policies(jitters=st.sampled_from([Jitter.FULL, Jitter.EQUAL]), limits=False), retry_numbers, draws, draws)
def test_different_draws_give_different_delays(policy: RetryPolicy, n: int, one: float, other: float) -> None:
    assume(abs(one - other) > 1e-6 and policy.backoff(n) > 1e-3)
    assert policy.delay(BUSY, n, one) != policy.delay(BUSY, n, other)


# The same answer every time

ASKING = """
import json, pickle, sys
from smsretry import Failure, RetryPolicy
for line in sys.stdin:
    policy, pickled, failure, n, draw = json.loads(line)
    thawed = pickle.loads(bytes.fromhex(pickled))
    assert thawed == RetryPolicy.from_dict(policy)
    print(json.dumps(thawed.delay(Failure.from_dict(failure), n, draw)))
"""


def test_the_same_question_has_the_same_answer_in_another_process() -> None:
    asked: list[tuple[RetryPolicy, Failure, int, float]] = []

    @given(policies(), failures(), st.integers(1, 2**63), draws)
    def ask(policy: RetryPolicy, failure: Failure, n: int, draw: float) -> None:
        asked.append((policy, failure, n, draw))

    ask()
    lines = [
        json.dumps([policy.to_dict(), pickle.dumps(policy).hex(), failure.to_dict(), n, draw])
        for policy, failure, n, draw in reversed(asked)
    ]
    done = subprocess.run(
        [sys.executable, "-c", ASKING], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == [policy.delay(failure, n, draw) for policy, failure, n, draw in reversed(asked)]


# Hints


@given(policies(), retryable_failures, retry_numbers, draws)
def test_a_servers_hint_is_a_lower_bound_up_to_its_cap(
    policy: RetryPolicy, failure: Failure, n: int, draw: float
) -> None:
    delay_s = policy.delay(failure, n, draw)
    assert delay_s >= min(failure.retry_after_s or 0.0, policy.max_hint_s)
    assert delay_s >= failure.min_delay_s


@pytest.mark.parametrize("hint_s", [-1.0, -math.inf, math.nan, -1])
def test_a_hint_that_cannot_be_is_ignored(hint_s: float) -> None:
    failure = Failure.of(FailureKind.RATE_LIMITED, retry_after_s=hint_s)
    assert DEFAULT.delay(failure, 1) == 2.0


@given(st.floats(0.0, 3_600.0), st.floats(0.0, 3_600.0))
def test_a_hint_beyond_the_deadline_gives_up_and_says_when_it_would_have_been(hint_s: float, left_s: float) -> None:
    failure = Failure.of(FailureKind.RATE_LIMITED, retry_after_s=hint_s)
    deadline = NOW + timedelta(seconds=left_s)
    due = NOW + timedelta(seconds=max(2.0, hint_s))
    outcome = decided(DEFAULT, failure, send_before=deadline)
    if due > deadline:
        assert outcome == GaveUp(failure, GiveUpReason.EXPIRED, 1, due)
    else:
        assert outcome == RetryAfter(max(2.0, hint_s), failure, AttemptState(retries=1, due=due))


# Whether to retry


@given(policies(), failures(), st.integers(0, 50))
def test_a_failure_that_allows_no_retry_is_never_retried(policy: RetryPolicy, failure: Failure, retries: int) -> None:
    if not failure.retryable:
        assert not policy.should_retry(failure, retries)


@given(policies(), failures(), st.integers(0, 50), st.integers(0, 50))
def test_more_retries_never_make_a_retry_likelier(
    policy: RetryPolicy, failure: Failure, retries: int, more: int
) -> None:
    assert policy.should_retry(failure, retries) >= policy.should_retry(failure, retries + more)


@given(
    policies(jitters=st.just(Jitter.NONE)),
    failures(certain_kinds, maybe_sent=st.just(False)),
    st.tuples(st.integers(0, 12), st.integers(0, 12)),
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
)
def test_once_given_up_nothing_leads_back(
    policy: RetryPolicy, failure: Failure, retries: tuple[int, int], seconds: tuple[float, float]
) -> None:
    deadline, later = NOW + timedelta(seconds=seconds[0]), NOW + timedelta(seconds=seconds[1])
    first = decided(policy, failure, AttemptState(retries=retries[0]), send_before=deadline)
    again = decided(policy, failure, AttemptState(retries=sum(retries)), send_before=deadline, now=later)
    assert isinstance(again, GaveUp) or not isinstance(first, GaveUp)


@given(policies(), permanent_failures.filter(lambda one: one.kind is not LOST.kind), undoubted_states(), draws)
def test_a_permanent_failure_ends_the_message_at_once(
    policy: RetryPolicy, failure: Failure, state: AttemptState, draw: float
) -> None:
    outcome = decided(policy, replace(failure, maybe_sent=False), state, draw=draw)
    assert isinstance(outcome, GaveUp)
    assert outcome.attempts == state.retries + 1
    expired = failure.kind is FailureKind.EXPIRED
    assert outcome.reason is (GiveUpReason.EXPIRED if expired else GiveUpReason.PERMANENT)


@given(policies(), failures(certain_kinds, maybe_sent=st.just(False)), draws)
def test_waits_and_attempts_are_counted_once(policy: RetryPolicy, failure: Failure, draw: float) -> None:
    state, waits = AttemptState(), 0
    while isinstance(outcome := decided(policy, failure, state, draw=draw), RetryAfter):
        state, waits = outcome.state, waits + 1
        assert state.retries == waits
    assert isinstance(outcome, GaveUp)
    assert outcome.attempts == waits + 1


def test_after_three_retries_the_message_has_failed_for_good() -> None:
    state, waits = AttemptState(), []
    while isinstance(outcome := decided(DEFAULT, BUSY, state), RetryAfter):
        state = outcome.state
        waits.append(outcome.delay_s)
    assert waits == [2.0, 4.0, 8.0]
    assert outcome == GaveUp(BUSY, GiveUpReason.RETRIES_EXHAUSTED, 4)


def test_no_retries_mean_one_attempt() -> None:
    assert decided(RetryPolicy(max_retries=0), BUSY) == GaveUp(BUSY, GiveUpReason.RETRIES_EXHAUSTED, 1)


# What an unknown outcome leads to


def test_a_lost_answer_opens_the_doubt_from_the_beginning_of_the_send() -> None:
    began = NOW - timedelta(seconds=10)
    outcome = decided(DEFAULT, LOST, began=began)
    assert isinstance(outcome, RetryAfter)
    assert outcome.state.doubt_since == began
    assert outcome.state.settles_at == NOW + timedelta(seconds=120)


def test_an_error_that_the_provider_stated_is_settled_at_once() -> None:
    outcome = decided(DEFAULT, STATED)
    assert isinstance(outcome, RetryAfter)
    assert outcome.delay_s == 2.0
    assert outcome.state.settles_at == NOW


def test_a_second_lost_answer_prolongs_the_doubt_and_keeps_its_beginning() -> None:
    first = decided(DEFAULT, LOST).state
    later = NOW + timedelta(seconds=200)
    second = decided(DEFAULT, LOST, first, now=later).state
    assert second.doubt_since == NOW
    assert second.settles_at == later + timedelta(seconds=120)


def test_a_refusal_after_a_lost_answer_leaves_the_doubt_open() -> None:
    first = decided(DEFAULT, LOST).state
    second = decided(DEFAULT, BUSY, first, now=NOW + timedelta(seconds=121)).state
    assert (second.doubt_since, second.settles_at) == (first.doubt_since, first.settles_at)


def test_a_stated_error_does_not_shorten_the_wait_for_a_lost_answer() -> None:
    first = decided(DEFAULT, LOST).state
    second = decided(DEFAULT, STATED, first, now=NOW + timedelta(seconds=1)).state
    assert second.settles_at == first.settles_at


def test_a_new_send_starts_the_look_ups_anew() -> None:
    looked = replace(decided(DEFAULT, LOST).state, looks=5, deferred_since=NOW, deferrals=5)
    for failure in (BUSY, LOST):
        state = decided(DEFAULT, failure, looked).state
        assert (state.looks, state.deferred_since, state.deferrals) == (0, None, 5)


@given(policies(choices=st.just(OnUnknown.GIVE_UP)), failures(maybe_sent=st.just(True)), undoubted_states())
def test_who_gives_up_on_doubt_ends_at_once_as_unknown(
    policy: RetryPolicy, failure: Failure, state: AttemptState
) -> None:
    assert decided(policy, failure, state) == GaveUp(failure, GiveUpReason.OUTCOME_UNKNOWN, state.retries + 1)


@pytest.mark.parametrize("failure", [LOST, STATED, Failure.of(FailureKind.CONTENT, maybe_sent=True)])
def test_a_message_in_doubt_does_not_end_before_it_was_looked_up(failure: Failure) -> None:
    outcome = decided(DEFAULT, failure, AttemptState(retries=3))
    assert isinstance(outcome, Deferred)
    assert outcome.state.ending is not None
    assert outcome.state.ending.attempts == 4


def test_an_end_in_doubt_is_asked_at_once_where_the_listing_settles_it_already() -> None:
    assert decided(DEFAULT, STATED, AttemptState(retries=3)).delay_s == 0.0
    assert decided(DEFAULT, LOST, AttemptState(retries=3)).delay_s == 1.0


def test_look_ups_are_two_four_eight_seconds_apart_and_end_where_the_doubt_settles() -> None:
    state = decided(DEFAULT, LOST).state
    waits, now = [], NOW + timedelta(seconds=2)
    while not DEFAULT.is_settled(state, now):
        outcome = DEFAULT.look_again(replace(state, looks=state.looks + 1), now=now)
        state, now = outcome.state, now + timedelta(seconds=outcome.delay_s)
        waits.append(outcome.delay_s)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 56.0]
    assert state.deferrals == 6


def test_a_provider_that_cannot_tell_is_asked_at_growing_distances_up_to_nine_minutes() -> None:
    settled = AttemptState(doubt_since=NOW, settles_at=NOW, looks=3)
    assert DEFAULT.look_again(settled, now=NOW).delay_s == 8.0
    assert DEFAULT.look_again(replace(settled, looks=500), now=NOW).delay_s == 512.0


def test_look_ups_end_after_the_longest_deferral() -> None:
    day = timedelta(seconds=DEFAULT.max_deferral_s)
    state = AttemptState(doubt_since=NOW, settles_at=NOW + 2 * day, looks=1, deferred_since=NOW)
    assert DEFAULT.may_look_again(state, now=NOW + day - timedelta(seconds=1))
    assert not DEFAULT.may_look_again(state, now=NOW + day)


def test_a_provider_that_cannot_tell_is_asked_eight_times_in_all() -> None:
    settled = AttemptState(doubt_since=NOW, settles_at=NOW, looks=7)
    assert DEFAULT.may_look_again(settled, now=NOW)
    assert not DEFAULT.may_look_again(replace(settled, looks=8), now=NOW)


@given(policies())
def test_look_ups_end_even_where_the_clock_stands_still(policy: RetryPolicy) -> None:
    state = AttemptState(doubt_since=NOW, settles_at=NOW + timedelta(days=400), deferred_since=NOW)
    assert not policy.may_look_again(replace(state, looks=100), now=NOW)


@given(st.floats(0.0, 80_000.0))
def test_there_are_looks_enough_to_reach_the_moment_when_the_doubt_settles(settle_s: float) -> None:
    policy = RetryPolicy(settle_after_s=settle_s)
    state, now = AttemptState(doubt_since=NOW, settles_at=NOW + timedelta(seconds=settle_s)), NOW
    while not policy.is_settled(state, now):
        state = replace(state, looks=state.looks + 1)
        assert policy.may_look_again(state, now=now)
        outcome = policy.look_again(state, now=now)
        state, now = outcome.state, now + timedelta(seconds=outcome.delay_s)


def test_a_doubt_that_does_not_say_when_it_settles_is_waited_for_as_after_a_lost_answer() -> None:
    state = AttemptState(retries=1, doubt_since=NOW)
    assert not DEFAULT.is_settled(state, NOW + timedelta(seconds=119))
    assert DEFAULT.is_settled(state, NOW + timedelta(seconds=120))
    assert decided(DEFAULT, STATED, state).state.settles_at == NOW + timedelta(seconds=120)
    assert DEFAULT.is_settled(AttemptState(), NOW)


# The schedule


def test_the_schedule_is_two_four_eight_seconds() -> None:
    assert DEFAULT.schedule() == (2.0, 4.0, 8.0)
    assert DEFAULT.schedule(FailureKind.TEMPORARY) == (2.0, 4.0, 8.0)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_kind_by_its_name_has_the_schedule_of_its_member(kind: FailureKind) -> None:
    assert DEFAULT.schedule(kind.value) == DEFAULT.schedule(kind)  # type: ignore[arg-type]
    named = DEFAULT.for_kind(kind.value, max_retries=5)  # type: ignore[arg-type]
    assert named == DEFAULT.for_kind(kind, max_retries=5)


@pytest.mark.parametrize("ask", [DEFAULT.schedule, DEFAULT.for_kind])
def test_a_kind_that_does_not_exist_has_no_schedule(ask: Any) -> None:
    with pytest.raises(ValueError, match=r"kind must be one of rate_limited, queue_full, .*got 'nonsense'"):
        ask("nonsense")


def test_a_full_queue_has_a_schedule_of_ten_hours() -> None:
    waits = DEFAULT.schedule(FailureKind.QUEUE_FULL)
    assert waits == (300.0, 600.0, 1200.0, 2400.0, 4800.0, 7200.0, 7200.0, 7200.0, 7200.0)
    assert 10 < sum(waits) / 3600 < 11


def test_who_wants_no_retries_gets_none_for_a_full_queue_either() -> None:
    assert RetryPolicy(max_retries=0).schedule(FailureKind.QUEUE_FULL) == ()


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - RETRYABLE_KINDS))
def test_a_kind_that_is_never_retried_has_an_empty_schedule(kind: FailureKind) -> None:
    assert DEFAULT.schedule(kind) == ()


@given(policies(jitters=st.just(Jitter.NONE)), st.sampled_from(sorted(RETRYABLE_KINDS - {LOST.kind})))
def test_the_schedule_is_what_the_decisions_say(policy: RetryPolicy, kind: FailureKind) -> None:
    failure = replace(Failure.of(kind), maybe_sent=False, min_delay_s=0.0)
    state, waits = AttemptState(), []
    while isinstance(outcome := decided(policy, failure, state), RetryAfter):
        state = outcome.state
        waits.append(outcome.delay_s)
    assert tuple(waits) == policy.schedule(kind)


def test_a_kind_may_have_limits_of_its_own() -> None:
    policy = DEFAULT.for_kind(FailureKind.RATE_LIMITED, max_retries=5, first_delay_s=10)
    assert policy.schedule(FailureKind.RATE_LIMITED) == (10.0, 20.0, 40.0, 80.0, 160.0)
    assert policy.schedule(FailureKind.TEMPORARY) == policy.schedule() == (2.0, 4.0, 8.0)
    assert policy.should_retry(BUSY, 4)


def test_what_for_kind_leaves_out_stays_as_it_was() -> None:
    slower = DEFAULT.for_kind(FailureKind.QUEUE_FULL, first_delay_s=600.0)
    assert slower.kind_limits == (KindLimit(FailureKind.QUEUE_FULL, 9, 600.0, 7_200.0),)
    assert slower.for_kind(FailureKind.QUEUE_FULL, max_delay_s=900.0).schedule(FailureKind.QUEUE_FULL)[:3] == (
        600.0,
        900.0,
        900.0,
    )


def test_all_kinds_share_one_count_of_retries() -> None:
    assert not DEFAULT.should_retry(BUSY, 3)
    assert DEFAULT.should_retry(FULL, 8)
    assert not DEFAULT.should_retry(FULL, 9)


# A policy is a value


@given(policies(), st.integers(0, MOST_RETRIES))
def test_replacing_one_field_keeps_every_other(policy: RetryPolicy, max_retries: int) -> None:
    changed = replace(policy, max_retries=max_retries)
    assert changed.max_retries == max_retries
    others = [one.name for one in fields(policy) if one.name != "max_retries"]
    assert [getattr(changed, name) for name in others] == [getattr(policy, name) for name in others]


@given(policies())
def test_copies_of_a_policy_are_equal_and_look_alike(policy: RetryPolicy) -> None:
    copies = [
        copy.copy(policy),
        copy.deepcopy(policy),
        pickle.loads(pickle.dumps(policy)),
        RetryPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))),
        replace(policy),
    ]
    assert all(one == policy and hash(one) == hash(policy) and repr(one) == repr(policy) for one in copies)


@given(policies(), policies())
def test_policies_are_equal_exactly_where_their_fields_are(one: RetryPolicy, other: RetryPolicy) -> None:
    same = all(getattr(one, field.name) == getattr(other, field.name) for field in fields(one))
    assert (one == other) == same == (repr(one) == repr(other))


@given(policies(limits=False), st.permutations([FailureKind.RATE_LIMITED, FailureKind.TEMPORARY]))
def test_the_order_of_the_limits_does_not_matter(policy: RetryPolicy, kinds: list[FailureKind]) -> None:
    limited = policy
    for kind in kinds:
        limited = limited.for_kind(kind, max_retries=1)
    assert limited == policy.for_kind(kinds[1], max_retries=1).for_kind(kinds[0], max_retries=1)


def test_whole_seconds_are_seconds_like_any_others() -> None:
    assert repr(RetryPolicy(first_delay_s=3)) == repr(RetryPolicy(first_delay_s=3.0))


def test_the_choices_may_be_given_by_name() -> None:
    policy = RetryPolicy(jitter="full", on_unknown="give_up")  # type: ignore[arg-type]
    assert (policy.jitter, policy.on_unknown) == (Jitter.FULL, OnUnknown.GIVE_UP)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULT.max_retries = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("max_retries", value) for value in (-1, 1.0, True, "3", None, math.nan, MOST_RETRIES + 1, 10**400)],
        *[("max_looks", value) for value in (0, -1, 1.5, MOST_RETRIES + 1)],
        *[("multiplier", value) for value in (0.99, 0, -1, math.nan, math.inf, 10**400, "2", True, None)],
        *[
            (name, value)
            for name in ("first_delay_s", "max_delay_s", "max_hint_s", "settle_after_s", "max_deferral_s")
            for value in (-0.001, math.nan, math.inf, 10**400, "2", True, None, LONGEST_DELAY_S + 1)
        ],
        ("settle_after_error_s", -1),
    ],
)
def test_an_impossible_field_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize("field", ["jitter", "on_unknown"])
def test_a_choice_that_does_not_exist_is_refused_by_its_field(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be one of .*, got 'sometimes'"):
        RetryPolicy.from_dict(DEFAULT.to_dict() | {field: "sometimes"})


@pytest.mark.parametrize("limits", [5, [5], "other", {"other": 1}])
def test_limits_that_are_none_are_refused_by_their_field(limits: Any) -> None:
    with pytest.raises(ValueError, match=r"kind_limits must hold KindLimits, got .*for_kind\(\)"):
        RetryPolicy(kind_limits=limits)


def test_the_largest_multiplier_is_told() -> None:
    with pytest.raises(ValueError, match=r"multiplier must be from 1 to 31622400, got 1000000000\.0"):
        RetryPolicy(multiplier=1e9)


def test_two_limits_for_one_kind_are_refused() -> None:
    limit = KindLimit(FailureKind.OTHER, 1, 1.0, 1.0)
    with pytest.raises(ValueError, match="other twice"):
        RetryPolicy(kind_limits=(limit, replace(limit, max_retries=2)))


@pytest.mark.parametrize("value", [-1, 1.5, "1"])
def test_an_impossible_limit_of_a_kind_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="max_retries"):
        DEFAULT.for_kind(FailureKind.OTHER, max_retries=value)
    with pytest.raises(ValueError, match="nonsense"):
        DEFAULT.for_kind("nonsense", max_retries=1)  # type: ignore[arg-type]


# A policy as JSON


@given(st.sampled_from([*DEFAULT.to_dict(), "colour"]), hostile_values)
@example("kind_limits", [["other", 1, 2.0]])
@example("kind_limits", [["other", 1, 2.0, 3.0, 4.0]])
@example("kind_limits", [["nonsense", 1, 2.0, 3.0]])
@example("kind_limits", [[[], 1, 2.0, 3.0]])
@example("kind_limits", 7)
def test_a_corrupt_policy_is_refused_or_holds_what_was_asked_for(name: str, value: Any) -> None:
    data = DEFAULT.to_dict() | {name: value}
    try:
        policy = RetryPolicy.from_dict(data)
    except ValueError:
        return
    assert RetryPolicy.from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None])
def test_a_policy_of_another_version_is_refused(version: Any) -> None:
    with pytest.raises(ValueError, match="version"):
        RetryPolicy.from_dict(DEFAULT.to_dict() | {"v": version})


@pytest.mark.parametrize("data", [None, [], "policy", 7])
def test_what_is_no_object_is_no_policy(data: Any) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        RetryPolicy.from_dict(data)


def test_fields_that_are_left_out_have_their_default() -> None:
    assert RetryPolicy.from_dict({"v": 1}) == DEFAULT


def test_a_draw_just_below_one_stays_below_the_whole_backoff() -> None:
    assert RetryPolicy(jitter=Jitter.FULL).delay(BUSY, 3, JUST_BELOW_ONE) < 8.0


def test_a_message_may_be_retried_exactly_at_its_deadline() -> None:
    assert isinstance(decided(DEFAULT, BUSY, send_before=NOW + timedelta(seconds=2)), RetryAfter)
    just_before: datetime = NOW + timedelta(seconds=2, microseconds=-1)
    assert isinstance(decided(DEFAULT, BUSY, send_before=just_before), GaveUp)
