"""Whose turn a message is: the rules of every journal, as values in and values out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import NOW, doubtful_states, ended, states, undoubted_states

from smsretry import (
    Accepted,
    AttemptState,
    Deferred,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    Outcome,
    Receipt,
    RetryAfter,
)
from smsretry.core import claims
from smsretry.core.claims import Asked, Busy, Claim, Ended, Entry, Granted, NotDue
from smsretry.core.outcome import DeferReason

LEASE_S = 60.0
NEW = AttemptState()
MESSAGE = Message("+15005550006", "Your table is ready.", id="m1")
PLANNED = Entry()
RATE_LIMITED = Failure.of(FailureKind.RATE_LIMITED)
FAILED = GaveUp(Failure.of(FailureKind.INVALID_NUMBER), GiveUpReason.PERMANENT, 1)
UNKNOWN = GaveUp(Failure.of(FailureKind.LOST_ANSWER), GiveUpReason.OUTCOME_UNKNOWN, 1)
TAKEN = Accepted(Receipt("model", "SM1", NOW))
TAKEN_TWICE = Accepted(Receipt("model", "SM2", NOW))
IN_DOUBT = AttemptState(doubt_since=NOW, settles_at=NOW + timedelta(seconds=120), looks=1)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def asked(hint: AttemptState = NEW, *, nonce: str = "n1") -> Asked:
    return Asked(hint=hint, nonce=nonce, lease_s=LEASE_S)


def claimed(entry: Entry = PLANNED, *, nonce: str = "n1", at: datetime = NOW) -> Entry:
    """Return the entry after a begin that must be granted."""
    entry, answer = claims.begin(entry, asked(nonce=nonce), at)
    assert isinstance(answer, Granted)
    return entry


def claim_of(entry: Entry) -> Claim:
    """Return what whoever made the last claim of ``entry`` holds."""
    return Claim(message=MESSAGE, epoch=entry.epoch, state=entry.state, now=NOW)


def finished(entry: Entry, outcome: Outcome) -> Entry:
    """Return the entry after its holder has said ``outcome``."""
    after_it = claims.finish(entry, claim_of(entry), outcome)
    assert after_it is not None
    return after_it


def retry_in(seconds: float) -> RetryAfter:
    return RetryAfter(seconds, RATE_LIMITED, NEW.with_retry(after(seconds)))


def put_off(state: AttemptState) -> Deferred:
    return Deferred(5.0, DeferReason.IN_DOUBT, state.with_deferral(NOW, after(5.0)))


doubtful = claimed(finished(claimed(), put_off(IN_DOUBT)), nonce="n2", at=after(5.0))
"""A message in doubt, in the hands of whoever asks about it."""


# Begin -----------------------------------------------------------------------------------------------------------


def test_a_new_message_is_claimed_for_a_lease_and_may_send_from_then_on() -> None:
    entry = claimed()
    assert (entry.epoch, entry.claimed_until) == (1, after(LEASE_S))
    assert (entry.sending_since, entry.sending_epoch) == (NOW, 1)
    assert claim_of(entry).may_send


def test_a_claim_that_comes_too_late_sends_nothing_and_leaves_no_doubt() -> None:
    late = replace(asked(), is_late=True)
    entry, answer = claims.begin(PLANNED, late, NOW)
    assert (answer, entry.sending_since) == (Granted(None), None)
    assert not replace(claim_of(entry), message=replace(MESSAGE, send_before=after(-1.0))).may_send
    assert claims.begin(entry, replace(late, nonce="n2"), after(LEASE_S))[1] == Granted(None)


def test_while_a_claim_is_open_everybody_else_is_told_how_long_it_lasts() -> None:
    held = claimed()
    entry, answer = claims.begin(held, asked(nonce="n2"), after(20.0))
    assert (entry, answer) == (held, Busy(LEASE_S - 20.0))


def test_a_claim_whose_lease_ended_is_taken_over_as_a_doubt_since_it_was_made() -> None:
    entry, answer = claims.begin(claimed(), asked(nonce="n2"), after(LEASE_S))
    assert answer == Granted(dead_since=NOW)
    assert (entry.epoch, entry.sending_since, entry.sending_epoch) == (2, NOW, 1)


def test_a_doubt_about_a_dead_sender_outlives_whoever_took_over_and_died() -> None:
    over = claimed(claimed(), nonce="n2", at=after(LEASE_S))
    _, answer = claims.begin(over, asked(nonce="n3"), after(2 * LEASE_S))
    assert answer == Granted(dead_since=NOW)


def test_whoever_only_asks_about_a_doubt_leaves_no_other_one_when_it_dies() -> None:
    _, answer = claims.begin(doubtful, asked(nonce="n3"), after(5.0 + LEASE_S))
    assert (doubtful.sending_since, answer) == (None, Granted(dead_since=None))


def test_a_message_that_ended_is_answered_with_its_end() -> None:
    done = finished(claimed(), FAILED)
    assert claims.begin(done, asked(nonce="n2"), after(500.0)) == (done, Ended(FAILED))


def test_a_retry_is_not_begun_before_its_time_but_for_a_moment() -> None:
    waits = finished(claimed(), retry_in(30.0))
    assert claims.begin(waits, asked(nonce="n2"), after(10.0)) == (waits, NotDue(20.0))
    on_the_way = after(30.0 - claims.EARLY_S)
    assert claims.begin(waits, asked(nonce="n2"), on_the_way)[1] == Granted(dead_since=None)


def test_a_dead_sender_is_settled_at_once_whatever_the_retry_before_it_was_due_for() -> None:
    again = claimed(finished(claimed(), retry_in(30.0)), nonce="n2", at=after(29.8))
    assert again.state.due == after(30.0)
    dead = replace(again, state=replace(again.state, due=after(1_000.0)))
    assert claims.begin(dead, asked(nonce="n3"), after(100.0))[1] == Granted(dead_since=after(29.8))


@given(states())
def test_what_came_along_counts_at_the_first_begin_only(hint: AttemptState) -> None:
    hint = replace(hint, provider_id=None)
    first, _ = claims.begin(PLANNED, asked(hint), NOW)
    assert (first.state.retries, first.state.doubt_since) == (hint.retries, hint.doubt_since)
    free = claims.release(first, 1)
    assert claims.begin(free, asked(AttemptState(retries=9), nonce="n2"), NOW)[0].state == first.state


def test_what_came_along_brings_no_time_by_the_clock_of_a_worker() -> None:
    planned = Entry(state=AttemptState(due=after(-1.0)))
    hint = AttemptState(deferrals=1, due=after(900.0), deferred_since=after(-5.0))
    entry, answer = claims.begin(planned, asked(hint), NOW)
    assert (answer, entry.state.due, entry.state.deferred_since) == (Granted(None), after(-1.0), after(-5.0))


def test_what_was_planned_holds_for_a_message_that_brings_nothing() -> None:
    planned = Entry(state=AttemptState(due=after(900.0)))
    assert claims.begin(planned, asked(), NOW) == (planned, NotDue(900.0))


# Lost answers ----------------------------------------------------------------------------------------------------


def test_a_begin_whose_answer_was_lost_is_made_anew_and_leaves_no_doubt() -> None:
    entry, answer = claims.begin(claimed(nonce="n1"), asked(nonce="n1"), after(1.0))
    assert (answer, entry.epoch) == (Granted(dead_since=None), 2)


def test_the_name_of_a_begin_whose_answer_was_lost_releases_that_claim_and_no_later_one() -> None:
    lost = claimed(nonce="lost")
    hint = AttemptState(claim=claims.with_nonce(None, "lost"))
    entry, answer = claims.begin(lost, asked(hint, nonce="n2"), after(1.0))
    assert (answer, entry.sending_since) == (Granted(dead_since=None), after(1.0))
    assert claims.begin(entry, asked(hint, nonce="n3"), after(2.0))[1] == Busy(LEASE_S - 1.0)


def test_a_lost_answer_of_who_only_asked_keeps_the_doubt_about_the_sender_before() -> None:
    over = claimed(claimed(), nonce="lost", at=after(LEASE_S))
    _, answer = claims.begin(over, asked(AttemptState(claim="lost"), nonce="n3"), after(LEASE_S + 1.0))
    assert answer == Granted(dead_since=NOW)


@given(st.integers(1, 12))
def test_of_many_lost_begins_the_first_and_the_latest_are_remembered(lost: int) -> None:
    known: str | None = None
    for number in range(lost):
        known = claims.with_nonce(known, f"n{number}")
    names = str(known).split()
    assert names == [f"n{number}" for number in range(lost)][:1] + [f"n{number}" for number in range(1, lost)][-3:]


# Renew and release -----------------------------------------------------------------------------------------------


def test_a_claim_is_renewed_for_a_whole_lease_and_counts_as_sending() -> None:
    entry = claims.renew(doubtful, doubtful.epoch, now=after(50.0), lease_s=LEASE_S)
    assert entry is not None
    assert (entry.claimed_until, entry.sending_since) == (after(50.0 + LEASE_S), after(50.0))
    assert entry.sending_epoch == doubtful.epoch


@pytest.mark.parametrize(
    "entry",
    [
        claimed(claimed(), nonce="n2", at=after(LEASE_S)),
        claims.release(claimed(), 1),
        finished(claimed(), FAILED),
        finished(claimed(), retry_in(30.0)),
    ],
    ids=["taken over", "released", "ended", "put off"],
)
def test_a_claim_that_is_not_held_is_neither_renewed_nor_released(entry: Entry) -> None:
    assert claims.renew(entry, 1, now=after(1.0), lease_s=LEASE_S) is None
    assert claims.release(entry, 1) == entry


def test_a_claim_that_was_given_back_leaves_nothing_behind() -> None:
    free = claims.release(claimed(), 1)
    assert free == replace(PLANNED, epoch=1, nonce="n1")
    assert not free.is_open


def test_whoever_took_over_gives_back_its_claim_and_not_the_doubt() -> None:
    over = claimed(claimed(), nonce="n2", at=after(LEASE_S))
    free = claims.release(over, 2)
    assert (free.claimed_until, free.sending_since, free.sending_epoch) == (None, NOW, 1)
    assert free.is_open


# Finish ----------------------------------------------------------------------------------------------------------


@given(undoubted_states() | doubtful_states())
def test_a_claim_that_ends_in_a_wait_closes_with_the_state_of_that_wait(state: AttemptState) -> None:
    state = replace(state, round=1)
    entry = finished(claimed(), Deferred(1.0, DeferReason.BUSY, state))
    assert entry.state == replace(state, message_id=None, claim=None)
    assert (entry.claimed_until, entry.sending_since, entry.end) == (None, None, None)


def test_an_end_is_kept_without_the_exception_behind_it() -> None:
    entry = finished(claimed(), replace(FAILED, cause=OSError("secret")))
    assert isinstance(entry.end, GaveUp)
    assert entry.end.cause is None


@pytest.mark.parametrize("outcome", [FAILED, UNKNOWN, retry_in(3.0), put_off(IN_DOUBT)])
def test_what_a_worker_says_whose_claim_was_taken_over_counts_for_nothing(outcome: Outcome) -> None:
    frozen = claimed()
    over = claimed(frozen, nonce="n2", at=after(LEASE_S))
    assert claims.finish(over, claim_of(frozen), outcome) is None
    assert claims.instead(over, after(LEASE_S)) == Busy(LEASE_S)


@pytest.mark.parametrize("before", [FAILED, UNKNOWN, retry_in(3.0), put_off(IN_DOUBT)])
def test_that_the_provider_took_the_text_counts_whoever_says_it(before: Outcome) -> None:
    frozen = claimed()
    over = finished(claimed(frozen, nonce="n2", at=after(LEASE_S)), before)
    late = claims.finish(over, claim_of(frozen), TAKEN)
    assert late is not None
    assert (late.end, late.is_open) == (TAKEN, False)


def test_of_two_texts_that_the_provider_took_the_first_remains_the_end() -> None:
    done = finished(claimed(), TAKEN)
    assert finished(done, TAKEN_TWICE).end == TAKEN
    assert claims.finish(done, claim_of(done), FAILED) is None
    assert claims.instead(done, NOW) == Ended(TAKEN)


@pytest.mark.parametrize("outcome", [TAKEN, FAILED, retry_in(3.0), put_off(IN_DOUBT)])
def test_a_finish_whose_answer_was_lost_may_be_repeated(outcome: Outcome) -> None:
    once = finished(claimed(), outcome)
    assert finished(once, outcome) == once


@pytest.mark.parametrize("outcome", [TAKEN, FAILED, retry_in(3.0)])
def test_what_belongs_to_an_earlier_round_changes_nothing_in_this_one(outcome: Outcome) -> None:
    frozen = claimed()
    again = claims.reopened(finished(claimed(frozen, nonce="n2", at=after(LEASE_S)), FAILED))
    assert again is not None
    assert claims.finish(again, claim_of(frozen), outcome) is None


def test_what_a_look_up_found_counts_under_a_claim_that_is_held_and_when_it_is_said_again() -> None:
    found = replace(TAKEN, looked_up=True)
    frozen = claimed()
    over = claimed(frozen, nonce="n2", at=after(LEASE_S))
    assert claims.finish(over, claim_of(frozen), found) is None
    entry = finished(over, found)
    assert entry.end == found
    assert claims.finish(entry, claim_of(over), found) == entry
    assert claims.finish(entry, claim_of(frozen), replace(TAKEN_TWICE, looked_up=True)) is None


def test_the_provider_s_id_that_came_along_counts_like_an_answer_of_its_own() -> None:
    claim = replace(claim_of(claimed()), state=AttemptState(provider_id="SM1"))
    over = claimed(claimed(), nonce="n2", at=after(LEASE_S))
    entry = claims.finish(over, claim, replace(TAKEN, looked_up=True))
    assert entry is not None
    assert isinstance(entry.end, Accepted)


# Evidence --------------------------------------------------------------------------------------------------------


def test_a_provider_id_that_comes_along_is_written_even_beside_an_open_claim() -> None:
    entry, answer = claims.begin(claimed(), asked(AttemptState(provider_id="SM1"), nonce="n2"), after(1.0))
    assert (entry.epoch, entry.state.provider_id) == (2, "SM1")
    assert isinstance(answer, Granted)


def test_a_provider_id_that_comes_after_another_end_is_written_under_no_claim() -> None:
    lost = finished(claimed(), UNKNOWN)
    entry, answer = claims.begin(lost, asked(AttemptState(provider_id="SM1"), nonce="n2"), after(1.0))
    assert (answer, entry.state.provider_id, entry.epoch) == (Granted(None), "SM1", lost.epoch)
    assert finished(entry, TAKEN).end == TAKEN


def test_a_provider_id_that_is_known_already_says_nothing_new() -> None:
    done = finished(claimed(), TAKEN)
    assert claims.begin(done, asked(AttemptState(provider_id="SM1"), nonce="n2"), NOW) == (done, Ended(TAKEN))
    second, answer = claims.begin(done, asked(AttemptState(provider_id="SM2"), nonce="n2"), NOW)
    assert (answer, second.state.provider_id) == (Granted(None), "SM2")


def test_a_provider_id_of_an_earlier_round_is_no_evidence_for_this_one() -> None:
    again = claims.reopened(finished(claimed(), FAILED))
    assert again is not None
    entry, answer = claims.begin(again, asked(AttemptState(provider_id="SM1"), nonce="n2"), after(1.0))
    assert (answer, entry.state.provider_id) == (Granted(None), None)


# Like messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "is_open"),
    [
        (PLANNED, False),
        (claimed(), True),
        (claims.release(claimed(claimed(), nonce="n2", at=after(LEASE_S)), 2), True),
        (finished(claimed(), put_off(IN_DOUBT)), True),
        (finished(claimed(), retry_in(3.0)), False),
        (finished(claimed(), UNKNOWN), False),
    ],
    ids=["planned", "claimed", "sender died", "in doubt", "retry", "ended"],
)
def test_like_messages_wait_for_one_that_may_be_on_its_way(entry: Entry, *, is_open: bool) -> None:
    assert entry.is_open == is_open
    assert entry.may_wait == (entry.end is None and not is_open)


def test_whoever_waits_for_another_message_looks_again_when_something_may_have_changed() -> None:
    assert claims.busy(claimed(), after(20.0)) == Busy(LEASE_S - 20.0)
    assert claims.busy(finished(claimed(), put_off(IN_DOUBT)), NOW) == Busy(5.0)
    assert claims.busy(Entry(state=IN_DOUBT), NOW) == claims.busy(claimed(), after(LEASE_S)) == Busy(1.0)


# Accounts on hold ------------------------------------------------------------------------------------------------


def test_a_message_waits_for_its_account_from_its_first_deferral_on_until_it_has_waited_long_enough() -> None:
    first = claims.put_on_hold(PLANNED, until=after(60.0), now=NOW)
    second = claims.put_on_hold(first, until=after(120.0), now=after(60.0))
    assert (second.state.due, second.state.deferred_since) == (after(120.0), NOW)
    assert not claims.has_waited(second, MESSAGE, after(299.0), 300.0)
    assert claims.has_waited(second, MESSAGE, after(300.0), 300.0)


def test_a_message_that_never_waited_has_not_waited_long_enough() -> None:
    assert not claims.has_waited(PLANNED, MESSAGE, NOW, 300.0)


def test_a_message_waits_for_its_account_no_longer_than_it_may_be_sent() -> None:
    urgent = replace(MESSAGE, send_before=after(10.0))
    assert not claims.has_waited(PLANNED, urgent, after(10.0), 300.0)
    assert claims.has_waited(PLANNED, urgent, after(10.1), 300.0)


def test_whoever_writes_what_is_known_or_settles_what_a_dead_sender_left_needs_no_account() -> None:
    assert claims.needs_account(PLANNED, Granted(None))
    assert not claims.needs_account(PLANNED, Granted(NOW))
    assert not claims.needs_account(Entry(state=AttemptState(provider_id="SM1")), Granted(None))


# Cancel and send anew --------------------------------------------------------------------------------------------


def test_a_message_that_nobody_sends_is_canceled_at_once() -> None:
    waits = finished(claimed(), retry_in(30.0))
    entry = claims.cancel(waits)
    assert entry is not None
    assert isinstance(entry.end, GaveUp)
    assert (entry.end.reason, entry.end.attempts) == (GiveUpReason.CANCELED, 1)
    assert claims.begin(entry, asked(nonce="n2"), after(60.0))[1] == Ended(entry.end)


def test_a_message_that_has_ended_is_not_canceled() -> None:
    assert claims.cancel(finished(claimed(), TAKEN)) is None


def taken_back(entry: Entry) -> Entry:
    after_it = claims.cancel(entry)
    assert after_it is not None
    assert after_it.end is None
    return after_it


def test_a_message_that_is_taken_back_while_it_is_sent_is_not_sent_again() -> None:
    outcome = retry_in(30.0)
    entry = finished(taken_back(claimed()), outcome)
    assert isinstance(entry.end, GaveUp)
    assert (entry.end.reason, claims.overruled(entry, outcome)) == (GiveUpReason.CANCELED, Ended(entry.end))
    assert claims.begin(entry, asked(nonce="n2"), after(60.0)) == (entry, Ended(entry.end))


@pytest.mark.parametrize("end", [TAKEN, FAILED, UNKNOWN])
def test_a_message_that_is_taken_back_while_it_is_sent_ends_as_that_send_does(end: Accepted | GaveUp) -> None:
    entry = finished(taken_back(claimed()), end)
    assert (entry.end, claims.overruled(entry, end)) == (end, None)


def test_a_message_that_is_taken_back_while_its_answer_is_lost_is_asked_about() -> None:
    entry = finished(taken_back(claimed()), put_off(IN_DOUBT))
    assert (entry.end, entry.taken_back, claims.overruled(entry, put_off(IN_DOUBT))) == (None, None, None)
    assert entry.state.ending is not None
    assert entry.state.ending.reason is GiveUpReason.CANCELED


def test_a_message_that_is_taken_back_while_it_is_asked_about_is_not_sent_again() -> None:
    entry = taken_back(doubtful)
    assert claims.renew(entry, entry.epoch, now=after(6.0), lease_s=LEASE_S) is None
    put_off_again = finished(entry, put_off(IN_DOUBT))
    assert put_off_again.state.ending is not None
    assert put_off_again.state.ending.reason is GiveUpReason.CANCELED


def test_a_message_that_is_taken_back_and_whose_sender_dies_is_asked_about_and_not_sent_again() -> None:
    over, answer = claims.begin(taken_back(claimed()), asked(nonce="n2"), after(LEASE_S))
    assert answer == Granted(dead_since=NOW)
    entry = finished(over, RetryAfter(2.0, RATE_LIMITED, IN_DOUBT.with_retry(after(LEASE_S))))
    assert entry.state.ending is not None


def test_a_message_that_is_taken_back_and_turns_out_unsent_ends_when_somebody_comes() -> None:
    idle = claims.release(taken_back(claimed()), 1)
    entry, answer = claims.begin(idle, asked(nonce="n2"), after(1.0))
    assert isinstance(entry.end, GaveUp)
    assert (answer, entry.end.reason) == (Ended(entry.end), GiveUpReason.CANCELED)
    lost, answer = claims.begin(taken_back(claimed(nonce="lost")), asked(AttemptState(claim="lost")), after(1.0))
    assert (answer, lost.end) == (Ended(entry.end), entry.end)


def test_a_message_in_doubt_is_canceled_once_the_doubt_is_settled() -> None:
    entry = claims.cancel(finished(claimed(), put_off(IN_DOUBT)))
    assert entry is not None
    assert entry.end is None
    assert entry.state.ending is not None
    assert (entry.state.ending.reason, entry.state.doubt_since) == (GiveUpReason.CANCELED, NOW)


def test_an_end_that_was_decided_before_a_message_was_canceled_remains() -> None:
    decided = finished(claimed(), put_off(replace(IN_DOUBT, ending=FAILED)))
    entry = claims.cancel(decided)
    assert entry is not None
    assert entry.state.ending == FAILED


@given(ended().filter(lambda end: end.reason is not GiveUpReason.OUTCOME_UNKNOWN))
def test_what_surely_was_not_sent_may_be_sent_in_a_new_round_with_a_later_epoch(end: GaveUp) -> None:
    again = claims.reopened(finished(claimed(), end))
    assert again == Entry(epoch=1, state=AttemptState(round=2))
    assert claimed(again, nonce="n2").epoch == 2


@pytest.mark.parametrize("outcome", [TAKEN, UNKNOWN, retry_in(3.0), put_off(IN_DOUBT)])
def test_what_was_taken_or_may_have_been_is_not_sent_in_a_new_round(outcome: Outcome) -> None:
    assert claims.reopened(finished(claimed(), outcome)) is None


def test_a_message_is_left_out_as_long_as_no_send_of_it_is_known() -> None:
    left_out = claims.leave_out(claims.put_on_hold(PLANNED, until=after(60.0), now=NOW))
    assert left_out is not None
    assert isinstance(left_out.end, GaveUp)
    assert left_out.end.reason is GiveUpReason.CANCELED


@pytest.mark.parametrize(
    "entry",
    [
        claimed(),
        finished(claimed(), put_off(IN_DOUBT)),
        finished(claimed(), retry_in(2.0)),
        finished(claimed(), FAILED),
        Entry(state=AttemptState(round=2)),
    ],
    ids=["at work", "in doubt", "retried", "ended", "sent anew"],
)
def test_a_message_of_which_a_send_is_known_is_not_left_out(entry: Entry) -> None:
    assert claims.leave_out(entry) is None


# One open claim --------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.0, 90.0), st.integers(0, 3)), max_size=30))
def test_however_begins_and_ends_follow_each_other_one_claim_is_held_at_most(steps: list[tuple[float, int]]) -> None:
    entry, held, now = PLANNED, dict[int, Claim](), NOW
    for number, (wait_s, what) in enumerate(steps):
        now += timedelta(seconds=wait_s)
        match what:
            case 0 | 1:
                entry, answer = claims.begin(entry, asked(nonce=f"n{number}"), now)
                if isinstance(answer, Granted):
                    held[entry.epoch] = claim_of(entry)
            case 2 if held:
                entry = claims.release(entry, max(held))
            case _:
                for claim in held.values():
                    entry = claims.finish(entry, claim, put_off(claim.state)) or entry
        holders = [claim for claim in held.values() if claims.renew(entry, claim.epoch, now=now, lease_s=LEASE_S)]
        assert len(holders) <= 1


@pytest.mark.parametrize("before", [claimed(), Entry(state=IN_DOUBT, epoch=1), finished(claimed(), UNKNOWN), PLANNED])
def test_what_the_provider_itself_says_ends_a_message_as_taken(before):
    proved = claims.proved(before, TAKEN)
    assert (proved.end, proved.claimed_until, proved.sending_since, proved.is_open) == (TAKEN, None, None, False)
    assert claims.proved(proved, TAKEN_TWICE).end == TAKEN


def test_a_text_that_did_not_arrive_is_sent_anew_in_a_round_of_its_own():
    again = claims.sent_anew(finished(claimed(), TAKEN), after(600.0))
    assert (again.end, again.epoch, again.state.round, again.state.due) == (None, 1, 2, after(600.0))
    assert claims.begin(again, asked(nonce="n2"), NOW)[1] == NotDue(600.0)
    late, granted = claims.begin(again, asked(nonce="n2"), after(600.0))
    assert isinstance(granted, Granted)
    assert late.epoch == 2
