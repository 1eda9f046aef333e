"""The results as people read them: Markdown tables and the verdicts. Pure."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.bench import cells, verdict
from tests.bench.cells import CATALOGUE, NAMES, Cell
from tests.bench.plots import plots
from tests.bench.pooled import pooled, slowest_fetch, unloaded
from tests.bench.verdict import Verdict, carried, cost_ratio, count, good, ratio, verdicts

Results = Mapping[str, Mapping[str, Any]]
PROBES = ("ping", "dns", "fetch")


def files(results: Results) -> dict[str, str]:
    """All files beside results.json, by name."""
    return {"README.md": markdown(results), **plots(results)}


def summary(results: Results) -> str:
    """For the terminal."""
    made = verdicts(results)
    rows = [f"{_word(each).strip('*'):12} {each.what}: {each.measured} (wanted: {each.wanted})" for each in made]
    return "\n".join([*rows, count(made)])


def line(result: Mapping[str, Any]) -> str:
    """One result in one line."""
    if "error" in result:
        return "failed: " + str(result["error"])
    if "changes" in result:
        return ", ".join(f"{each['from']}->{each['to']} {_held(each)}" for each in result["changes"])
    groups = result["groups"]
    said = " + ".join(f"{group['goodput']:.3f}" for group in groups) + " Mbit/s"
    if any(group["jain"] is not None and group["flows"] > 1 for group in groups):
        said += ", Jain " + " ".join(f"{g['jain']:.4f}" for g in groups if g["jain"] is not None and g["flows"] > 1)
    for kind in PROBES if "probes" in result else ():
        figures = result["probes"].get(kind)
        if figures:
            said += f", {kind} +{figures['p50']:.2f}/{figures['p99']:.2f}/{figures['largest']:.1f} ms"
    return said


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


_LATENCY = """RTT 10 ms by netem; after 3 s of warming up, 8 s. A ping (100 a second), a request like DNS over UDP
(40 a second), and a fetch of 10 kB over a fresh TCP connection (7 a second at most), all from or to a third Pod, of 64
addresses; in ms, each less what it is without load. Of pings and UDP, p50 / p99 / largest. What is taken off are the
medians of all cells' p50 and p99 without load, as two seconds of them tell too little of one cell; off UDP's largest
the p99, which of 80 is the largest (so a p99 of more comes out a millisecond low); off a ping's largest the cell's own.
Of fetches, which are few, p50 / largest, both less the cell's own p50 without load, which its limit has a part in. An
unanswered probe counts as 1000 ms. The control, senders that pace themselves to 95 % of the limit with no shaper, shows
what is the guest's own noise.

![latency](latency.svg)

![loads](loads.svg)
"""
_DIRTY = """
-dirty: with changes that no commit has, so nobody can measure just that again."""
_ACCURACY = """Goodput as received, after the first seconds; the first second apart from its first packet; the largest
window of 100 ms on the wire from the first packet on. 100 % of goodput is what a limit lets TCP (or UDP) carry.
"""
_CPU = """In QEMU, emulated, with four CPUs and BPF's JIT: the time that the machine's CPUs were busy with it, senders,
receivers and all else in the guest among that, for each gigabyte received. Emulation takes some ten times as long, so
the ratios tell.
"""
_CHANGES = """Seconds until each window of half a second is within 10 % of what the new limit lets TCP carry (of a
lowered limit: does not exceed it by 10 %, which who lets nothing pass does not either; at 1M each second of what passes
on the wire, as a merged packet lasts half a second there, and a receiver gets what waited behind a gap at once); of a
lowered limit, the seconds until each of these windows has half of it; the share of it that was carried in the 5 s
watched; and the longest silence of a ping, in seconds. "never": not within these 5 s; "not measured": nothing passed,
or nothing of it was captured. The guest's CPU may not carry 1G with some shapers.
"""

_COMPARED = """Each comparison with cake is of one run of each. Two p99 of pings that differ by less than {ping:.2f} ms,
and two of UDP's requests that differ by less than {dns:.2f} ms, as far as the cells are apart in it without load (from
the 10th percentile to the 90th), are undecided, which does not count as reached. Targets in ms are judged without that;
one that is missed where the control, senders that pace themselves without a shaper, misses it in the same run is
undecided, too. They are for pings and UDP's requests (whose p99 come out a millisecond low, as said above), beside a
flood for pings alone; fetches, which the limit itself holds, are figures without a target.
"""


def markdown(results: Results) -> str:
    """The whole report."""
    without_load, made = _unloaded(results), verdicts(results)
    spreads = {kind: verdict.spread_ms(results, kind) for kind in verdict.SPARSE}
    results = pooled(results)
    judged = ([each.what, each.wanted, each.measured, _word(each)] for each in made)
    parts = [
        "# Benchmarks\n",
        _preface(results),
        f"**{count(made)}**: the verdicts are at the end.\n",
        "## Latency under load\n",
        _measured(results, "latency"),
        _LATENCY,
        without_load,
        _latency(results),
        "## Accuracy\n",
        _measured(results, "accuracy"),
        _ACCURACY,
        _accuracy(results),
        "## Fairness\n",
        _measured(results, "fairness"),
        "![fairness](fairness.svg)\n",
        _equal(results),
        _shares(results),
        "## Changes of a limit under a TCP flow\n",
        _measured(results, "change"),
        _CHANGES,
        _changes(results),
        "## CPU time of a transfer\n",
        _measured(results, "cpu"),
        _CPU,
        _cpu(results),
        "## Cost\n",
        _measured(results, "cost"),
        _cost(results),
        "## Verdicts\n",
        _COMPARED.format(**spreads),
        table(("figure", "wanted", "measured", "reached"), judged),
        f"{count(made)}.\n",
    ]
    return "\n".join(parts)


def _word(made: Verdict) -> str:
    unknown = "undecided" if made.undecided else verdict.NOT_MEASURED
    return {True: "yes", False: "**no**", None: unknown}[made.reached]


def _measured(results: Results, section: str) -> str:
    """When, and of which version: they are not those of another section."""
    found = [result for name, result in results.items() if name.split("/")[0] == section]
    counted = Counter((str(result.get("revision", "?")), str(result.get("at", "?"))[:10]) for result in found)
    if not counted:
        return ""
    said = [f"{number} of version {version}, {day}" for (version, day), number in sorted(counted.items())]
    dirty = any(version.endswith("-dirty") for version, _ in counted)
    return f"Figures: {'; '.join(said)}.{_DIRTY if dirty else ''}\n"


def _unloaded(results: Results) -> str:
    """What is taken off pings and UDP's requests, and how far the cells are apart in it."""
    lines = []
    for kind, called in (("ping", "pings"), ("dns", "UDP's requests")):
        for rtt_ms, kept in unloaded(results, kind).items():
            figures = [
                f"{key} {statistics.median(values):.2f} ms ({min(values):.2f} to {max(values):.2f})"
                for key, values in kept.items()
            ]
            lines.append(
                f"Without load, {called} at an RTT of {rtt_ms} ms take, in the middle of all cells (and from\n"
            )
            lines.append(f"the least to the most): {', '.join(figures)}.\n")
    return "".join(lines)


def _preface(results: Results) -> str:
    if not results:
        return "Nothing is measured yet.\n"
    measured = [each for name, each in results.items() if name != "cost" and not name.startswith("cpu/")]
    kernels = sorted({str(each["kernel"]) for each in measured if "kernel" in each})
    most_stolen = 100 * max((each["stolen"] for each in results.values() if "stolen" in each), default=0)
    again = sum(each.get("times", 1) > 1 for each in measured)
    failed = sorted(name for name, result in results.items() if "error" in result)
    said = f"""Measured by `make bench`, each section on the day and of the version that it names: real ipvlan L2 on
Linux {", ".join(kernels) or "?"} in user-mode-linux (one CPU, no BPF JIT), all shapers in the same way, on the slave
for egress and on an ifb in the Pod for ingress. The hypervisor stole at most {most_stolen:.1f} % of a cell's time.
"""
    if again:
        said += f"Of {len(measured)} cells, {again} were measured again; the least disturbed result counts.\n"
    return said + "".join(f"\nNot measured, as it failed: {name}\n" for name in failed)


def _found(results: Results, section: str) -> Iterator[tuple[Cell, Mapping[str, Any]]]:
    for cell in CATALOGUE:
        if cell.section == section and (result := good(results, cell.name)):
            yield cell, result


def _name(shaper: str) -> str:
    return f"**{NAMES[shaper]}**" if shaper == "ours" else NAMES[shaper]


def _by_case(found: Iterable[tuple[Cell, Mapping[str, Any]]]) -> list[tuple[Cell, Mapping[str, Any]]]:
    """Shapers of the same case together, cases in the catalogue's order."""
    listed = list(found)
    order = list(dict.fromkeys((cell.case, cell.direction) for cell, _ in listed))
    return sorted(listed, key=lambda each: order.index((each[0].case, each[0].direction)))


def _latency(results: Results) -> str:
    rows = []
    for cell, result in _by_case(_found(results, "latency")):
        probes = result["probes"]
        waits = [_waits(kind, probes[kind]) if kind in probes else "-" for kind in PROBES]
        lost = sum(figures["lost"] for figures in probes.values())
        rows.append([cell.case, cell.direction, _name(cell.shaper), f"{result['goodput']:.2f}", *waits, f"{lost:.0f}"])
    head = ("load", "limit on", "shaper", "goodput, Mbit/s", "ping, added", "UDP, added", "fetch, added", "lost")
    return table(head, rows)


def _waits(kind: str, figures: Mapping[str, Any]) -> str:
    if kind == "fetch":
        return f"{figures['p50']:.2f} / {slowest_fetch(figures):.2f}"
    return " / ".join(f"{figures[key]:.2f}" for key in ("p50", "p99", "largest"))


def _accuracy(results: Results) -> str:
    rows = []
    for cell, result in _by_case(_found(results, "accuracy")):
        most = carried(cell)
        window = result.get("window")
        rows.append(
            [
                cell.case,
                cell.direction,
                _name(cell.shaper),
                f"{result['goodput']:.4g}",
                f"{100 * result['goodput'] / most:.2f} %",
                f"{100 * max(group['first_second'] for group in result['groups']) / most:.1f} %",
                f"{100 * window * 1e6 / cells.bits(cell.limit):.1f} % of the limit" if window else "",
            ]
        )
    return table(("load", "limit on", "shaper", "Mbit/s", "goodput", "first second", "largest 100 ms"), rows)


def _equal(results: Results) -> str:
    rows = [
        [cell.case, _name(cell.shaper), f"{group['jain']:.4f}", f"{result['goodput']:.2f}", str(group["silent_flows"])]
        for cell, result in _by_case(_found(results, "fairness"))
        if len(cell.flows) == 1
        for group in result["groups"]
    ]
    return table(("equal flows", "shaper", "Jain's index", "goodput, Mbit/s", "flows with nothing"), rows)


def _shares(results: Results) -> str:
    rows = []
    for cell, result in _by_case(_found(results, "fairness")):
        if len(cell.flows) < 2:
            continue
        ping = result.get("probes", {}).get("ping")
        goodputs = [f"{group['goodput']:.2f}" for group in result["groups"]]
        added = f"{ping['p50']:.2f} / {ping['p99']:.2f}" if ping else ""
        rows.append([cell.case, cell.direction, _name(cell.shaper), *goodputs, f"{ratio(result):.2f}", added])
    return table(
        ("groups", "limit on", "shaper", "first, Mbit/s", "second, Mbit/s", "ratio", "ping, added p50 / p99, ms"), rows
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


def _held(change: Mapping[str, Any]) -> str:
    return _seconds(change["held_after"]) if verdict.is_seen(change) else verdict.NOT_MEASURED


def _half(change: Mapping[str, Any]) -> str:
    lowered = cells.bits(change["to"]) < cells.bits(change["from"])
    return f"half {_seconds(change['half_after'])}, " if lowered else ""


def _changes(results: Results) -> str:
    found = list(_found(results, "change"))
    if not found:
        return ""
    steps = [(change["from"], change["to"]) for change in found[0][1]["changes"]]
    rows = []
    for cell, result in found:
        changes = [
            f"{_held(change)}, {_half(change)}{100 * change['carried']:.0f} %, {change['silence']:.2f}"
            for change in result["changes"]
        ]
        rows.append([_name(cell.shaper), cell.direction, *changes])
    return table(("shaper", "limit on", *(f"{before} to {after}" for before, after in steps)), rows)


def _cpu(results: Results) -> str:
    found = _by_case(_found(results, "cpu"))
    bare = {
        (cell.case, cell.direction): each["cpu_seconds_a_gigabyte"] for cell, each in found if cell.shaper == "paced"
    }
    rows = []
    for cell, result in found:
        seconds = result["cpu_seconds_a_gigabyte"]
        beside = bare.get((cell.case, cell.direction))
        more = f"{100 * (seconds / beside - 1):+.0f} %" if beside else ""
        kernel = str(result["kernel"])
        rows.append(
            [cell.case, cell.direction, _name(cell.shaper), f"{result['goodput']:.2f}", f"{seconds:.1f}", more, kernel]
        )
    head = ("load", "limit on", "shaper", "goodput, Mbit/s", "CPU s a GB", "beside the paced senders", "Linux")
    return table(head, rows)


def _cost(results: Results) -> str:
    cost = results.get("cost")
    if not cost:
        return ""
    if "error" in cost:
        return f"The machine's kernel does not run the programs: {cost['error']}\n"
    rows = []
    for variant in cost["variants"]:
        for state, said in (("idle", "no"), ("backlog", "yes")):
            times = variant[state]
            figures = [f"{times[program]:.0f}" for program in ("empty", "edt_fifo", "ours")]
            ratios = [f"{cost_ratio(times):.2f}", f"{cost_ratio(times, net=False):.2f}"]
            rows.append([str(variant["flows"]), str(variant["buckets"]), said, *figures, *ratios])
    jit = "with" if cost["jit"] else "without"
    said = f"""Nanoseconds a packet by BPF_PROG_TEST_RUN on Linux {cost["kernel"]} ({jit} JIT), medians. The first two
rows run one packet again and again; the others vary its port, hash and bucket, which `empty` has the cost of.

"""
    head = ("flows", "buckets", "backlog", "empty", "EDT FIFO", "ours", "ours / EDT FIFO, less empty", "as they are")
    return said + table(head, rows)
