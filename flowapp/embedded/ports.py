"""Loopback ports: who wants one, and whether somebody else has it."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from flowapp.errors import PortTaken

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_SECONDS = 0.5


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether somebody accepts connections on the port."""
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def require_free(part: str, ports: Mapping[str, int]) -> None:
    """Check that every port of a part is free.

    Raises:
        PortTaken: names port, part and the way out.
    """
    for role, port in ports.items():
        if not is_free(port):
            raise PortTaken(
                f"port {port} on {LOOPBACK} ({role} of the {part}) was taken by another program; end that program "
                f"or set FLOW_PORT_OFFSET to shift every port of this stack, such as FLOW_PORT_OFFSET=1000"
            )
