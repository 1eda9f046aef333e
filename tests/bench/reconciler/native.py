"""What can be timed on the machine itself, whose kernel may have neither ipvlan nor fq.

The real code on real network namespaces, netlink and BPF, with macvlan in ipvlan's place and no fq: starting Python,
looking into 250 network namespaces, and what one look at a Pod takes. Not the whole: that is what the guest runs.
"""

import subprocess
import sys
import time
from os import fstat

from reconciler.kernel import netns
from reconciler.kernel.apply import apply
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import (
    HANDLE_CLSACT_OURS,
    DesiredShaping,
    LimitEntry,
    ObservedShaping,
    class_id,
)
from reconciler.netns_scan import scan_netns
from reconciler.plan import plan
from reconciler.sandboxes import Key
from reconciler.steps import AttachShaper, CreateIfb
from tests.bench.reconciler.calibrate import calibrate
from tests.bench.reconciler.world import PODS, SLOTS, Pod, namespaces
from webhook.common.contract import Direction

IMPORT = """
import reconciler.daemon, resource
used = resource.getrusage(resource.RUSAGE_SELF)
(resident,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")]
print(used.ru_utime + used.ru_stime, int(resident) / 1024)
"""


def imports() -> dict[str, float]:
    """CPU seconds and MiB of a Python that has imported all of the reconciler, the best of three."""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
        runs.append([float(word) for word in done.stdout.split()])
    return {"cpu_s": min(cpu for cpu, _ in runs), "resident_mib": min(resident for _, resident in runs)}


def entry(pod: Pod) -> LimitEntry:
    return LimitEntry(100_000_000, 1, pod.uid, netns.inode(pod.netns) or 0)


def shape(pods: list[Pod], program: Program) -> None:
    """The steps that this kernel has."""
    for slot, pod in enumerate(pods, 1):
        for direction in Direction:
            program.write_limit(class_id(slot, direction), entry(pod))
        with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
            apply(CreateIfb(), netlink, program.attached)
            for link, direction in (("eth0", Direction.EGRESS), ("vethbw0", Direction.INGRESS)):
                step = AttachShaper(link, HANDLE_CLSACT_OURS, class_id(slot, direction), with_clsact=True)
                apply(step, netlink, program.attached)


def look(slot: int, pod: Pod, program: Program) -> None:
    """What the Shaper does for a Pod that is as it should be."""
    with netns.opened(pod.netns) as descriptor, Netlink.inside(descriptor) as netlink:
        fstat(descriptor)
        links = observe_netns(netlink).links
    found = {direction: program.read_limit(class_id(slot, direction)) for direction in Direction}
    limits = {direction: held for direction, held in found.items() if held is not None}
    plan(DesiredShaping(slot, program.program_id, program.attached.filter_name, limits), ObservedShaping(links, limits))


def measure() -> dict[str, object]:
    pods = [Pod(number) for number in range(PODS)]
    with namespaces(pods, kind="macvlan mode bridge"):
        program = Program.load(SLOTS)
        shape(pods, program)
        keys = [Key(pod.uid, pod.netns) for pod in pods]
        rounds = []
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            found = scan_netns(keys)
            assert len(found.held) == PODS
            surveyed = time.perf_counter() - wall, time.process_time() - cpu
            wall, cpu = time.perf_counter(), time.process_time()
            for slot, pod in enumerate(pods, 1):
                look(slot, pod, program)
            rounds.append((*surveyed, time.perf_counter() - wall, time.process_time() - cpu))
        collected = []
        for _ in range(20):
            wall = time.perf_counter()
            for pod in pods:
                netns.inode(pod.netns)
            collected.append(time.perf_counter() - wall)
        program.close()
    survey_wall, survey_cpu, look_wall, look_cpu = (min(each) for each in zip(*rounds, strict=True))
    return {
        "pods": PODS,
        "imports": imports(),
        "survey_s": survey_wall,
        "survey_cpu_s": survey_cpu,
        "looks_s": look_wall,
        "looks_cpu_s": look_cpu,
        "collector_s": min(collected),
        "calibration_us": calibrate(),
    }
