"""iperf3 between limited Pods while something goes wrong: no second above the limit, and none far below it."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests import seconds
from tests.cluster import traffic
from tests.cluster.chaos import own_cpu
from tests.cluster.chaos.idle import IdleWatch
from tests.cluster.cluster import Cluster
from tests.cluster.traffic import Flow
from tests.losses import Doubt

# Of 1514 bytes on the link, 1448 are payload of TCP over IPv4.
WIRE = 1514 / 1448
ABOVE, BELOW = 1.02, 0.90
# Of a second in which the machine or the flow's node had no CPU left: a roll keeps both busy for most of its time.
BUSY_BELOW = 0.50
# One that stands still is lost, on a busy machine too: a good neighbour alone would lift its second to half.
STILL = 0.10
# Of a flow's seconds so many are to be measured, those of its start apart: one that ended early shows nothing after.
MEASURED, START_S = 0.8, 2.0


@dataclass(frozen=True, slots=True)
class Line:
    """A flow to measure: from one Pod to another (NAMESPACE/NAME), held to a limit in Mbit/s on the link."""

    name: str
    client: str
    server: str
    limit: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What one flow carried."""

    line: Line
    flow: Flow
    busy: frozenset[int] = frozenset()
    """The seconds in or beside which the machine, or a node of the flow, had no CPU left."""
    lasted: float = 0.0
    """For how many seconds it was to be carried."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each second, the bytes on the link as a share of the limit's."""
        return tuple(each * WIRE / self.line.limit for each in self.flow.intervals)

    @property
    def above(self) -> tuple[int, ...]:
        """The seconds above the limit; what came late does not count (tests/seconds.py)."""
        return seconds.above(self.shares, ABOVE)

    @property
    def lost(self) -> tuple[str, ...]:
        """A sentence on the seconds above the limit, and none without any; a doubt if all of it may have come late."""
        if not (above := self.above):
            return ()
        said = f"{_seconds(len(above))} of {self.line.name} above the limit: {', '.join(map(self._after, above[:5]))}"
        return (said if seconds.is_certainly_above(self.shares, ABOVE) else Doubt(said),)

    def _after(self, second: int) -> str:
        """One of them with those before it, which tell whether it made up for something."""
        before = " ".join(f"{share:.1%}" for share in self.shares[max(0, second - 4) : second]) or "nothing"
        return f"{self.shares[second]:.1%} in second {second} after {before}"

    def below(self) -> tuple[str, ...]:
        """As `lost`, of seconds that had less than their floor with their better neighbour; not the first, TCP starts.

        With a neighbour: the one CPU of a node, which also starts what was killed, may stall a flow for a moment. By
        itself a second must have STILL. And of seconds that were not measured.
        """
        shares = self.shares
        judged = (1.0, *seconds.with_better_neighbour(shares[1:]))
        found: tuple[str, ...] = ()
        if len(shares) < MEASURED * (self.lasted - START_S):
            found = (f"only {len(shares)} of {self.lasted:.0f} seconds of {self.line.name} were measured",)
        for floor, held_to_it in ((BELOW, self._judged(busy=False)), (BUSY_BELOW, self._judged(busy=True))):
            least, still = (each * (1 - self.flow.stolen) for each in (floor, STILL))
            low = [second for second in held_to_it if judged[second] < least or shares[second] < still]
            said = ", ".join(f"{shares[second]:.1%} in second {second}" for second in low[:5])
            if low:
                found += (f"{_seconds(len(low))} of {self.line.name} below {least:.0%} of the limit: {said}",)
        return found

    def _judged(self, *, busy: bool) -> list[int]:
        """The seconds with a floor, the first apart: those without an idle CPU, or the others."""
        return [second for second in range(1, len(self.shares)) if (second in self.busy) == busy]

    def __str__(self) -> str:
        shares = self.shares or (0.0,)
        stolen = f", {self.flow.stolen:.0%} of the CPU stolen" if self.flow.stolen >= 0.005 else ""
        idle, busy = ([shares[second] for second in self._judged(busy=state)] for state in (False, True))
        said = f"{self.line.name}: {len(shares)} s at " + (f"{min(idle):.1%} to " if idle else "no more than ")
        said += f"{max(shares):.1%} of {self.line.limit:g}M{stolen}"
        return said + (f", {len(busy)} s without an idle CPU at {min(busy):.1%} and more" if busy else "")


def _seconds(number: int) -> str:
    return "1 second" if number == 1 else f"{number} seconds"


def is_held_to(flow: Flow, limit: float, least: float = BUSY_BELOW) -> bool:
    """Whether a flow had, as a whole, its limit in Mbit/s on the link: no more, and a share that is no standstill."""
    return least <= flow.mean * WIRE / limit <= ABOVE


def is_above(flow: Flow, limit: float) -> bool:
    """Whether a flow had, as a whole, more than its limit in Mbit/s on the link: no slowness brings that about."""
    return flow.mean * WIRE / limit > ABOVE


def above_limit(flow: Flow, limit: float) -> tuple[str, ...]:
    """A sentence on the seconds of a flow above its limit in Mbit/s on the link, and none without any."""
    return Measured(Line("the flow", "", "", limit), flow).lost


@dataclass(slots=True)
class Meter:
    """The flows of a block; filled when it ends."""

    measured: list[Measured] = field(default_factory=list)
    own_cpu_s: float | None = None
    """What the reconciler of the first line's client's node took of the CPU, so far as it lived to the end."""

    @property
    def lost(self) -> tuple[str, ...]:
        """Every second above the limit."""
        return tuple(sentence for each in self.measured for sentence in each.lost)

    @property
    def low(self) -> tuple[str, ...]:
        """Every second that had less than its floor, its better neighbour included, stood still, or is missing."""
        return tuple(sentence for each in self.measured for sentence in each.below())

    def __str__(self) -> str:
        said = [*map(str, self.measured)]
        if self.own_cpu_s is not None:
            said.append(f"the node's reconciler took {self.own_cpu_s:.1f} s of CPU time")
        return "; ".join(said)


@contextlib.contextmanager
def metering(cluster: Cluster, lines: Sequence[Line]) -> Iterator[Meter]:
    """Keep these flows going as long as the block lasts."""
    meter = Meter()
    transfers, began, ended, flows = [], [], [], []
    node = cluster.node_of(lines[0].client)
    took_before = own_cpu.read(node)
    idle = IdleWatch(cluster, [pod for line in lines for pod in (line.client, line.server)])
    try:
        for line in lines:
            transfers.append(traffic.start(cluster, line.client, line.server, seconds=86400, first=True))
            began.append(time.monotonic())
        # TCP has its rate after this.
        time.sleep(START_S)
        yield meter
        for transfer in transfers:
            ended.append(time.monotonic())
            flows.append(transfer.end())
        meter.own_cpu_s = own_cpu.seconds(took_before, own_cpu.read(node))
    finally:
        idle.stop()
        for transfer in transfers:
            transfer.kill()
    meter.measured = [
        Measured(line, flow, idle.busy_seconds(since), until - since)
        for line, flow, since, until in zip(lines, flows, began, ended, strict=True)
    ]
