"""Paths on a node by the container runtimes' convention, and how this container sees such a path. Pure."""

from typing import Final

NETNS_FOLDER: Final = "/run/netns"
"""Where container runtimes mount the Pods' network namespaces (CNI's convention, that of ip-netns(8))."""
NRI_SOCKET: Final = "/var/run/nri/nri.sock"
"""Where a container runtime listens for NRI plugins."""


def canonical(netns_path: str) -> str:
    """The path as the reconciler's container sees it: /run is mounted there, /var/run is not always a link to it."""
    return "/run" + netns_path.removeprefix("/var/run") if netns_path.startswith("/var/run/") else netns_path
