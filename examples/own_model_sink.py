"""Count into an application's own tables: ``CampaignSend.sms_failed += 1``, done right.

Run it: ``python examples/own_model_sink.py``. It needs SQLAlchemy: ``pip install 'smsretry[sql]'``.

Three things make it right. The database adds (``SET sms_failed = sms_failed + 1``), so that no worker overwrites
another. The event's id is inserted first, in the same transaction, so that an event that comes again counts nothing.
And each message has one state, so that one which was unknown and turns out to be sent moves from one figure to the
other, in whatever order the two are told.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import ForeignKey, create_engine, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from smsretry import (
    Dispatcher,
    Event,
    Failure,
    FailureKind,
    GiveUpReason,
    Message,
    MessageAccepted,
    MessageFailed,
    NotAccepted,
    Receipt,
    RetryPolicy,
    RetryScheduled,
)
from smsretry.adapters.callables import send_with_retry
from smsretry.testing import ScriptedSender


class Base(DeclarativeBase):
    """Hold the application's tables."""


class CampaignSend(Base):
    """One send of a campaign: the application's own row, made before the first text is queued."""

    __tablename__ = "campaign_send"

    name: Mapped[str] = mapped_column(primary_key=True)
    sms_sent: Mapped[int] = mapped_column(default=0)
    sms_failed: Mapped[int] = mapped_column(default=0)
    sms_unknown: Mapped[int] = mapped_column(default=0)
    sms_retried: Mapped[int] = mapped_column(default=0)


class CampaignText(Base):
    """One text of a campaign: the figure of `CampaignSend` that it is counted in, if it has ended."""

    __tablename__ = "campaign_text"

    message_id: Mapped[str] = mapped_column(primary_key=True)
    campaign: Mapped[str] = mapped_column(ForeignKey(CampaignSend.name))
    counted_in: Mapped[str | None]


class CountedEvent(Base):
    """One event that was counted."""

    __tablename__ = "counted_event"

    event_id: Mapped[str] = mapped_column(primary_key=True)


WEIGHTS = {None: 0, "sms_failed": 1, "sms_unknown": 2, "sms_sent": 3}
"""Of two ends of one text the heavier holds: what was sent stays sent, and a failure disproves no doubt."""


class CampaignSink:
    """Count what happens to the texts of campaigns; one sink serves every thread, and every worker has its own."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def record(self, event: Event, /) -> None:
        """Count ``event`` once; one without a campaign has no row to be counted in."""
        if event.campaign is None:
            return
        with self._sessions() as session:
            try:
                session.execute(insert(CountedEvent).values(event_id=event.event_id))
            except IntegrityError:
                return  # counted before; leaving the block rolls back
            count(session, event)
            session.commit()


def count(session: Session, event: Event) -> None:
    """Change the campaign's figures by what ``event`` says."""
    match event:
        case RetryScheduled():
            add(session, event.campaign, {"sms_retried": 1})
        case MessageAccepted():
            end(session, event, "sms_sent")
        case MessageFailed(reason=GiveUpReason.OUTCOME_UNKNOWN):
            end(session, event, "sms_unknown")
        case MessageFailed():
            end(session, event, "sms_failed")
        case _:
            pass  # put off: nothing has ended


def end(session: Session, event: Event, figure: str) -> None:
    """Move the text of ``event`` to ``figure`` unless a weightier word was said about it."""
    # The campaign's row first: whoever holds it is alone with the texts of the campaign until the commit.
    session.execute(select(CampaignSend.name).where(CampaignSend.name == event.campaign).with_for_update())
    text = session.get(CampaignText, event.message_id)
    if text is None:
        text = CampaignText(message_id=event.message_id, campaign=event.campaign, counted_in=None)
        session.add(text)
    before = text.counted_in
    if WEIGHTS[figure] > WEIGHTS[before]:
        text.counted_in = figure
        session.flush()
        add(session, event.campaign, {figure: 1} if before is None else {figure: 1, before: -1})


def add(session: Session, campaign: str | None, changes: dict[str, int]) -> None:
    """Let the database add ``changes`` to the figures of ``campaign``."""
    sums = {name: getattr(CampaignSend, name) + change for name, change in changes.items()}
    session.execute(update(CampaignSend).where(CampaignSend.name == campaign).values(sums))


TAKEN = Receipt("scripted", "SM1", datetime(2026, 3, 1, tzinfo=UTC))
BUSY = Failure.of(FailureKind.RATE_LIMITED, code=20429)
NO_SUCH_NUMBER = Failure.of(FailureKind.INVALID_NUMBER, code=21211)


def main() -> None:
    """Send three texts: one at once, one at the third attempt, one to a number that does not exist."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'shop.db'}")
        Base.metadata.create_all(engine)
        sessions = sessionmaker(engine)
        with sessions.begin() as session:
            session.add(CampaignSend(name="spring"))

        sender = ScriptedSender([TAKEN, BUSY, BUSY, TAKEN, NO_SUCH_NUMBER])
        dispatcher = Dispatcher(sender, policy=RetryPolicy(first_delay_s=0.1), sink=CampaignSink(sessions))
        for customer in ("ann", "bob", "cid"):
            try:
                send_with_retry(dispatcher, Message("+14155550101", "It is spring.", id=customer, campaign="spring"))
            except NotAccepted as error:
                print(error)
        with sessions() as session:
            spring = session.get_one(CampaignSend, "spring")
            print(f"sent {spring.sms_sent}, failed {spring.sms_failed}, retried {spring.sms_retried}")
        engine.dispose()


if __name__ == "__main__":
    main()
