"""What is measured: the catalogue of cells. A cell is one shaper under one load. Pure.

Not every shaper is in every cell: the anchors are where they tell something, as an hour of measuring tells nobody more.
"""

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webhook.common.contract import Quantity

SECTIONS = ("accuracy", "latency", "fairness", "change", "cpu", "cost")
SET_UP_SECONDS = 3.5
UNLOADED_SECONDS = 2
PROBED_SECONDS = 8
WINDOWED_SECONDS = 1
BATCH_SECONDS = 180
BOOT_SECONDS = 14
EMULATED_BOOT_SECONDS = 90
EMULATED_SLOWER = 2
"""Of what a guest in QEMU does before and after it measures."""
OURS = "ours"
NAMES: Mapping[str, str] = {
    OURS: "ipvlan-bandwidth",
    "cake": "cake",
    "htb_fq_codel": "htb + fq_codel",
    "tbf": "tbf, burst 10 ms",
    "tbf_cni": "tbf, containerd's burst",
    "edt_fifo": "EDT FIFO + fq",
    "edt_no_fq": "EDT FIFO, no fq",
    "none": "no shaper",
    "paced": "no shaper, paced senders",
}
"""By key: what people read. `paced` is the control: the senders keep to 95 % of the limit by themselves."""


@dataclass(frozen=True, slots=True)
class Flows:
    """Alike flows of one client Pod. Kinds: a TCP congestion control, or udp. `bits_per_second`: all together, as paced
    (TCP) or as flooded (UDP); 0: as fast as they can."""

    client: str
    count: int
    kind: str = "cubic"
    rtt_ms: int = 0
    bits_per_second: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One shaper on one direction of the limited Pod, the flows through it, and how long they are watched."""

    section: str
    case: str
    direction: str
    shaper: str
    limit: str
    flows: tuple[Flows, ...]
    warm_seconds: float = 3
    seconds: float = 8
    probed: bool = False
    same_node: bool = False
    windowed: bool = False
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What results are kept under, and what people select by."""
        return f"{self.section}/{self.case}/{self.direction}/{self.shaper}"

    @property
    def is_emulated(self) -> bool:
        """Whether it is measured in QEMU: with several CPUs and BPF's JIT, and so slowly that only ratios tell."""
        return self.section == "cpu"

    @property
    def expected_seconds(self) -> float:
        """How long it takes."""
        watched = self.seconds * max(1, len(self.changes))
        set_up = SET_UP_SECONDS * (EMULATED_SLOWER if self.is_emulated else 1)
        return set_up + self.warm_seconds + watched + (UNLOADED_SECONDS if self.probed else 0)


def bits(limit: str) -> int:
    """Of a limit's text."""
    return Quantity.parse(limit).bits_per_second


def _accuracy() -> Iterator[Cell]:  # noqa: C901 - a list, in loops
    def cell(case: str, direction: str, shaper: str, limit: str, flows: Flows, *, seconds: float = 4) -> Cell:
        windowed = flows.count == 1 and flows.kind != "udp" and limit in {"10M", "100M"}
        same = "same node" in case
        return Cell(
            "accuracy",
            case,
            direction,
            shaper,
            limit,
            (flows,),
            # At low limits a gap of slow start takes seconds to fill, and then counts at once.
            {"100k": 12.0, "1M": 4.0}.get(limit, 1.5),
            seconds,
            same_node=same,
            windowed=windowed,
        )

    one = Flows("bulk", 1)
    for limit, seconds in (("100k", 40), ("1M", 20), ("10M", 4), ("100M", 4), ("1G", 4)):
        case = f"{limit} 1 flow"
        for direction in ("ingress", "egress"):
            yield cell(case, direction, "ours", limit, one, seconds=seconds)
        if limit in {"1M", "100M", "1G"}:
            for shaper in ("cake", "tbf"):
                yield cell(case, "ingress", shaper, limit, one, seconds=seconds)
    for shaper in ("htb_fq_codel", "tbf_cni", "edt_fifo", "edt_no_fq", "none"):
        yield cell("100M 1 flow", "ingress", shaper, "100M", one)
    for shaper in ("cake", "edt_no_fq"):
        yield cell("100M 1 flow", "egress", shaper, "100M", one)
    for direction in ("ingress", "egress"):
        yield cell("100M 1 flow same node", direction, "ours", "100M", one)
        for limit in ("10M", "100M"):
            for count in (10, 100):
                yield cell(f"{limit} {count} flows", direction, "ours", limit, Flows("bulk", count))
            twice = Flows("bulk", 1, "udp", bits_per_second=2 * bits(limit))
            yield cell(f"{limit} UDP", direction, "ours", limit, twice)


def _latency() -> Iterator[Cell]:
    def cell(limit: str, count: int, direction: str, shaper: str, kind: str = "cubic") -> Cell:
        pace = bits(limit) * 95 // 100 if shaper == "paced" else 0
        case = f"{limit} {count} flow{'s' if count > 1 else ''}{'' if kind == 'cubic' else ' ' + kind.upper()}"
        flows = Flows("bulk", count, kind, 10, pace)
        return Cell("latency", case, direction, shaper, limit, (flows,), 3, PROBED_SECONDS, probed=True)

    for shaper in ("ours", "cake", "htb_fq_codel", "tbf", "tbf_cni", "edt_fifo", "edt_no_fq", "paced"):
        yield cell("100M", 8, "ingress", shaper)
    for limit, count in (("100M", 1), ("100M", 64), ("10M", 64), ("1G", 64), ("100M", 1000)):
        for shaper in ("ours", "cake"):
            yield cell(limit, count, "ingress", shaper)
    for limit, count in (("10M", 64), ("100M", 1000)):
        yield cell(limit, count, "ingress", "paced")
    yield cell("100M", 1, "ingress", "edt_fifo")
    for shaper in ("ours", "cake"):
        yield cell("100M", 8, "ingress", shaper, "bbr")
        yield cell("100M", 8, "egress", shaper)


def _fairness() -> Iterator[Cell]:  # noqa: C901 - as above
    def cell(
        case: str,
        shaper: str,
        limit: str,
        *flows: Flows,
        direction: str = "ingress",
        seconds: float = 8,
        probed: bool = False,
    ) -> Cell:
        return Cell("fairness", case, direction, shaper, limit, flows, 3, seconds, probed=probed)

    both = ("ours", "cake")
    for case, limit, count, shapers in (
        ("8 flows, 100M", "100M", 8, (*both, "edt_fifo", "htb_fq_codel")),
        ("64 flows, 100M", "100M", 64, both),
        ("64 flows, 10M", "10M", 64, both),
    ):
        for shaper in shapers:
            # Of 64 flows at 10M each has a dozen packets a second.
            yield cell(case, shaper, limit, Flows("bulk", count, rtt_ms=10), seconds=20 if limit == "10M" else 10)
    anchors = (*both, "edt_fifo", "htb_fq_codel")
    for near, far, shapers, seconds in ((10, 50, anchors, 12), (1, 200, both, 30)):
        for shaper in shapers:
            flows = Flows("bulk", 1, rtt_ms=near), Flows("other", 1, rtt_ms=far)
            yield cell(f"RTT {near} beside {far} ms", shaper, "100M", *flows, seconds=seconds)
    for limit in ("10M", "100M"):
        for times in (2, 10):
            anchors = ("edt_fifo",) if times == 10 and limit == "100M" else ()
            for shaper in (*both, *anchors):
                udp = Flows("other", 1, "udp", 10, times * bits(limit))
                case = f"2 TCP beside UDP at {times}x, {limit}"
                flows = Flows("bulk", 2, rtt_ms=10), udp
                yield cell(case, shaper, limit, *flows, probed=True)
                if (times, limit) == (10, "100M") and shaper in both:
                    yield cell(case, shaper, limit, *flows, direction="egress", probed=True)
    for count in (1, 10, 100):
        for shaper in both:
            flows = Flows("bulk", 1, rtt_ms=10), Flows("other", count, rtt_ms=10)
            yield cell(f"1 flow beside {count} of another client", shaper, "100M", *flows, seconds=6)


def _change() -> Iterator[Cell]:
    around = ("100M", "1G", "1M", "1G", "100M", "1M")  # from 1M on: each to each other, once
    for direction, shapers in (("ingress", ("ours", "cake", "tbf")), ("egress", ("ours",))):
        for shaper in shapers:
            yield Cell(
                "change", "1M 100M 1G", direction, shaper, "1M", (Flows("bulk", 1),), 3, 5, probed=True, changes=around
            )


def _cpu() -> Iterator[Cell]:
    for limit in ("20M", "100M"):
        for direction in ("ingress", "egress"):
            for shaper in ("ours", "cake", "tbf", "edt_fifo", "paced"):
                pace = bits(limit) * 95 // 100 if shaper == "paced" else 0
                flows = Flows("bulk", 4, bits_per_second=pace)
                yield Cell("cpu", f"{limit} 4 flows", direction, shaper, limit, (flows,), 4, 15)


CATALOGUE: tuple[Cell, ...] = (*_accuracy(), *_latency(), *_fairness(), *_change(), *_cpu())


def select(wanted: Sequence[str], catalogue: Iterable[Cell] = CATALOGUE) -> list[Cell]:
    """The cells that a section's name or a pattern names, in the catalogue's order. Nothing wanted: all."""
    patterns = [f"{each}/*" if each in SECTIONS else each for each in wanted] or ["*"]
    return [cell for cell in catalogue if any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in patterns)]


def disturbed(chosen: Iterable[Cell], results: Mapping[str, Mapping[str, Any]], percent: float) -> list[Cell]:
    """Those of whose time the hypervisor took more than that, whatever their shaper, and those that have no result."""
    return [cell for cell in chosen if 100 * results.get(cell.name, {}).get("stolen", 100) > percent]


def quick(chosen: Iterable[Cell]) -> list[Cell]:
    """A few of them, for a short time: whether all works, not how well."""
    kept = [
        dataclasses.replace(cell, warm_seconds=1, seconds=2)
        for cell in chosen
        if cell.shaper in {"ours", "cake"}
        and (cell.section == "change" or cell.case in {"100M 1 flow", "100M 8 flows", "8 flows, 100M"})
        and cell.direction == "ingress"
    ]
    return [*kept]


def batches(chosen: Iterable[Cell], most_seconds: float = BATCH_SECONDS) -> list[list[Cell]]:
    """Cells that one guest measures, of one section each: a guest that is lost takes no more with it."""
    made: list[list[Cell]] = []
    for cell in chosen:
        fits = (
            made
            and made[-1][0].section == cell.section
            and sum(each.expected_seconds for each in made[-1]) + cell.expected_seconds <= most_seconds
        )
        if fits:
            made[-1].append(cell)
        else:
            made.append([cell])
    return made
