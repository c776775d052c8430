"""Names of channels."""

import pytest

from realtime import channels
from realtime.channels import ChannelKind, kind_of
from realtime.errors import InvalidChannelError


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("noc:all", ChannelKind.NOC),
        (channels.noc_client(789), ChannelKind.NOC),
        (channels.user(42), ChannelKind.USER),
        (channels.user("ada@example.org"), ChannelKind.USER),
        (channels.tenant("demo"), ChannelKind.TENANT),
        (channels.group("noc_dashboard"), ChannelKind.GROUP),
        (channels.group("ops", [42, "ada@example.org"]), ChannelKind.GROUP),
        (channels.run("01JABC"), ChannelKind.RUN),
        (channels.device("demo", "pump-1"), ChannelKind.DEVICE),
    ],
)
def test_a_channel_tells_its_kind(channel: str, kind: ChannelKind) -> None:
    """The part before the colon is the audience."""
    assert kind_of(channel) == kind


@pytest.mark.parametrize(
    "channel",
    [
        pytest.param("", id="empty"),
        pytest.param("noc", id="no-colon"),
        pytest.param("noc:everyone", id="unknown-noc-channel"),
        pytest.param("room:1", id="unknown-kind"),
        pytest.param("user:", id="no-identifier"),
        pytest.param("user:a b", id="space"),
        pytest.param("user:1\n", id="line-break"),
        pytest.param("user:#1", id="centrifuge-sign"),
        pytest.param("run:r1#42", id="limit-on-a-run"),
        pytest.param("group:ops#", id="limited-to-nobody"),
        pytest.param("group:#42", id="limit-without-a-name"),
        pytest.param("group:ops#42,", id="limited-to-an-empty-user"),
        pytest.param("group:ops#42#43", id="two-limits"),
        pytest.param("device:only-tenant", id="device-without-name"),
        pytest.param("device:a/b/c", id="device-with-three-levels"),
        pytest.param("group:" + "x" * 200, id="too-long"),
    ],
)
def test_a_name_that_nobody_could_subscribe_to_is_refused(channel: str) -> None:
    """A bad name is the caller's mistake and is said at the door."""
    with pytest.raises(InvalidChannelError):
        kind_of(channel)


@pytest.mark.parametrize(
    ("channel", "users"),
    [("group:ops#42", {"42"}), ("group:ops#42,ada", {"42", "ada"}), ("group:ops", None), ("user:42", None)],
)
def test_a_name_says_who_alone_may_listen(channel: str, users: set[str] | None) -> None:
    """Behind the sign, as Centrifugo has it."""
    kind_of(channel)
    assert channels.limited_to(channel) == users
