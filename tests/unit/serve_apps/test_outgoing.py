"""Outgoing frames: the same lines as text and as WebSocket bytes, each made once."""

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame as ReadFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from serve_apps.outgoing import Frame, Part


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_bytes_are_one_text_frame(size: int) -> None:
    """A client library reads back one whole uncompressed message, at each form of the length."""
    data = ("é" * size).encode()[:size] if size % 2 == 0 else b"x" * size

    read = received(Frame(data).websocket)

    assert [(frame.opcode, bytes(frame.data), frame.fin, frame.rsv1) for frame in read] == [
        (Opcode.TEXT, data, True, False)
    ]


def test_forms_are_made_once() -> None:
    """Whoever sends the frame sends the same object."""
    frame = Frame(b'{"push":{}}')

    assert frame.text is frame.text
    assert frame.websocket is frame.websocket


def test_joined_frames_keep_their_lines_and_parts() -> None:
    """One alone stays the object that it was."""
    noc, run = Frame(b"1\n2", (Part("noc", 2, 10),)), Frame(b"3", (Part("run", 1, 20),))

    both = Frame.joined([noc, run])

    assert (both.data, both.num_bytes, both.parts) == (b"1\n2\n3", 5, (*noc.parts, *run.parts))
    assert Frame.joined([run]) is run


def received(data: bytes) -> list[ReadFrame]:
    """Read bytes as a client does after its handshake."""
    client = ClientProtocol(parse_uri("ws://test/"), state=OPEN, max_size=None)
    client.receive_data(data)
    return [event for event in client.events_received() if isinstance(event, ReadFrame)]
