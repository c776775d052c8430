"""Ports that are free for certain, and blocks that no second floor gets."""

import random
import socket
import threading

import pytest

from cluster.ports import BLOCK_SIZE, PortBlock, free_ports, is_port_free


def test_free_ports_are_different_and_free() -> None:
    """All are free at the same moment, so none is given twice."""
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert all(is_port_free(port) for port in ports)


def test_a_port_with_reuseport_is_not_free() -> None:
    """A listener that lets others share its port still counts: Ray's servers are such."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        assert not is_port_free(listener.getsockname()[1])


def test_a_preferred_block_is_kept_over_restarts() -> None:
    """A floor that comes back gets the ports it had."""
    first = PortBlock.reserve()
    first.close()
    again = PortBlock.reserve(preferred=first.index)

    assert first.index == again.index
    assert first.take(3) == again.take(3)
    again.close()


def test_two_blocks_never_overlap() -> None:
    """Even with the same wish and the same luck, the second floor gets other ports."""
    first = PortBlock.reserve(rng=random.Random(1))
    second = PortBlock.reserve(preferred=first.index, rng=random.Random(1))
    try:
        assert set(first.take(BLOCK_SIZE)).isdisjoint(second.take(BLOCK_SIZE))
    finally:
        first.close()
        second.close()


def test_a_block_with_a_taken_port_is_passed_over() -> None:
    """A block is whole or not at all."""
    block = PortBlock.reserve()
    port = block.take()[0]
    block.close()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        other = PortBlock.reserve(preferred=block.index)

    assert other.index != block.index
    other.close()


def test_a_preferred_block_is_waited_for() -> None:
    """The listener of a killed process may outlive it by a moment."""
    block = PortBlock.reserve()
    port = block.take()[0]
    block.close()
    squatter = socket.create_server(("127.0.0.1", port))
    going = threading.Timer(0.3, squatter.close)
    going.start()
    again = PortBlock.reserve(preferred=block.index, patience_s=30.0)
    going.join()

    assert again.index == block.index
    again.close()


def test_a_block_ends() -> None:
    """Asking for more ports than there are is the caller's mistake."""
    block = PortBlock.reserve()
    block.take(BLOCK_SIZE)

    with pytest.raises(ValueError, match="1 more"):
        block.take()
    block.close()
