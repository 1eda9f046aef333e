"""The shapers that are compared, each put where ours would be: on the slave for egress, on an ifb for ingress."""

import time

from reconciler.model import IFB_NAME
from reconciler.shaping import Shaper
from tests.bench.cells import OURS
from tests.bench.edt import Pinned
from tests.bench.pods import inside
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Quantity

EDT_ENTRY = 1
# The CNI bandwidth plugin (pkg/utils/bandwidth: CreateIngressQdisc): rate, burst, and a limit of 25 ms and the burst.
TBF_LATENCY_SECONDS = 0.025
# What containerd, which passes the annotations on to it, sets as burst: 2^32 - 1 bits (internal/cri, toCNIBandWidth).
CONTAINERD_BURST_BYTES = (2**32 - 1) // 8


def tbf_arguments(bits_per_second: int, burst_bytes: int) -> tuple[str, ...]:
    """As the CNI bandwidth plugin has it."""
    limit = int(bits_per_second / 8 * TBF_LATENCY_SECONDS) + burst_bytes
    return ("tbf", "rate", f"{bits_per_second}bit", "burst", str(burst_bytes), "limit", str(limit))


def qdisc(shaper: str, bits_per_second: int) -> tuple[str, ...]:
    """The arguments of tc-qdisc(8) for a root qdisc that keeps a rate by itself."""
    if shaper == "cake":
        return ("cake", "bandwidth", f"{bits_per_second}bit", "besteffort")
    if shaper == "tbf":
        return tbf_arguments(bits_per_second, max(3200, bits_per_second // 800))
    if shaper == "tbf_cni":
        return tbf_arguments(bits_per_second, CONTAINERD_BURST_BYTES)
    raise ValueError(shaper)


class Shapers:
    """Puts shapers on Pods. Ours and the EDT FIFO are compiled when they are first wanted."""

    def __init__(self) -> None:
        self._ours: Shaper | None = None
        self._edt: Pinned | None = None

    def install(self, pod: Pod, shaper: str, direction: str, limit: str) -> None:
        """Limit one direction of a fresh Pod."""
        bits = Quantity.parse(limit).bits_per_second
        if shaper == OURS:
            self.change(pod, shaper, direction, limit)
            return
        if shaper in {"none", "paced"}:
            return
        device, commands = "eth0", []
        if direction == "ingress":
            device = IFB_NAME
            redirect = ("matchall", "action", "mirred", "egress", "redirect", "dev", device)
            commands = [
                ("ip", "link", "add", device, "type", "ifb"),
                ("ip", "link", "set", device, "up"),
                ("tc", "qdisc", "add", "dev", "eth0", "clsact"),
                ("tc", "filter", "add", "dev", "eth0", "ingress", *redirect),
            ]
        inside(pod, *commands, *self._root(shaper, device, bits))

    def _root(self, shaper: str, device: str, bits: int) -> list[tuple[str, ...]]:
        """The commands that put a shaper on what leaves by a device."""
        root = ("tc", "qdisc", "add", "dev", device, "root")
        if shaper == "htb_fq_codel":
            return [
                (*root, "handle", "1:", "htb", "default", "1"),
                self._htb_class("add", device, bits),
                ("tc", "qdisc", "add", "dev", device, "parent", "1:1", "fq_codel"),
            ]
        if shaper not in {"edt_fifo", "edt_no_fq"}:
            return [(*root, *qdisc(shaper, bits))]
        self._edt = self._edt or Pinned.load()
        self._edt.write(EDT_ENTRY, bits)
        program = ("bpf", "direct-action", "object-pinned", str(self._edt.program), "classid", f"1:{EDT_ENTRY}")
        commands: list[tuple[str, ...]] = [
            ("tc", "qdisc", "add", "dev", device, "clsact"),
            ("tc", "filter", "add", "dev", device, "egress", *program),
        ]
        if shaper == "edt_fifo":  # as Cilium sets it: pkg/datapath/linux/bandwidth
            commands.append((*root, "fq", "horizon", "2s", "buckets", "32768"))
        return commands

    def change(self, pod: Pod, shaper: str, direction: str, limit: str) -> None:
        """Change the limit of a Pod that has one."""
        bits = Quantity.parse(limit).bits_per_second
        device = IFB_NAME if direction == "ingress" else "eth0"
        if shaper == OURS:
            self._ours = self._ours or Shaper.start(slots=8)
            wanted = limits(ingress=limit) if direction == "ingress" else limits(egress=limit)
            outcome = self._ours.shape(pod.uid, pod.netns, wanted)
            assert not outcome.problems, outcome.problems
        elif shaper == "htb_fq_codel":
            inside(pod, self._htb_class("change", device, bits))
        elif shaper in {"edt_fifo", "edt_no_fq"}:
            assert self._edt is not None
            self._edt.write(EDT_ENTRY, bits)
        else:
            inside(pod, ("tc", "qdisc", "change", "dev", device, "root", *qdisc(shaper, bits)))

    def remove(self, pod: Pod, shaper: str) -> None:
        """Free what outlives the Pod's network namespace."""
        if shaper == OURS and self._ours:
            self._ours.release(pod.uid, pod.netns)

    def prepare(self, shapers: set[str]) -> None:
        """Compile what these need, before anything is measured."""
        if OURS in shapers:
            self._ours = Shaper.start(slots=8)
        if shapers & {"edt_fifo", "edt_no_fq"}:
            self._edt = Pinned.load()
        time.sleep(0.2)

    @staticmethod
    def _htb_class(verb: str, device: str, bits: int) -> tuple[str, ...]:
        parent = ("parent", "1:", "classid", "1:1")
        return ("tc", "class", verb, "dev", device, *parent, "htb", "rate", f"{bits}bit", "quantum", "1514")
