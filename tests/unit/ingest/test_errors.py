"""Ingest's errors survive the way between processes."""

import pickle

import pytest

from ingest import errors
from ingest.payload import PayloadError, Reason

EXAMPLES = [
    errors.IngestError(),
    errors.StoreUnavailableError("sql", "locked"),
    errors.StoreFullError("telemetry", "90% of its memory"),
    errors.StoreRefusedError("sql", "DataError"),
    errors.StoreUnsafeError("telemetry", "maxmemory-policy", "allkeys-lru", "noeviction"),
    errors.BrokerUnavailableError("127.0.0.1:1883", "refused"),
    errors.BrokerRefusedError("127.0.0.1:1883", "Not authorized"),
    errors.CommandNotFoundError("c1"),
    errors.CommandConflictError("r1"),
    errors.DeviceBusyError("acme/pump-7", 100),
    errors.DirectoryNotFoundError("device acme/pump-7"),
    errors.DirectoryReferenceError("device acme/pump-7", "user nora"),
    errors.DirectoryConflictError("tenant acme", "tenant acme is in use: 2 users"),
    errors.ScorerError("anomaly_detector", "v1", "no such file"),
    errors.StaleRevisionError("champion", 3),
    errors.AlertNotFoundError("a1"),
    errors.AlertConflictError(4),
    errors.SilenceNotFoundError("s1"),
    errors.HeartbeatNotFoundError("crane-4"),
    errors.VersionConflictError("alert", {"a1": 1}, {"a1": 2}),
    errors.RulesFileError("rules.yaml", ("line 1: is no YAML",)),
    errors.ReceiverUnavailableError("example.com", "503"),
    errors.ReceiverRefusedError("example.com", 429, "busy", 30.0),
    errors.DeadLetterNotFoundError(7),
]


@pytest.mark.parametrize(
    "error", [*EXAMPLES, PayloadError(Reason.NOT_JSON, "x")], ids=lambda error: type(error).__name__
)
def test_error_is_the_same_after_pickle(error: Exception) -> None:
    """Fields and text come through."""
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_every_error_is_among_the_examples() -> None:
    """A new error cannot be forgotten here."""
    classes = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.IngestError)
    }

    assert classes == {type(error) for error in EXAMPLES}
