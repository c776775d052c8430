"""Default, then file, then environment; every mistake names the setting."""

from pathlib import Path

import pytest

from cluster.embedded import EmbeddedSettings
from cluster.errors import SettingsError
from cluster.settings import Settings, env_name, load_section, section_name


def test_environment_wins_over_file_over_default(tmp_path: Path) -> None:
    """The three sources, in their order."""
    file = tmp_path / "floor.yaml"
    file.write_text("http_port: 8123\ntopic_root: plant\nembedded:\n  redis_max_memory_mb: 64\n")
    env = {"WATCHFLOOR_HTTP_PORT": "8124"}

    settings = Settings.load(env, file)

    assert (settings.http_port, settings.topic_root, settings.log_level) == (8124, "plant", "INFO")
    assert load_section(EmbeddedSettings, env={}, file=file).redis_max_memory_mb == 64


@pytest.mark.parametrize(
    ("section", "field", "name"),
    [
        pytest.param(Settings, "redis_url", "REDIS_URL", id="known-by-others"),
        pytest.param(Settings, "data_dir", "WATCHFLOOR_DATA_DIR", id="floor-wide"),
        pytest.param(EmbeddedSettings, "mqtt_store_mb", "WATCHFLOOR_EMBEDDED_MQTT_STORE_MB", id="section"),
    ],
)
def test_names_of_variables(section: type, field: str, name: str) -> None:
    """One rule gives every variable its name."""
    assert name == env_name(section, field)
    assert section_name(EmbeddedSettings) == "embedded"


@pytest.mark.parametrize(
    ("env", "text"),
    [
        pytest.param({"WATCHFLOOR_HTTP_PORT": "70000"}, "WATCHFLOOR_HTTP_PORT='70000'", id="range"),
        pytest.param({"WATCHFLOOR_HTTP_PORT": "web"}, "must be of type int", id="type"),
        pytest.param({"WATCHFLOOR_TOPIC_ROOT": "a/b"}, "WATCHFLOOR_TOPIC_ROOT", id="pattern"),
        pytest.param({"WATCHFLOOR_CONFIG": "/no/such/file"}, "/no/such/file", id="file"),
    ],
)
def test_a_mistake_names_the_setting(env: dict[str, str], text: str) -> None:
    """Whoever reads the message knows what to change."""
    with pytest.raises(SettingsError, match=text):
        Settings.load(env)


def test_an_unknown_key_of_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt setting would otherwise have no effect, silently."""
    file = tmp_path / "floor.yaml"
    file.write_text("htp_port: 1\n")

    with pytest.raises(SettingsError, match="htp_port"):
        Settings.load({}, file)


def test_a_key_file_of_the_operator_replaces_the_made_one(tmp_path: Path) -> None:
    """The secret lies in the data folder unless somebody chose another."""
    assert Settings(data_dir=str(tmp_path)).secret_path == tmp_path / "secret"
    assert Settings(secret_file="/keys/floor").secret_path == Path("/keys/floor")
