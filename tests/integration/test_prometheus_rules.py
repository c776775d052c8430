"""The rules for Prometheus are valid, ask for metrics that exist, and fire when they should."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import ingest.metrics
import ingest.store_watch  # noqa: F401  declares what the rules ask for
from cluster.metrics import REGISTRY

pytestmark = pytest.mark.prometheus

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES = FOLDER / "watchfloor-stores.yml"

SERIES = {
    'watchfloor_store_near{store="alerts"}': "0x10 1x30",
    'watchfloor_store_full{store="alerts"}': "0x20 1x20",
    'watchfloor_store_near{store="disk"}': "0x40",
    'watchfloor_store_full{store="disk"}': "0x40",
    'watchfloor_ingest_blocked{lane="alert"}': "0x20 1x20",
}


def promtool(*arguments: str, cwd: Path = FOLDER) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=cwd, timeout=60, check=False)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda path: path.name)
def test_rules_are_valid(path: Path) -> None:
    """As Prometheus itself reads them."""
    checked = promtool("check", "rules", str(path))

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_rules_ask_for_metrics_that_exist() -> None:
    """A misspelt one would never fire and look like peace."""
    asked = set(re.findall(r"\bwatchfloor_\w+\b", RULES.read_text(encoding="utf-8")))

    assert asked <= {family.name for family in REGISTRY.collect()}


def test_a_store_is_told_before_it_is_full_and_when_it_is(tmp_path: Path) -> None:
    """Near for five minutes: a warning; full: critical, and the warning goes."""

    def firing(name: str, minute: int, *labels: dict[str, str]) -> dict[str, object]:
        return {"alertname": name, "eval_time": f"{minute}m", "exp_alerts": [{"exp_labels": one} for one in labels]}

    near = {"severity": "warning", "store": "alerts"}
    full = {"severity": "critical", "store": "alerts"}
    blocked = {"severity": "critical", "lane": "alert"}
    case = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
                "alert_rule_test": [
                    firing("WatchfloorStoreNearItsBound", 9),
                    firing("WatchfloorStoreNearItsBound", 17, near),
                    firing("WatchfloorStoreFull", 17),
                    firing("WatchfloorStoreFull", 25, full),
                    firing("WatchfloorStoreNearItsBound", 25),
                    firing("WatchfloorIngestDoesNotAcknowledge", 25, blocked),
                ],
            }
        ],
    }
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    texts = {rule["alert"]: rule["annotations"] for rule in rules}
    for one in case["tests"][0]["alert_rule_test"]:  # type: ignore[index]
        for alert in one["exp_alerts"]:
            subject = alert["exp_labels"].get("store") or alert["exp_labels"].get("lane")
            alert["exp_annotations"] = {
                name: re.sub(r"{{ \$labels\.\w+ }}", subject, text) for name, text in texts[one["alertname"]].items()
            }
    (tmp_path / "case.yml").write_text(yaml.safe_dump(case), encoding="utf-8")
    tested = promtool("test", "rules", "case.yml", cwd=tmp_path)

    assert tested.returncode == 0, tested.stdout + tested.stderr
