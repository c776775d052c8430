"""Who receives what: every topic somebody, and with disjoint filters nobody twice."""

import pytest

from ingest.ingest_settings import IngestSettings
from ingest.shares import Share, client_id, index_of, share_of
from ingest.topics import TopicTree

TREE = TopicTree("wf")
TENANTS = ("acme", "beta", "gamma")


def test_one_actor_listens_to_everything() -> None:
    """Whatever the broker has, and whoever is named."""
    assert share_of(TREE, 0, 1, TENANTS, has_shared=True) == Share(filters=("wf/#",))


def test_a_broker_that_shares_deals_out_by_itself() -> None:
    """All actors have the same filter."""
    shares = [share_of(TREE, index, 3, (), has_shared=True) for index in range(3)]

    assert {share.filters for share in shares} == {("$share/watchfloor/wf/#",)}
    assert all(share.elsewhere == {} for share in shares)


def test_without_shared_subscriptions_tenants_are_dealt_out() -> None:
    """The first actor hears all of them and stores its own and those that nobody named."""
    first, second, third = (share_of(TREE, index, 3, TENANTS, has_shared=False) for index in range(3))

    assert first == Share(filters=("wf/#",), elsewhere={"acme": 1, "beta": 2})
    assert second.filters == ("wf/acme/#",)
    assert third == Share(filters=("wf/beta/#",), tenants=frozenset({"beta"}))


def test_without_a_list_the_first_actor_does_it_all() -> None:
    """Slower than wanted, and nothing is lost."""
    assert share_of(TREE, 0, 2, (), has_shared=False) == Share(filters=("wf/#",))
    assert share_of(TREE, 1, 2, (), has_shared=False).filters == ()


def test_client_ids_are_told_apart() -> None:
    """Also where the name itself ends in a number."""
    assert client_id("ingest", 2) == "ingest-2"
    assert index_of("ingest", "ingest-12") == 12
    assert [index_of("ingest", other) for other in ("ingest-0-presence", "other-1", "ingest", "ingest-x-1")] == [
        None
    ] * 4


@pytest.mark.parametrize("tenants", [("acme", "acme"), ("a/b",), ("#",), ("",)])
def test_a_list_that_cannot_be_dealt_out_is_refused(tenants: tuple[str, ...]) -> None:
    """At the door, with the reason."""
    with pytest.raises(ValueError, match="tenant"):
        IngestSettings(actors=2, tenants=tenants)
