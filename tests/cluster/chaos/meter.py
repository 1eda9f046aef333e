"""iperf3 between limited Pods while something goes wrong: no second above the limit."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.cluster import traffic
from tests.cluster.cluster import Cluster
from tests.cluster.traffic import Flow

# Of 1514 bytes on the link, 1448 are payload of TCP over IPv4.
WIRE = 1514 / 1448
ABOVE, BELOW = 1.02, 0.90
# A receiver that had to wait for the one CPU of its node reads a little of a second's bytes in the next.
LATE_S = 0.1


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

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each second, the bytes on the link as a share of the limit's."""
        return tuple(each * WIRE / self.line.limit for each in self.flow.intervals)

    @property
    def above(self) -> tuple[int, ...]:
        """The seconds above the limit; what a second brought late does not count against the next."""
        found, late = [], 0.0
        for second, share in enumerate(self.shares):
            if share - late > ABOVE:
                found.append(second)
            late = min(LATE_S, max(0.0, 1 - share))
        return tuple(found)

    @property
    def lost(self) -> tuple[str, ...]:
        """A sentence on the seconds above the limit, and none without any."""
        above = self.above
        seconds = ", ".join(f"{self.shares[each]:.1%} in second {each}" for each in above[:5])
        return (f"{len(above)} seconds of {self.line.name} above the limit: {seconds}",) if above else ()

    def below(self, floor: float = BELOW) -> tuple[str, ...]:
        """As `lost`, of seconds that had less than this share, the first apart, in which TCP starts."""
        least = floor * (1 - self.flow.stolen)
        low = [(second, share) for second, share in enumerate(self.shares) if second and share < least]
        seconds = ", ".join(f"{share:.1%} in second {second}" for second, share in low[:5])
        return (f"{len(low)} seconds of {self.line.name} below {least:.0%} of the limit: {seconds}",) if low else ()

    def __str__(self) -> str:
        shares = self.shares or (0.0,)
        stolen = f", {self.flow.stolen:.0%} of the CPU stolen" if self.flow.stolen >= 0.005 else ""
        return (
            f"{self.line.name}: {len(self.shares)} s at {min(shares[1:], default=0):.1%} to {max(shares):.1%} of "
            f"{self.line.limit:g}M{stolen}"
        )


@dataclass(slots=True)
class Meter:
    """The flows of a block; filled when it ends."""

    measured: list[Measured] = field(default_factory=list)

    @property
    def lost(self) -> tuple[str, ...]:
        """Every second above the limit."""
        return tuple(sentence for each in self.measured for sentence in each.lost)

    @property
    def low(self) -> tuple[str, ...]:
        """Every second that had less than 90 % of it."""
        return tuple(sentence for each in self.measured for sentence in each.below())

    def __str__(self) -> str:
        return "; ".join(map(str, self.measured))


@contextlib.contextmanager
def metering(cluster: Cluster, lines: Sequence[Line]) -> Iterator[Meter]:
    """Keep these flows going as long as the block lasts."""
    meter = Meter()
    transfers = [traffic.start(cluster, line.client, line.server, seconds=86400) for line in lines]
    # TCP has its rate after this.
    time.sleep(2)
    try:
        yield meter
    finally:
        flows = [transfer.end() for transfer in transfers]
    meter.measured = [Measured(line, flow) for line, flow in zip(lines, flows, strict=True)]
