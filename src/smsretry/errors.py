"""What the library raises.

::

    SMSRetryError
    ├── InvalidMessage (also ValueError)       a message that no provider could take
    ├── ConfigurationError                     a missing credential, a setting that breaks a promise
    ├── ProviderError                          raised by a sender that states the failure itself
    └── NotAccepted                            a message that has ended without being accepted
        ├── SendFailed                         it was not taken: refused, expired or out of retries
        └── SendUnknown                        nobody can say whether it was taken

Every field is an argument of the exception, and JSON, so that pickle and Celery's result backends bring it back whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from smsretry.core.failure import Failure
    from smsretry.core.outcome import GaveUp, GiveUpReason


_TOLD: Final = frozenset({"DatabaseError", "InterfaceError", "OperationalError", "ProgrammingError"})
"""SQLAlchemy's errors about a connection, a file, a table or a right, and about no value."""


class SMSRetryError(Exception):
    """Be the base of everything that the library raises."""


class InvalidMessage(SMSRetryError, ValueError):
    """Say which field of a message is wrong, what was got and what to do."""


class ConfigurationError(SMSRetryError):
    """Say which setting is missing or would break a promise, and what to set."""


class ProviderError(SMSRetryError):
    """Let a sender state the `Failure` itself, where no exception of its client says it.

    ``args`` is the failure as a JSON object.
    """

    def __init__(self, failure: Failure | dict[str, Any]) -> None:
        super().__init__(failure if isinstance(failure, dict) else failure.to_dict())

    @property
    def failure(self) -> Failure:
        """Return the failure that the sender stated."""
        from smsretry.core.failure import Failure  # core imports errors

        return Failure.from_dict(self.args[0])

    def __str__(self) -> str:
        match self.args:
            case (dict() as failure,):
                return _described(failure)
            case _:  # somebody changed args
                return super().__str__()


class NotAccepted(SMSRetryError):
    """Be raised where a message has ended without being accepted: catch this one to catch both.

    ``args`` is ``(message_id, reason, attempts, failure)`` as JSON scalars and one JSON object.
    """

    def __init__(self, message_id: str, reason: str, attempts: int, failure: dict[str, Any]) -> None:
        super().__init__(message_id, str(reason), attempts, failure)

    @property
    def message_id(self) -> str:
        """Return the id of the message."""
        return str(self.args[0])

    @property
    def reason(self) -> GiveUpReason:
        """Return why it was given up."""
        from smsretry.core.outcome import GiveUpReason  # core imports errors

        return GiveUpReason(self.args[1])

    @property
    def attempts(self) -> int:
        """Return how many times the sender was called, also where it refused by itself and asked no provider."""
        return int(self.args[2])

    @property
    def failure(self) -> Failure:
        """Return what the last attempt ran into."""
        from smsretry.core.failure import Failure  # core imports errors

        return Failure.from_dict(self.args[3])

    def __str__(self) -> str:
        match self.args:
            case (message_id, reason, attempts, dict() as failure):
                return f"{message_id}: {reason} after {attempts} attempt(s): {_described(failure)}"
            case _:  # somebody changed args
                return super().__str__()


class SendFailed(NotAccepted):
    """Say that the provider did not take the message, and that it will not be tried again."""


class SendUnknown(NotAccepted):
    """Say that nobody can tell whether the provider took the message: do not resend it blindly."""


def not_accepted(message_id: str, ended: GaveUp) -> NotAccepted:
    """Return the exception that says how message ``message_id`` ended."""
    from smsretry.core.outcome import GiveUpReason  # core imports errors

    kind = SendUnknown if ended.reason is GiveUpReason.OUTCOME_UNKNOWN else SendFailed
    return kind(message_id, ended.reason.value, ended.attempts, ended.failure.to_dict())


def _described(failure: dict[str, Any]) -> str:
    code = f" {failure['code']}" if failure.get("code") is not None else ""
    detail = f" ({failure['detail']})" if failure.get("detail") else ""
    return f"{failure.get('kind', 'other')}{code}{detail}"


def reason_of(error: BaseException) -> str:
    """Return what a log may say of ``error``: its type, and where they repeat no value its words.

    Those are the words of a `ConfigurationError`, which are ours, and the first line of a database's driver about a
    connection, a file or a table; below it, and in what it says of a value, may stand what was to be written.
    """
    name = type(error).__qualname__
    words = str(error) if isinstance(error, ConfigurationError) else _of_driver(error)
    return f"{name}: {words}" if words else name


def _of_driver(error: BaseException) -> str:
    """Return what the driver said on its first line, where ``error`` is SQLAlchemy's and may be told; else ''."""
    kind, said = type(error), getattr(error, "orig", None)
    if kind.__module__ != "sqlalchemy.exc" or kind.__name__ not in _TOLD or not isinstance(said, BaseException):
        return ""
    from smsretry.core.mask import mask_numbers_in  # core imports errors

    return mask_numbers_in(str(said).strip().partition("\n")[0])
