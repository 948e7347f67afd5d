"""The example that counts into an application's own tables keeps the promise of a sink."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from examples.own_model_sink import Base, CampaignSend, CampaignSink, CampaignText
from sqlalchemy.orm import Session, sessionmaker

from examples import own_model_sink as example
from smsretry import Dispatcher, Failure, FailureKind, Message, RetryPolicy, SendFailed
from smsretry.adapters.callables import send_with_retry
from smsretry.testing import RecordingSink, ScriptedSender
from smsretry.testing.sink_contract import CAMPAIGNS, SinkContract, SinkCounts


def prepared(engine: sa.Engine) -> sessionmaker[Session]:
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with sessions.begin() as session:
        session.add_all(CampaignSend(name=name) for name in CAMPAIGNS)
    return sessions


class OwnTables(SinkContract):
    sessions: sessionmaker[Session]

    def make_sink(self) -> CampaignSink:
        return CampaignSink(self.sessions)

    def read_counts(self, campaign: str) -> SinkCounts:
        with self.sessions() as session:
            row = session.get_one(CampaignSend, campaign)
            return SinkCounts(
                sent=row.sms_sent, failed=row.sms_failed, unknown=row.sms_unknown, retried=row.sms_retried
            )


class TestOwnTablesOnSQLite(OwnTables):
    @pytest.fixture(autouse=True)
    def open_file(self, tmp_path: Path) -> Iterator[None]:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
        self.sessions = prepared(engine)
        yield
        engine.dispose()


@pytest.mark.integration
class TestOwnTablesOnPostgreSQL(OwnTables):
    @pytest.fixture(autouse=True)
    def open_schema(self, postgres_url: str) -> Iterator[None]:
        name = f"shop_{uuid.uuid4().hex[:12]}"
        engine = sa.create_engine(postgres_url, execution_options={"schema_translate_map": {None: name}})
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(name))
        self.sessions = prepared(engine)
        yield
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(name, cascade=True))
        engine.dispose()


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    yield prepared(engine)
    engine.dispose()


def test_a_text_that_fails_for_good_is_one_failure_of_its_campaign(sessions: sessionmaker[Session]) -> None:
    busy = Failure.of(FailureKind.RATE_LIMITED, code=20429)
    sender = ScriptedSender([busy], repeat=True)
    dispatcher = Dispatcher(sender, policy=RetryPolicy(first_delay_s=0.0), sink=CampaignSink(sessions))
    with pytest.raises(SendFailed):
        send_with_retry(dispatcher, Message("+14155550101", "It is spring.", id="ann", campaign=CAMPAIGNS[0]))
    with sessions() as session:
        row = session.get_one(CampaignSend, CAMPAIGNS[0])
        assert (row.sms_sent, row.sms_failed, row.sms_retried) == (0, 1, 3)
        assert session.get_one(CampaignText, "ann").counted_in == "sms_failed"


def test_workers_that_count_at_once_lose_nothing(sessions: sessionmaker[Session]) -> None:
    told = RecordingSink()
    dispatcher = Dispatcher(ScriptedSender(), sink=told)
    for number in range(20):
        dispatcher.attempt(Message("+14155550101", "It is spring.", id=f"m{number}", campaign=CAMPAIGNS[0]))

    def work() -> None:
        sink = CampaignSink(sessions)
        for event in told.events:
            sink.record(event)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sessions() as session:
        assert session.get_one(CampaignSend, CAMPAIGNS[0]).sms_sent == 20


def test_the_example_runs_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    assert capsys.readouterr().out.splitlines() == [
        "cid: permanent after 1 attempt(s): invalid_number 21211",
        "sent 2, failed 1, retried 2",
    ]
