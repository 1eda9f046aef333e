"""Nanoseconds a packet of the shaper's program alone, beside the EDT FIFO, by BPF_PROG_TEST_RUN on this kernel.

A test run cannot set the class id, so copies of the programs are run that read the packet's mark in its place; and to
vary flows and buckets from packet to packet, copies that change mark, port and hash first, whose cost is measured too
and taken off. Each copy runs in a process of its own (`cost_run.py`), turn by turn, and medians are taken.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import edt
from tests.bench.stats import kernel_series

ROOT = Path(__file__).parents[2]
PACKAGES = ("reconciler", "webhook")
SHAPER = "reconciler/kernel/shaper.c"
PROGRAMS = ("empty", "ours", "edt_fifo")
STATES = ("idle", "backlog")
VARIANTS = ((1, 1), (1, 100), (1, 1000), (64, 1), (1000, 1), (10000, 1))
"""Flows, buckets. The first is plain: the same packet again and again."""
EMPTY = "int empty(struct __sk_buff *skb) {\n  return 0;\n}\n"
_ENTRY = re.compile(r"^(int (?:SHAPER_NAME|edt_fifo|empty)\(struct __sk_buff \*skb\) \{)$", re.MULTILINE)
_VARY = """
static __always_inline void vary(struct __sk_buff *skb) {{
  u32 picked = bpf_get_prandom_u32();
  u32 flow = (picked >> 4) % {flows};
  u16 port = bpf_htons(1024 + flow);
  skb->mark = 2 * (1 + picked % {buckets});
  bpf_skb_store_bytes(skb, 34, &port, sizeof(port), 0);
  bpf_set_hash(skb, (flow + 1) * 2654435761U);
}}

"""


def instrumented(text: str, flows: int, buckets: int) -> str:
    """A program that reads its class id from the mark and, for more than one flow or bucket, varies them first."""
    marked = text.replace("skb->tc_classid", "skb->mark")
    found = _ENTRY.search(marked)
    if found is None or (marked == text and "empty" not in found[1]):
        raise ValueError("the program's entry or its class id are not where they were: adapt tests/bench/cost.py")
    if (flows, buckets) == (1, 1):
        return marked
    vary = _VARY.format(flows=flows, buckets=buckets)
    return marked[: found.start()] + vary + found[1] + "\n  vary(skb);" + marked[found.end() :]


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Of each variant, state and program: the median of ns a packet. An `error` says why not."""
    jit = Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip()
    kernel = kernel_series(os.uname().release)
    result: dict[str, Any] = {"kernel": kernel, "machine_kernel": True, "jit": jit != "0", "variants": []}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__", "results")
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package, ignore=ignored)
        shutil.copytree(ROOT / "tests/bench", copy / "tests/bench", ignore=ignored)
        for flows, buckets in VARIANTS[:2] if quick else VARIANTS:
            rounds = 1 if quick else 4 if (flows, buckets) == VARIANTS[0] else 2
            try:
                medians = _variant(copy, flows, buckets, rounds)
            except subprocess.CalledProcessError as error:
                return result | {"error": error.stderr[-2000:]}
            except ValueError as error:
                return result | {"error": str(error)}
            result["variants"].append({"flows": flows, "buckets": buckets, **medians})
            print(f"  {flows} flows, {buckets} buckets: {medians}", flush=True)
    return result


def _variant(copy: Path, flows: int, buckets: int, rounds: int) -> dict[str, dict[str, float]]:
    (copy / SHAPER).write_text(instrumented((ROOT / SHAPER).read_text(), flows, buckets))
    (copy / "edt_fifo.c").write_text(instrumented(edt.SOURCE.read_text(), flows, buckets))
    (copy / "empty.c").write_text(instrumented(EMPTY, flows, buckets))
    runs: dict[str, dict[str, list[int]]] = {state: {program: [] for program in PROGRAMS} for state in STATES}
    for _ in range(rounds):
        for program in PROGRAMS:
            command = (sys.executable, "-m", "tests.bench.cost_run", program, str(buckets))
            environment = {**os.environ, "PYTHONPATH": str(copy)}
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, check=True, timeout=120
            )
            for state, times in json.loads(done.stdout).items():
                runs[state][program] += times
    return {
        state: {program: statistics.median(times) for program, times in by_program.items()}
        for state, by_program in runs.items()
    }
