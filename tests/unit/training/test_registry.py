"""Model versions on storage: immutable, hashed, and refused when they are not what they say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ingest.errors import ScorerError
from ingest.live_models import LiveModel
from ingest.scorer import load_scorer as load_by_entry_point
from training.errors import ModelFileError, ModelVersionExistsError, ModelVersionNotFoundError
from training.models.anomaly import MODEL_TYPE, load_scorer
from training.models.forecaster import ForecasterConfig, ResidualForecaster
from training.models.weights import dump_weights
from training.registry.manifest import MANIFEST, WEIGHTS, Manifest
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry, read_version

CREATED_S = 1_700_000_000.0


@pytest.fixture
def model() -> ResidualForecaster:
    torch.manual_seed(0)
    model = ResidualForecaster(ForecasterConfig(context=16, channels=4, num_layers=2))
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def registry(storage: Storage) -> ModelRegistry:
    return ModelRegistry(storage)


@pytest.fixture
def manifest(registry: ModelRegistry, model: ResidualForecaster) -> Manifest:
    return add(registry, model)


@pytest.fixture
def folder(tmp_path: Path, manifest: Manifest) -> Path:
    return tmp_path / "storage" / "models" / MODEL_TYPE / manifest.version


def add(registry: ModelRegistry, model: ResidualForecaster, created_s: float = CREATED_S, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "config": model.config.to_json(),
        "dataset": {"name": "made", "digest": "d" * 64},
        "metrics": {"loss": 0.5, "accuracy": 0.9},
        "settings": {},
        "seed": 0,
        "run_id": "01RUN",
        "user_id": "ada",
        "libraries": {"torch": "2"},
    }
    weights = dump_weights(model.state_dict())
    return registry.add(model_type=MODEL_TYPE, weights=weights, created_at_s=created_s, **(fields | changes))


def test_a_version_is_read_back_as_it_was_written(registry: ModelRegistry, manifest: Manifest) -> None:
    """The manifest survives its JSON, and the weights their hash."""
    found, weights = read_version(registry.uri(manifest), model_type=MODEL_TYPE, version=manifest.version)

    assert found == manifest
    assert len(weights) == manifest.files[WEIGHTS].bytes
    assert registry.versions(MODEL_TYPE) == [manifest.version]
    assert registry.manifest(MODEL_TYPE, manifest.version) == manifest


def test_versions_sort_by_the_time_they_were_made(registry: ModelRegistry, model: ResidualForecaster) -> None:
    newer, older = add(registry, model, CREATED_S + 3600), add(registry, model, CREATED_S)

    assert registry.versions(MODEL_TYPE) == [older.version, newer.version]


def test_a_runs_version_is_found_by_its_weights(registry: ModelRegistry, model: ResidualForecaster) -> None:
    """A run whose worker was lost after it had registered finds what it has, and not another run's equal one."""
    mine, others = add(registry, model), add(registry, model, CREATED_S + 1, run_id="02RUN")
    weights = dump_weights(model.state_dict())

    assert registry.of_run(MODEL_TYPE, "01RUN", weights) == mine
    assert registry.of_run(MODEL_TYPE, "02RUN", weights) == others
    assert registry.of_run(MODEL_TYPE, "03RUN", weights) is None
    assert registry.of_run(MODEL_TYPE, "01RUN", weights + b" ") is None


def test_a_version_is_never_written_twice(
    registry: ModelRegistry, model: ResidualForecaster, manifest: Manifest, folder: Path
) -> None:
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(ModelVersionExistsError):
        add(registry, model, run_id="another")

    assert (folder / MANIFEST).read_bytes() == before


def test_a_version_without_a_manifest_does_not_exist(registry: ModelRegistry, manifest: Manifest, folder: Path) -> None:
    """The manifest is written last: a crash before it leaves nothing that anybody would load."""
    (folder / MANIFEST).unlink()

    assert registry.versions(MODEL_TYPE) == []
    with pytest.raises(ModelVersionNotFoundError):
        registry.manifest(MODEL_TYPE, manifest.version)


@pytest.mark.parametrize("version", ["../other", "a/b", "", "..", "missing"])
def test_a_name_cannot_lead_out_of_the_registry(registry: ModelRegistry, version: str) -> None:
    with pytest.raises(ModelVersionNotFoundError):
        registry.manifest(MODEL_TYPE, version)


def _truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


def _flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))


def _remove_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _garble_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:50])


def _edit(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | changes
    (folder / MANIFEST).write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        pytest.param(_truncate, "bytes, its manifest says", id="truncated-weights"),
        pytest.param(_flip_a_bit, "SHA-256 differs", id="changed-weights"),
        pytest.param(_remove_weights, "cannot be read", id="missing-weights"),
        pytest.param(_garble_manifest, "not JSON", id="truncated-manifest"),
        pytest.param(lambda folder: _edit(folder, format=2), "format 2", id="newer-format"),
        pytest.param(lambda folder: _edit(folder, surprise=1), "lacks or adds fields: surprise", id="unknown-field"),
        pytest.param(lambda folder: _edit(folder, seed="x"), "seed is not of type int", id="wrong-type"),
        pytest.param(lambda folder: _edit(folder, files={}), "lists no weights", id="no-files"),
        pytest.param(
            lambda folder: _edit(folder, version="other"), "it holds anomaly_detector@other", id="other-version"
        ),
        pytest.param(lambda folder: _edit(folder, config={"context": 16}), "missing", id="incomplete-shape"),
        pytest.param(
            lambda folder: _edit(folder, config={"context": 16, "channels": 8, "num_layers": 2}),
            "the model has",
            id="other-shape",
        ),
    ],
)
def test_files_that_are_not_what_was_registered_are_refused(
    spoil: Any, text: str, registry: ModelRegistry, manifest: Manifest, folder: Path
) -> None:
    """One clear error that names the place and the reason; nothing is loaded."""
    spoil(folder)

    with pytest.raises(ModelFileError) as caught:
        load_scorer(registry.uri(manifest), manifest.version)
    assert text in str(caught.value)
    assert registry.uri(manifest) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins", id="pickle"),
        pytest.param(b"PK\x03\x04" + 100 * b"\0", id="torch-zip"),
    ],
)
def test_a_file_of_another_kind_is_refused_although_its_hash_is_right(
    content: bytes, registry: ModelRegistry, model: ResidualForecaster
) -> None:
    """Whoever can write the manifest can write the hash too; the content must still be safetensors."""
    manifest = registry.add(
        model_type=MODEL_TYPE,
        weights=content,
        created_at_s=CREATED_S,
        config=model.config.to_json(),
        dataset={},
        metrics={},
        settings={},
        seed=0,
        run_id="",
        user_id="",
        libraries={},
    )

    with pytest.raises(ModelFileError, match="not a safetensors file"):
        load_scorer(registry.uri(manifest), manifest.version)


def test_weights_that_are_not_finite_are_refused(registry: ModelRegistry, model: ResidualForecaster) -> None:
    with torch.no_grad():
        model.ar.weight[0, 0] = float("nan")
    manifest = add(registry, model)

    with pytest.raises(ModelFileError, match=r"ar\.weight holds numbers that are not finite"):
        load_scorer(registry.uri(manifest), manifest.version)


def test_the_detector_loads_a_version_by_its_entry_point(
    registry: ModelRegistry, model: ResidualForecaster, manifest: Manifest
) -> None:
    """``pyproject.toml`` names the loader; the scorer is the network that was registered."""
    live = LiveModel("champion", manifest.model_type, manifest.version, registry.uri(manifest), 1, 0.0)
    scorer = load_by_entry_point(live)
    windows = np.random.default_rng(0).normal(size=(300, 17)).astype(np.float32)

    assert (scorer.name, scorer.version, scorer.context) == (MODEL_TYPE, manifest.version, 16)
    expected = model.residuals(torch.from_numpy(windows)).detach().numpy()
    np.testing.assert_allclose(scorer.residuals(windows), expected, rtol=1e-4, atol=1e-5)


def test_a_window_gets_the_same_residual_in_any_batch(registry: ModelRegistry, manifest: Manifest) -> None:
    """Alone, among others, and behind the chunk that is scored at once."""
    scorer = load_scorer(registry.uri(manifest), manifest.version)
    windows = np.random.default_rng(1).normal(size=(600, 17)).astype(np.float32)
    windows.setflags(write=False)
    together = scorer.residuals(windows)

    assert together.shape == (600,)
    assert (together >= 0).all()
    for index in (0, 255, 256, 599):
        np.testing.assert_allclose(
            together[index], scorer.residuals(windows[index : index + 1])[0], rtol=1e-5, atol=1e-6
        )


def test_a_refused_version_reaches_the_detector_as_its_own_error(registry: ModelRegistry, manifest: Manifest) -> None:
    """The detector keeps the model it has and shows this text."""
    live = LiveModel("champion", MODEL_TYPE, manifest.version, registry.uri(manifest) + "x", 1, 0.0)

    with pytest.raises(ScorerError, match="cannot be read"):
        load_by_entry_point(live)
