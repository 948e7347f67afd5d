"""Check that a journal keeps its promise: one open claim per message, and no text lost or doubled by what it answers.

With pytest, subclass `JournalContract` in a test module and say how to make the journal and how to let time pass::

    class TestMyJournal(JournalContract):
        def make_journal(self):
            return MyJournal(self.database)

        def pass_time(self, seconds):
            self.clock.advance(seconds)

Without pytest, call the functions of `CHECKS`. Each check wants a storage of its own that is empty. What is broken
raises `smsretry.testing.sink_contract.ContractBroken`.
"""

from __future__ import annotations

import functools
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar, assert_never

from smsretry.core.claims import Begun, Busy, Claim, Ended, NotDue, OnHold, Others
from smsretry.core.events import Event, MessageAccepted, MessageDeferred, MessageFailed, RetryScheduled
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import (
    Accepted,
    AttemptState,
    DeferReason,
    Deferred,
    GaveUp,
    GiveUpReason,
    Outcome,
    RetryAfter,
)
from smsretry.errors import InvalidMessage
from smsretry.ports import Journal
from smsretry.testing.sink_contract import ContractBroken

T = TypeVar("T")
MakeJournal = Callable[[], Journal]
PassTime = Callable[[float], None]

LEASE_S: Final = 60.0
"""The lease, in seconds, of every claim that the checks make."""
_PROBE_EVERY_S: Final = 60.0
_MOST_DEFERRED_S: Final = 3_600.0
_THREADS: Final = 8
_ACCOUNT: Final = "contract-account"
_NEW: Final = AttemptState()
_BUSY: Final = Failure.of(FailureKind.RATE_LIMITED, code=20429, http_status=429, detail="too many requests")
_NO_NUMBER: Final = Failure.of(FailureKind.INVALID_NUMBER, code=21211, http_status=400)
_REFUSED: Final = Failure.of(FailureKind.AUTH, code=20003, http_status=401)


def check_a_message_that_is_new_is_claimed(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin a message that nobody knows: it must be claimed, as it is and from its first attempt on."""
    del pass_time
    message = _message("new", campaign="spring", metadata={"order": 17})
    claim = _claimed(make_journal(), message)
    _expect("The message of a claim is the one that was begun", message, claim.message)
    _expect("A new message begins with a new state", _NEW, claim.state)
    _expect("Nothing is in doubt about a new message", (None, True), (claim.dead_since, claim.may_send))
    _holds("The journal's time is aware", claim.now.utcoffset() is not None)


def check_a_state_that_came_along_counts_at_the_first_begin(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin a message whose queue knows more than the journal: that counts once, and afterwards the journal's word."""
    del pass_time
    journal, message = make_journal(), _message("came-along")
    first = _claimed(journal, message, AttemptState(retries=2, deferrals=1))
    _expect("What came with a message counts where the journal knows no begin", (2, 1), _counted(first.state))
    journal.release(first)
    second = _claimed(journal, message, AttemptState(retries=9))
    _expect("Once a message was begun the journal's word counts", (2, 1), _counted(second.state))


def check_one_claim_is_open(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin a message twice, as two workers do: the second must be told how long the first one's lease lasts."""
    first, other, message = make_journal(), make_journal(), _message("one")
    claim = _claimed(first, message)
    _is_busy("A message has one open claim", _begin(other, message))
    pass_time(LEASE_S - 5)
    _is_busy("A claim is open until its lease ends", _begin(other, message), most_s=5.0)
    _finish(first, claim, _accepted(claim))


def check_threads_get_one_claim(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin one message from several threads at once: exactly one of them may have it."""
    del pass_time
    journal, message, gate = make_journal(), _message("threads"), threading.Barrier(_THREADS)

    def begin() -> Begun:
        gate.wait()
        return _begin(journal, message)

    answers = _together([begin] * _THREADS)
    claims = sum(isinstance(answer, Claim) for answer in answers)
    busy = sum(isinstance(answer, Busy) for answer in answers)
    _expect("Of many begins at once one gets the claim", (1, _THREADS - 1), (claims, busy))


def check_epochs_rise(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Claim a message again and again: each claim must have a later epoch, whatever ended the one before."""
    journal, message = make_journal(), _message("epochs")
    first = _claimed(journal, message)
    journal.release(first)
    second = _claimed(journal, message)
    pass_time(LEASE_S + 1)
    third = _claimed(journal, message)
    _holds("Each claim has a later epoch", 0 < first.epoch < second.epoch < third.epoch)


def check_the_same_begin_is_recognised(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin twice under one nonce, as after a lost answer within one call: the claim is its own, and no doubt."""
    del pass_time
    journal, message = make_journal(), _message("again")
    first, second = _claimed(journal, message, nonce="n-1"), _claimed(journal, message, nonce="n-1")
    _expect("A begin that is repeated finds no doubt", None, second.dead_since)
    _holds("A begin that is repeated holds the claim", first.epoch <= second.epoch)


def check_a_claim_whose_answer_was_lost_is_released(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Bring the nonce of a begin whose answer was lost: nothing was sent under it, and it must become no doubt."""
    journal, message = make_journal(), _message("lost-answer")
    lost = _claimed(journal, message, nonce="lost")
    _is_busy("A claim is released by its own nonce only", _begin(journal, message, AttemptState(claim="other")))
    claim = _claimed(journal, message, AttemptState(claim="lost"))
    _expect("A claim under which nothing was sent leaves no doubt", None, claim.dead_since)
    _holds("The released claim has a later one after it", claim.epoch > lost.epoch)
    pass_time(LEASE_S + 1)
    dead = _claimed(journal, message, AttemptState(claim="lost"))
    _holds("A nonce releases its own claim and none after it", dead.dead_since is not None)


def check_an_end_is_replayed(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """End one message of each kind: whoever begins it again must get that very end."""
    journal = make_journal()
    for name, end in (("accepted", _accepted), ("refused", _refused), ("unknown", _unknown)):
        message = _message(name, body=f"the one that is {name}")
        claim = _claimed(journal, message)
        outcome = end(claim)
        _expect("Whoever holds the claim finishes it", None, _finish(journal, claim, outcome))
        pass_time(10 * LEASE_S)
        _expect("An ended message is answered with its end", Ended(outcome), _begin(make_journal(), message))


def check_a_retry_waits_for_its_time(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Schedule a retry: nobody may begin before it is due, and then its number must be known."""
    journal, message = make_journal(), _message("retry")
    claim = _claimed(journal, message)
    due = claim.now + timedelta(seconds=100)
    outcome = RetryAfter(100.0, _BUSY, claim.state.with_retry(due))
    _expect("Whoever holds the claim schedules the retry", None, _finish(journal, claim, outcome))
    early = _begin(journal, message)
    _holds("A retry that is not due is put off", isinstance(early, NotDue) and 90 < early.left_s <= 100)
    pass_time(101)
    _expect("A retry knows its number", 1, _claimed(journal, message).state.retries)


def check_what_a_deferral_knows_is_kept(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Put a message in doubt off: the doubt and the end that was decided must be there afterwards."""
    del pass_time
    journal, message = make_journal(), _message("deferred")
    claim = _claimed(journal, message)
    state = replace(_in_doubt(claim), due=claim.now)
    _finish(journal, claim, Deferred(0.0, DeferReason.IN_DOUBT, state))
    again = _claimed(journal, message)
    _expect("What is known of a message in doubt is kept", state, again.state)
    _expect("A claim of a message in doubt does not send", (False, None), (again.may_send, again.dead_since))


def check_a_place_in_a_line_is_kept(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Put a message off that has a place at its rate limiter: without it, it would wait at the end again and again."""
    journal, message = make_journal(), _message("limited")
    claim = _claimed(journal, message)
    state = claim.state.with_deferral(claim.now, claim.now + timedelta(seconds=30)).with_slot("a place")
    _finish(journal, claim, Deferred(30.0, DeferReason.LIMITED, state))
    _holds("A message waits for its turn", isinstance(_begin(journal, message), NotDue))
    pass_time(31)
    again = _claimed(journal, message)
    _expect("The place of a message at its rate limiter is kept", "a place", again.state.slot)
    _expect("A message that waited for its turn is in no doubt", (True, None), (again.may_send, again.dead_since))


def check_a_dead_claim_is_a_doubt(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Let a lease end: whoever takes over must be told that something may have been sent, and since when."""
    journal, message = make_journal(), _message("dead")
    dead = _claimed(journal, message)
    pass_time(LEASE_S + 1)
    over = _claimed(make_journal(), message)
    since = over.dead_since or over.now
    near = over.dead_since is not None and dead.now - timedelta(seconds=LEASE_S + 2) <= since <= over.now
    _holds("A dead claim may have sent since it was made", near)
    _holds("A claim that takes over sends nothing", not over.may_send)
    pass_time(LEASE_S + 1)
    still = _claimed(journal, message).dead_since
    _holds("A doubt outlives who was to settle it", still is not None and still <= since)


def check_a_dead_claim_that_asked_is_no_doubt(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Let the lease of a claim end that was only to ask: it sent nothing, unless it was renewed for a send."""
    journal, message = make_journal(), _message("asked")
    claim = _claimed(journal, message)
    _finish(journal, claim, Deferred(0.0, DeferReason.IN_DOUBT, replace(_in_doubt(claim), due=claim.now)))
    _claimed(journal, message)
    pass_time(LEASE_S + 1)
    asking = _claimed(journal, message)
    _expect("Who only asked leaves no doubt of its own", None, asking.dead_since)
    _holds("A claim that is held is renewed", journal.renew(asking, lease_s=LEASE_S))
    pass_time(LEASE_S + 1)
    _holds("A claim that was renewed may have sent", _claimed(journal, message).dead_since is not None)


def check_a_renewed_lease_lasts(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Renew a claim: its lease must last from then on."""
    journal, message = make_journal(), _message("renewed")
    claim = _claimed(journal, message)
    pass_time(LEASE_S - 10)
    _holds("A claim that is held is renewed", journal.renew(claim, lease_s=LEASE_S))
    pass_time(LEASE_S - 10)
    _is_busy("A lease that was renewed lasts", _begin(journal, message))


def check_a_lost_claim_changes_nothing(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Renew, release and finish under a claim that another worker took over: nothing may change."""
    journal, message = make_journal(), _message("stale")
    frozen = _claimed(journal, message)
    pass_time(LEASE_S + 1)
    holder = _claimed(make_journal(), message)
    _holds("A lost claim is not renewed", not journal.renew(frozen, lease_s=LEASE_S))
    journal.release(frozen)
    _is_busy("A lost claim releases nothing", _begin(journal, message))
    due = holder.now + timedelta(seconds=500)
    told = _finish(journal, frozen, RetryAfter(500.0, _BUSY, frozen.state.with_retry(due)))
    _is_busy("A lost claim schedules nothing", told)
    _is_busy("A lost claim ends nothing", _finish(journal, frozen, _refused(frozen)))
    end = _accepted(holder)
    _expect("Whoever took over finishes", None, _finish(journal, holder, end))
    _expect("A lost claim learns how it ended", Ended(end), _finish(journal, frozen, _refused(frozen)))


def check_an_acceptance_counts_whoever_tells_it(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Finish a lost claim with the provider's id: the text was taken, and the message must have ended so."""
    journal, message = make_journal(), _message("late")
    frozen = _claimed(journal, message)
    pass_time(LEASE_S + 1)
    holder = _claimed(journal, message)
    end = _accepted(frozen)
    _finish(journal, frozen, end)
    _expect("That the provider took it ends a message", Ended(end), _begin(journal, message))
    _expect("It holds against who took over", Ended(end), _finish(journal, holder, _unknown(holder)))


def check_an_acceptance_beats_another_end(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """End a message as unknown and tell then that it was taken: that is the end that holds."""
    journal, message = make_journal(), _message("unknown-then-taken")
    frozen = _claimed(journal, message)
    pass_time(LEASE_S + 1)
    holder = _claimed(journal, message)
    _finish(journal, holder, _unknown(holder))
    end = _accepted(frozen)
    _finish(journal, frozen, end)
    _expect("A message that was taken ended as taken", Ended(end), _begin(journal, message))


def check_a_look_up_counts_under_its_claim_alone(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Finish a lost claim with what a look-up found: by now that may be the text of another message."""
    journal, message = make_journal(), _message("frozen-look-up")
    frozen = _claimed(journal, message)
    pass_time(LEASE_S + 1)
    holder = _claimed(journal, message)
    found = replace(_accepted(frozen), looked_up=True)
    _is_busy("What a lost claim has found counts for nothing", _finish(journal, frozen, found))
    end = _refused(holder)
    _finish(journal, holder, end)
    like = _claimed(journal, _message("like-it"))
    others = journal.others(like, since=like.now - timedelta(seconds=300))
    _expect("What a lost claim has found is no id of that message", frozenset(), others.provider_ids)
    _finish(journal, like, replace(_accepted(like), receipt=found.receipt))
    _expect("What a lost claim has found ends nothing", Ended(end), _finish(journal, frozen, found))
    _expect("An end holds against what a lost claim has found", Ended(end), _begin(journal, message))


def check_a_finish_may_be_repeated(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Finish twice, as after a lost answer: the second time must be no news."""
    del pass_time
    journal, message = make_journal(), _message("twice")
    claim = _claimed(journal, message)
    outcome = RetryAfter(0.0, _BUSY, claim.state.with_retry(claim.now))
    answers = [_finish(journal, claim, outcome) for _ in range(2)]
    _expect("A finish may be repeated", [None, None], answers)
    _expect("A finish that is repeated counts once", 1, _claimed(journal, message).state.retries)


def check_a_released_message_is_free(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Release a claim under which nothing was sent: the next one must find neither a wait nor a doubt."""
    del pass_time
    journal, message = make_journal(), _message("released")
    journal.release(_claimed(journal, message))
    claim = _claimed(make_journal(), message)
    _expect("A released claim leaves no doubt", (None, _NEW), (claim.dead_since, claim.state))


def check_evidence_settles(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Bring a provider's id whose finish was lost: it must reach the claim at once, before lease and time are over."""
    del pass_time
    journal, message = make_journal(), _message("evidence")
    _claimed(journal, message)
    settling = _claimed(make_journal(), message, AttemptState(provider_id="SM-evidence"))
    _expect("A provider's id in hand is never dropped", "SM-evidence", settling.state.provider_id)
    _finish(journal, settling, _accepted(settling))
    _holds("Evidence ends the message", isinstance(_begin(journal, message), Ended))


def check_like_messages_wait_for_each_other(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin two messages with one recipient and text: the second must wait while the first is at work or in doubt."""
    journal = make_journal()
    one, other = _message("like-1", body="the same"), _message("like-2", body="the same")
    first = _claimed(journal, one)
    _is_busy("A message waits while a like one is at work", _begin(journal, other))
    _claimed(journal, _message("unlike", body="another text"))
    _finish(journal, first, Deferred(10.0, DeferReason.IN_DOUBT, _in_doubt(first)))
    _is_busy("A message waits while a like one is in doubt", _begin(journal, other))
    pass_time(11)
    again = _claimed(journal, one)
    _finish(journal, again, _accepted(again))
    _claimed(journal, other)


def check_a_like_message_waits_until_its_deadline(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin a message whose deadline passed while a like one is at work: it must be claimed, to end without a send."""
    journal = make_journal()
    first = _claimed(journal, _message("like-1", body="the same"))
    in_time, late = (first.now + timedelta(seconds=seconds) for seconds in (LEASE_S, -1.0))
    _is_busy("A message waits", _begin(journal, _message("in-time", body="the same", send_before=in_time)))
    too_late = _message("late", body="the same", send_before=late)
    _holds("A claim that comes too late does not send", not _claimed(journal, too_late).may_send)
    pass_time(LEASE_S + 1)
    _expect("A claim that came too late leaves no doubt", None, _claimed(journal, too_late).dead_since)


def check_like_messages_do_not_begin_at_once(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Begin several like messages from threads at once: exactly one may have its claim."""
    del pass_time
    journal, gate = make_journal(), threading.Barrier(_THREADS)

    def begin(number: int) -> Begun:
        gate.wait()
        return _begin(journal, _message(f"like-{number}", body="the same"))

    answers = _together([functools.partial(begin, number) for number in range(_THREADS)])
    _expect("Of like messages one is at work", 1, sum(isinstance(answer, Claim) for answer in answers))


def check_others_are_known(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Ask for the provider's ids of other messages to a recipient: a look-up must not take them for this one."""
    del pass_time
    journal = make_journal()
    for name, to in (("taken", _TO), ("elsewhere", "+15005550009")):
        done = _claimed(journal, _message(name, to=to, body=f"{name} before"))
        _finish(journal, done, _accepted(done))
    claim = _claimed(journal, _message("asking"))
    others = journal.others(claim, since=claim.now - timedelta(seconds=300))
    wanted = Others(provider_ids=frozenset({"SM-taken"}))
    _expect("Ids of other messages to the recipient are known, and only these", wanted, others)


def check_a_like_message_that_ended_as_unknown_is_known(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Ask about others where one with the same text ended as unknown: what a look-up finds may be that one's."""
    journal = make_journal()
    for name, more in (
        ("unknown", {}),
        ("of-another-text", {"body": "another text"}),
        ("sure", {"to": "+15005550009"}),
    ):
        claim = _claimed(journal, _message(f"like-{name}", **more))
        _finish(journal, claim, _unknown(claim) if name != "sure" else _refused(claim))
    asking = {"body": "a secret"}, {"body": "one more text"}, {"to": "+15005550009"}
    claims = [_claimed(journal, _message(f"asking-{number}", **more)) for number, more in enumerate(asking)]
    unsure = [journal.others(claim, since=claim.now).unsure for claim in claims]
    _expect("A look-up is unsure where a like message ended as unknown, and only there", [True, False, False], unsure)
    pass_time(2 * 86_400.0)
    later = claims[0].now + timedelta(days=2)
    days_ago = journal.others(claims[0], since=later)
    _holds("A like message of days ago is none that is listed", not days_ago.unsure)


def check_another_message_is_refused(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Use an id for another recipient or text: that must be refused, show neither, and change nothing."""
    del pass_time
    journal, message = make_journal(), _message("used")
    for other in (_message("used", to="+15005550009"), _message("used", body="another secret")):
        claim = _claimed(journal, message)
        _refuses(journal, other)
        end = RetryAfter(0.0, _BUSY, claim.state.with_retry(claim.now))
        _expect("A refused message changes nothing", None, _finish(journal, claim, end))
        _refuses(journal, other)
    claim = _claimed(journal, message)
    _finish(journal, claim, _accepted(claim))
    _refuses(journal, _message("used", body="another secret"))
    _expect("A refused message ends nothing", Ended(_accepted(claim)), _begin(journal, message))


def check_a_rerun_sends_the_first_text(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Run again with a text that was rendered anew: what was begun first must be sent; another recipient is refused."""
    del pass_time
    journal, first = make_journal(), _message("rerun", body="It is 12:04.")
    journal.release(_claimed(journal, first))
    again = _claimed(journal, _message("rerun", body="It is 12:05."), rerun=True)
    _expect("A re-run sends the text of the first begin", first, again.message)
    _refuses(journal, _message("rerun", to="+15005550009"), rerun=True)
    end = _accepted(again)
    _finish(journal, again, end)
    later = _begin(journal, _message("rerun", body="It is 12:06."), rerun=True)
    _expect("A re-run of what has ended gets its end", Ended(end), later)


def check_an_account_on_hold_lets_one_ask(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Put an account on hold: nobody may send on it but one a minute, until it is reopened."""
    journal, messages = make_journal(), [_message(f"held-{number}", body=f"text {number}") for number in range(4)]
    journal.hold(_ACCOUNT, _REFUSED)
    _is_on_hold(_begin(make_journal(), messages[0]))
    _claimed(journal, _message("other", body="on another account"), account="another-account")
    pass_time(_PROBE_EVERY_S + 1)
    probe = _claimed(journal, messages[1])
    _expect("One attempt asks whether the account is served again", (True, None), (probe.probes, probe.refused))
    _is_on_hold(_begin(journal, messages[2]))
    journal.reopen(_ACCOUNT)
    claim = _claimed(journal, messages[3])
    _expect("An account that was reopened is served", (False, None), (claim.probes, claim.refused))


def check_a_hold_does_not_last_for_ever(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Hold a message back for as long as it may wait: then it must be claimed, to end with the account's refusal."""
    journal, message = make_journal(), _message("waiting")
    journal.hold(_ACCOUNT, _REFUSED)
    _is_on_hold(_begin(journal, message))
    pass_time(_MOST_DEFERRED_S + 1)
    journal.hold(_ACCOUNT, _REFUSED)
    claim = _claimed(journal, message)
    _expect("What waited for too long is told why", (_REFUSED, False), (claim.refused, claim.probes))


def check_what_a_dead_sender_left_needs_no_account(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Put an account on hold whose sender has died: what it left is settled, and leaves it to others to ask."""
    journal, message = make_journal(), _message("dead-on-hold")
    _claimed(journal, message)
    pass_time(LEASE_S + 1)
    journal.hold(_ACCOUNT, _REFUSED)
    over = _claimed(journal, message)
    told = (over.dead_since is not None, over.probes, over.refused)
    _expect("A dead claim is settled while the account is on hold", (True, False, None), told)
    pass_time(max(LEASE_S, _PROBE_EVERY_S) + 1)
    _holds("What sends nothing does not ask for the account", not _claimed(journal, message).probes)
    fresh = _claimed(journal, _message("fresh-on-hold", body="another text"))
    _holds("Whoever may send asks for the account", fresh.probes)


def check_an_account_may_have_any_name(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Put accounts with long and odd names on hold: each must be, and none of them another one."""
    del pass_time
    journal = make_journal()
    for number, account in enumerate((_ACCOUNT * 100, "an\x00account", f"{_ACCOUNT * 100}-too")):
        message = _message(f"named-{number}", body=f"text {number}")
        journal.release(_claimed(journal, message, account=account))
        journal.hold(account, _REFUSED)
        _is_on_hold(_begin(journal, message, account=account))
    journal.reopen(_ACCOUNT * 100)
    _claimed(journal, _message("named-again", body="one more"), account=_ACCOUNT * 100)


def check_many_that_waited_ask_once(make_journal: MakeJournal, pass_time: PassTime) -> None:
    """Let many messages wait for as long as they may: still one of them asks, and the others end unsent."""
    journal, messages = make_journal(), [_message(f"many-{number}", body=f"text {number}") for number in range(3)]
    journal.hold(_ACCOUNT, _REFUSED)
    for message in messages:
        _is_on_hold(_begin(journal, message))
    pass_time(_MOST_DEFERRED_S + 1)
    claims = [_claimed(journal, message) for message in messages]
    told = [(claim.probes, claim.refused) for claim in claims]
    _expect("One of many asks", [(True, None), (False, _REFUSED), (False, _REFUSED)], told)


CHECKS: Final[tuple[Callable[[MakeJournal, PassTime], None], ...]] = (
    check_a_message_that_is_new_is_claimed,
    check_a_state_that_came_along_counts_at_the_first_begin,
    check_one_claim_is_open,
    check_threads_get_one_claim,
    check_epochs_rise,
    check_the_same_begin_is_recognised,
    check_a_claim_whose_answer_was_lost_is_released,
    check_an_end_is_replayed,
    check_a_retry_waits_for_its_time,
    check_what_a_deferral_knows_is_kept,
    check_a_place_in_a_line_is_kept,
    check_a_dead_claim_is_a_doubt,
    check_a_dead_claim_that_asked_is_no_doubt,
    check_a_renewed_lease_lasts,
    check_a_lost_claim_changes_nothing,
    check_an_acceptance_counts_whoever_tells_it,
    check_an_acceptance_beats_another_end,
    check_a_look_up_counts_under_its_claim_alone,
    check_a_finish_may_be_repeated,
    check_a_released_message_is_free,
    check_evidence_settles,
    check_like_messages_wait_for_each_other,
    check_a_like_message_waits_until_its_deadline,
    check_like_messages_do_not_begin_at_once,
    check_others_are_known,
    check_a_like_message_that_ended_as_unknown_is_known,
    check_another_message_is_refused,
    check_a_rerun_sends_the_first_text,
    check_an_account_on_hold_lets_one_ask,
    check_a_hold_does_not_last_for_ever,
    check_what_a_dead_sender_left_needs_no_account,
    check_an_account_may_have_any_name,
    check_many_that_waited_ask_once,
)
"""Every check: call each with a function that makes the journal and one that lets its clock go on."""


class JournalContract(ABC):
    """Run every check as a test of pytest; a subclass, named ``Test…``, says what to check.

    Prepare the empty storage where pytest does it for each test: in ``setup_method`` or an autouse fixture.
    """

    @abstractmethod
    def make_journal(self) -> Journal:
        """Return a journal on the storage of this test; another call stands for another worker on the same storage."""

    @abstractmethod
    def pass_time(self, seconds: float) -> None:
        """Let the journal's clock go on by ``seconds``, or move every time that it has stored so far back."""

    def test_a_message_that_is_new_is_claimed(self) -> None:
        """Run `check_a_message_that_is_new_is_claimed`."""
        check_a_message_that_is_new_is_claimed(self.make_journal, self.pass_time)

    def test_a_state_that_came_along_counts_at_the_first_begin(self) -> None:
        """Run `check_a_state_that_came_along_counts_at_the_first_begin`."""
        check_a_state_that_came_along_counts_at_the_first_begin(self.make_journal, self.pass_time)

    def test_one_claim_is_open(self) -> None:
        """Run `check_one_claim_is_open`."""
        check_one_claim_is_open(self.make_journal, self.pass_time)

    def test_threads_get_one_claim(self) -> None:
        """Run `check_threads_get_one_claim`."""
        check_threads_get_one_claim(self.make_journal, self.pass_time)

    def test_epochs_rise(self) -> None:
        """Run `check_epochs_rise`."""
        check_epochs_rise(self.make_journal, self.pass_time)

    def test_the_same_begin_is_recognised(self) -> None:
        """Run `check_the_same_begin_is_recognised`."""
        check_the_same_begin_is_recognised(self.make_journal, self.pass_time)

    def test_a_claim_whose_answer_was_lost_is_released(self) -> None:
        """Run `check_a_claim_whose_answer_was_lost_is_released`."""
        check_a_claim_whose_answer_was_lost_is_released(self.make_journal, self.pass_time)

    def test_an_end_is_replayed(self) -> None:
        """Run `check_an_end_is_replayed`."""
        check_an_end_is_replayed(self.make_journal, self.pass_time)

    def test_a_retry_waits_for_its_time(self) -> None:
        """Run `check_a_retry_waits_for_its_time`."""
        check_a_retry_waits_for_its_time(self.make_journal, self.pass_time)

    def test_what_a_deferral_knows_is_kept(self) -> None:
        """Run `check_what_a_deferral_knows_is_kept`."""
        check_what_a_deferral_knows_is_kept(self.make_journal, self.pass_time)

    def test_a_place_in_a_line_is_kept(self) -> None:
        """Run `check_a_place_in_a_line_is_kept`."""
        check_a_place_in_a_line_is_kept(self.make_journal, self.pass_time)

    def test_a_dead_claim_is_a_doubt(self) -> None:
        """Run `check_a_dead_claim_is_a_doubt`."""
        check_a_dead_claim_is_a_doubt(self.make_journal, self.pass_time)

    def test_a_dead_claim_that_asked_is_no_doubt(self) -> None:
        """Run `check_a_dead_claim_that_asked_is_no_doubt`."""
        check_a_dead_claim_that_asked_is_no_doubt(self.make_journal, self.pass_time)

    def test_a_renewed_lease_lasts(self) -> None:
        """Run `check_a_renewed_lease_lasts`."""
        check_a_renewed_lease_lasts(self.make_journal, self.pass_time)

    def test_a_lost_claim_changes_nothing(self) -> None:
        """Run `check_a_lost_claim_changes_nothing`."""
        check_a_lost_claim_changes_nothing(self.make_journal, self.pass_time)

    def test_an_acceptance_counts_whoever_tells_it(self) -> None:
        """Run `check_an_acceptance_counts_whoever_tells_it`."""
        check_an_acceptance_counts_whoever_tells_it(self.make_journal, self.pass_time)

    def test_an_acceptance_beats_another_end(self) -> None:
        """Run `check_an_acceptance_beats_another_end`."""
        check_an_acceptance_beats_another_end(self.make_journal, self.pass_time)

    def test_a_look_up_counts_under_its_claim_alone(self) -> None:
        """Run `check_a_look_up_counts_under_its_claim_alone`."""
        check_a_look_up_counts_under_its_claim_alone(self.make_journal, self.pass_time)

    def test_a_finish_may_be_repeated(self) -> None:
        """Run `check_a_finish_may_be_repeated`."""
        check_a_finish_may_be_repeated(self.make_journal, self.pass_time)

    def test_a_released_message_is_free(self) -> None:
        """Run `check_a_released_message_is_free`."""
        check_a_released_message_is_free(self.make_journal, self.pass_time)

    def test_evidence_settles(self) -> None:
        """Run `check_evidence_settles`."""
        check_evidence_settles(self.make_journal, self.pass_time)

    def test_like_messages_wait_for_each_other(self) -> None:
        """Run `check_like_messages_wait_for_each_other`."""
        check_like_messages_wait_for_each_other(self.make_journal, self.pass_time)

    def test_a_like_message_waits_until_its_deadline(self) -> None:
        """Run `check_a_like_message_waits_until_its_deadline`."""
        check_a_like_message_waits_until_its_deadline(self.make_journal, self.pass_time)

    def test_like_messages_do_not_begin_at_once(self) -> None:
        """Run `check_like_messages_do_not_begin_at_once`."""
        check_like_messages_do_not_begin_at_once(self.make_journal, self.pass_time)

    def test_others_are_known(self) -> None:
        """Run `check_others_are_known`."""
        check_others_are_known(self.make_journal, self.pass_time)

    def test_a_like_message_that_ended_as_unknown_is_known(self) -> None:
        """Run `check_a_like_message_that_ended_as_unknown_is_known`."""
        check_a_like_message_that_ended_as_unknown_is_known(self.make_journal, self.pass_time)

    def test_another_message_is_refused(self) -> None:
        """Run `check_another_message_is_refused`."""
        check_another_message_is_refused(self.make_journal, self.pass_time)

    def test_a_rerun_sends_the_first_text(self) -> None:
        """Run `check_a_rerun_sends_the_first_text`."""
        check_a_rerun_sends_the_first_text(self.make_journal, self.pass_time)

    def test_an_account_on_hold_lets_one_ask(self) -> None:
        """Run `check_an_account_on_hold_lets_one_ask`."""
        check_an_account_on_hold_lets_one_ask(self.make_journal, self.pass_time)

    def test_a_hold_does_not_last_for_ever(self) -> None:
        """Run `check_a_hold_does_not_last_for_ever`."""
        check_a_hold_does_not_last_for_ever(self.make_journal, self.pass_time)

    def test_what_a_dead_sender_left_needs_no_account(self) -> None:
        """Run `check_what_a_dead_sender_left_needs_no_account`."""
        check_what_a_dead_sender_left_needs_no_account(self.make_journal, self.pass_time)

    def test_an_account_may_have_any_name(self) -> None:
        """Run `check_an_account_may_have_any_name`."""
        check_an_account_may_have_any_name(self.make_journal, self.pass_time)

    def test_many_that_waited_ask_once(self) -> None:
        """Run `check_many_that_waited_ask_once`."""
        check_many_that_waited_ask_once(self.make_journal, self.pass_time)


_TO: Final = "+15005550006"


def _message(name: str, *, to: str = _TO, body: str = "a secret", **more: Any) -> Message:
    return Message(to, body, id=name, **more)


def _begin(
    journal: Journal,
    message: Message,
    hint: AttemptState = _NEW,
    *,
    nonce: str = "",
    account: str = _ACCOUNT,
    rerun: bool = False,
) -> Begun:
    return journal.begin(
        message,
        hint=hint,
        nonce=nonce or secrets.token_hex(16),
        lease_s=LEASE_S,
        account=account,
        most_deferred_s=_MOST_DEFERRED_S,
        rerun=rerun,
    )


def _claimed(journal: Journal, message: Message, hint: AttemptState = _NEW, **options: Any) -> Claim:
    answer = _begin(journal, message, hint, **options)
    if isinstance(answer, Claim):
        return answer
    msg = f"A message that is free is claimed: begin of {message.id!r} must answer a Claim, got {answer!r}."
    raise ContractBroken(msg)


def _finish(journal: Journal, claim: Claim, outcome: Outcome) -> Ended | Busy | None:
    return journal.finish(claim, outcome, _event(claim, outcome))


def _event(claim: Claim, outcome: Outcome) -> Event:
    about: dict[str, Any] = {
        "message_id": claim.message.id,
        "campaign": claim.message.campaign,
        "metadata": claim.message.metadata,
        "round": claim.state.round,
        "started_at": claim.now,
        "at": claim.now + timedelta(seconds=0.25),
        "attempt": claim.state.retries + 1,
    }
    match outcome:
        case Accepted(receipt):
            return MessageAccepted(**about, receipt=receipt)
        case RetryAfter(delay_s, failure, state):
            return RetryScheduled(**about, failure=failure, delay_s=delay_s, due=state.due or claim.now)
        case Deferred(delay_s, reason, state):
            wait: dict[str, Any] = {"delay_s": delay_s, "due": state.due or claim.now, "deferral": state.deferrals}
            return MessageDeferred(**about, reason=reason, **wait)
        case GaveUp(failure, reason):
            return MessageFailed(**about, failure=failure, reason=reason)
        case _ as unreachable:
            assert_never(unreachable)


def _accepted(claim: Claim) -> Accepted:
    receipt = Receipt("contract", f"SM-{claim.message.id}", claim.now, 1, "queued")
    return Accepted(receipt, claim.state.retries + 1)


def _refused(claim: Claim) -> GaveUp:
    return GaveUp(_NO_NUMBER, GiveUpReason.PERMANENT, claim.state.retries + 1)


def _unknown(claim: Claim) -> GaveUp:
    lost = Failure.of(FailureKind.LOST_ANSWER, detail="nobody knows")
    return GaveUp(lost, GiveUpReason.OUTCOME_UNKNOWN, claim.state.retries + 1)


def _in_doubt(claim: Claim) -> AttemptState:
    """Return the state after a send in doubt, which is to be looked up in 10 seconds and then ends as refused."""
    now = claim.now
    state = replace(claim.state, doubt_since=now, settles_at=now + timedelta(seconds=120), looks=1)
    return replace(state, ending=_refused(claim)).with_deferral(now, now + timedelta(seconds=10))


def _counted(state: AttemptState) -> tuple[int, int]:
    return state.retries, state.deferrals


def _together(calls: list[Callable[[], T]]) -> list[T]:
    """Return what ``calls`` answer, each in a thread of its own."""
    answers: list[T] = []
    errors: list[Exception] = []

    def answer(call: Callable[[], T]) -> None:
        try:
            answers.append(call())
        except Exception as error:  # noqa: BLE001  # told below, in the thread that checks
            errors.append(error)

    threads = [threading.Thread(target=answer, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        msg = f"A journal must serve several threads, but one of {len(calls)} got {errors[0]!r}."
        raise ContractBroken(msg) from errors[0]
    return answers


def _refuses(journal: Journal, message: Message, *, rerun: bool = False) -> None:
    try:
        answer = _begin(journal, message, rerun=rerun)
    except InvalidMessage as error:
        shown = [word for word in (message.to, message.body, "a secret") if word in str(error)]
        _expect("A refusal shows neither a number nor a text", [], shown)
        return
    msg = f"An id of another message is refused: begin must raise InvalidMessage, got {answer!r}."
    raise ContractBroken(msg)


def _is_busy(promise: str, answer: object, *, most_s: float = LEASE_S) -> None:
    if not isinstance(answer, Busy) or not 0 < answer.left_s <= most_s:
        msg = f"{promise}: the answer must be Busy for up to {most_s:.0f} s, got {answer!r}."
        raise ContractBroken(msg)


def _is_on_hold(answer: Begun) -> None:
    right = isinstance(answer, OnHold) and 0 < answer.left_s <= _PROBE_EVERY_S and answer.failure == _REFUSED
    if not right:
        msg = f"A refused account is on hold for up to {_PROBE_EVERY_S:.0f} s and says why, got {answer!r}."
        raise ContractBroken(msg)


def _holds(promise: str, fact: object) -> None:
    if not fact:
        msg = f"{promise}, and here it does not hold."
        raise ContractBroken(msg)


def _expect(promise: str, wanted: object, got: object) -> None:
    if wanted != got:
        msg = f"{promise}: expected {wanted!r}, got {got!r}."
        raise ContractBroken(msg)
