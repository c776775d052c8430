"""Files at the root that must agree with the code."""

import json
from pathlib import Path
from zipfile import ZipFile

import jsonschema
import pytest
import ray
import yaml
from ray._private.runtime_env.packaging import create_package

from cluster.lanes import ray_resources
from serve_apps import env_example

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster_yaml() -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((ROOT / "ray-cluster.yaml").read_text())
    return content


def test_cluster_file_follows_rays_schema(cluster_yaml: dict[str, object]) -> None:
    """`ray up` would refuse anything else."""
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())

    jsonschema.validate(cluster_yaml, schema)


def test_cluster_file_offers_the_lanes_and_asks_for_tokens(cluster_yaml: dict[str, object]) -> None:
    """Its resources are the lane table's, and no node starts without authentication."""
    head, worker = (str(cluster_yaml[f"{kind}_start_ray_commands"]) for kind in ("head", "worker"))
    offered = json.loads(worker[worker.index("--resources=\\'") + len("--resources=\\'") : worker.rindex("}") + 1])

    assert offered == ray_resources()
    assert all("RAY_AUTH_MODE=token" in commands for commands in (head, worker))


def test_env_example_is_current() -> None:
    """Every setting is listed with its default; after a change: make docs."""
    assert env_example.text() == (ROOT / ".env.example").read_text(encoding="utf-8")


def test_lock_names_versions_only() -> None:
    """No host, no local build, no path: the file works wherever pip does."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]

    assert all(line.count("==") == 1 and not set("/+@ ") & set(line) for line in lines)
    assert "torch==2.13.0" in lines


def test_a_job_uploads_little(tmp_path: Path) -> None:
    """`ray job submit --working-dir .` sends the sources, not the environment, data or caches."""
    package = tmp_path / "package.zip"

    create_package(str(ROOT), package, include_gitignore=True)

    assert package.stat().st_size < 5_000_000
    assert any(name.endswith("training/__main__.py") for name in ZipFile(package).namelist())
