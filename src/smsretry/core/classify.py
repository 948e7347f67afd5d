"""Turn any exception of a sender into one `Failure`."""

from __future__ import annotations

from collections.abc import Callable

from smsretry.core.failure import Failure, FailureKind
from smsretry.errors import ConfigurationError, InvalidMessage, ProviderError


def classify_error(error: Exception) -> Failure:
    """Classify ``error`` by its type alone; what nobody listed may have been sent. Never raises."""
    match error:
        case ProviderError():
            return error.failure
        case InvalidMessage():
            return Failure.of(FailureKind.CONTENT, detail=str(error))
        case ConfigurationError():
            return Failure.of(FailureKind.SENDER_CONFIG, detail=str(error))
        case _:
            return Failure.of(FailureKind.LOST_ANSWER, detail=type(error).__qualname__, unmapped=True)


def chain(*classifiers: Callable[[Exception], Failure | None]) -> Callable[[Exception], Failure]:
    """Return a classifier that asks each of ``classifiers`` in turn and `classify_error` last."""

    def classify(error: Exception) -> Failure:
        for classifier in classifiers:
            if (failure := classifier(error)) is not None:
                return failure
        return classify_error(error)

    return classify
