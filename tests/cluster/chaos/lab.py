"""A cluster with the product installed and a few Pods to watch, which every scenario finds as the last one left it."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import scenario
from tests.cluster.chaos.creator import Creations, creating
from tests.cluster.chaos.meter import Line, Meter, metering
from tests.cluster.cluster import Cluster, ClusterError, wait_for
from tests.cluster.commands import Node
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import OWN, limits

SPACE, PLAIN = "chaos", "chaos-plain"
LIMIT = 20
PODS = {
    "sender": (1, limits(egress=f"{LIMIT}M")),
    "receiver": (1, limits(ingress=f"{LIMIT}M")),
    "near": (1, {}),
    "far": (2, {}),
}


@dataclass(slots=True)
class Lab:
    """What scenarios work with."""

    cluster: Cluster
    own: str = OWN
    space: str = SPACE
    plain: str = PLAIN
    made: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Install, and make the Pods that the meter runs between: two limited ones, and two without limits."""
        scenario.install(self.cluster)
        scenario.namespace(self.cluster, SPACE)
        scenario.namespace(self.cluster, PLAIN, network=None)
        for name, (node, annotations) in PODS.items():
            self.cluster.apply(json.dumps(scenario.pod(name, namespace=SPACE, node=node, annotations=annotations)))
        self.cluster.wait_ready(*(f"{SPACE}/{name}" for name in PODS))

    def remove(self) -> None:
        """Take the Pods away again; what is installed stays, as others install over it."""
        self.kubectl("delete", "namespace", SPACE, PLAIN, timeout=180)

    def kubectl(self, *argv: str, **options: Any) -> str:
        """What kubectl prints. Raises ClusterError when it fails."""
        return self.cluster.kubectl(*argv, **options).stdout

    def metering(self, peer: str = "far") -> AbstractContextManager[Meter]:
        """Traffic of the limited Pods, out of one and into the other, as long as the block lasts."""
        sender, receiver, other = (f"{SPACE}/{name}" for name in ("sender", "receiver", peer))
        lines = (Line("egress", sender, other, LIMIT), Line("ingress", other, receiver, LIMIT))
        return metering(self.cluster, lines)

    def creating(self, *, rate: float, dry_run: bool = True) -> AbstractContextManager[Creations]:
        """Pods created in the opted-in namespace as long as the block lasts."""
        return creating(self.cluster, SPACE, rate=rate, dry_run=dry_run)

    def creating_elsewhere(self, *, rate: float) -> AbstractContextManager[Creations]:
        """Pods created in a namespace that did not opt in; really, not as a dry run."""
        return creating(self.cluster, PLAIN, rate=rate, dry_run=False, admitted=False)

    @contextmanager
    def pod(
        self,
        name: str,
        *,
        node: int = 1,
        annotations: Mapping[str, str] | None = None,
        ready: bool = True,
        **changes: Any,
    ) -> Iterator[str]:
        """A Pod of the opted-in namespace, as long as the block lasts; `changes` go into its container."""
        manifest = scenario.pod(name, namespace=SPACE, node=node, annotations=annotations)
        manifest["spec"]["containers"][0].update(changes)
        scenario.gone(self.cluster, SPACE, name)  # what a first attempt left to its end
        self.cluster.apply(json.dumps(manifest))
        try:
            if ready:
                self.cluster.wait_ready(f"{SPACE}/{name}")
            yield f"{SPACE}/{name}"
        finally:
            self.kubectl("-n", SPACE, "delete", "pod", name, "--wait=false", "--ignore-not-found", check=False)

    def rolled_out(self, workload: str, timeout: int = 300) -> None:
        """Wait until a workload of the installation is there in its newest version.

        Where containerd does not come to clean up a container within 10 s, as on a busy node, kubelet asks it again two
        minutes later.
        """
        self.kubectl("-n", OWN, "rollout", "status", workload, f"--timeout={timeout}s", timeout=timeout + 10)

    def limits_of(self, pod: str) -> dict[str, int] | None:
        """The limits that the kernel holds for a Pod, in bit/s by direction; None when no reconciler can be asked."""
        number = self.cluster.node_of(pod).number
        try:
            observed = scenario.observe(self.cluster, number, "--json")
        except ClusterError:
            return None
        return scenario.limits_in(observed, pod)

    def until_limited(self, pod: str, expected: Mapping[str, int], timeout: float = 120) -> float:
        """Wait until the kernel holds these limits for a Pod; gives the seconds.

        As the metrics tell: they are read from the kernel at each scrape, and sooner than `limits_of` starts a program.
        """
        space, name = pod.split("/")
        number, began = self.cluster.node_of(pod).number, time.monotonic()
        labels = f'direction="%s",namespace="{space}",pod="{name}"'
        keys = {each: f"ipvlan_bandwidth_limit_bits_per_second{{{labels % each}}}" for each in ("ingress", "egress")}

        def held() -> bool:
            samples = self.metrics(number)
            return {each: samples[key] for each, key in keys.items() if key in samples} == expected

        wait_for(f"{pod} at {expected}", held, timeout, every=0.1)
        return time.monotonic() - began

    def reconciler(self, node: int = 1) -> str:
        """The Pod of the reconciler on a node, once there is one."""
        return scenario.reconciler_on(self.cluster, node)

    def reconciler_ready(self, node: int = 1, timeout: float = 90) -> None:
        """Wait until the reconciler of a node is Ready."""

        def is_ready() -> bool:
            status = self.cluster.pod(f"{OWN}/{self.reconciler(node)}")["status"]
            return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))

        wait_for(f"the reconciler of node {node} Ready", is_ready, timeout)

    def metrics(self, node: int = 1) -> dict[str, float]:
        """The samples that the reconciler of a node serves, by name and labels; none while it does not answer."""
        return scenario.metrics(self.cluster, self.reconciler(node))

    def held(self, node: int = 1) -> "Held":
        """What the kernel and the reconciler of a node hold at this moment."""
        done = self.cluster.node(node).run(
            "env", f"PYTHONPATH={PROJECT}", sys.executable, "-m", "tests.cluster.chaos.held"
        )
        return Held(**json.loads(done.stdout))

    def node(self, number: int = 1) -> Node:
        """One of the nodes."""
        return self.cluster.node(number)


def told(held: Mapping[str, float] | None) -> str:
    """Limits in bit/s by direction, in words."""
    if held is None:
        return "limits that no reconciler could be asked for"
    return ", ".join(f"{rate / 1e6:g}M {direction}" for direction, rate in sorted(held.items())) or "no limits"


@dataclass(frozen=True, slots=True)
class Held:
    """What could leak on a node: counts, and the reconciler's resident memory in KiB."""

    slots: int
    namespaces: int
    links: int
    programs: int
    descriptors: int
    threads: int
    resident_kib: int

    def leaks(self, after: "Held", memory_kib: int = 8192) -> tuple[str, ...]:
        """What there is more of `after`, of memory by some; and a reconciler that is gone, and so holds nothing."""
        found = [] if after.threads else ["the reconciler is gone"]
        for name in ("slots", "namespaces", "links", "programs", "descriptors", "threads"):
            was, now = getattr(self, name), getattr(after, name)
            if now > was:
                found.append(f"{name}: {was} before, {now} after")
        if after.resident_kib > self.resident_kib + memory_kib:
            found.append(f"the reconciler's memory: {self.resident_kib} KiB before, {after.resident_kib} after")
        return tuple(found)

    def __str__(self) -> str:
        return (
            f"{self.slots} slots, {self.namespaces} netns, {self.links} links, {self.programs} programs, "
            f"{self.descriptors} descriptors, {self.threads} threads, {self.resident_kib / 1024:.0f} MiB"
        )
