"""A node as the reconciler sees it: 250 Pods' network namespaces, a container runtime, and an API server over TLS.

All but the Pods' containers: kernel, ipvlan, sockets and protocols are real, the two peers are those of the unit tests.
"""

import asyncio
import ssl
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from certs.authority import issue, make_authority
from reconciler.kernel.program import Program
from reconciler.model import class_id
from reconciler.netns_scan import scan_netns
from reconciler.nri.messages import PodSandbox
from reconciler.sandboxes import Key
from tests.unit.webhook.api_server import ApiServer
from webhook.common.contract import Direction

PODS = 250
SLOTS = 256
SOCKET = Path("/run/nri/nri.sock")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAMESPACE = "bench"
LABELS = {"ipvlan-bandwidth.io/managed": "true"}


def annotations(rate: str) -> dict[str, str]:
    return {f"kubernetes.io/{direction}-bandwidth": rate for direction in Direction}


@dataclass(frozen=True, slots=True)
class Pod:
    """One Pod by its number."""

    number: int

    @property
    def name(self) -> str:
        return f"pod-{self.number}"

    @property
    def uid(self) -> str:
        return f"5f1c6f0a-0000-4000-8000-{self.number:012}"

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.name}"

    def sandbox(self, rate: str) -> PodSandbox:
        """As the runtime tells of it."""
        return PodSandbox(
            id=f"sandbox-{self.number}",
            name=self.name,
            uid=self.uid,
            namespace=NAMESPACE,
            labels=LABELS,
            annotations=annotations(rate),
            netns_path=self.netns,
        )


def batch(lines: Iterable[str]) -> None:
    """One process of `ip` for many commands."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


@contextmanager
def namespaces(pods: Iterable[Pod], *, kind: str = "ipvlan mode l2") -> Iterator[None]:
    """Network namespaces with an eth0 each, on one card."""
    names = [pod.name for pod in pods]
    batch(
        [
            "link add benchA type veth peer name benchB",
            "addr add 192.0.2.1/24 dev benchA",
            "link set benchA up",
            "link set benchB up",
        ]
    )
    try:
        made = ((f"netns add {name}", f"link add eth0 link benchA netns {name} type {kind}") for name in names)
        batch(line for both in made for line in both)
        yield
    finally:
        batch([*(f"netns del {name}" for name in names), "link del benchA"])


class Api(ApiServer):
    """Has the Pods with their limits, and takes events."""

    def pod(self, name: str, value: str) -> dict[str, Any]:
        pod = Pod(int(name.removeprefix("pod-")))
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": pod.uid,
            "labels": LABELS,
            "annotations": annotations(value),
        }
        containers = [{"name": "app", "image": "registry.example/app:1", "env": [{"name": "A", "value": "b"}] * 20}]
        spec = {"nodeName": "bench", "containers": containers}
        return {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}

    def routes(self, application: web.Application) -> None:
        application.router.add_post("/api/v1/namespaces/{namespace}/events", self._event)

    async def _event(self, request: web.Request) -> web.Response:
        return web.json_response(await request.json(), status=201)


async def serve(api: Api) -> dict[str, str]:
    """Start it; the environment by which a Pod finds it."""
    await api.start(account())
    return {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(api.port)}


def account() -> ssl.SSLContext:
    """A certificate for the API server, and the files of a service account that trusts it."""
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=1))
    pair = issue(authority, ["localhost"], now, timedelta(days=1))
    ACCOUNT.mkdir(parents=True, exist_ok=True)
    (ACCOUNT / "ca.crt").write_bytes(authority.certificate_pem())
    (ACCOUNT / "token").write_text("token")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(pair.certificate_pem() + pair.key_pem())
        tls.load_cert_chain(chain)
    return tls


class Limits:
    """Reads the reconciler's limits map, by the filters of one Pod."""

    def __init__(self, pod: Pod) -> None:
        shaping = scan_netns([Key(pod.uid, pod.netns)]).program_ids
        program = Program.adopt(shaping[0]) if shaping else None
        assert program is not None, "nothing is shaped"
        self._program = program
        self._slots: dict[str, int] = {}

    def close(self) -> None:
        self._program.close()

    def rate(self, pod: Pod) -> int:
        """Of its egress, 0 for none, in bit/s."""
        slot = self._slots.get(pod.uid)
        entry = self._program.read_limit(class_id(slot, Direction.EGRESS)) if slot else None
        if entry is not None and entry.pod_uid == pod.uid:
            return entry.bits_per_second
        for number in range(1, SLOTS + 1):
            entry = self._program.read_limit(class_id(number, Direction.EGRESS))
            if entry is not None:
                self._slots[entry.pod_uid] = number
        held = self._slots.get(pod.uid)
        entry = self._program.read_limit(class_id(held, Direction.EGRESS)) if held else None
        return entry.bits_per_second if entry is not None and entry.pod_uid == pod.uid else 0

    async def reach(self, pods: Iterable[Pod], bits_per_second: int, *, pause_s: float = 0.002) -> None:
        """Wait until all of these have this limit."""
        for pod in pods:
            while self.rate(pod) != bits_per_second:  # noqa: ASYNC110 - a map tells nobody
                # A Pod without a slot is looked for in all of them, on the one CPU that the reconciler needs.
                await asyncio.sleep(pause_s if pod.uid in self._slots else 0.05)
