"""What the journal's store sees of a payload, and what becomes of one that is not as it was."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import UnreadablePayloadError
from realtime.journal_cipher import ChannelKey, JournalCipher, parse_keys
from realtime.publication import Priority, Publication

OLD, NEW = ChannelKey("2026-10", bytes(32)), ChannelKey("2026-11", bytes(range(32)))


def publication(
    data: bytes = b'{"secret":1}', channel: str = "user:7", epoch: str = "e", offset: int = 3
) -> Publication:
    return Publication(channel, offset, data, Priority.NORMAL, 1, epoch)


def stored(cipher: JournalCipher, original: Publication) -> tuple[str, Publication]:
    key_id, data = cipher.seal(original)
    return key_id, original._replace(data=data)


@given(st.binary(min_size=1, max_size=2000))
def test_what_was_sealed_opens(data: bytes) -> None:
    """And differs each time, though the payload does not."""
    cipher = JournalCipher([NEW])
    sealed = [stored(cipher, publication(data)) for _ in range(2)]

    assert [cipher.open(*one) for one in sealed] == [data, data]
    assert sealed[0] != sealed[1]
    assert len(data) < 8 or data not in sealed[0][1].data


def test_keys_rotate() -> None:
    """The first encrypts, the others still open; a key that is gone opens nothing."""
    before, between, after = JournalCipher([OLD]), JournalCipher([NEW, OLD]), JournalCipher([NEW])
    old = stored(before, publication())
    new = stored(between, publication())

    assert (old[0], new[0]) == ("2026-10", "2026-11")
    assert between.open(*old) == between.open(*new) == after.open(*new) == publication().data
    with pytest.raises(UnreadablePayloadError, match="'2026-10' cannot be read: no such key"):
        after.open(*old)
    with pytest.raises(UnreadablePayloadError, match="no such key"):
        JournalCipher().open(*old)


@given(st.integers(0, 1_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    """Wherever it is, nonce and tag included."""
    key_id, sealed = stored(JournalCipher([NEW]), publication())
    data = bytearray(sealed.data)
    data[place % len(data)] ^= change

    with pytest.raises(UnreadablePayloadError, match="altered"):
        JournalCipher([NEW]).open(key_id, sealed._replace(data=bytes(data)))


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"channel": "user:8"}, id="channel"),
        pytest.param({"epoch": "f"}, id="epoch"),
        pytest.param({"offset": 4}, id="offset"),
        pytest.param({"data": b""}, id="cut-off"),
    ],
)
def test_a_payload_cannot_be_moved(elsewhere: dict[str, object]) -> None:
    """A tenant's payload under another tenant's name is no payload."""
    key_id, sealed = stored(JournalCipher([NEW]), publication())

    with pytest.raises(UnreadablePayloadError):
        JournalCipher([NEW]).open(key_id, sealed._replace(**elsewhere))


def test_a_plain_payload_is_refused_once_there_are_keys() -> None:
    """Who can write into the store must not be able to publish."""
    plain = stored(JournalCipher(), publication())

    assert JournalCipher().open(*plain) == publication().data
    with pytest.raises(UnreadablePayloadError, match="not encrypted"):
        JournalCipher([NEW]).open(*plain)


def encoded(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


def test_the_setting_names_keys_in_order() -> None:
    """Spaces and a trailing comma are forgiven."""
    assert parse_keys("") == ()
    assert parse_keys(f"new:{encoded(32)}, old:{encoded(16)},") == (
        ChannelKey("new", bytes(32)),
        ChannelKey("old", bytes(16)),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(encoded(32), "must be id:base64key", id="no-id"),
        pytest.param(f":{encoded(32)}", "must be id:base64key", id="empty-id"),
        pytest.param("k:secret!", "not base64", id="no-base64"),
        pytest.param(f"k:{encoded(20)}", "has 20 bytes", id="wrong-size"),
        pytest.param(f"k:{encoded(32)},k:{encoded(16)}", "twice", id="twice"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_not_shown(text: str, reason: str) -> None:
    """By its place or id."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_keys(text)

    assert text.rpartition(":")[2] not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    """Not in a log line either."""
    assert repr(ChannelKey("k", b"hush")) == "ChannelKey(key_id='k')"
