"""Serves probes and metrics: one port for any client that reaches the node, and one on loopback for the node only.

Kubelet uses the latter. A flood of the former shuts out kubelet's connections to it as well as others', and kubelet
kills a container whose probe gets no answer: Pods that start meanwhile would run without their limits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from reconciler.kernel.errors import ShapingError
from webhook.common.http_server import PLAIN_HTTP, BoundedServer, Handler

METRICS_BOUNDS: Final = replace(PLAIN_HTTP, connections=64, finish_s=1.0)
PROBE_BOUNDS: Final = replace(METRICS_BOUNDS, connections=16)

# Works on IPv6-only nodes too: Linux has no IPv6 without IPv4, and gives `lo` this address by itself.
LOOPBACK: Final = "127.0.0.1"


async def listen(handler: Handler, host: str, port: int, probe_port: int) -> list[BoundedServer]:
    """Serve on both ports from now on: on `host`, or on all addresses, and on loopback. Raises ShapingError."""
    servers: list[BoundedServer] = []
    for bounds, address, number, use, remedy in (
        (METRICS_BOUNDS, host, port, "metrics", "--port and --listen name"),
        (PROBE_BOUNDS, LOOPBACK, probe_port, "kubelet's probes", "--probe-port names"),
    ):
        server = BoundedServer(handler, bounds)
        try:
            await server.listen(address or None, number)
        except OSError as error:
            for other in servers:
                await other.close()
            where = f"port {number}" + (f" of {address}" if address else "")
            raise ShapingError(f"cannot listen on {where} for {use}: {error.strerror}; {remedy} another") from error
        servers.append(server)
    return servers
