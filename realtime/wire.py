"""How drafts and publications cross between the hub and its clients, by its actor or its socket.

Tuples of plain values: Ray pickles them in C, several times faster than dataclasses,
MessagePack knows nothing else, and a hub may be older than its callers (a detached actor
keeps its code). Invariant:
``read_x(write_x(value)) == value``.
"""

from collections.abc import Sequence

from realtime.interest import Asker, Wish
from realtime.presence import GatewayFigures, Member, PresenceReply, Report
from realtime.publication import PRIORITIES, Draft, Publication, StreamPosition
from realtime.replies import Cursor, HistoryReply, PollReply

WireDraft = tuple[str, bytes, str, str | None, str | None, bytes]
WirePublication = tuple[str, int, bytes, str, int, str, bytes, str | None]
WirePosition = tuple[str, int]
WirePoll = tuple[WirePosition, list[WirePublication], bool, int, str]
WireAsker = tuple[str, int]
WireWish = tuple[str, int, Sequence[str], Sequence[str] | None, str]
WireHistory = tuple[list[WirePublication], WirePosition, bool]
WireMember = tuple[str, str, str, bool]
WireFigures = tuple[str, int, int, int, int]
WireReport = tuple[WireFigures, int, list[WireMember], list[tuple[str, str]], bool, bool]
WirePresence = tuple[list[WireMember], int, int]


def write_drafts(drafts: Sequence[Draft]) -> list[WireDraft]:
    return [
        (draft.channel, draft.data, draft.priority.value, draft.key, draft.coalesce_key, draft.info) for draft in drafts
    ]


def read_drafts(wire: Sequence[WireDraft]) -> list[Draft]:
    """Return the drafts of a publish.

    Raises:
        TypeError: a field is of another type; ``Draft`` itself checks what the fields say.
    """
    drafts = []
    for channel, data, priority, key, latest, info in wire:
        # What is accepted here reaches the journal, which knows how to write these types only.
        if not (
            isinstance(channel, str)
            and isinstance(data, bytes)
            and (key is None or isinstance(key, str))
            and (latest is None or isinstance(latest, str))
            and isinstance(info, bytes)
        ):
            raise TypeError("a draft has a field of a wrong type")
        drafts.append(Draft(channel, data, PRIORITIES[priority], key, latest, info))
    return drafts


def write_position(position: StreamPosition) -> WirePosition:
    return position.epoch, position.offset


def read_position(wire: WirePosition) -> StreamPosition:
    return StreamPosition(*wire)


def write_positions(positions: Sequence[StreamPosition]) -> list[WirePosition]:
    return [(position.epoch, position.offset) for position in positions]


def write_poll(reply: PollReply) -> WirePoll:
    cursor = reply.cursor.hub_epoch, reply.cursor.seq
    return cursor, _write_publications(reply.publications), reply.gap, reply.coalesced, reply.wants_all


def read_poll(wire: WirePoll) -> PollReply:
    cursor, publications, gap, coalesced, wants_all = wire
    return PollReply(Cursor(*cursor), _read_publications(publications), gap, coalesced, wants_all)


def write_asker(asker: Asker | None) -> WireAsker | None:
    return None if asker is None else (asker.gateway, asker.number)


def read_asker(wire: WireAsker | None) -> Asker | None:
    return None if wire is None else Asker(*wire)


def write_wish(wish: Wish | None) -> WireWish | None:
    return None if wish is None else (wish.gateway, wish.number, wish.leaves, wish.follows, wish.lease)


def read_wish(wire: WireWish | None) -> Wish | None:
    if wire is None:
        return None
    gateway, number, leaves, follows, lease = wire
    return Wish(gateway, number, tuple(leaves), None if follows is None else tuple(follows), lease)


def write_history(reply: HistoryReply) -> WireHistory:
    return _write_publications(reply.publications), write_position(reply.position), reply.recovered


def read_history(wire: WireHistory) -> HistoryReply:
    publications, position, recovered = wire
    return HistoryReply(_read_publications(publications), StreamPosition(*position), recovered)


def write_figures(figures: GatewayFigures) -> WireFigures:
    return figures.uid, figures.num_clients, figures.num_users, figures.num_channels, figures.uptime_s


def read_figures(wire: WireFigures) -> GatewayFigures:
    return GatewayFigures(*wire)


def write_report(report: Report) -> WireReport:
    joins = _write_members(report.joins)
    return write_figures(report.figures), report.number, joins, list(report.leaves), report.is_first, report.is_news


def read_report(wire: WireReport) -> Report:
    figures, number, joins, leaves, is_first, is_news = wire
    left = tuple((channel, client) for channel, client in leaves)
    return Report(read_figures(figures), number, _read_members(joins), left, is_first, is_news)


def write_presence(reply: PresenceReply) -> WirePresence:
    return _write_members(reply.members), reply.num_clients, reply.num_users


def read_presence(wire: WirePresence) -> PresenceReply:
    members, num_clients, num_users = wire
    return PresenceReply(_read_members(members), num_clients, num_users)


def _write_members(members: Sequence[Member]) -> list[WireMember]:
    return [(member.channel, member.client, member.user, member.announced) for member in members]


def _read_members(wire: Sequence[WireMember]) -> tuple[Member, ...]:
    return tuple(Member(*member) for member in wire)


def _write_publications(publications: Sequence[Publication]) -> list[WirePublication]:
    return [
        (p.channel, p.offset, p.data, p.priority.value, p.time_ms, p.epoch, p.info, p.coalesce_key)
        for p in publications
    ]


def _read_publications(wire: Sequence[WirePublication]) -> tuple[Publication, ...]:
    return tuple(
        [
            Publication(channel, offset, data, PRIORITIES[priority], time_ms, epoch, info, key)
            for channel, offset, data, priority, time_ms, epoch, info, key in wire
        ]
    )
