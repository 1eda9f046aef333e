"""Ports of TCP on loopback that nobody has."""

import socket
from contextlib import ExitStack


def free_port() -> int:
    """A port that nobody has."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Different ports: all are held at once, as the kernel may give a port again that was let go."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
