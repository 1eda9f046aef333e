"""The demo's figures as a table: printed, and kept as JSON and Markdown. Pure, but for `write`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FLOWS = {
    "unlimited": "| across nodes | none |",
    "both limited to 100M, across nodes": "| across nodes | 100M, both Pods both ways |",
    "egress limited to 100M": "| across nodes | 100M egress |",
    "ingress limited to 100M": "| across nodes | 100M ingress |",
    "egress limited to 100M, same node": "| same node | 100M egress |",
    "ingress limited to 100M, same node": "| same node | 100M ingress |",
    "egress limited to 20M": "| across nodes | 20M egress |",
}
"""What is measured by a connection of its own, in the table's order, and how a row of it begins."""
CHANGED = "changed from 100M to 20M"
CHANGED_BELOW_MBIT = 22
"""No second has more once the limit is 20M, and none had less before."""
PAGE = """# What `make demo` measured

Two user-mode-linux nodes of one emulated CPU each, on one machine: TCP goodput at the receiver over 10 s, in Mbit/s; of
100M, TCP can carry 95.6. {when}

"""
WHEN = "Of {day}, version {revision}; [as JSON, with what else was seen](demo.json)."
HEAD = """| iperf3 from Pod to Pod | limit | mean | first second |
|---|---|---|---|
"""
NOTHING = "Nothing is kept yet: run `make demo`."


def table(flows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of what was measured."""
    lines = [
        f"{begin} {_mbit(flows[name]['mean_mbit'])} | {_mbit(flows[name]['seconds_mbit'][0])} |"
        for name, begin in FLOWS.items()
        if name in flows
    ]
    if CHANGED in flows:
        figures = change(flows[CHANGED]["seconds_mbit"])
        lines.append(f"| across nodes, changed on the open connection | 100M to 20M | {figures} | |")
    return HEAD + "".join(line + "\n" for line in lines)


def change(seconds: Sequence[float]) -> str:
    """The second before the one in which the limit changed, and the one after that."""
    changed = max((number for number, mbit in enumerate(seconds) if mbit > CHANGED_BELOW_MBIT), default=0)
    if not 0 < changed < len(seconds) - 1:
        return "not seen"
    return f"{_mbit(seconds[changed - 1])}, a second later {_mbit(seconds[changed + 1])}"


def page(results: Mapping[str, Any]) -> str:
    """The whole page, in Markdown; also of a demo that did not come to its end, or never began."""
    flows = results.get("flows", {})
    if not flows:
        return PAGE.format(when=NOTHING).rstrip("\n") + "\n"
    return PAGE.format(when=WHEN.format(day=results["day"], revision=results["revision"])) + table(flows)


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """demo.json and demo.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "demo.md").write_text(page(results))


def _mbit(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 1000 else f"{figure:.1f}"
