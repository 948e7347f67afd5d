"""Keep what happened to every message in a database: SQLite or PostgreSQL, through SQLAlchemy."""

try:
    __import__("sqlalchemy")
except ModuleNotFoundError as _error:
    if _error.name != "sqlalchemy":
        raise
    _msg = "smsretry.store needs SQLAlchemy. Install it: pip install 'smsretry[sql]'"
    raise ModuleNotFoundError(_msg, name="sqlalchemy") from _error

from smsretry.store.moves import AttemptOutcome, MessageState
from smsretry.store.records import AttemptRecord, CampaignSummary, MessageRecord, Purged, ReasonCount
from smsretry.store.recovery import Overdue, Recovered, recover, requeue
from smsretry.store.sql import SQLStore

__all__ = [
    "AttemptOutcome",
    "AttemptRecord",
    "CampaignSummary",
    "MessageRecord",
    "MessageState",
    "Overdue",
    "Purged",
    "ReasonCount",
    "Recovered",
    "SQLStore",
    "recover",
    "requeue",
]
