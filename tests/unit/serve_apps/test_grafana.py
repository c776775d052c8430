"""The Grafana dashboard asks for metrics that exist, and for every one that there is."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.metrics import REGISTRY

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "deploy" / "grafana" / "watchfloor.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SEED = (
    "websocket_broadcast_success",
    "websocket_broadcast_failure",
    "websocket_broadcast_duration_seconds",
    "ml_model_trained",
    "ml_training_duration_seconds",
    "active_learning_samples_identified",
    "dataset_samples_labeled",
    "external_service_circuit_open",
    "external_service_circuit_closed",
    "external_service_call_timeout",
    "external_service_call_failure",
)


@pytest.fixture(scope="module")
def families() -> dict[str, str]:
    """Name of every metric that our code declares, with its type."""
    for path in sorted(ROOT.glob("*/**/*.py")):
        is_ours = path.relative_to(ROOT).parts[0] in {"cluster", "realtime", "ingest", "training", "serve_apps"}
        if is_ours and "registry=REGISTRY" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return {family.name: family.type for family in REGISTRY.collect()}


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def asked_for() -> set[str]:
    return {name for text in expressions() for name in re.findall(r"\b[a-z]+_[a-z0-9_]+\b(?=[\[{)\s/*]|$)", text)}


def test_every_series_of_the_dashboard_exists(families: dict[str, str]) -> None:
    """A panel over a misspelt metric would be empty for ever and look like peace."""
    exposed = {name + suffix for name, kind in families.items() for suffix in SUFFIXES[kind]}
    functions = {"histogram_quantile"}
    labels = set(re.findall(r"by \(([^)]*)\)", " ".join(expressions())))
    names = asked_for() - functions - {label.strip() for group in labels for label in group.split(",")}

    assert names - exposed == set()


def test_every_metric_is_on_the_dashboard(families: dict[str, str]) -> None:
    """What nobody looks at need not be counted."""
    asked = asked_for()
    missing = {name for name, kind in families.items() if not any(name + suffix in asked for suffix in SUFFIXES[kind])}

    assert missing == set()


def test_the_replaced_systems_metrics_keep_their_names(families: dict[str, str]) -> None:
    """Dashboards of the old system go on working."""
    assert set(SEED) <= set(families)


def test_panels_have_words_and_a_place_of_their_own() -> None:
    """Every panel says what it shows, and no two lie on each other."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"]
        assert panel["type"] == "row" or panel["targets"], panel["title"]
