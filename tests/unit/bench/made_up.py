"""Results that are made up."""

from typing import Any

from tests.bench import cells
from tests.bench.verdict import carried

PROBE = {"count": 800, "lost": 0, "unloaded_p50": 10.0, "unloaded_p99": 10.3}
FLOODED = "2 TCP beside UDP at 10x"


def result(cell: cells.Cell, *, share: float = 1.0, wait: float = 0.0) -> dict[str, Any]:
    """A cell that came out well; or with another share of what can be carried, and other waits in ms."""
    if cell.section == "change":
        steps = zip((cell.limit, *cell.changes), cell.changes, strict=False)
        held = [
            {
                "from": before,
                "to": after,
                "took": 0,
                "held_after": wait,
                "half_after": wait,
                "silence": wait,
                "carried": 1.0,
            }
            for before, after in steps
        ]
        return {"changes": held, "stolen": 0.0, "kernel": "6.1"}
    each = share * carried(cell) / len(cell.flows)
    groups = [
        {"goodput": each, "first_second": each, "jain": 1 - wait / 10, "flows": flows.count, "silent_flows": 0}
        for flows in cell.flows
    ]
    made = {"groups": groups, "goodput": share * carried(cell), "kernel": "6.1", "stolen": 0.01}
    if cell.is_emulated:
        # A low limit costs more for each byte, so that only a control of the same limit tells anything.
        made["cpu_seconds_a_gigabyte"] = (500.0 if cell.limit == "20M" else 50.0) + 10 * wait
    if cell.probed:
        probe = {"p50": wait, "p99": 3 * wait, "largest": 4 * wait, **PROBE}
        made["probes"] = {kind: dict(probe) for kind in ("ping", "dns", "fetch")}
    return made


def results() -> dict[str, Any]:
    """Ours better than all others, and two that share with a flood share 3 to 1."""
    made = {}
    for cell in cells.CATALOGUE:
        # The control has no queue, but costs CPU.
        ours, waits = cell.shaper == "ours", cell.shaper not in {"ours", "paced"} or cell.is_emulated
        made[cell.name] = result(cell, share=1.0 if ours else 0.9, wait=5.0 if waits and not ours else 0.0)
        if "RTT" in cell.case and not ours:
            made[cell.name]["groups"][0]["goodput"] *= 3
        if "UDP at" in cell.case:
            made[cell.name]["groups"][0]["goodput"] *= 1.5
    plain = {"empty": 20.0, "ours": 60.0, "edt_fifo": 55.0}  # 1.14
    variants = [{"flows": 1, "buckets": 1, "idle": plain, "backlog": plain}]
    made["cost"] = {"kernel": "6.18", "jit": True, "variants": variants}
    return made
