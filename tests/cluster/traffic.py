"""Traffic between Pods, measured where it arrives, and departures, measured where they leave."""

import contextlib
import itertools
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.cluster.cluster import Cluster, ClusterError, Node, wait_for
from tests.cluster.layout import HERE
from tests.steal import Steal

_PORTS = itertools.count(5300)
# At 100M a train of packets leaves every 2.06 ms, so one that is 4 ms after the last is late; and one that is 1 ms
# after a late one was due with it.
STALL_MS, LONGEST_STALL_MS, TOGETHER_MS = 3, 20, 1


@dataclass(frozen=True, slots=True)
class Flow:
    """What a receiver got: Mbit/s of payload over all the time, and of each interval."""

    mean: float
    intervals: tuple[float, ...]
    stolen: float = 0.0
    """The share of the machine's time that its hypervisor gave to others meanwhile."""

    def __str__(self) -> str:
        seconds = " ".join(f"{each:.1f}" for each in self.intervals)
        stolen = f", {self.stolen:.0%} of the CPU stolen" if self.stolen >= 0.005 else ""
        return f"{self.mean:.1f} Mbit/s ({seconds}){stolen}"


@dataclass(slots=True)
class Transfer:
    """An iperf3 under way."""

    client: subprocess.Popen[str]
    server: subprocess.Popen[str]
    interrupt: Callable[[], object]
    steal: Steal = field(default_factory=Steal)

    def result(self, timeout: float = 60) -> Flow:
        """Wait for its end. Raises ClusterError when either side fails."""
        out, err = self.client.communicate(timeout=timeout)
        if self.client.returncode != 0:
            self.server.kill()
            raise ClusterError(f"iperf3 client: {out[-600:]}{err}")
        return self._received(timeout)

    def end(self, timeout: float = 60) -> Flow:
        """End it now, as Ctrl-C does. Raises ClusterError when the server does not tell what it got."""
        self.interrupt()
        try:
            self.client.communicate(timeout=timeout)
            return self._received(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ClusterError("iperf3 does not end when interrupted") from error

    def kill(self) -> None:
        """End both sides, if they have not ended; nothing is told of what was carried."""
        self.client.kill()
        self.server.kill()

    def _received(self, timeout: float) -> Flow:
        stolen = self.steal.share()
        out, err = self.server.communicate(timeout=timeout)
        try:
            report = json.loads(out)
            received = report["end"]["sum_received"]["bits_per_second"]
        except (ValueError, KeyError) as error:
            raise ClusterError(f"iperf3 server: {out[-600:]}{err}") from error
        sums = [interval["sum"] for interval in report["intervals"]]
        whole = max(each["seconds"] for each in sums)
        # The last interval is what was left over; its rate says nothing.
        intervals = [each["bits_per_second"] / 1e6 for each in sums if each["seconds"] > whole / 2]
        return Flow(received / 1e6, tuple(intervals), stolen)


def address(cluster: Cluster, pod: str) -> str:
    """The IPv4 address of a Pod."""
    return str(cluster.pod(pod)["status"]["podIP"])


def next_port() -> str:
    """A port that no transfer had: the server of one that failed may be there still."""
    return str(next(_PORTS))


def start(
    cluster: Cluster,
    client: str,
    server: str,
    *,
    seconds: float = 10,
    interval: float = 1,
    extra: Sequence[str] = (),
    first: bool = False,
) -> Transfer:
    """Start a TCP transfer from one Pod to another, both entered with nsenter.

    `first`: before what else wants the nodes' CPUs, for low rates: what is read late counts in the wrong second.
    """
    port, sends, receives = next_port(), cluster.pod(client), cluster.pod(server)
    to, by, at = receives["status"]["podIP"], cluster.node_in(sends), cluster.node_in(receives)
    ahead = ("nice", "--adjustment=-10") if first else ()
    serving = at.popen(*ahead, "iperf3", "-s", "-1", "-J", "-i", f"{interval:g}", "-p", port, pod=server)
    wait_listening(at, server, port)
    process = by.popen(*ahead, "iperf3", "-c", to, "-p", port, "-t", f"{seconds:g}", "-J", *extra, pod=client)
    return Transfer(process, serving, lambda: by.run("pkill", "-INT", "-f", f"^iperf3 -c {to} -p {port} ", check=False))


def measure(
    cluster: Cluster,
    client: str,
    server: str,
    *,
    seconds: float = 10,
    extra: Sequence[str] = (),
    first: bool = False,
) -> Flow:
    """One TCP transfer from its start to its end."""
    return start(cluster, client, server, seconds=seconds, extra=extra, first=first).result(timeout=seconds + 30)


def wait_listening(node: Node, pod: str, port: str) -> None:
    """Wait until something listens on a TCP port of a Pod of a node. Raises ClusterError."""

    def listens() -> bool:
        return bool(node.run("ss", "-Hltn", f"sport = :{port}", pod=pod).stdout.strip())

    wait_for(f"iperf3 listening on port {port} in {pod}", listens, 30, every=0.1)


@dataclass(slots=True)
class Recording:
    """Departures recorded on one node, by source address; milliseconds and bytes on the wire."""

    departures: dict[str, list[tuple[int, int]]]

    def fastest_window(self, source: str, window_ms: int = 100) -> float:
        """The most Mbit/s that a source sent in any window, from its first packet on.

        A sender at full speed pauses for more than STALL_MS only when its machine stands still, and packets that were
        due then leave together afterwards: a window that begins with one of them begins with the pause. The first
        packet has no pause before it.
        """
        packets = self.departures.get(source, [])
        most, start, late = 0.0, 0, 0
        for first, (begin, _) in enumerate(packets):
            pause = begin - packets[first - 1][0] if first else 0
            if pause > STALL_MS:
                late, start = begin, begin - min(pause, LONGEST_STALL_MS)
            elif not first or pause > TOGETHER_MS or begin - late > LONGEST_STALL_MS:
                start = begin
            end = start + window_ms
            window = itertools.takewhile(lambda one, end=end: one[0] < end, packets[first:])
            total = sum(size for _, size in window)
            most = max(most, total * 8 / (window_ms * 1000))
        return most


@contextlib.contextmanager
def recorded(cluster: Cluster, node: int, interface: str = "ens192") -> Iterator[Recording]:
    """Record what leaves a node during the block; the recording is filled after it."""
    with cluster.node(node).popen("python3", str(HERE / "node" / "recorder.py"), interface) as process:
        assert process.stderr is not None
        if "recording" not in process.stderr.readline():
            raise ClusterError(f"the recorder does not start: {process.stderr.read()}")
        recording = Recording({})
        try:
            yield recording
            out, err = process.communicate(timeout=60)  # which ends its standard input
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ClusterError(f"recorder: {err}")
    recording.departures = {source: [tuple(each) for each in bins] for source, bins in json.loads(out).items()}
