"""A real Prometheus takes the gateway for an Alertmanager: it fires, repeats, and says when it is over."""

import signal
import subprocess
from pathlib import Path

import pytest

from cluster.ports import free_port
from ingest.alerts.external_store import external_received
from ingest.alerts.model import Action, Alert, Condition, SourceKind
from ingest.alerts.store import AlertQuery, AlertStore
from serve_apps.auth import issue_token
from tests.fakes_alerts import FakeClock
from tests.fakes_api import SECRET, ApiFloor
from tests.gateway_server import serving
from tests.prometheus import prometheus, until

pytestmark = pytest.mark.prometheus

CONFIG = """\
global: {{evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ["{address}"]}}]
      authorization: {{credentials: "{token}"}}
"""
RULES = """\
groups:
  - name: test
    rules:
      - alert: HighLoad
        expr: {expr}
        labels: {{severity: critical, device: pump-7, team: pumps}}
        annotations: {{summary: "Load is high", description: "value {{{{ $value }}}}", runbook_url: "https://example.com/r"}}
"""


async def test_prometheus_fires_repeats_and_resolves(tmp_path: Path) -> None:
    """One alert, two events, however often Prometheus repeats itself."""
    floor = ApiFloor(tmp_path)
    store = AlertStore(floor.engine, FakeClock())
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES.format(expr="vector(1)"))
    port = free_port()
    token = issue_token(SECRET, sub="prometheus", tenant="acme", roles=["operator"], ttl_s=600)

    def alerts() -> list[Alert]:
        return list(store.list(AlertQuery()).items)

    async with (
        serving(floor.app, port) as address,
        prometheus(tmp_path, CONFIG.format(address=address, token=token)) as process,
    ):
        await until(lambda: bool(alerts()), "the alert arrives")
        (alert,) = alerts()
        assert (alert.tenant, alert.device_id, alert.rule) == ("acme", "pump-7", "HighLoad")
        assert (alert.severity.value, alert.source_kind) == ("critical", SourceKind.EXTERNAL)
        assert (alert.title, alert.text) == ("Load is high", "value 1")
        assert alert.labels["team"] == "pumps"
        assert alert.labels["runbook_url"] == "https://example.com/r"
        assert alert.labels["generator_url"].startswith("http://")
        before = _repeated()
        await until(lambda: _repeated() > before, "Prometheus repeats itself")
        assert alerts() == [alert]

        rules.write_text(RULES.format(expr="vector(1) > 1"))
        process.send_signal(signal.SIGHUP)
        await until(lambda: alerts()[0].condition is Condition.CLEARED, "the alert ends")

    detail = store.get(alert.id)
    assert [event.action for event in detail.events] == [Action.RAISED, Action.CLEARED]
    assert {event.actor for event in detail.events} == {"prometheus"}
    assert floor.woken == 2


def test_the_example_is_good(tmp_path: Path) -> None:
    """Prometheus' own tool finds no mistake in the configuration that the documentation names."""
    text = (Path(__file__).parents[2] / "deploy" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "watchfloor.token").write_text("t")
    said = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True, timeout=60
    )

    assert said.returncode == 0, said.stdout + said.stderr


async def test_without_a_token_nothing_is_taken(tmp_path: Path) -> None:
    """As on every other route."""
    floor = ApiFloor(tmp_path)
    async with floor.caller() as caller:
        answer = await caller.post("/api/v2/alerts", json=[{"labels": {"alertname": "x"}}])

    assert answer.status_code == 401


def _repeated() -> float:
    return float(external_received.labels("repeated")._value.get())
