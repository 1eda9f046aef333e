"""What `make bench-admission` measured, as figures and as a table. Pure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.report import table

NONE, GO, OURS = "no webhook", "Go webhook", "ours"
VARIANTS = (NONE, GO, OURS)
TARGET = 0.95

# {how: {workers: {variant: [round, ...]}}}, a round being {"rate", "p50_ms", "p99_ms", "cpu_us"}
Rounds = Mapping[str, Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]]


def round_of(seconds: float, milliseconds: Sequence[float], cpu_seconds: float) -> dict[str, float]:
    """One round's figures: Pods a second, how long each took, and the webhook's own CPU time for each."""
    ordered = sorted(milliseconds)
    return {
        "rate": len(ordered) / seconds,
        "p50_ms": quantile(ordered, 0.50),
        "p99_ms": quantile(ordered, 0.99),
        "cpu_us": cpu_seconds * 1e6 / len(ordered),
    }


def quantile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that at least such a part of all does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def ratios(variants: Mapping[str, Sequence[Mapping[str, float]]], figure: str) -> list[float]:
    """Our figure as a part of the Go webhook's, round by round: what else the machine did in a round is in both."""
    return [ours[figure] / go[figure] for ours, go in zip(variants[OURS], variants[GO], strict=True)]


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile, between which the machine's bad rounds are not."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def word(values: Sequence[float]) -> str:
    """What rates' ratios say of the target: nothing, while it is within their middle half."""
    first, third = middle_half(values)
    return "missed" if third < TARGET else "reached" if first >= TARGET else "undecided"


def markdown(results: Mapping[str, Any]) -> str:
    """The table, and what was reached of the target."""
    rounds: Rounds = results["rounds"]
    cells = [(how, workers, variants) for how, by_workers in rounds.items() for workers, variants in by_workers.items()]
    rows = []
    for how, workers, variants in cells:
        for variant in VARIANTS:
            middle = {key: statistics.median(each[key] for each in variants[variant]) for key in variants[variant][0]}
            cpu, rate = ((_ratio(ratios(variants, key)) if variant == OURS else "") for key in ("cpu_us", "rate"))
            rows.append(
                (
                    how,
                    workers,
                    variant,
                    "" if variant == NONE else f"{middle['cpu_us']:.0f}",
                    cpu,
                    f"{middle['rate']:.0f}",
                    f"{middle['p50_ms']:.2f}",
                    f"{middle['p99_ms']:.2f}",
                    rate,
                )
            )
    head = ("Pods", "workers", "webhook", "CPU µs/Pod", "CPU ours/Go", "Pods/s", "p50 ms", "p99 ms", "rate ours/Go")
    costs = [statistics.median(ratios(variants, "cpu_us")) for _, _, variants in cells]
    return f"""# What admission costs

**Admitting a Pod takes {min(costs):.1f} to {max(costs):.1f} times the CPU time of a webhook in Go that does the same.**

`make bench-admission` on {results["date"]}, {_version(results)}: Pods created at a real kube-apiserver and etcd
{results["machine"]}, in {_rounds(results)} of {results["seconds"]:g} s each.
The Go webhook does the same for a Pod with the standard library (`tests/bench/admission-go/webhook`); both are
one replica, called as a Service over HTTP/1.1 and TLS with the same `matchConditions`. Medians of the rounds; a ratio
is of each round's two figures, with its quartiles (and from the least to the most).
Load, API server, etcd and webhook share the processors, so a webhook costs rate by the CPU time it takes.

{table(head, rows)}
Target, at least {TARGET} of the Go webhook's rate (undecided where that is between the quartiles): {_verdict(cells)}.
"""


def _verdict(cells: Sequence[tuple[str, str, Mapping[str, Sequence[Mapping[str, float]]]]]) -> str:
    found: dict[str, list[str]] = {"missed": [], "undecided": [], "reached": []}
    for how, workers, variants in cells:
        values = ratios(variants, "rate")
        called = f"{how}, {workers} worker{'' if workers == '1' else 's'}"
        found[word(values)].append(f"{called} ({statistics.median(values):.3f})")
    return "; ".join(f"{each} in {len(where)}: {', '.join(where)}" for each, where in found.items() if where)


def _version(results: Mapping[str, Any]) -> str:
    """What was measured before it was kept is of no version that anybody knows."""
    return f"version {results['version']}" if "version" in results else "version unknown"


def _rounds(results: Mapping[str, Any]) -> str:
    """How many there are of those that were asked for: results are written after each."""
    done, wanted = results["rounds_each"], results.get("rounds_wanted")
    if wanted is None:
        return f"{done} interleaved rounds (it was not kept how many were asked for)"
    return f"{done} of {wanted} interleaved rounds" + ("" if done == wanted else " (it did not come to its end)")


def _ratio(values: Sequence[float]) -> str:
    first, third = middle_half(values)
    return f"{statistics.median(values):.3f}, {first:.3f} to {third:.3f} ({min(values):.3f} to {max(values):.3f})"
