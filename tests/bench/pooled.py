"""What load adds to a ping, taken from all cells' pings without load and not from a cell's own. Pure.

A cell pings for two seconds before its load: the 99th percentile of so few is off by as much as the shapers differ.
"""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.cells import CATALOGUE

Results = Mapping[str, Mapping[str, Any]]
KEYS = ("p50", "p99")


def unloaded(results: Results) -> dict[int, dict[str, list[float]]]:
    """By round trip in ms: what the pings of each cell took without load."""
    found: dict[int, dict[str, list[float]]] = {}
    for name, rtt_ms in _probed():
        if ping := _ping(results.get(name, {})):
            kept = found.setdefault(rtt_ms, {key: [] for key in KEYS})
            for key in KEYS:
                kept[key].append(ping[f"unloaded_{key}"])
    return found


def pooled(results: Results) -> dict[str, Mapping[str, Any]]:
    """The results with the medians of `unloaded` taken off the pings' p50 and p99; done once more, it changes nothing.

    The largest stays as it is: what it was without load is not kept.
    """
    made = dict(results)
    medians = {
        rtt_ms: {key: statistics.median(values) for key, values in kept.items()}
        for rtt_ms, kept in unloaded(results).items()
    }
    for name, rtt_ms in _probed():
        if ping := _ping(results.get(name, {})):
            fresh = dict(ping)
            for key in KEYS:
                fresh[key] = ping[key] + ping[f"unloaded_{key}"] - medians[rtt_ms][key]
                fresh[f"unloaded_{key}"] = medians[rtt_ms][key]
            made[name] = {**results[name], "probes": {**results[name]["probes"], "ping": fresh}}
    return made


def _probed() -> Iterator[tuple[str, int]]:
    for cell in CATALOGUE:
        if cell.probed and not cell.changes:
            yield cell.name, cell.flows[0].rtt_ms


def _ping(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    ping: Mapping[str, Any] | None = result.get("probes", {}).get("ping")
    return ping
