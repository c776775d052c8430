"""Settings of hub and broadcaster refuse what cannot work."""

from typing import Any

import pytest

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
