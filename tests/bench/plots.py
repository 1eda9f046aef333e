"""The plots of the results. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.cells import CATALOGUE, NAMES
from tests.bench.pooled import pooled
from tests.bench.svg import INK, MUTED, Bar, Canvas, Frame, Point, bars, decades, figure, linear, logarithmic, scatter
from tests.bench.verdict import FEW_FLOWS, good

Results = Mapping[str, Mapping[str, Any]]
COLOURS: Mapping[str, str] = {
    "ours": "#0a7d5a",
    "cake": "#c8641b",
    "htb_fq_codel": "#4a6fa5",
    "tbf": "#8b5fa8",
    "tbf_cni": "#b08cc6",
    "edt_fifo": "#a23b4a",
    "edt_no_fq": "#d08a93",
    "paced": "#9aa5b1",
    "none": "#9aa5b1",
}
LEAST_MS = 0.02
"""What is added below this is drawn here: the guest's clock and CPU tell no more."""


def plots(results: Results) -> dict[str, str]:
    """By file name; only those that there are results for."""
    results = pooled(results)
    made = {"latency.svg": headline(results), "loads.svg": loads(results), "fairness.svg": fairness(results)}
    return {name: text for name, text in made.items() if text}


def _latency(results: Results, case: str, direction: str = "ingress") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for cell in CATALOGUE:
        if (cell.section, cell.case, cell.direction) == ("latency", case, direction):
            result = good(results, cell.name)
            if result:
                yield cell.shaper, result


def headline(results: Results) -> str:
    """Added latency against goodput, and p50 and p99 of each shaper, at 100M with 8 flows."""
    found = list(_latency(results, FEW_FLOWS))
    if not found:
        return ""
    canvas = Canvas(980, 400)
    canvas.text(
        24,
        32,
        "100M ingress limit, 8 CUBIC flows, RTT 10 ms: what a ping waits, and what the flows carry",
        size=16,
        weight=700,
    )
    most = max(100.0, *(3 * result["probes"]["ping"]["p99"] for _, result in found))
    names = {shaper: NAMES[shaper] + ("*" if _bursts(result) else "") for shaper, result in found}
    goodputs = [result["goodput"] for _, result in found]
    step = max(1, round((max(goodputs) - min(goodputs)) / 6))
    low, high = step * (min(goodputs) // step - 1), step * (max(goodputs) // step + 2)
    scatter(
        canvas,
        Frame(78, 60, 450, 330),
        [
            Point(result["probes"]["ping"]["p99"], result["goodput"], names[shaper], COLOURS[shaper], shaper == "ours")
            for shaper, result in found
        ],
        x_range=(LEAST_MS, most),
        y_range=(low, high),
        y_ticks=[low + step * number for number in range(int((high - low) / step) + 1)],
        x_title="added latency of a ping, p99, ms (left is better)",
        y_title="goodput, Mbit/s (up is better)",
    )
    frame = Frame(660, 76, 900, 330)
    scale = logarithmic(LEAST_MS, most, frame.left, frame.right)
    rows = []
    for shaper, result in found:
        ping = result["probes"]["ping"]
        said = f"{figure(ping['p50'])} / {figure(ping['p99'])}"
        rows.append(Bar(names[shaper], ping["p50"], COLOURS[shaper], ping["p99"], shaper == "ours", said))
    bars(canvas, frame, rows, scale=scale, ticks=decades(LEAST_MS, most), row_height=28)
    canvas.text(frame.left, 60, "added ms, p50 (solid) / p99 (faint)", fill=MUTED)
    bursts = [f"{_bursts(result):.0f}" for _, result in found if _bursts(result)]
    note = f"* lets more than the limit through: {', '.join(bursts)} Mbit/s in the first second. " if bursts else ""
    canvas.text(24, 384, note + _where(found[0][1]), size=11, fill=MUTED)
    return canvas.svg()


def _bursts(result: Mapping[str, Any]) -> float:
    """What the first second carried, if that is far above a limit of 100M; else 0."""
    most = max(group["first_second"] for group in result["groups"])
    return most if most > 110 else 0


def _where(result: Mapping[str, Any]) -> str:
    kernel, day, version = result.get("kernel", "?"), result.get("at", "")[:10], result.get("revision", "?")
    return f"Linux {kernel}, user-mode-linux, one CPU without JIT; {day}; version {version}"


def loads(results: Results) -> str:
    """p99 of a ping under all loads, ours beside the others."""
    cases = list(dict.fromkeys((cell.case, cell.direction) for cell in CATALOGUE if cell.section == "latency"))
    groups = []
    for case, direction in cases:
        found = [
            (s, r) for s, r in _latency(results, case, direction) if s in {"ours", "cake", "htb_fq_codel", "paced"}
        ]
        if found:
            groups.append((f"{case}, {direction}", found))
    if not groups:
        return ""
    height = sum(26 + 22 * len(found) for _, found in groups) + 90
    canvas = Canvas(760, height)
    canvas.text(24, 32, "What load adds to a ping, p99, ms (logarithmic; shorter is better)", size=16, weight=700)
    most = max(10.0, *(2 * r["probes"]["ping"]["p99"] for _, found in groups for _, r in found))
    y = 56.0
    for title, found in groups:
        canvas.text(24, y + 12, title, weight=700, fill=INK)
        frame = Frame(260, y + 20, 660, 0)
        rows = [
            Bar(NAMES[s], r["probes"]["ping"]["p99"], COLOURS[s], None, s == "ours",
                f"{figure(r['probes']['ping']['p99'])} ms at {figure(r['goodput'])} Mbit/s")
            for s, r in found
        ]  # fmt: skip
        bars(canvas, frame, rows, scale=logarithmic(LEAST_MS, most, 260, 600), ticks=(), row_height=22)
        y += 26 + 22 * len(found)
    canvas.text(24, height - 14, _where(groups[0][1][0][1]), size=11, fill=MUTED)
    return canvas.svg()


def fairness(results: Results) -> str:
    """How two groups share: the share of the first group, ours beside the others."""
    groups = []
    for case in dict.fromkeys(cell.case for cell in CATALOGUE if cell.section == "fairness" and len(cell.flows) > 1):
        alike = [cell for cell in CATALOGUE if cell.section == "fairness" and cell.case == case]
        found = [(cell.shaper, result) for cell in alike if (result := good(results, cell.name))]
        if found:
            groups.append((case, found))
    if not groups:
        return ""
    height = sum(26 + 22 * len(found) for _, found in groups) + 90
    canvas = Canvas(760, height)
    canvas.text(
        24, 32, "Who gets how much: the share of the flow or flows named first, % of all goodput", size=16, weight=700
    )
    y = 56.0
    for title, found in groups:
        canvas.text(24, y + 12, title, weight=700)
        rows = []
        for shaper, result in found:
            first, second = (group["goodput"] for group in result["groups"])
            share = 100 * first / (first + second) if first + second else 0.0
            said = f"{share:.0f} % ({figure(first)} and {figure(second)} Mbit/s)"
            rows.append(Bar(NAMES[shaper], share, COLOURS[shaper], None, shaper == "ours", said))
        bars(canvas, Frame(260, y + 20, 560, 0), rows, scale=linear(0, 100, 260, 560), ticks=(), row_height=22)
        y += 26 + 22 * len(found)
    canvas.text(24, height - 14, _where(groups[0][1][0][1]), size=11, fill=MUTED)
    return canvas.svg()
