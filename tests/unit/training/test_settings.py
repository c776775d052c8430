"""Settings of a training: presets, ranges, and hyperparameters as users type them."""

from typing import Any

import pytest

from training.errors import HyperparameterError
from training.settings import PRESETS, TrainSettings, receptive_field, with_hyperparameters


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_usable(name: str) -> None:
    """A preset builds settings that pass their own checks."""
    assert isinstance(PRESETS[name](), TrainSettings)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("epochs", 0, id="no-epoch"),
        pytest.param("batch_size", -1, id="negative-batch"),
        pytest.param("learning_rate", 0.0, id="no-step"),
        pytest.param("holdout_fraction", 0.0, id="nothing-held-out"),
        pytest.param("holdout_fraction", 0.9, id="nothing-to-train-on"),
        pytest.param("num_layers", 9, id="too-deep"),
        pytest.param("context", 3, id="shorter-than-the-head-looks-back"),
        pytest.param("accelerator", "tpu", id="unknown-accelerator"),
        pytest.param("seed", -1, id="negative-seed"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_and_itself(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .*got {value}"):
        TrainSettings(**{field: value})


def test_hyperparameters_are_taken_as_text_and_by_their_short_names() -> None:
    """``--set lr=0.01 --set epochs=3`` and a JSON body mean the same."""
    from_text = with_hyperparameters(TrainSettings(), {"lr": "0.01", "epochs": "3"})

    assert from_text == with_hyperparameters(TrainSettings(), {"learning_rate": 0.01, "epochs": 3})
    assert (from_text.learning_rate, from_text.epochs) == (0.01, 3)


def test_two_hyperparameters_that_only_together_are_right_are_taken() -> None:
    """A short context is too short for four layers, but not for two."""
    settings = with_hyperparameters(TrainSettings(), {"context": 8, "num_layers": 2})

    assert settings.context >= receptive_field(settings.num_layers)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        pytest.param({"momentum": "0.9"}, "hyperparameter momentum='0.9': no such one", id="unknown"),
        pytest.param({"epochs": "many"}, "hyperparameter epochs='many': must be of type int", id="not-a-number"),
        pytest.param({"epochs": 2.5}, "hyperparameter epochs='2.5': must be of type int", id="half-an-epoch"),
        pytest.param({"epochs": True}, "hyperparameter epochs='True': must be of type int", id="boolean"),
        pytest.param({"lr": "-1"}, "hyperparameter learning_rate='-1.0': learning_rate must be above 0", id="range"),
        pytest.param({"lr": "nan"}, "hyperparameter learning_rate='nan'", id="nan"),
        pytest.param({"workers": "0"}, "hyperparameter num_workers='0': a run has at least one worker", id="no-worker"),
        pytest.param({"epochs": {"a": 1}}, "must be of type int", id="object"),
    ],
)
def test_a_hyperparameter_that_cannot_be_used_is_named(values: dict[str, Any], text: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        with_hyperparameters(TrainSettings(), values)

    assert text in str(caught.value)
