"""`python -m tests.bench [SECTION or PATTERN ...]`: measures ours beside other shapers; results in tests/bench/results.

Sections: accuracy, latency, fairness, change, cpu, cost; a pattern such as 'latency/*/ours' selects cells. What is
measured again replaces what was there (but see --disturbed); tables and plots are made anew from all.
"""

import argparse
import datetime as dt
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import cells, cost, report
from tests.bench.cells import Cell
from tests.bench.guest import RESULT
from tests.kernel.__main__ import MODULES, machine_copied
from tests.kernel.guest import Guest, GuestLostError
from tests.kernel.qemu import Qemu
from tests.kernel.uml import UserModeLinux
from tests.revision import revision

FOLDER = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
QUICK_RESULTS = FOLDER / "build" / "bench"
EMULATED_KERNEL = "newest"
GUEST_MODULES = (*MODULES, "sch_cake", "sch_htb", "sch_fq_codel", "tcp_bbr")


def main() -> int:
    """Exit with 0 when all was measured, however it came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="*", metavar="SECTION|PATTERN")
    parser.add_argument("--quick", action="store_true", help="a few cells, for seconds: whether it works")
    parser.add_argument(
        "--disturbed",
        type=float,
        metavar="PERCENT",
        help="only cells of whose time the hypervisor took more than this; the least disturbed result counts",
    )
    parser.add_argument("--list", action="store_true", help="name the cells")
    parser.add_argument("--results", type=Path, help="the folder of the results; of --quick, build/bench")
    parser.add_argument("--lock", type=Path, help="a file to hold locked while measuring, where others measure too")
    options = parser.parse_args()
    chosen = cells.select(options.wanted)
    chosen = cells.quick(chosen) if options.quick else chosen
    folder: Path = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    store = Store(folder / "results.json", keeps_calmer=options.disturbed is not None)
    if options.disturbed is not None:
        chosen = cells.disturbed(chosen, store.content, options.disturbed)
    if options.list:
        print("\n".join(cell.name for cell in chosen))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    failed = _measure_cells(chosen, store, quick=options.quick, lock=options.lock)
    if options.disturbed is None and (not options.wanted or "cost" in options.wanted):
        with locked(options.lock):
            print("cost: the programs alone, on this machine's kernel", flush=True)
            store.add("cost", cost.measure(quick=options.quick))
    for name, text in report.files(store.content).items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"{report.summary(store.content)}\nresults in {folder}")
    return 1 if failed else 0


def _measure_cells(chosen: list[Cell], store: "Store", *, quick: bool, lock: Path | None) -> int:
    """Returns how many could not be measured."""
    todo = cells.batches(chosen)
    number = failed = 0
    for batch in todo:
        emulated = batch[0].is_emulated
        boot = cells.EMULATED_BOOT_SECONDS if emulated else cells.BOOT_SECONDS
        expected = sum(cell.expected_seconds for cell in batch) + boot
        print(f"{batch[0].section}: {len(batch)} cells in a guest, about {expected:.0f} s", flush=True)
        left = {cell.name for cell in batch}

        def show(line: str, left: set[str] = left) -> None:
            nonlocal number, failed
            if not line.startswith(RESULT):
                print(f"    {line}", flush=True)
                return
            result = json.loads(line.removeprefix(RESULT))
            name = result.pop("name")
            left.discard(name)
            number += 1
            failed += "error" in result
            store.add(name, result)
            print(f"  [{number}/{len(chosen)}] {name}: {report.line(result)}", flush=True)

        try:
            with locked(lock), machine_copied() as shared:
                environment = {
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "IN_GUEST": "1",
                    "BENCH_CELLS": ",".join(str(_place(cell)) for cell in batch),
                    "BENCH_QUICK": str(int(quick)),
                }
                timeout = int(2 * expected) + 60
                guest: Guest = (
                    Qemu(EMULATED_KERNEL, modules=GUEST_MODULES, timeout_seconds=2 * timeout)
                    if emulated
                    else UserModeLinux(modules=GUEST_MODULES, timeout_seconds=timeout)
                )
                guest.run(
                    [sys.executable, "-m", "tests.bench.guest"],
                    environment=environment,
                    folder=FOLDER,
                    shared=shared,
                    tell=show,
                )
        except GuestLostError as error:
            print(f"    {error}", flush=True)
        number += len(left)
        failed += len(left)
        for name in sorted(left):
            print(f"  not measured: {name}", flush=True)
    return failed


def _place(cell: Cell) -> int:
    return [each.name for each in cells.CATALOGUE].index(cell.name)


class Store:
    """The results: a cell's replaces the one before, or the one of whose time less was stolen counts, if told so."""

    def __init__(self, path: Path, *, keeps_calmer: bool = False) -> None:
        self._path, self._keeps_calmer = path, keeps_calmer
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self._revision = revision()

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Keep it, with when and of which version it is."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        made = {**result, "at": now, "revision": self._revision}
        if self._keeps_calmer and (before := self.content.get(name)):
            calmer = before if before.get("stolen", 1.0) <= result.get("stolen", 1.0) else made
            made = {**calmer, "times": before.get("times", 1) + 1}
        self.content[name] = made
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n")
        fresh.rename(self._path)


@contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Hold a file locked, if one is named."""
    if path is None:
        yield
        return
    with path.open("a") as lock:
        began = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_EX)
        waited = time.monotonic() - began
        if waited > 1:
            print(f"    waited {waited:.0f} s for {os.fspath(path)}", flush=True)
        yield


if __name__ == "__main__":
    sys.exit(main())
