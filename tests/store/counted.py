"""Count the messages of a store anew from their rows, in other words than the store's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from smsretry.store import SQLStore
from smsretry.store.moves import COUNTERS, STATE_COUNTERS

ARRIVED = frozenset({"delivered", "read"})
REFUSED = frozenset({"undelivered", "failed", "canceled"})
ENDED_UNSENT = frozenset({"failed", "expired", "canceled", "suppressed", "skipped"})
ON_THE_WAY = frozenset({"sms_retried", "sms_deferred", "sms_doubled"})
"""What happened on the way, and no row of a message tells."""


def rows_and_counters(store: SQLStore) -> tuple[dict[str, Any], Counter[str]]:
    """Return the rows of all messages by id, and the counters of all campaigns, at one instant."""
    table = store._schema.counters
    with store._database.reading() as connection:
        rows = {row.id: row for row in connection.execute(sa.select(store._schema.messages))}
        shards = connection.execute(sa.select(*(table.c[name] for name in COUNTERS))).all()
    return rows, Counter({name: sum(int(getattr(shard, name)) for shard in shards) for name in COUNTERS})


def counted_in(rows: Iterable[Any]) -> Counter[str]:
    """Return what the counters must be for these messages."""
    sums: Counter[str] = Counter(dict.fromkeys(set(COUNTERS) - ON_THE_WAY, 0))
    for row in rows:
        assert row.state == "accepted" or row.delivery is None
        sums[next(name for state, name in STATE_COUNTERS.items() if state == row.state)] += 1
        sums["sms_delivered"] += row.delivery in ARRIVED
        sums["sms_undelivered"] += row.delivery in REFUSED
        sums["sms_no_report"] += row.delivery == "no_report"
        sums["sms_delivery_retries"] += row.delivery_retries
        if row.delivery_retries:
            sums["sms_delivered_after_retry"] += row.delivery in ARRIVED
            failed_too = row.state in ENDED_UNSENT or row.delivery in REFUSED | {"no_report"}
            sums["sms_retries_in_vain"] += row.delivery_retries - (not failed_too)
    return sums


def differing(counters: Counter[str], counted: Counter[str]) -> dict[str, tuple[int, int]]:
    """Return the counters that say another number than the rows do."""
    return {name: (counters[name], count) for name, count in counted.items() if counters[name] != count}
