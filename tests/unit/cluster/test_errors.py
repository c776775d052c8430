"""Errors survive the way between processes."""

import pickle

import pytest

from cluster import errors

EXAMPLES = [
    errors.SettingsError("A", "b", "c"),
    errors.ServiceUnavailableError("hub", "its actor", "it died"),
    errors.UnknownLaneError("x", ("general",)),
    errors.UnknownTaskError("x", ("train_model",)),
    errors.RunNotFoundError("r1"),
    errors.RunStateError("r1", "queued", "start"),
    errors.CircuitOpenError("mqtt_broker", 12.0),
    errors.CallTimeoutError("mqtt_broker", 10.0),
    errors.SoftLimitExceededError("t", 1.0),
    errors.HardLimitExceededError("t", 2.0),
    errors.TaskCancelledError("t"),
    errors.LaunchRefusedError("r1", "no"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_is_the_same_after_pickle(error: errors.ClusterError) -> None:
    """Fields and text come through."""
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_every_error_is_among_the_examples() -> None:
    """A new error cannot be forgotten here."""
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.ClusterError) and value is not errors.ClusterError
    }

    assert classes == {type(error) for error in EXAMPLES}
