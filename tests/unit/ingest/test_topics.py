"""The topic tree: what parses, what does not, and that both directions agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.topics import Topic, TopicClass, TopicTree

levels = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@pytest.fixture
def tree() -> TopicTree:
    return TopicTree("wf")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("wf/acme/pump-7/telemetry", TopicClass.TELEMETRY, id="telemetry"),
        pytest.param("wf/acme/pump-7/alert", TopicClass.ALERT, id="alert"),
        pytest.param("wf/acme/pump-7/state", TopicClass.STATE, id="state"),
        pytest.param("wf/acme/pump-7/cmd", TopicClass.COMMAND, id="command"),
        pytest.param("wf/acme/pump-7/cmd/ack", TopicClass.COMMAND_ACK, id="command-ack"),
    ],
)
def test_a_topic_of_the_tree_parses(tree: TopicTree, text: str, kind: TopicClass) -> None:
    """Each template gives its class, tenant and device."""
    assert tree.parse(text) == Topic(kind, "acme", "pump-7")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("wf", id="root-alone"),
        pytest.param("wf/acme/pump-7", id="too-short"),
        pytest.param("wf/acme/pump-7/telemetry/x", id="too-deep"),
        pytest.param("wf/acme/pump-7/telemetri", id="unknown-class"),
        pytest.param("wf/acme/pump-7/cmd/nack", id="unknown-answer"),
        pytest.param("v9/acme/pump-7/telemetry", id="foreign-root"),
        pytest.param("wf//pump-7/telemetry", id="empty-level"),
        pytest.param("/wf/acme/pump-7/telemetry", id="leading-slash"),
        pytest.param("wf/acme/pump-7/telemetry/", id="trailing-slash"),
        pytest.param("wf/acme/pump-7/telemetry\n", id="trailing-newline"),
        pytest.param("wf/acme/pump 7/telemetry", id="space"),
        pytest.param("wf/acme/pump.7/telemetry", id="dot"),
        pytest.param("wf/acme/+/telemetry", id="wildcard"),
        pytest.param("wf/acme/pumpe-ü/telemetry", id="not-ascii"),
        pytest.param("wf/acme/７/telemetry", id="full-width-digit"),
        pytest.param(f"wf/acme/{'x' * 65}/telemetry", id="level-too-long"),
        pytest.param("$SYS/broker/uptime", id="broker-topic"),
        pytest.param("wf/acme/pump-7/\0", id="nul"),
    ],
)
def test_anything_else_does_not(tree: TopicTree, text: str) -> None:
    """No topic outside the templates is taken for one of them."""
    assert tree.parse(text) is None


@given(tenant=levels, device=levels, kind=st.sampled_from(TopicClass))
def test_what_is_built_parses_back(tenant: str, device: str, kind: TopicClass) -> None:
    """Build and parse are inverse."""
    tree = TopicTree("wf")

    assert tree.parse(tree.build(kind, tenant, device)) == Topic(kind, tenant, device)


@given(st.text(max_size=300))
def test_any_text_is_answered(text: str) -> None:
    """Parsing never raises, and what it accepts is what building gives."""
    tree = TopicTree("wf")
    topic = tree.parse(text)

    assert topic is None or tree.build(topic.kind, topic.tenant, topic.device) == text


@pytest.mark.parametrize("level", ["", "a/b", "a b", "+", "#", "a\n", "x" * 65])
def test_building_refuses_what_is_no_level(tree: TopicTree, level: str) -> None:
    """A tenant or device from a caller cannot reach another topic."""
    with pytest.raises(ValueError, match="must be 1-64"):
        tree.build(TopicClass.COMMAND, "acme", level)
    with pytest.raises(ValueError, match="must be 1-64"):
        tree.build(TopicClass.COMMAND, level, "pump-7")


def test_strangers_cannot_fill_the_memory(tree: TopicTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of parsed topics has a bound, and forgetting changes no answer."""
    monkeypatch.setattr("ingest.topics.CACHE_LIMIT", 10)

    for number in range(100):
        assert tree.parse(f"wf/acme/d{number}/telemetry") == Topic(TopicClass.TELEMETRY, "acme", f"d{number}")

    assert len(tree._parsed) <= 10
