"""The figures that the shaper has to reach, held against what was measured. Pure."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench import cells
from tests.bench.cells import CATALOGUE, PROBED_SECONDS, Cell
from tests.bench.pooled import pooled, unloaded
from tests.bench.probe import PAGE_BYTES
from tests.bench.stats import PACKET_BITS, TCP_SHARE, UDP_SHARE

Results = Mapping[str, Mapping[str, Any]]
NOT_MEASURED = "not measured"
WITHIN = "within 1 s"
FEW_FLOWS = "100M 8 flows"
MANY_FLOWS = ("10M 64 flows", "100M 64 flows", "1G 64 flows", "100M 1000 flows")
CUTS = (("1G", "1M"), ("100M", "1M"))
"""To a hundredth or less."""
SPARSE: Mapping[str, str] = {"ping": "ping", "dns": "UDP"}
"""The probes that are sparse flows, as people read them: targets of latency are for these. A fetch is not one: the
limit itself holds it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure. `reached` is None when it, or what it is compared with, was not measured, or it is `undecided`."""

    what: str
    wanted: str
    measured: str = NOT_MEASURED
    reached: bool | None = None
    undecided: bool = False
    """It is too near to what it is compared with to be told apart from it, or the guest without a shaper misses it."""


def carried(cell: Cell) -> float:
    """Mbit/s of payload that a cell's limit lets its flows carry at most."""
    share = UDP_SHARE if all(flows.kind == "udp" for flows in cell.flows) else TCP_SHARE
    return cells.bits(cell.limit) * share / 1e6


def good(results: Results, name: str) -> Mapping[str, Any] | None:
    """A cell's result, unless it is missing or an error."""
    result = results.get(name)
    return None if result is None or "error" in result else result


def verdicts(results: Results) -> list[Verdict]:
    """All of them, in the order of the sections, of results as they were measured."""
    spreads = {kind: spread_ms(results, kind) for kind in SPARSE}
    few, many = partial(_few_flows, spreads=spreads), partial(_many_flows, spreads=spreads)
    made: list[Verdict] = []
    results = pooled(results)
    for rule in (_accuracy, few, many, _fairness, _flood, _cost, _change):
        made += rule(results)
    return made


def count(made: list[Verdict]) -> str:
    """In words."""
    reached, undecided = sum(each.reached is True for each in made), sum(each.undecided for each in made)
    missing = sum(each.reached is None for each in made) - undecided
    said = f"{reached} of {len(made)} reached" + (f", {undecided} undecided" if undecided else "")
    return said + (f", {missing} not measured" if missing else "")


def spread_ms(results: Results, kind: str) -> float:
    """How far apart the cells are, from the 10th to the 90th percentile, in the p99 of a probe without load.

    Of the cells with the round trip of those that are compared. Not from the least to the most: with one hiccup of the
    machine, nothing could be told apart any more.
    """
    (rtt_ms,) = {cell.flows[0].rtt_ms for cell in CATALOGUE if cell.section == "latency"}
    found = unloaded(results, kind).get(rtt_ms, {}).get("p99", [])
    if len(found) < 2:
        return 0.0
    tenths = statistics.quantiles(found, n=10, method="inclusive")
    return tenths[-1] - tenths[0]


def _accuracy(results: Results) -> Iterator[Verdict]:
    ours = [cell for cell in CATALOGUE if cell.section == "accuracy" and cell.shaper == "ours"]
    for limit in dict.fromkeys(cell.limit for cell in ours):
        of_limit = [cell for cell in ours if cell.limit == limit]
        tolerance = 2 if limit == "100k" else 1
        what, wanted = f"{limit}: goodput in all {len(of_limit)} cells", f"within {tolerance} % of what can be carried"
        found = [(cell, result) for cell in of_limit if (result := good(results, cell.name))]
        if len(found) < len(of_limit):
            yield Verdict(what, wanted)
            continue
        share = {cell.name: 100 * result["goodput"] / carried(cell) for cell, result in found}
        worst = max(share, key=lambda name: abs(share[name] - 100))
        measured = f"{share[worst]:.2f} % at worst ({worst.split('/', 1)[1].removesuffix('/ours')})"
        yield Verdict(what, wanted, measured, abs(share[worst] - 100) <= tolerance)
    found = [(cell, result) for cell in ours if (result := good(results, cell.name))]
    what, wanted = "first second of a connection, all cells", "at most 102 % of what can be carried"
    if len(found) < len(ours):
        yield Verdict(what, wanted)
        return
    share = {
        cell.name: max(100 * g["first_second"] for g in result["groups"]) / carried(cell) for cell, result in found
    }
    worst = max(share, key=lambda name: share[name])
    yield Verdict(
        what,
        wanted,
        f"{share[worst]:.1f} % at most ({worst.split('/', 1)[1].removesuffix('/ours')})",
        share[worst] <= 102,
    )


def _pair(results: Results, section: str, case: str, direction: str) -> tuple[Any, Any]:
    return good(results, f"{section}/{case}/{direction}/ours"), good(results, f"{section}/{case}/{direction}/cake")


def _few_flows(results: Results, spreads: Mapping[str, float]) -> Iterator[Verdict]:
    for direction in ("ingress", "egress"):
        where = f"{FEW_FLOWS}, {direction}"
        ours, cake = _pair(results, "latency", FEW_FLOWS, direction)
        control = good(results, f"latency/{FEW_FLOWS}/{direction}/paced")
        for kind, spread in spreads.items():
            for percent, most in (("p50", 0.1), ("p99", 0.5)):
                yield _at_most(where, kind, percent, (most, f"at most {most} ms"), ours=ours, control=control)
            yield _below_in_ms(where, kind, ours, cake, spread)
        wanted = "at least 94.8 Mbit/s"
        if ours is None:
            yield Verdict(f"{where}: goodput", wanted)
        else:
            yield Verdict(f"{where}: goodput", wanted, f"{ours['goodput']:.2f} Mbit/s", ours["goodput"] >= 94.8)
        yield _above(f"{where}: goodput", ours, cake, 1.0)


def _many_flows(results: Results, spreads: Mapping[str, float]) -> Iterator[Verdict]:
    for case in MANY_FLOWS:
        for direction in ("ingress", "egress"):
            if all(cell.name != f"latency/{case}/{direction}/ours" for cell in CATALOGUE):
                continue
            where = f"{case}, {direction}"
            ours, cake = _pair(results, "latency", case, direction)
            control = good(results, f"latency/{case}/{direction}/paced")
            for kind, spread in spreads.items():
                yield _at_most(where, kind, "p99", _two_packets(case.split()[0]), ours=ours, control=control)
                yield _below_in_ms(where, kind, ours, cake, spread)
            yield _above(f"{where}: goodput", ours, cake, 0.99)


def _two_packets(limit: str) -> tuple[float, str]:
    """What a sparse flow's p99 may have of wait at a limit, in ms, and in words."""
    most = 2 * PACKET_BITS / cells.bits(limit) * 1e3 + 0.5
    return most, f"at most 2 full packets' time + 0.5 ms = {most:.2f} ms"


def _at_most(where: str, kind: str, percent: str, most: tuple[float, str], *, ours: Any, control: Any) -> Verdict:
    """`most`: in ms, and in words.

    What the guest adds without any shaper, in the control's cell, no shaper can be blamed for.
    """
    what, (limit, wanted) = f"{where}: {SPARSE[kind]}, added {percent}", most
    if ours is None:
        return Verdict(what, wanted)
    value = ours["probes"][kind][percent]
    said = f"{value:.3f} ms"
    without = control["probes"][kind][percent] if control else 0
    if value > limit and without > limit:
        return Verdict(what, wanted, f"{said}; {without:.3f} ms without a shaper", undecided=True)
    return Verdict(what, wanted, said, value <= limit)


def _below_in_ms(where: str, kind: str, ours: Any, cake: Any, spread: float) -> Verdict:
    def p99(result: Mapping[str, Any]) -> float:
        return float(result["probes"][kind]["p99"])

    return _below(f"{where}: {SPARSE[kind]}, added p99", ours, cake, p99, "ms", spread=spread)


def _below(
    what: str, ours: Any, cake: Any, figure: Callable[[Any], float], unit: str = "", *, spread: float = 0.0
) -> Verdict:
    """`spread`: two figures that differ by less are not told apart, as one run is compared with one."""
    wanted = "below cake's"
    if ours is None or cake is None:
        return Verdict(what, wanted)
    mine, theirs = figure(ours), figure(cake)
    said = f"{_against(mine, theirs)} {unit}".strip()
    if abs(mine - theirs) < spread:
        return Verdict(what, wanted, said, undecided=True)
    return Verdict(what, wanted, said, mine < theirs)


def _above(what: str, ours: Any, cake: Any, share: float) -> Verdict:
    wanted = "above cake's" if share == 1 else f"above cake's less {100 - 100 * share:.0f} %"
    if ours is None or cake is None:
        return Verdict(what, wanted)
    mine, theirs = with_fetches(ours), with_fetches(cake)
    said = f"{_against(mine, theirs)} Mbit/s, the probes' fetches counted"
    return Verdict(what, wanted, said, mine > theirs * share)


def _against(mine: float, theirs: float) -> str:
    """With as many digits as it takes to see which is the greater."""
    for digits in range(3, 10):
        first, second = f"{mine:.{digits}f}", f"{theirs:.{digits}f}"
        if first != second:
            return f"{first} against {second}"
    return f"{mine:.3f} against as much"


def with_fetches(result: Mapping[str, Any]) -> float:
    """Goodput in Mbit/s with what the probing fetches carried: the sooner they are answered, the more there are."""
    fetches = result["probes"]["fetch"]
    return float(result["goodput"]) + (fetches["count"] - fetches["lost"]) * PAGE_BYTES * 8 / PROBED_SECONDS / 1e6


def ratio(result: Mapping[str, Any]) -> float:
    """Of the goodputs of two groups, the greater to the lesser."""
    first, second = sorted(group["goodput"] for group in result["groups"])
    return second / first if first else float("inf")


def _unfairness(result: Mapping[str, Any]) -> float:
    return 1 - float(result["groups"][0]["jain"])


def _fairness(results: Results) -> Iterator[Verdict]:
    for case in ("8 flows, 100M", "64 flows, 100M", "64 flows, 10M"):
        ours, cake = _pair(results, "fairness", case, "ingress")
        what, wanted = f"{case}: Jain's index", "at least 0.995"
        if ours is None:
            yield Verdict(what, wanted)
        else:
            index = ours["groups"][0]["jain"]
            yield Verdict(what, wanted, f"{index:.4f}", index >= 0.995)
        yield _below(f"{case}: 1 - Jain's index", ours, cake, _unfairness)
    for near, far, most in ((10, 50, 1.3), (1, 200, 2.0)):
        ours, cake = _pair(results, "fairness", f"RTT {near} beside {far} ms", "ingress")
        what, wanted = f"RTT {near} beside {far} ms: ratio of goodputs", f"at most {most}"
        if ours is None:
            yield Verdict(what, wanted)
        else:
            yield Verdict(what, wanted, f"{ratio(ours):.2f}", ratio(ours) <= most)
        yield _below(what, ours, cake, ratio)


def _flood(results: Results) -> Iterator[Verdict]:
    for limit, direction in (("10M", "ingress"), ("100M", "ingress"), ("100M", "egress")):
        case, wanted = f"2 TCP beside UDP at 10x, {limit}", "TCP together at least 60 % of the limit"
        what = f"{case}, {direction}"
        result = good(results, f"fairness/{case}/{direction}/ours")
        if result is None:
            yield Verdict(what, wanted)
        else:
            share = 100 * result["groups"][0]["goodput"] * 1e6 / cells.bits(limit)
            yield Verdict(what, wanted, f"{share:.1f} %", share >= 60)
        # Of pings alone, as its cells have no control.
        yield _at_most(what, "ping", "p99", _two_packets(limit), ours=result, control=None)


def cost_ratio(by_program: Mapping[str, float], *, net: bool = True) -> float:
    """Ours to the EDT FIFO's; net: less what running any program costs."""
    empty = by_program["empty"] if net else 0
    return (by_program["ours"] - empty) / (by_program["edt_fifo"] - empty)


def _cost(results: Results) -> Iterator[Verdict]:
    """Of the plain variant alone; how the others come out is in the section on cost."""
    cost = good(results, "cost")
    for state, said in (("idle", "no backlog"), ("backlog", "with backlog")):
        what, wanted = (
            f"ns a packet, one flow, one bucket, the same packet again, {said}",
            "at most 1.25 x EDT FIFO, both less an empty program's",
        )
        if not cost or not cost["variants"]:
            yield Verdict(what, wanted)
            continue
        plain = cost["variants"][0][state]
        net, raw = cost_ratio(plain), cost_ratio(plain, net=False)
        times = f"{plain['ours']:.0f} to {plain['edt_fifo']:.0f} ns"
        yield Verdict(what, wanted, f"{net:.2f} ({times} as they are: {raw:.2f})", net <= 1.25)


def is_seen(change: Mapping[str, Any]) -> bool:
    """Whether anything passed after a change, so that it says something; of a capture, whether it has some of it."""
    return bool(change.get("captured", change["carried"]))


def _change(results: Results) -> Iterator[Verdict]:
    for direction in ("ingress", "egress"):
        result = good(results, f"change/1M 100M 1G/{direction}/ours")
        made = {(each["from"], each["to"]): each for each in result["changes"]} if result else {}
        for cut in CUTS:
            yield from _cut(f"{direction} lowered from {cut[0]} to {cut[1]}", made.get(cut))


def _cut(what: str, change: Mapping[str, Any] | None) -> Iterator[Verdict]:
    rate = f"{what}: new rate is not exceeded by more than 10 %"
    half = f"{what}: half of the new rate is carried again"
    if change is None or not is_seen(change):
        yield Verdict(rate, WITHIN)
    else:
        yield _within(rate, change["held_after"])
    if change is None or (change["carried"] and not is_seen(change)):
        yield Verdict(half, WITHIN)
    else:
        yield _within(half, change["half_after"])
    if change is None:
        yield Verdict(f"{what}: ping answers", WITHIN)
    else:
        yield Verdict(f"{what}: ping answers", WITHIN, f"{change['silence']:.2f} s of silence", change["silence"] <= 1)


def _within(what: str, seconds: float | None) -> Verdict:
    said = "not within the 5 s watched" if seconds is None else f"{seconds:.2f} s"
    return Verdict(what, WITHIN, said, seconds is not None and seconds <= 1)
