"""Settings of hub and broadcaster refuse what cannot work."""

from typing import Any

import pytest

from cluster.errors import SettingsError
from cluster.settings import Settings
from realtime.hub_actor import get_or_create_hub
from realtime.settings import BroadcastSettings, HubSettings


@pytest.mark.parametrize(
    ("section", "values"),
    [
        pytest.param(HubSettings, {"history_size": 0}, id="no-history"),
        pytest.param(HubSettings, {"history_ttl_s": 0.0}, id="no-age"),
        pytest.param(HubSettings, {"journal_timeout_s": float("nan")}, id="not-a-number"),
        pytest.param(HubSettings, {"offset_block": 3}, id="block-too-small"),
        pytest.param(BroadcastSettings, {"buffer_size": 0}, id="no-buffer"),
        pytest.param(BroadcastSettings, {"block_s": -1.0}, id="negative-wait"),
        pytest.param(BroadcastSettings, {"retry_for_s": 0.0}, id="no-time"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(section: Any, values: dict[str, Any]) -> None:
    """The text says which one it is."""
    with pytest.raises(ValueError, match=next(iter(values))):
        section(**values)


def test_keys_that_cannot_be_used_stop_the_hub_before_it_starts() -> None:
    """The error names the setting and the key's place, never the key."""
    with pytest.raises(SettingsError, match=r"CHANNEL_KEYS.*key 1 must be id:base64key") as caught:
        get_or_create_hub(Settings(channel_keys="c2VjcmV0"))

    assert "c2VjcmV0" not in str(caught.value)
    assert "c2VjcmV0" not in repr(Settings(channel_keys="c2VjcmV0"))
