"""The real reconciler with 250 Pods on real ipvlan: `python -m tests.bench.reconciler.guest`, inside a guest.

Prints what it measured as one line of JSON after `RESULT`.
"""

import asyncio
import json
import os
import random
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp

from tests.bench.reconciler.calibrate import calibrate
from tests.bench.reconciler.family import watching
from tests.bench.reconciler.world import PODS, SLOTS, SOCKET, Api, Limits, Pod, namespaces, serve
from tests.unit.nri.runtime_side import pod_request
from tests.unit.nri.runtime_socket import Connection, Runtime

IDLE_S = 60.0
CHANGES = 300
PORT = 9746
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: seconds of CPU, of it and of its children that have ended; resident MiB."""

    cpu_s: float
    children_cpu_s: float
    resident_mib: float
    most_resident_mib: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system, child_user, child_system = (int(field) * TICK_S for field in fields[11:15])
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        resident, most = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        return cls(user + system, child_user + child_system, resident, most)


class Daemon:
    """The reconciler as its DaemonSet starts it, and the runtime's end of its connection."""

    def __init__(self, process: asyncio.subprocess.Process, connection: Connection) -> None:
        self.process, self.connection = process, connection

    @classmethod
    async def start(cls, runtime: Runtime, environment: dict[str, str], pods: list[Pod], rate: str) -> "Daemon":
        """Start it, and tell it of all Pods as the runtime does when it connects."""
        arguments = ("-m", "reconciler", "--log-level", "warning", "run", "--node", "bench", "--slots", str(SLOTS))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, "--probe-port", str(PORT), env={**os.environ, **environment}
        )
        connection = await runtime.accept()
        await connection.start(*(pod.sandbox(rate) for pod in pods))
        return cls(process, connection)

    @property
    def usage(self) -> Usage:
        return Usage.of(self.process.pid)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()
        with suppress(OSError):
            self.connection.writer.close()


def say(what: str) -> None:
    print(f"{time.monotonic():.0f} s: {what}", flush=True)


async def measure(pods: list[Pod]) -> dict[str, object]:
    api, runtime = Api(), Runtime(SOCKET)
    SOCKET.parent.mkdir(exist_ok=True)
    environment = await serve(api)
    await runtime.listen()
    names = [pod.name for pod in pods]
    await api.put(*names, value="100M")

    say("the first start")
    # Its only child is the daemon, which starts the compiler.
    async with watching(os.getpid()) as first_peak:
        first, first_s = await started(runtime, environment, pods, "100M")
    first_usage = first.usage
    limits = Limits(pods[0])
    await first.kill()
    say(f"{first_s:.1f} s; a restart")
    # All limits are other ones meanwhile, so that each Pod must be looked at and written to before all is as wanted.
    await api.put(*names, value="50M")
    began = time.monotonic()
    daemon = await Daemon.start(runtime, environment, pods, "100M")
    connected_s = time.monotonic() - began
    await limits.reach(pods, 50_000_000)
    restart_s, restart = time.monotonic() - began, daemon.usage

    say(f"{restart_s:.1f} s; changes and hooks")
    changes_ms, change_cpu_ms = await changes(api, daemon, limits, pods)
    hooks_ms = await hooks(daemon, pods[-1])
    say("idle")
    await asyncio.sleep(5)
    before = daemon.usage
    await probed()
    after = daemon.usage
    await daemon.kill()
    await api.stop()
    await runtime.close()
    limits.close()
    return {
        "pods": len(pods),
        "first_start_s": first_s,
        "first_start_cpu_s": first_usage.cpu_s,
        "first_start_children_cpu_s": first_usage.children_cpu_s,
        "first_start_most_resident_mib": first_peak.mib,
        "restart_s": restart_s,
        "restart_until_connected_s": connected_s,
        "restart_cpu_s": restart.cpu_s,
        "idle_cpu_percent": (after.cpu_s - before.cpu_s) / IDLE_S * 100,
        "idle_s": IDLE_S,
        "resident_mib": after.resident_mib,
        "most_resident_mib": after.most_resident_mib,
        "changes_ms": changes_ms,
        "change_cpu_ms": change_cpu_ms,
        "hooks_ms": hooks_ms,
    }


async def started(runtime: Runtime, environment: dict[str, str], pods: list[Pod], rate: str) -> tuple[Daemon, float]:
    """The first start on the node: compiles, and shapes all."""
    began = time.monotonic()
    daemon = await Daemon.start(runtime, environment, pods, rate)
    while True:
        with suppress(AssertionError):
            limits = Limits(pods[0])
            break
        await asyncio.sleep(0.05)
    await limits.reach(pods, 100_000_000)
    limits.close()
    return daemon, time.monotonic() - began


async def changes(api: Api, daemon: Daemon, limits: Limits, pods: list[Pod]) -> tuple[list[float], float]:
    """From the API server's event to the map, in ms, one Pod after the other; and the CPU of one."""
    chosen = random.Random(1)  # noqa: S311 - which Pod does not matter
    await limits.reach(pods, 50_000_000)
    took: list[float] = []
    before = daemon.usage.cpu_s
    for number in range(CHANGES):
        pod, rate = chosen.choice(pods), 1_000_000 * (100 + number)
        began = time.monotonic()
        await api.put(pod.name, value=f"{100 + number}M")
        await limits.reach([pod], rate)
        took.append((time.monotonic() - began) * 1000)
        await asyncio.sleep(0.15)  # longer than a netns' changes are waited for
    return took, (daemon.usage.cpu_s - before) / CHANGES * 1000


async def hooks(daemon: Daemon, pod: Pod) -> list[float]:
    """How long the runtime waits for a Pod's stop and its start, in ms."""
    took = []
    for _ in range(30):
        await daemon.connection.call("StopPodSandbox", pod_request(pod.sandbox("100M")))
        began = time.monotonic()
        await daemon.connection.call("RunPodSandbox", pod_request(pod.sandbox("100M")))
        took.append((time.monotonic() - began) * 1000)
    return took


async def probed() -> None:
    """Time passes, and the kubelet asks as the DaemonSet says: readiness every 5 s, liveness every 10 s."""
    async with aiohttp.ClientSession() as session:
        for tick in range(int(IDLE_S / 5)):
            for path in ("readyz", "healthz")[: 1 + tick % 2]:
                async with session.get(f"http://127.0.0.1:{PORT}/{path}", headers={"Connection": "close"}) as answer:
                    assert answer.status == HTTPStatus.OK, await answer.text()
            await asyncio.sleep(5)


def main() -> None:

    pods = [Pod(number) for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else PODS)]
    with namespaces(pods):
        measured = asyncio.run(measure(pods))
    print("RESULT", json.dumps({**measured, "calibration_us": calibrate(), "kernel": os.uname().release}), flush=True)


if __name__ == "__main__":
    main()
