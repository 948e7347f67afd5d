"""The contract kit lets a right sink through, and names what a broken one breaks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from smsretry import AnalyticsSink, Event, GiveUpReason, MessageAccepted, MessageFailed, RetryScheduled
from smsretry.store import SQLStore
from smsretry.testing import RecordingSink
from smsretry.testing import sink_contract as kit
from smsretry.testing.sink_contract import CHECKS, ContractBroken, SinkContract, SinkCounts


def counts_of(store: SQLStore, campaign: str) -> SinkCounts:
    summary = store.campaign_summary(campaign)
    return SinkCounts(
        sent=summary.sent,
        failed=summary.failed + summary.expired,
        unknown=summary.unknown,
        retried=summary.retried,
        deferred=summary.deferred,
    )


class TestSQLStoreOnSQLite(SinkContract):
    stores: list[SQLStore]

    @pytest.fixture(autouse=True)
    def open_file(self, tmp_path: Path) -> object:
        self.url, self.stores = f"sqlite:///{tmp_path / 'sms.db'}", []
        yield
        for store in self.stores:
            store.close()

    def make_sink(self) -> SQLStore:
        self.stores.append(SQLStore(self.url))
        return self.stores[-1]

    def read_counts(self, campaign: str) -> SinkCounts:
        return counts_of(self.make_sink(), campaign)


@pytest.mark.integration
class TestSQLStoreOnPostgreSQL(SinkContract):
    @pytest.fixture(autouse=True)
    def open_database(self, postgres_url: str) -> object:
        self.engine = sa.create_engine(postgres_url)
        self.prefix = f"k{uuid.uuid4().hex[:12]}_"
        yield
        self.make_sink().metadata.drop_all(self.engine)
        self.engine.dispose()

    def make_sink(self) -> SQLStore:
        return SQLStore(self.engine, table_prefix=self.prefix)

    def read_counts(self, campaign: str) -> SinkCounts:
        return counts_of(self.make_sink(), campaign)


class Figures:
    """Be the storage of the sinks below: per campaign, what each message is counted in, and what was counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: set[str] = set()
        self.ends: dict[tuple[str | None, str], str] = {}
        self.retried: Counter[str | None] = Counter()

    def read_counts(self, campaign: str) -> SinkCounts:
        ends = Counter(end for (of, _), end in self.ends.items() if of == campaign)
        return SinkCounts(
            sent=ends["sent"], failed=ends["failed"], unknown=ends["unknown"], retried=self.retried[campaign]
        )


WEIGHTS = ("failed", "unknown", "sent")


class RightSink:
    """Count right, in memory; each broken sink differs from it in one thing."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def record(self, event: Event, /) -> None:
        with self.figures.lock:
            if self.is_new(event):
                self.count(event)

    def is_new(self, event: Event) -> bool:
        new = event.event_id not in self.figures.known
        self.figures.known.add(event.event_id)
        return new

    def count(self, event: Event) -> None:
        match event:
            case RetryScheduled():
                self.count_retry(event)
            case MessageAccepted():
                self.end(event, "sent")
            case MessageFailed(reason=GiveUpReason.OUTCOME_UNKNOWN):
                self.end(event, "unknown")
            case MessageFailed():
                self.end(event, "failed")
            case _:
                pass

    def count_retry(self, event: Event) -> None:
        self.figures.retried[event.campaign] += 1

    def end(self, event: Event, figure: str) -> None:
        before = self.figures.ends.get((event.campaign, event.message_id))
        if before is None or WEIGHTS.index(figure) > WEIGHTS.index(before):
            self.figures.ends[event.campaign, event.message_id] = figure


class CountsEachCall(RightSink):
    def is_new(self, event: Event) -> bool:
        return True


class RemembersByItself(RightSink):
    def __init__(self, figures: Figures) -> None:
        super().__init__(figures)
        self.own: set[str] = set()

    def is_new(self, event: Event) -> bool:
        new = event.event_id not in self.own
        self.own.add(event.event_id)
        return new


class KnowsMessagesOnly(RightSink):
    def is_new(self, event: Event) -> bool:
        new = event.message_id not in self.figures.known
        self.figures.known.add(event.message_id)
        return new


class CallsUnknownFailed(RightSink):
    def end(self, event: Event, figure: str) -> None:
        super().end(event, "failed" if figure == "unknown" else figure)


class NeverMoves(RightSink):
    def end(self, event: Event, figure: str) -> None:
        self.figures.ends.setdefault((event.campaign, event.message_id), figure)


class CountsBothEnds(RightSink):
    def end(self, event: Event, figure: str) -> None:
        self.figures.ends[event.campaign, f"{event.message_id}-{figure}"] = figure


class NeedsACampaign(RightSink):
    def count(self, event: Event) -> None:
        assert event.campaign is not None
        super().count(event)


class MixesCampaigns(RightSink):
    def end(self, event: Event, figure: str) -> None:
        self.figures.ends[kit.CAMPAIGNS[0], event.message_id] = figure


class NeedsTheOrder(RightSink):
    def count_retry(self, event: Event) -> None:
        if (event.campaign, event.message_id) not in self.figures.ends:
            super().count_retry(event)


class LosesUnderThreads(RightSink):
    def record(self, event: Event, /) -> None:
        if self.is_new(event):
            self.count(event)

    def count_retry(self, event: Event) -> None:
        before = self.figures.retried[event.campaign]
        time.sleep(0.002)  # what another thread counts meanwhile is lost
        self.figures.retried[event.campaign] = before + 1


class BreaksUnderThreads(RightSink):
    def record(self, event: Event, /) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("one thread only")
        super().record(event)


def complaint(make: Callable[[Figures], AnalyticsSink], check: Callable[..., None]) -> str:
    figures = Figures()
    try:
        check(lambda: make(figures), figures.read_counts)
    except ContractBroken as broken:
        return str(broken)
    return ""


@pytest.mark.parametrize("check", CHECKS)
def test_a_right_sink_passes_every_check(check: Callable[..., None]) -> None:
    assert complaint(RightSink, check) == ""


@pytest.mark.parametrize(
    ("broken", "check", "says"),
    [
        (CountsEachCall, kit.check_a_repeated_event_counts_once, "retried must be 6, got 18"),
        (RemembersByItself, kit.check_a_new_sink_remembers, "another worker recorded counts once: retried must be 6"),
        (KnowsMessagesOnly, kit.check_each_message_counts, "Each message counts: sent must be 2, got 1"),
        (CallsUnknownFailed, kit.check_unknown_is_not_failed, "Unknown is not failed: failed must be 0, got 1"),
        (NeverMoves, kit.check_an_unknown_message_may_turn_out_sent, "sent must be 1, got 0"),
        (CountsBothEnds, kit.check_an_unknown_message_may_turn_out_sent, "unknown must be 0, got 1"),
        (NeedsACampaign, kit.check_every_event_is_taken, "'retry_scheduled' (campaign None) raised AssertionError"),
        (MixesCampaigns, kit.check_campaigns_are_kept_apart, "sent must be 1, got 3"),
        (NeedsTheOrder, kit.check_order_does_not_matter, "retried must be 6, got 0"),
        (LosesUnderThreads, kit.check_threads_lose_nothing, "retried must be 24, got"),
        (BreaksUnderThreads, kit.check_threads_lose_nothing, "got RuntimeError('one thread only')"),
    ],
)
def test_a_broken_sink_is_caught_and_told_what_it_broke(
    broken: Callable[[Figures], AnalyticsSink], check: Callable[..., None], says: str
) -> None:
    assert says in complaint(broken, check)


def test_a_sink_that_counts_nothing_is_caught() -> None:
    def make(_: Figures) -> AnalyticsSink:
        return RecordingSink()

    assert complaint(make, kit.check_each_message_counts).startswith("Each message counts: sent must be 2, got 0.")


def test_a_figure_that_a_sink_does_not_keep_is_not_checked() -> None:
    kit.check_each_message_counts(RecordingSink, lambda _: SinkCounts())


def test_every_check_is_a_test_of_the_base_class() -> None:
    tests = {name.removeprefix("test_") for name in vars(SinkContract) if name.startswith("test_")}
    assert tests == {check.__name__.removeprefix("check_") for check in CHECKS}


def test_the_kit_needs_no_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import smsretry.testing.sink_contract"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
