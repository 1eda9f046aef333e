"""Replaces both replicas of the webhook, one by one, under 50 Pod creations a second at a real API server.

It prints JSON: how many Pods were created, and what failed. Pods are created with `dryRun=All`: admission is the same,
and nothing piles up. tests/cluster/test_drain.py runs it.
"""

import asyncio
import json
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.control_plane import ADDRESS, OURS, PORT, ControlPlane

NAMESPACE = "shop"
SERVICE = "webhook"
# In bursts, so that the API server has connections that lie idle between them.
BURST = 10
EVERY_S = 0.2
DRAIN = ("--drain-seconds=1.5",)
# How long after SIGTERM an endpoint is still in the API server's cache: longer than that.
ENDPOINT_LAG_S = 2.5

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "web-", "annotations": {"kubernetes.io/ingress-bandwidth": "0.1G"}},
    "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
}


class Creations:
    """Creates Pods until stopped, and keeps account."""

    def __init__(self, folder: Path) -> None:
        self.admitted = 0
        self.failures: list[str] = []
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.load_cert_chain(folder / "admin.crt", folder / "admin.key")

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            while True:
                for _ in range(BURST):
                    tasks.create_task(self._create(session))
                await asyncio.sleep(EVERY_S)

    async def _create(self, session: aiohttp.ClientSession) -> None:
        url = f"https://{ADDRESS}:{PORT}/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All"
        try:
            async with session.post(url, json=POD, ssl=self._context) as response:
                said: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # Raised, it would end all creations.
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        annotations = said.get("metadata", {}).get("annotations", {})
        if response.status == 201 and annotations.get("kubernetes.io/ingress-bandwidth") == "100M":
            self.admitted += 1
        else:
            self.failures.append(json.dumps(said))


async def _replaced(control_plane: ControlPlane) -> Creations:
    replicas = {"a": 8443, "b": 8453}
    for name, port in replicas.items():
        control_plane.run_webhook(name, port, *DRAIN)
        await asyncio.to_thread(control_plane.wait_until_ready, port)
        control_plane.add_endpoint(SERVICE, port)
    await asyncio.sleep(1.0)  # the API server's caches
    creations = Creations(control_plane.folder)
    running = asyncio.create_task(creations.run())
    await asyncio.sleep(2.0)
    for (leaving, port), (name, fresh) in zip(replicas.items(), {"c": 8463, "d": 8473}.items(), strict=True):
        control_plane.run_webhook(name, fresh, *DRAIN)
        await asyncio.to_thread(control_plane.wait_until_ready, fresh)
        control_plane.add_endpoint(SERVICE, fresh)
        await asyncio.sleep(0.5)
        control_plane.signal(leaving, signal.SIGTERM)
        await asyncio.sleep(ENDPOINT_LAG_S)
        control_plane.remove_endpoint(SERVICE, port)
        await asyncio.sleep(3.0)
    running.cancel()
    await asyncio.wait([running])
    if not running.cancelled():
        await running  # it ended by itself, and raises why: nothing was created since
    return creations


def main() -> int:
    """Exit with 0 however it came out."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, ControlPlane(Path(folder)) as control_plane:
        control_plane.add_namespace(OURS, {})
        control_plane.add_namespace(NAMESPACE, {"ipvlan-bandwidth.io/network": "kube-system.ipvlan"})
        control_plane.add_service(SERVICE)
        control_plane.add_configuration()
        creations = asyncio.run(_replaced(control_plane))
    print(json.dumps({"admitted": creations.admitted, "failures": creations.failures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
