"""What was measured as a table, each figure beside its target and the place where it was measured. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.stats import percentile

RESTART_S, IDLE_PERCENT, RESIDENT_MIB, CHANGE_MS = 2.0, 0.1, 80.0, 50.0
FIRST_START_MEMORY = "memory of a first start at its most, with the compiler"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `verdict` is yes, no, or what it is instead of either."""

    what: str
    where: str
    figure: str
    target: str
    verdict: str


def slowness(guest: Mapping[str, float], native: Mapping[str, float]) -> dict[str, float]:
    """How often slower the guest is, by kind of work."""
    return {name: guest[name] / native[name] for name in native}


def rows(guest: Mapping[str, Any], native: Mapping[str, Any]) -> Sequence[Row]:
    changes = guest["changes_ms"]
    median, p99 = percentile(changes, 0.5), percentile(changes, 0.99)
    hooks = guest["hooks_ms"]
    parts = native["imports"]["cpu_s"] + native["survey_s"] + native["looks_s"]
    machine, inside = "machine, in parts", "guest, the whole"
    one_look = native["looks_s"] / native["pods"] * 1000
    return (
        _row("restart to converged, all limits other ones", inside, guest["restart_s"], RESTART_S, "s"),
        _row("of which CPU of the process", inside, guest["restart_cpu_s"], None, "s"),
        _row("imports + looking into all + a look at each", machine, parts, None, "s"),
        _row("idle CPU, with the kubelet's probes", inside, guest["idle_cpu_percent"], IDLE_PERCENT, "%"),
        _row("resident memory", inside, guest["resident_mib"], RESIDENT_MIB, "MiB"),
        _row("resident memory at its most, from a restart on", inside, guest["most_resident_mib"], RESIDENT_MIB, "MiB"),
        _row(FIRST_START_MEMORY, inside, guest.get("first_start_most_resident_mib"), None, "MiB"),
        _row("a change, p99", inside, p99, CHANGE_MS, "ms"),
        _row("a change, p50", inside, median, None, "ms"),
        _row("CPU of a change", inside, guest["change_cpu_ms"], None, "ms"),
        _row("a look at one Pod", machine, one_look, None, "ms"),
        _row("a starting Pod waits for its limits, p50", inside, percentile(hooks, 0.5), None, "ms"),
        _row("a starting Pod waits for its limits, most", inside, max(hooks), None, "ms"),
        _row("first start on a node, with compiling", inside, guest["first_start_s"], None, "s"),
    )


def _row(what: str, where: str, figure: float | None, target: float | None, unit: str) -> Row:
    if figure is None:
        return Row(what, where, "not measured", "", "")
    verdict = "" if target is None else "yes" if figure <= target else "no"
    return Row(what, where, f"{figure:.3g} {unit}", f"at most {target:g} {unit}" if target else "", verdict)


def text(measured: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    guest, native = measured["guest"], measured["native"]
    slow = slowness(guest["calibration_us"], native["calibration_us"])
    slower = ", ".join(f"{name.replace('_', ' ')} {factor:.1f}" for name, factor in slow.items())
    intro = f"""\
# The reconciler's cost on a node

Measured {measured["date"]}, version {measured["version"]}, by `make bench-reconciler`: {guest["pods"]} Pods, both
directions limited; the real daemon over real sockets (NRI, the API server's HTTPS), no kubelet and no containers.

- *Guest*: Linux {guest["kernel"]} in user-mode-linux, one emulated CPU, with real ipvlan, ifb and fq. User space is
  slow there: the same work, timed in both places in the same run, takes so many times as long as on the machine:
  {slower}.
- *Machine*: Linux {measured["kernel"]}, which has no ipvlan and no fq. By the same code, with macvlan in ipvlan's
  place, the parts that it can do: interpreter and imports (CPU), looking into all network namespaces, a look at each
  Pod. What is missing of a restart are the two connections, the Pods' list, and the writes to the map.

The compiler of the BPF program runs only at a first start on a node, for seconds, as a process of its own. Its memory
has no target: it is summed with the reconciler's, what both share counted twice, and what the kernel holds for the
program left out, and has to fit into the container's limit (manifests/base/reconciler.yaml).

So the guest's figures are of the whole and too high by those factors, the machine's are of its parts and as on a node.
"""
    lines = [
        intro,
        "| what | where | figure | target | reached |",
        "|---|---|---|---|---|",
        *(f"| {row.what} | {row.where} | {row.figure} | {row.target} | {row.verdict} |" for row in rows(guest, native)),
        "",
    ]
    return "\n".join(lines)
