"""Messages on their way through a journal: short words for tests."""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa

from smsretry import Dispatcher, Message, Outcome
from smsretry.core.claims import Begun, Claim
from smsretry.core.outcome import AttemptState
from smsretry.store import MessageState, SQLStore
from smsretry.store.moves import STATE_COUNTERS
from smsretry.testing import ScriptedSender

NUMBER = "+15005550006"
NEW = AttemptState()


def message(name: str, body: str = "", *, to: str = NUMBER, campaign: str | None = "spring", **more: Any) -> Message:
    return Message(to, body or f"A secret for {name}.", id=name, campaign=campaign, **more)


def begin(store: SQLStore, one: Message, hint: AttemptState = NEW, **options: Any) -> Begun:
    usual: dict[str, Any] = {"nonce": secrets.token_hex(8), "lease_s": 60.0, "account": "a", "most_deferred_s": 3600.0}
    return store.begin(one, hint=hint, **(usual | options))


def claimed(store: SQLStore, one: Message, hint: AttemptState = NEW, **options: Any) -> Claim:
    answer = begin(store, one, hint, **options)
    assert isinstance(answer, Claim), answer
    return answer


def attempt(store: SQLStore, one: Message, *script: Any, **options: Any) -> Outcome:
    """Make one attempt of ``one`` with a sender that answers ``script``."""
    return Dispatcher(ScriptedSender(script), journal=store, **options).attempt(one)


def row_of(store: SQLStore, message_id: str) -> Any:
    messages = store._schema.messages
    with store._database.reading() as connection:
        return connection.execute(sa.select(messages).where(messages.c.id == message_id)).one()


def everything_in(store: SQLStore) -> str:
    """Return all rows of all tables as text."""
    with store._database.reading() as connection:
        tables = store.metadata.sorted_tables
        return "\n".join(str(row) for table in tables for row in connection.execute(sa.select(table)))


def miscounted(store: SQLStore) -> dict[str, tuple[int, int]]:
    """Return the states of which the counters say another number than the rows do, at one instant."""
    messages, counters = store._schema.messages, store._schema.counters
    sums = [sa.func.coalesce(sa.func.sum(counters.c[name]), 0) for name in STATE_COUNTERS.values()]
    with store._database.reading() as connection:
        counted = dict(zip(STATE_COUNTERS, connection.execute(sa.select(*sums)).one(), strict=True))
        found = connection.execute(sa.select(messages.c.state, sa.func.count()).group_by(messages.c.state))
        there = {MessageState(state): number for state, number in found}
    return {
        state.value: (int(counted[state]), there.get(state, 0))
        for state in MessageState
        if counted[state] != there.get(state, 0)
    }
