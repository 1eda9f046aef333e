"""Pods on ipvlan, as network namespaces, on two nodes' cards (a veth pair) in one kernel; iperf3 between them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from reconciler.program_record import ProgramRecord
from tests.bench import stats
from tests.kernel.clock import until
from tests.losses import Doubt, nothing_lost
from tests.seconds import above, is_certainly_above, with_better_neighbour
from tests.steal import Steal
from webhook.common.contract import Limits, Quantity

NODES = ("eA", "eB")
STALL_NS = 5_000_000
GONE_WITHIN_S = 20
FLOWING_BYTES = 50_000
# An emulated machine stands still for milliseconds, more CPUs than the real one has: a queue may run empty meanwhile.
CARRIED = 0.95 if "EMULATED" in os.environ else 1.0
MACHINE_VIEW = Path("/run/machine")
RECORD = ProgramRecord(Path("/run"))
"""By which a Shaper that starts again may adopt the program of one before it."""
ONE_LOOKS = threading.Lock()  # transfers run at the same time


def machine_stat() -> str:
    """The machine's /proc/stat, which the other end copies all the time; hostfs keeps what it read: mounted anew."""
    options = os.environ["SHARED_MOUNT"].split()
    MACHINE_VIEW.mkdir(exist_ok=True)
    with ONE_LOOKS:
        if not MACHINE_VIEW.is_mount():
            run("mount", *options, str(MACHINE_VIEW))
        try:
            return (MACHINE_VIEW / "stat").read_text()
        finally:
            if "hostfs" in options:
                run("umount", "--lazy", str(MACHINE_VIEW))  # a process that just began may have the file open


def run(*command: str, check: bool = True) -> str:
    """Run a tool; its output."""
    done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Pod:
    """A network namespace with an ipvlan slave eth0."""

    name: str
    uid: str
    address: str

    @property
    def netns(self) -> str:
        """The path that a container runtime would give."""
        return f"/run/netns/{self.name}"

    def run(self, *command: str, check: bool = True) -> str:
        """Run a tool in the Pod's network namespace."""
        return run("ip", "netns", "exec", self.name, *command, check=check)

    def tc(self) -> str:
        """All that traffic control holds here."""
        links = json.loads(self.run("ip", "-j", "link"))
        filters = [
            self.run("tc", "filter", "show", "dev", link["ifname"], hook, check=False)
            for link in links
            for hook in ("ingress", "egress")
        ]
        return self.run("tc", "qdisc") + "".join(filters)


@contextmanager
def nodes() -> Iterator[None]:
    """Two nodes' cards, joined by a wire."""
    run("ip", "link", "add", NODES[0], "type", "veth", "peer", "name", NODES[1])
    for node in NODES:
        run("ip", "link", "set", node, "up")
    try:
        yield
    finally:
        run("ip", "link", "del", NODES[0])


def add_slave(pod: Pod, node: str, address: str, *, mode: str = "l2", name: str = "eth0") -> None:
    """Give a Pod an ipvlan slave."""
    run("ip", "link", "add", "slave", "link", node, "netns", pod.name, "type", "ipvlan", "mode", mode)
    pod.run("ip", "link", "set", "slave", "name", name)
    add_address(pod, f"{address}/16", name)
    pod.run("ip", "link", "set", name, "up")


def add_address(pod: Pod, address: str, *device: str) -> None:
    """Repeated: a master has each address once, and of a netns that is gone the kernel frees it in the background."""
    command = ("ip", "-n", pod.name, "addr", "add", address, "dev", *device)

    def added() -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    until(added, seconds=GONE_WITHIN_S, show=lambda: run(*command))


@contextmanager
def pod(name: str, node: str, address: str, *, mode: str = "l2", uid: str = "") -> Iterator[Pod]:
    """A Pod on a node."""
    run("ip", "netns", "add", name)
    made = Pod(name, uid or f"uid-of-{name}", address)
    try:
        made.run("ip", "link", "set", "lo", "up")
        add_slave(made, node, address, mode=mode)
        yield made
    finally:
        # As ipvlan's DEL does. A netns stays while an ended program's connection has data to send (FIN_WAIT1, CLOSING):
        # for minutes, if the other end is gone; its slave would keep the address.
        made.run("ip", "link", "del", "eth0", check=False)
        run("ip", "netns", "del", name, check=False)


@contextmanager
def serving(server: Pod, port: int = 5201) -> Iterator[None]:
    """iperf3 servers in a Pod."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", server.name, "iperf3", "-s", "-J", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: f":{port}" in server.run("ss", "-Hltn"), seconds=10, show=lambda: "iperf3 does not listen")
        yield
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an iperf3 client measured: goodput in Mbit/s as received, over all, second by second, and of each flow."""

    goodput: float
    seconds: tuple[float, ...]
    stolen: float
    flows: tuple[float, ...] = ()

    def reaches(self, lowest: float) -> bool:
        """Whether the goodput is at least this, less what the machine's hypervisor or an emulator took of the time."""
        return self.goodput >= lowest * (1 - self.stolen) * CARRIED

    def above(self, limit: float) -> tuple[int, ...]:
        """The seconds with more goodput than the limit's bytes on the wire, less what the second before lacked."""
        return above(*self._shares(limit))

    def never_above(self, limit: float, seconds: Iterable[int]) -> None:
        """Raise LostError if any of these seconds is above the limit; AssertionError if it may all have come late."""
        if found := sorted(set(self.above(limit)) & set(seconds)):
            said = f"{[self.seconds[each] for each in found]} Mbit/s of {limit:g} in seconds {found} of {self.seconds}"
            nothing_lost([said if is_certainly_above(*self._shares(limit)) else Doubt(said)])

    def _shares(self, limit: float) -> tuple[list[float], float]:
        """The seconds as shares of the goodput that a limit lets pass, and the limit's bytes on the wire as one."""
        most = limit * stats.TCP_SHARE
        return [each / most for each in self.seconds], limit / most

    def lowest(self, *periods: slice) -> float:
        """The least of the seconds of these periods, each with its better neighbour there, had nothing been stolen."""
        return min(min(with_better_neighbour(self.seconds[period])) for period in periods) / (1 - self.stolen)


def transfer(client: Pod, server: Pod, *arguments: str, seconds: int = 4, port: int = 5201) -> Transfer:
    """Run an iperf3 client (from client to server unless -R is among the arguments)."""
    with serving(server, port):
        return client_only(client, server, *arguments, seconds=seconds, port=port)


def client_only(
    client: Pod, server: Pod, *arguments: str, seconds: int = 4, port: int = 5201, address: str = ""
) -> Transfer:
    """As transfer, with a server that is there."""
    command = (
        "iperf3",
        "-J",
        "-c",
        address or server.address,
        "-t",
        str(seconds),
        "-p",
        str(port),
        "--get-server-output",
    )
    steal = Steal(machine_stat)
    report = json.loads(client.run(*command, *arguments))
    stolen = steal.share()
    assert "error" not in report, report["error"]
    received = report["end"]["sum_received"]["bits_per_second"] / 1e6
    receiver = report.get("server_output_json", report) if "-R" not in arguments else report
    # A receiver's last interval is what was left over, milliseconds long: its rate says nothing.
    whole = [interval["sum"] for interval in receiver["intervals"] if interval["sum"]["seconds"] > 0.5]
    seconds_each = tuple(interval["bits_per_second"] / 1e6 for interval in whole)
    # UDP's ends carry no figure of the receiver by flow.
    flows = tuple(end["receiver"]["bits_per_second"] / 1e6 for end in report["end"]["streams"] if "receiver" in end)
    return Transfer(received, seconds_each, stolen, flows)


def limits(*, ingress: str | None = None, egress: str | None = None) -> Limits:
    """Limits from the annotations' texts."""
    return Limits(
        ingress=Quantity.parse(ingress) if ingress else None, egress=Quantity.parse(egress) if egress else None
    )


@contextmanager
def bulk(client: Pod, server: Pod, port: int, *arguments: str, seconds: int) -> Iterator[None]:
    """A TCP flow at full speed (or what iperf3's arguments say) in the background, to a server that is there."""
    command = ("iperf3", "-c", server.address, "-p", str(port), "-t", str(seconds), *arguments)
    process = subprocess.Popen(("ip", "netns", "exec", client.name, *command), stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait()


class Packet(NamedTuple):
    """A packet as its receiver's node saw it: when (ns), its bytes on the wire, and its own length (GSO, GRO)."""

    at: int
    wire_bytes: int
    length: int


def sniffed(client: Pod, server: Pod, *, seconds: int, link: str = "") -> list[Packet]:
    """The packets of a TCP transfer; on one link of the server's, as they leave by it (the ifb) or before any limit."""
    links = (link,) if link else ()
    with Module(server, "tests.kernel.sniff", client.address, str(seconds + 2), *links) as sniffer:
        transfer(client, server, seconds=seconds)
        packets = [Packet(*(int(text) for text in line.split())) for line in sniffer.lines()]
    assert packets, "nothing was seen"
    return packets


def largest_window(client: Pod, server: Pod, *, window_seconds: float, seconds: float) -> float:
    """The most that a window of time carried from client to server, in Mbit/s on the wire, from the first packet on."""
    return largest_window_of(sniffed(client, server, seconds=int(seconds)), window_seconds)


def largest_window_of(packets: Iterable[Packet], window_seconds: float) -> float:
    """Likewise, of packets that were sniffed."""
    seen = [(packet.at, packet.wire_bytes) for packet in packets]
    return stats.largest_window(seen, int(window_seconds * 1e9), STALL_NS)


class Module:
    """A module of the tests that runs in a Pod, and has said that it is ready; ended at the end of a `with`."""

    def __init__(self, pod: Pod, *arguments: str) -> None:
        command = ("ip", "netns", "exec", pod.name, sys.executable, "-m", *arguments)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready"

    def go(self) -> None:
        """Let it begin, if it waits for that."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def lines(self) -> list[str]:
        """What else it printed, once it has ended."""
        output, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        return output.splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def carried(counted: list[str], *, after: float, until: float) -> float:
    """Mbit/s between two times (s) since the first line that `udp count` printed."""
    samples = [(int(at), int(size)) for at, size in (line.split() for line in counted)]
    inside = [(at, size) for at, size in samples if after * 1e9 <= at - samples[0][0] <= until * 1e9]
    (first, before), (last, by_then) = inside[0], inside[-1]
    return (by_then - before) * 8000 / (last - first)


@contextmanager
def background(
    client: Pod, server: Pod, *arguments: str, seconds: int, port: int = 5201, address: str = ""
) -> Iterator[Callable[[], Transfer]]:
    """An iperf3 client that runs meanwhile; the call gives what it measured."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client_only, client, server, *arguments, seconds=seconds, port=port, address=address)
        yield future.result


def moved(pod: Pod) -> int:
    """The bytes that came and went by a Pod's eth0."""
    counters = (f"/sys/class/net/eth0/statistics/{way}_bytes" for way in ("rx", "tx"))
    return sum(int(line) for line in pod.run("cat", *counters).split())


def flowing(*pods: Pod) -> None:
    """Wait until a transfer's bytes come: its client begins half a second after its thread, or more."""
    before = {pod: moved(pod) for pod in pods}
    until(lambda: all(moved(pod) - before[pod] > FLOWING_BYTES for pod in pods), seconds=20)


def sleep(seconds: float) -> None:
    """Let a transfer go on."""
    time.sleep(seconds)
