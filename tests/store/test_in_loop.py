"""A store in a running loop: the contract of every journal, and groups in which nobody suffers for another."""

from __future__ import annotations

import asyncio
import gc
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from tests.looped import Looped, LoopThread
from tests.store.clock import pass_time
from tests.store.journeys import begin as begin_plainly
from tests.store.journeys import claimed, message, miscounted, row_of
from tests.store.told import NO_NUMBER, accepted, failed, retry

from smsretry import (
    Accepted,
    AsyncDispatcher,
    AttemptState,
    GaveUp,
    GiveUpReason,
    InvalidMessage,
    Message,
    Receipt,
    RetryPolicy,
)
from smsretry.campaign import run_campaign
from smsretry.core.claims import Begun, Busy, Claim, Ended
from smsretry.store import SQLStore
from smsretry.store.in_loop import InLoop
from smsretry.testing.journal_contract import JournalContract

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 600
"""More than one group takes."""


class TestSQLStoreInLoop(JournalContract):
    @pytest.fixture(autouse=True)
    def lend(self, store: SQLStore) -> Iterator[None]:
        self.store = store
        with LoopThread() as thread:
            self.journal: Any = Looped(store.in_loop(), thread)
            yield

    def make_journal(self) -> Any:
        return self.journal

    def pass_time(self, seconds: float) -> None:
        pass_time(self.store, seconds)


async def begin(journal: InLoop, one: Message, **options: Any) -> Begun:
    usual: dict[str, Any] = {"nonce": secrets.token_hex(8), "lease_s": 60.0, "account": "a", "most_deferred_s": 3600.0}
    return await journal.begin(one, hint=AttemptState(), **(usual | options))


async def finish(journal: InLoop, claim: Claim, sid: str) -> Ended | Busy | None:
    receipt = Receipt("twilio", sid, claim.now, 1, "queued")
    return await journal.finish(claim, Accepted(receipt), accepted(str(claim.message.id), sid=sid))


def commits_of(store: SQLStore) -> list[int]:
    """Count the transactions of ``store`` from now on."""
    commits = [0]
    sa.event.listen(store._database._ready_engine(), "commit", lambda _: commits.__setitem__(0, commits[0] + 1))
    return commits


@pytest.fixture
def file_store(file_url: str) -> Iterator[SQLStore]:
    with SQLStore(file_url) as store:
        store.create_tables()
        yield store


def test_what_is_asked_at_the_same_time_is_written_together_and_as_by_itself(file_store: SQLStore) -> None:
    async def run() -> None:
        journal = file_store.in_loop()
        messages = [message(f"m{n}", f"Text {n}.") for n in range(MANY)]
        claims = await asyncio.gather(*(begin(journal, one) for one in messages))
        assert all(isinstance(claim, Claim) for claim in claims)
        assert Counter(claim.message.id for claim in claims) == Counter(f"m{n}" for n in range(MANY))
        answers = await asyncio.gather(*(finish(journal, claim, f"SM{claim.message.id}") for claim in claims))
        assert answers == [None] * MANY

    commits = commits_of(file_store)
    asyncio.run(run())
    assert commits[0] < 20
    summary = file_store.campaign_summary("spring")
    assert (summary.planned, summary.sent, summary.pending, miscounted(file_store)) == (MANY, MANY, 0, {})
    alone = message("alone", "Text.")
    claim = claimed(file_store, alone)
    file_store.finish(claim, Accepted(Receipt("twilio", "SMx", claim.now, 1, "queued")), accepted("alone", sid="SMx"))
    one, other = row_of(file_store, "alone")._mapping, row_of(file_store, "m7")._mapping
    times = {"decided_at", "changed_at", "started_at", "nonce", "ending"}
    own = {"id", "provider_id", "fingerprint"}
    assert {k: v for k, v in one.items() if k not in times | own} == {
        k: v for k, v in other.items() if k not in times | own
    }
    assert len(file_store.history("m7")) == 1


def test_a_begin_that_is_answered_is_there_for_every_other_process(file_store: SQLStore, file_url: str) -> None:
    async def run() -> None:
        assert isinstance(await begin(file_store.in_loop(), message("m")), Claim)

    asyncio.run(run())
    with SQLStore(file_url) as another:
        assert isinstance(begin_plainly(another, message("m")), Busy)


def test_of_one_id_and_of_equal_texts_in_a_group_one_is_claimed(file_store: SQLStore) -> None:
    async def run() -> tuple[list[Begun], list[Begun]]:
        journal = file_store.in_loop()
        same = [begin(journal, message("same")) for _ in range(5)]
        like = [begin(journal, message(f"like{n}", "Equal words.")) for n in range(5)]
        answers = await asyncio.gather(*same, *like)
        return list(answers[:5]), list(answers[5:])

    for answers in asyncio.run(run()):
        assert Counter(type(answer) for answer in answers) == {Claim: 1, Busy: 4}
    assert miscounted(file_store) == {}


def test_a_text_that_is_rendered_anew_counts_as_the_one_that_is_sent(file_store: SQLStore) -> None:
    file_store.plan(message("first", "Equal words."))

    async def run() -> list[Begun]:
        journal = file_store.in_loop()
        before = begin(journal, message("m"))  # while it is written, the others gather
        anew = begin(journal, message("first", "Other words."), rerun=True)
        answers = await asyncio.gather(before, anew, begin(journal, message("second", "Equal words.")))
        return list(answers[1:])

    first, second = asyncio.run(run())
    assert isinstance(first, Claim)
    assert first.message.body == "Equal words."
    assert isinstance(second, Busy)


def test_an_id_with_another_text_is_refused_and_no_other_of_its_group(file_store: SQLStore) -> None:
    async def run() -> list[Any]:
        journal = file_store.in_loop()
        await begin(journal, message("m1"))
        works = [
            begin(journal, message("m0")),
            begin(journal, message("m1", "Another text.")),
            begin(journal, message("m2")),
        ]
        return await asyncio.gather(*works, return_exceptions=True)

    first, refused, last = asyncio.run(run())
    assert isinstance(refused, InvalidMessage)
    assert isinstance(first, Claim)
    assert isinstance(last, Claim)


def test_a_work_that_the_database_refuses_hurts_no_other_of_its_group(file_store: SQLStore) -> None:
    with file_store._database._ready_engine().begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON smsretry_messages WHEN NEW.id = 'm5' "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )

    async def run() -> list[Any]:
        journal = file_store.in_loop()
        return await asyncio.gather(*(begin(journal, message(f"m{n}")) for n in range(10)), return_exceptions=True)

    answers = asyncio.run(run())
    assert [type(one).__name__ for one in answers] == ["Claim"] * 5 + ["IntegrityError"] + ["Claim"] * 4
    assert (file_store.campaign_summary("spring").planned, miscounted(file_store)) == (9, {})


def test_everything_that_a_journal_does_may_share_a_group(file_store: SQLStore) -> None:
    async def run() -> None:
        journal = file_store.in_loop()
        one, two, three = [await begin(journal, message(f"m{n}")) for n in range(3)]
        assert isinstance(one, Claim)
        assert isinstance(two, Claim)
        assert isinstance(three, Claim)
        answers = await asyncio.gather(
            finish(journal, one, "SM1"),
            journal.finish(two, GaveUp(NO_NUMBER, GiveUpReason.PERMANENT, 1), failed("m1")),
            journal.release(three),
            begin(journal, message("m3")),
            journal.record(retry("m4", 1)),
            begin(journal, message("m0")),
        )
        assert answers[:3] == [None, None, None]
        assert isinstance(answers[3], Claim)
        assert isinstance(answers[5], Ended)
        assert isinstance(await begin(journal, message("m2")), Claim)

    asyncio.run(run())
    summary = file_store.campaign_summary("spring")
    assert (summary.sent, summary.failed, summary.pending, miscounted(file_store)) == (1, 1, 3, {})


@pytest.mark.parametrize("stage", ["written", "waiting", "answered"])
def test_a_begin_that_is_canceled_leaves_no_claim(file_store: SQLStore, stage: str) -> None:
    """Canceled while it is written, while it waits for the group before, or when its answer is on the way."""

    async def run() -> Begun:
        journal = file_store.in_loop()
        first, second = (asyncio.ensure_future(begin(journal, message(f"m{n}"))) for n in range(2))
        await asyncio.sleep(0)
        [queue] = journal._queues.values()
        assert (queue.writing, len(queue.waiting)) == (1, 1)
        canceled = second if stage == "waiting" else first
        answer: Any = canceled._fut_waiter  # type: ignore[attr-defined]
        while stage == "answered" and not answer.done():  # noqa: ASYNC110  # canceled before it hears of its answer
            await asyncio.sleep(0)
        assert not canceled.done()
        canceled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await canceled
        await asyncio.wait([first, second])
        return await begin(journal, message("m1" if stage == "waiting" else "m0"))

    answer = asyncio.run(run())
    assert isinstance(answer, Claim)
    assert answer.dead_since is None


def test_a_finish_whose_caller_is_canceled_is_written(file_store: SQLStore) -> None:
    async def run() -> None:
        journal = file_store.in_loop()
        claim = await begin(journal, message("m"))
        assert isinstance(claim, Claim)
        finishing = asyncio.ensure_future(finish(journal, claim, "SM1"))
        await asyncio.sleep(0)
        finishing.cancel()
        await asyncio.gather(finishing, return_exceptions=True)
        assert isinstance(await begin(journal, message("m")), Ended)

    asyncio.run(run())


def test_one_store_serves_one_loop_after_the_other(file_store: SQLStore) -> None:
    journal = file_store.in_loop()
    assert isinstance(asyncio.run(begin(journal, message("m1"))), Claim)
    assert isinstance(asyncio.run(begin(journal, message("m2"))), Claim)


def test_a_loop_that_has_ended_is_forgotten_with_its_thread(file_store: SQLStore) -> None:
    journal, before = file_store.in_loop(), threading.active_count()
    for number in range(3):
        asyncio.run(begin(journal, message(f"m{number}")))
    gc.collect()
    assert len(journal._queues) == 0
    until_s = time.monotonic() + 10.0
    while threading.active_count() > before and time.monotonic() < until_s:
        time.sleep(0.01)
    assert threading.active_count() <= before, "threads of tests before may have ended meanwhile"


class Taking:
    async def send(self, message: Message, /) -> Receipt:
        await asyncio.sleep(0)
        return Receipt("scripted", f"SM-{message.id}", NOW)


def test_a_dispatcher_in_a_loop_asks_for_the_form_that_is_awaited(open_store: Callable[[], SQLStore]) -> None:
    store = open_store()
    dispatcher = AsyncDispatcher(Taking(), journal=store, sink=store, policy=RetryPolicy())
    progress = run_campaign((message(f"m{n}", f"Text {n}.") for n in range(300)), dispatcher, concurrency=50)
    summary = store.campaign_summary("spring")
    assert (progress.accepted, summary.sent, miscounted(store)) == (300, 300, {})


def test_as_a_sink_alone_it_counts_too(open_store: Callable[[], SQLStore]) -> None:
    store = open_store()
    run_campaign((message(f"m{n}") for n in range(100)), AsyncDispatcher(Taking(), sink=store), concurrency=20)
    assert (store.campaign_summary("spring").sent, miscounted(store)) == (100, {})
