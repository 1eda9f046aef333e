"""`python -m tests.bench.guest`: measures cells inside the guest; each result is a line of JSON on standard output.

BENCH_CELLS has the cells' places in the catalogue, BENCH_QUICK=1 makes them short.
"""

import json
import os
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reconciler.model import IFB_NAME
from tests.bench import cells, load, probe, stats
from tests.bench.cells import Cell, Flows
from tests.bench.pods import Pods, pods
from tests.bench.shapers import Shapers
from tests.bench.tasks import Task, at_once
from tests.kernel import lab
from tests.kernel.lab import Pod
from tests.steal import Steal

RESULT = "@RESULT "
PORT = 5201
WINDOW_NS = 100_000_000
SECOND = 10**9


class Probes:
    """Probes at work between two moments of the monotonic clock."""

    def __init__(self, made: Pods, direction: str, begin_ns: int, until_ns: int) -> None:
        # The page of 10 kB comes through the limit: the limited Pod fetches it when ingress is limited.
        inwards = direction == "ingress"
        fetcher, server = (made.limited, made.prober) if inwards else (made.prober, made.limited)
        self._tasks = (
            Task(made.prober, probe.probe, made.sources, made.limited.address, begin_ns, until_ns),
            Task(fetcher, probe.fetch, server.address, begin_ns, until_ns),
        )
        for task in self._tasks:
            task.ready()

    def times(self) -> dict[str, probe.Times]:
        """By kind of probe."""
        answered, fetched = (task.result() for task in self._tasks)
        return {**answered, "fetch": fetched}


def _summed(times: dict[str, probe.Times]) -> dict[str, stats.Waits]:
    summed = {kind: stats.waits(wait for _, wait in seen) for kind, seen in times.items()}
    return {kind: figures for kind, figures in summed.items() if figures}


class Bulk:
    """A cell's flows at work from a moment on."""

    def __init__(self, made: Pods, cell: Cell, begin_ns: int, mark: tuple[int, int], origin_ns: int = 0) -> None:
        self._receivers: list[Task] = []
        pause = load.pause_seconds(cell.flows)
        ports = [PORT + number for number in range(len(cell.flows))]
        kinds = dict(zip(ports, (flows.kind for flows in cell.flows), strict=True))
        if cell.direction == "ingress":
            receiving = [(made.limited, kinds)]
            ends = [(client, made.limited) for client in made.clients]
        else:
            receiving = [(client, {port: kinds[port]}) for client, port in zip(made.clients, ports, strict=True)]
            ends = [(made.limited, client) for client in made.clients]
        self._receivers = [Task(pod, load.receive, taken, mark, pause, origin_ns) for pod, taken in receiving]
        for task in self._receivers:
            task.ready()
        self._senders = [
            _sender(sender, receiver, port, flows, (begin_ns, *mark))
            for (sender, receiver), port, flows in zip(ends, ports, cell.flows, strict=True)
        ]
        for task in self._senders:
            task.ready()

    def done(self) -> list[tuple[load.Arrivals, load.Sent | None]]:
        """Of each group of flows, in the cell's order: as received, and as its sender knows it, if it is TCP."""
        taken = [task.result() for task in self._receivers]
        sent = [task.result() for task in self._senders]
        merged = {port: each for part in taken for port, each in part.items()}
        return list(zip((merged[port] for port in sorted(merged)), sent, strict=True))


def _sender(sender: Pod, receiver: Pod, port: int, flows: Flows, period: tuple[int, int, int]) -> Task:
    sends = load.flood if flows.kind == "udp" else load.send
    return Task(sender, sends, receiver.address, port, flows, period)


TICKS_A_SECOND = 100  # USER_HZ
SNIFFED_BITS = 10_000_000
"""Up to this, one gap that a retransmission fills hands a receiver so much at once that only the wire tells the rate.

By windows of a second: at 1M a merged packet of 64 KiB takes half a second, of which its segments use four fifths.
"""


def _in(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * SECOND)


def measure(cell: Cell, shapers: Shapers) -> dict[str, Any]:
    """One cell."""
    with ExitStack() as stack:
        made = stack.enter_context(pods(cell))
        shapers.install(made.limited, cell.shaper, cell.direction, cell.limit)
        stack.callback(shapers.remove, made.limited, cell.shaper)
        for server in (made.limited, made.prober):
            stack.callback(Task(server, probe.serve).ready().stop)
        made.prober.run("ping", "-c", "1", made.limited.address, check=False)
        if cell.changes:
            return _changed(cell, made, shapers)
        return _loaded(cell, made)


def _loaded(cell: Cell, made: Pods) -> dict[str, Any]:
    unloaded = {}
    if cell.probed:
        begin = _in(0.3 + probe.FIRST_ADDRESSES_SECONDS)
        unloaded = _summed(Probes(made, cell.direction, begin, begin + cells.UNLOADED_SECONDS * SECOND).times())
    steal = Steal(lab.machine_stat)
    begin = _in(0.6)
    first = begin + int(cell.warm_seconds * SECOND)
    mark = first, first + int(cell.seconds * SECOND)
    sniffer = None
    if cell.windowed:
        sniffer = _sniffer(cell, made, (begin, begin + cells.WINDOWED_SECONDS * SECOND), mark[1])
    bulk = Bulk(made, cell, begin, mark)
    busy = _busy_seconds(mark) if cell.is_emulated else None
    probes = Probes(made, cell.direction, *mark) if cell.probed else None
    groups = [_group(flows, *group) for flows, group in zip(cell.flows, bulk.done(), strict=True)]
    result: dict[str, Any] = {"groups": groups, "goodput": sum(group["goodput"] for group in groups)}
    if sniffer:
        packets = sniffer.result()
        result["window"] = stats.largest_window(packets, WINDOW_NS, lab.STALL_NS) if packets else None
    if probes:
        loaded = _summed(probes.times())
        result["probes"] = {kind: stats.added(figures, unloaded[kind]) for kind, figures in loaded.items()}
    if busy is not None:
        gigabytes = result["goodput"] * cell.seconds / 8e3
        result["cpu_seconds_a_gigabyte"] = busy / gigabytes
    return result | {"stolen": steal.share()}


def _busy_seconds(period: tuple[int, int]) -> float:
    """The time that the machine's CPUs together were busy in a period (ns, monotonic); returns at its end.

    The machine's, as the guest's own account of short sleeps is off by more than a transfer takes; the machine has
    next to nothing else to do.
    """
    busy = []
    for moment in period:
        time.sleep(max(0, moment - time.monotonic_ns()) / 1e9)
        user, nice, system, _, _, irq, softirq = (int(text) for text in lab.machine_stat().split()[1:8])
        busy.append((user + nice + system + irq + softirq) / TICKS_A_SECOND)
    return busy[1] - busy[0]


def _sniffer(cell: Cell, made: Pods, period: tuple[int, int], read_at_ns: int) -> Task:
    """Sees the packets of the first client's flows where they have passed the limit."""
    inwards = cell.direction == "ingress"
    device = IFB_NAME if inwards and cell.shaper != "none" else "eth0"
    watched, source = (made.limited, made.clients[0]) if inwards else (made.clients[0], made.limited)
    return Task(watched, load.sniff, device, source.address, period, read_at_ns).ready()


def _group(flows: Flows, arrived: load.Arrivals, sent: load.Sent | None) -> dict[str, Any]:
    """Of one flow, what the receiver read is the finest measure; of many, what waited behind gaps would blur it."""
    many = sent is not None and flows.count > 1
    each = sent.delivered if sent is not None and many else list(arrived.marked.values()) or [0]
    return {
        "goodput": (sent if sent is not None and many else arrived).bits_per_second / 1e6,
        "first_second": stats.first_second(arrived.series, min(arrived.first_bytes, 1448)),
        "jain": stats.jain(each) if flows.kind != "udp" else None,
        "flows": flows.count,
        "silent_flows": sum(size == 0 for size in each),
    }


def _changed(cell: Cell, made: Pods, shapers: Shapers) -> dict[str, Any]:
    """The limit changes again and again under one flow."""
    steal = Steal(lab.machine_stat)
    begin = _in(0.6)
    moments = [
        begin + int((cell.warm_seconds + number * cell.seconds) * SECOND) for number in range(len(cell.changes) + 1)
    ]
    sniffers = [
        _sniffer(cell, made, (moment, until), moments[-1]) if cells.bits(limit) <= SNIFFED_BITS else None
        for moment, until, limit in zip(moments, moments[1:], cell.changes, strict=False)
    ]
    bulk = Bulk(made, cell, begin, (begin, moments[-1]), begin)
    probes = Probes(made, cell.direction, begin, moments[-1])
    done = []
    for moment, limit in zip(moments, cell.changes, strict=False):
        time.sleep(max(0, moment - time.monotonic_ns()) / 1e9)
        shapers.change(made.limited, cell.shaper, cell.direction, limit)
        done.append(time.monotonic_ns())
    ((arrived, _),) = bulk.done()
    times = probes.times()["ping"]
    to_monotonic = time.monotonic_ns() - time.clock_gettime_ns(time.CLOCK_REALTIME)
    answered = [at + to_monotonic + int(wait * 1e6) for at, wait in times if wait is not None]
    changes = []
    before = cell.limit
    series = arrived.series + [0] * ((moments[-1] - begin) // stats.BIN_NS)
    for moment, at, until, limit, sniffer in zip(moments, done, moments[1:], cell.changes, sniffers, strict=False):
        held = series[-(-(at - begin) // stats.BIN_NS) : (until - begin) // stats.BIN_NS]
        wanted = cells.bits(limit) * stats.TCP_SHARE
        lowered = cells.bits(limit) < cells.bits(before)
        captured: dict[str, int] = {}
        if sniffer:
            wire = stats.binned(sniffer.result(), (at - to_monotonic, until - to_monotonic))
            captured["captured"] = sum(wire)
            judged, rate, window = wire, float(cells.bits(limit)), stats.BINS_A_SECOND
        else:
            judged, rate, window = held, wanted, stats.BINS_A_SECOND // 2
        changes.append(
            {
                "from": before,
                "to": limit,
                "took": (at - moment) / SECOND,
                "held_after": _finite(stats.settled(judged, rate, lowered=lowered, window=window)),
                "half_after": _finite(stats.carried_again(judged, rate, window=window)),
                "carried": sum(held) * 8e9 / (len(held) * stats.BIN_NS) / wanted,
                "silence": stats.longest_silence(answered, at, until),
                **captured,
            }
        )
        before = limit
    return {"changes": changes, "stolen": steal.share()}


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


def main() -> None:
    """Measure; a cell that fails is told and does not keep the others from being measured."""
    chosen = [cells.CATALOGUE[int(place)] for place in os.environ["BENCH_CELLS"].split(",")]
    chosen = cells.quick(chosen) if os.environ.get("BENCH_QUICK") == "1" else chosen
    revision = Path("/proc/sys/kernel/osrelease").read_text().strip()
    Path("/proc/sys/net/core/somaxconn").write_text("4096")
    shapers = Shapers()
    for name in Path("/proc").glob("[0-9]*/comm"):  # the kernel's own work on packets comes first, however busy the CPU
        if name.read_text().startswith("ksoftirqd"):
            at_once(int(name.parent.name))
    shapers.prepare({cell.shaper for cell in chosen})
    with lab.nodes():
        for cell in chosen:
            began = time.monotonic()
            try:
                result = measure(cell, shapers)
            except Exception:  # noqa: BLE001 - told as it is
                result = {"error": traceback.format_exc()}
            result["seconds"] = time.monotonic() - began
            print(RESULT + json.dumps({"name": cell.name, "kernel": revision, **result}), flush=True)


if __name__ == "__main__":
    main()
