"""Who is where: leases of gateways, bounds, and what is announced."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime import notices, wire
from realtime.presence import Changes, GatewayFigures, Member, Presence, Report
from realtime.settings import HubSettings


def figures(uid: str = "g1", **more: int) -> GatewayFigures:
    return GatewayFigures(uid, **({"num_clients": 1, "num_users": 1, "num_channels": 1, "uptime_s": 5} | more))


def member(client: str = "c1", channel: str = "run:a", user: str = "ann", *, announced: bool = True) -> Member:
    return Member(channel, client, user, announced)


def first(*joins: Member, uid: str = "g1", number: int = 1) -> Report:
    return Report(figures(uid), number, joins, is_first=True, is_news=False)


def make(**settings: Any) -> Presence:
    return Presence(HubSettings(**settings))


def clients(presence: Presence, channel: str = "run:a") -> list[str]:
    return [found.client for found in presence.members(channel, 100).members]


def test_an_unknown_gateway_tells_everything_first() -> None:
    """A hub that restarted has forgotten it."""
    presence = make()
    assert presence.report(Report(figures(), 7, (member(),)), 0.0) is None
    assert clients(presence) == []

    assert presence.report(first(member(), number=8), 0.0) == Changes()
    assert clients(presence) == ["c1"]


def test_joins_and_leaves_are_announced_once() -> None:
    """A repeated report, as after a lost reply, is no news; a channel that announces nothing is none either."""
    presence = make()
    presence.report(first(), 0.0)
    silent = member("c2", announced=False)
    report = Report(figures(), 2, (member(), silent))

    assert presence.report(report, 0.0) == Changes(joined=(member(),))
    assert presence.report(report, 0.0) == Changes()
    left = Report(figures(), 3, leaves=(("run:a", "c1"), ("run:a", "c2"), ("run:a", "nobody")))
    assert presence.report(left, 0.0) == Changes(left=(member(),))
    assert (clients(presence), presence.num_members) == ([], 0)


def test_a_late_copy_of_an_older_report_changes_nothing() -> None:
    """It would bring back who has left."""
    presence = make()
    presence.report(first(), 0.0)
    joined = Report(figures(), 2, (member(),))
    presence.report(joined, 0.0)
    presence.report(Report(figures(), 3, leaves=(("run:a", "c1"),)), 0.0)

    assert presence.report(joined, 0.0) == Changes()
    assert clients(presence) == []


def test_members_of_a_silent_gateway_vanish() -> None:
    """Sixty seconds after its last report, and the others hear of it."""
    presence = make()
    presence.report(first(member()), 0.0)
    presence.report(first(member("c2"), uid="g2"), 30.0)
    presence.report(Report(figures(), 2), 25.0)  # renewed

    assert presence.expire(84.9) == Changes()
    assert presence.expire(85.0) == Changes(left=(member(),))
    assert clients(presence) == ["c2"]
    assert [found.uid for found in presence.gateways()] == ["g2"]
    assert presence.report(Report(figures(), 3, (member(),)), 86.0) is None


def test_a_gateway_that_begins_again_replaces_what_it_said() -> None:
    """Its figures too."""
    presence = make()
    presence.report(first(member(), member("c2")), 0.0)
    presence.report(Report(figures(num_clients=9), 5, (member("c3"),), is_first=True, is_news=False), 1.0)

    assert clients(presence) == ["c3"]
    assert presence.gateways()[0].num_clients == 9


def test_bounds_refuse_and_count() -> None:
    """Per channel, in all, and of gateways."""
    presence = make(presence_channel_members=2, presence_members=3, presence_gateways=1)
    presence.report(first(*(member(f"c{number}") for number in range(4))), 0.0)
    assert (clients(presence), presence.refused_total) == (["c0", "c1"], 2)

    presence.report(Report(figures(), 2, (member("d0", "run:b"), member("d1", "run:b"))), 0.0)
    assert (clients(presence, "run:b"), presence.refused_total) == (["d0"], 3)

    assert presence.report(first(member("x", "run:c"), uid="g2"), 0.0) == Changes()
    assert (clients(presence, "run:c"), presence.refused_total) == ([], 4)


def test_a_listing_is_cut_and_the_count_is_not() -> None:
    """Users with several connections count once."""
    presence = make()
    presence.report(first(member("c1"), member("c2"), member("c3", user="bob")), 0.0)

    found = presence.members("run:a", 2)

    assert ([one.client for one in found.members], found.num_clients, found.num_users) == (["c1", "c2"], 3, 2)
    assert presence.members("run:none", 2).num_clients == 0


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("", {"run:a": 2, "group:g": 1}, id="all"),
        pytest.param("run:*", {"run:a": 2}, id="by-kind"),
        pytest.param("*:?", {"run:a": 2, "group:g": 1}, id="by-place"),
        pytest.param("[", {}, id="no-pattern"),
    ],
)
def test_channels_are_found_by_pattern(pattern: str, expected: dict[str, int]) -> None:
    """Each with its number of members."""
    presence = make()
    presence.report(first(member("c1"), member("c2"), member("c1", "group:g")), 0.0)

    assert presence.channels(pattern, 10) == expected
    assert len(presence.channels("", 1)) == 1


NAMES = st.text("abc", min_size=1, max_size=2)
STEPS = st.lists(
    st.tuples(st.sampled_from(["g1", "g2"]), st.lists(st.tuples(NAMES, NAMES)), st.lists(st.tuples(NAMES, NAMES))),
    max_size=30,
)


@given(STEPS)
def test_counts_agree_with_what_is_held(steps: list[tuple[str, list[tuple[str, str]], list[tuple[str, str]]]]) -> None:
    """Whatever gateways report, members are counted once and channels without any are gone."""
    presence = make(presence_members=6, presence_channel_members=3)
    for number, (uid, joins, leaves) in enumerate(steps, start=1):
        said = tuple(Member(f"run:{channel}", f"{uid}-{client}", client) for channel, client in joins)
        gone = tuple((f"run:{channel}", f"{uid}-{client}") for channel, client in leaves)
        presence.report(Report(figures(uid), number, said, gone, is_first=number % 7 == 0), float(number))

    found = presence.channels("", 100)
    assert sum(found.values()) == presence.num_members <= 6
    assert all(0 < count <= 3 for count in found.values())
    presence.expire(1e9)
    assert (presence.num_members, presence.channels("", 100), presence.gateways()) == (0, {}, ())


def test_wire_brings_back_what_was_written() -> None:
    """Reports, figures and members."""
    report = Report(figures(), 3, (member(), member("c2", announced=False)), (("run:a", "c9"),), True, False)
    presence = make()
    presence.report(first(member(), member("c2")), 0.0)
    reply = presence.members("run:a", 5)

    assert wire.read_report(wire.write_report(report)) == report
    assert wire.read_presence(wire.write_presence(reply)) == reply
    assert wire.read_figures(wire.write_figures(figures())) == figures()


AUDIENCE = notices.Audience(user="ann", client="c1", tenant="t1")


@pytest.mark.parametrize(
    "notice",
    [
        Changes((member(),), (member("c2"),)),
        notices.Disconnect(audience=AUDIENCE, code=3503, spared=("c2",)),
        notices.Drain(over_s=20.0, hold_s=60.5),
        notices.Subscribe(audience=notices.Audience(user="ann"), channel="run:a"),
        notices.Unsubscribe(audience=AUDIENCE, channel="run:a"),
    ],
    ids=lambda notice: type(notice).__name__,
)
def test_a_notice_is_read_as_it_was_written(notice: notices.Notice) -> None:
    """Between replicas of one version."""
    assert notices.read(notices.write(notice)) == notice


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"explode":{}}', b'{"disconnect":{"code":1}}', b'{"presence":{"joined":[[1]]}}']
)
def test_a_notice_of_a_later_version_is_passed_over(payload: bytes) -> None:
    """Never an error: the next ones concern others."""
    assert notices.read(payload) is None


def test_a_flood_of_members_fits_into_publications() -> None:
    """With the longest names there are."""
    long = Member("user:" + "x" * 128, "c" * 36, "u" * 128)
    parts = list(notices.changes_in_parts(Changes((long,) * 250, (long,) * 50)))

    assert [len(part.joined) + len(part.left) for part in parts] == [50, 100, 100, 50]
    assert all(len(notices.write(part)) < 65_536 for part in parts)
