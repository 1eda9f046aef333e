"""Fresh Pods for each cell, and tools run inside them; few processes, as starting one takes the guest a tenth of a
second."""

import itertools
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.cells import Cell
from tests.kernel.lab import Pod, run

_NETWORKS = itertools.count(1)
_SOURCES = range(128, 192)
# What one cell learned of a path is no matter of the next; 1000 flows may come at once.
_SETTINGS = {"ipv4/tcp_no_metrics_save": 1, "ipv4/tcp_max_syn_backlog": 4096, "core/somaxconn": 4096}


@dataclass(frozen=True, slots=True)
class Pods:
    """The Pods of one cell: the limited one, one for each group of flows, and one that probes."""

    limited: Pod
    clients: list[Pod]
    prober: Pod
    sources: list[str]
    """The prober's further addresses."""


@contextmanager
def pods(cell: Cell) -> Iterator[Pods]:
    """For as long as a cell is measured."""
    network = f"172.51.{next(_NETWORKS)}"  # the last cell's addresses are taken until its flows are all forgotten
    other = "eA" if cell.same_node else "eB"
    with ExitStack() as stack:
        limited = stack.enter_context(_pod("limited", "eA", f"{network}.100", 0))
        clients = [
            stack.enter_context(_pod(flows.client, other, f"{network}.{101 + number}", flows.rtt_ms))
            for number, flows in enumerate(cell.flows)
        ]
        nearest = min(flows.rtt_ms for flows in cell.flows)
        prober = stack.enter_context(_pod("prober", other, f"{network}.110", nearest))
        sources = [f"{network}.{number}" for number in _SOURCES]
        _inside(prober, ["ip -batch - <<END", *(f"addr add {source}/16 dev eth0" for source in sources), "END"])
        yield Pods(limited, clients, prober, sources)


@contextmanager
def _pod(name: str, node: str, address: str, delay_ms: int) -> Iterator[Pod]:
    """As `tests.kernel.lab.pod`; the whole round trip's delay is on what it sends."""
    pod = Pod(name, f"uid-of-{name}", address)
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", "slave", "link", node, "netns", name, "type", "ipvlan", "mode", "l2")
        links = ("set lo up", "set slave name eth0")
        commands = [
            *(f"ip link {each}" for each in links),
            f"ip addr add {address}/16 dev eth0",
            "ip link set eth0 up",
            *(
                f"! [ -e /proc/sys/net/{key} ] || echo {value} > /proc/sys/net/{key}"
                for key, value in _SETTINGS.items()
            ),
        ]
        if delay_ms:
            commands.append(f"tc qdisc add dev eth0 root netem delay {delay_ms}ms limit 500000")
        _inside(pod, commands)
        yield pod
    finally:
        run("ip", "netns", "del", name, check=False)


def inside(pod: Pod, *commands: tuple[str, ...]) -> None:
    """Run tools in the Pod's network namespace and the node's mounts: ip-netns(8) would hide what is pinned."""
    _inside(pod, [shlex.join(command) for command in commands])


def _inside(pod: Pod, lines: list[str]) -> None:
    run("nsenter", f"--net={pod.netns}", "sh", "-ec", "\n".join(lines))
