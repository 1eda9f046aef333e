"""What load adds to a probe, taken from all cells' probes without load and not from a cell's own. Pure.

A cell probes for two seconds before its load: the 99th percentile of so few is off by as much as the shapers differ.
"""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.cells import CATALOGUE

Results = Mapping[str, Mapping[str, Any]]
KEYS = ("p50", "p99")
ALIKE = ("ping", "dns")
"""Probes that take as long without load whatever the limit and the shaper. A fetch does not: the limit holds it."""


def unloaded(results: Results, kind: str) -> dict[int, dict[str, list[float]]]:
    """By round trip in ms: what the probes of a kind took in each cell without load."""
    found: dict[int, dict[str, list[float]]] = {}
    for name, rtt_ms in _probed():
        if figures := _probes(results.get(name, {})).get(kind):
            kept = found.setdefault(rtt_ms, {key: [] for key in KEYS})
            for key in KEYS:
                kept[key].append(figures[f"unloaded_{key}"])
    return found


def pooled(results: Results) -> dict[str, Mapping[str, Any]]:
    """The results with the medians of `unloaded` taken off p50 and p99; done once more, it changes nothing.

    Of UDP's requests the largest too: fewer than a hundred are sent without load, so their p99 is their largest. Pings
    are more, and what their largest was without load is not kept: it stays as it is.
    """
    made = dict(results)
    medians = {
        (kind, rtt_ms): {key: statistics.median(values) for key, values in kept.items()}
        for kind in ALIKE
        for rtt_ms, kept in unloaded(results, kind).items()
    }
    for name, rtt_ms in _probed():
        if probes := _probes(results.get(name, {})):
            fresh = {
                kind: _compared(kind, figures, medians[kind, rtt_ms]) if kind in ALIKE and figures else figures
                for kind, figures in probes.items()
            }
            made[name] = {**results[name], "probes": fresh}
    return made


def _compared(kind: str, figures: Mapping[str, Any], medians: Mapping[str, float]) -> dict[str, Any]:
    fresh = dict(figures)
    for key in KEYS:
        fresh[key] = figures[key] + figures[f"unloaded_{key}"] - medians[key]
        fresh[f"unloaded_{key}"] = medians[key]
    if kind == "dns":
        fresh["largest"] = figures["largest"] + figures["unloaded_p99"] - medians["p99"]
    return fresh


def slowest_fetch(figures: Mapping[str, Any]) -> float:
    """How much longer in ms the slowest took under load than one in the middle did without.

    Without load there are a dozen, so their p99 is the slowest of them, which a hiccup of the machine decides.
    """
    return float(figures["largest"] + figures["unloaded_p99"] - figures["unloaded_p50"])


def _probed() -> Iterator[tuple[str, int]]:
    for cell in CATALOGUE:
        if cell.probed and not cell.changes:
            yield cell.name, cell.flows[0].rtt_ms


def _probes(result: Mapping[str, Any]) -> Mapping[str, Any]:
    probes: Mapping[str, Any] = result.get("probes", {})
    return probes
