"""What the kernel offers is found by trying, and what it has not is named."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.kernel.probe import probe
from reconciler.kernel.program import Program
from reconciler.requirements import REQUIREMENTS, Feature, lacks
from tests.kernel import lab
from tests.kernel.held import RELEASE, in_force
from tests.kernel.lab import Pod, limits
from tests.kernel.modules import MODPROBE, kept_out
from tests.kernel.node import Node

MODULES = [module for wanted in REQUIREMENTS.values() for module in wanted.modules.split()]


@pytest.fixture
def no_modules() -> Iterator[None]:
    """None of the modules is loaded, nor can be."""
    with kept_out("ipvtap", *MODULES):  # it stands on ipvlan, and may be there since another test
        yield


def optional() -> set[Feature]:
    """What kernels may lack that limits can do without."""
    return ({Feature.SET_TSTAMP} if RELEASE < (5, 18) else set()) | {Feature.JIT, Feature.TBF}


def test_a_kernel_that_shapes_lacks_nothing_that_is_vital() -> None:
    before = lab.run("ip", "link"), lab.run("ip", "netns")
    began = time.monotonic()
    missing = probe()
    print(f"PROBE took {1000 * (time.monotonic() - began):.0f} ms, missing: {missing}")
    assert set(missing) <= optional() - {Feature.TBF}
    assert (Feature.SET_TSTAMP in missing) == (RELEASE < (5, 18))
    assert (lab.run("ip", "link"), lab.run("ip", "netns")) == before


@pytest.mark.usefixtures("no_modules")
def test_missing_modules_are_named() -> None:
    missing = probe()
    print(*(lack.message for lack in lacks(missing)), sep="\n")
    assert set(missing) - optional() == {Feature.IPVLAN, Feature.FQ, Feature.CLSACT, Feature.IFB}
    lab.run("/run/modprobe", "-a", "sch_ingress", "ifb")
    assert set(probe()) - optional() == {Feature.IPVLAN, Feature.FQ, Feature.CLS_BPF, Feature.REDIRECT}
    lab.run("/run/modprobe", "-a", "cls_matchall", "sch_fq", "cls_bpf", "ipvlan")
    missing = probe()
    assert Feature.TBF in missing
    assert set(missing) - optional() == {Feature.REDIRECT}


def test_trying_loads_what_is_needed(no_modules: None) -> None:  # noqa: ARG001 - until the fixture's end
    MODPROBE.write_text("/run/modprobe")
    assert set(probe()) <= optional() - {Feature.TBF}


def errors(node: Node) -> float:
    return node.metrics.errors.labels(kind="KernelLacksError")._value.get()


@pytest.mark.parametrize("module", ["ifb", "act_mirred"])
def test_without_what_ingress_needs_egress_is_limited_and_ingress_is_when_the_module_is_there(
    node: Node, limited: Pod, module: str
) -> None:
    with kept_out(module):
        node.start(limited, ingress="100M", egress="100M")
        assert "limited to egress 100M bit/s on eth0" in node.wait(limited, "BandwidthLimited", since=0).notice.message
        assert f"module{'s cls_matchall,' if module == 'act_mirred' else ''} {module})" in (
            node.wait(limited, "BandwidthFailed", since=0).notice.message
        )
        assert in_force(limited) == limits(egress="100M")
        assert node.controller.pod_counts() == (1, 0, 1, 0, 0)
        before_retries = errors(node)
        lab.sleep(4)
        # Again after 1 s and after 2 s, and a look more at each, as the kernel tells of what it does not take.
        assert 1 <= errors(node) - before_retries <= 6
        allowed = time.monotonic()
    told = node.wait(limited, "BandwidthLimited", since=allowed, seconds=20)
    assert "ingress 100M, egress 100M bit/s on eth0: what stood in the way is gone" in told.notice.message
    assert in_force(limited) == limits(ingress="100M", egress="100M")
    assert [told.notice.reason for told in node.told] == ["BandwidthLimited", "BandwidthFailed", "BandwidthLimited"]
    assert node.controller.pod_counts() == (1, 1, 0, 0, 0)


@pytest.mark.skipif(RELEASE < (5, 16), reason="the kernel does not tell")
def test_the_verifier_has_far_to_go_until_it_gives_up() -> None:
    """At a million instructions. How many it tries differs from kernel to kernel, and a branch more may double it."""
    with closing(Program.load(4)) as program:
        told = Path(f"/proc/self/fdinfo/{program.descriptor}").read_text()
    (tried,) = re.findall(r"verified_insns:\s+(\d+)", told)
    print(f"VERIFIER tried {tried} instructions")
    assert int(tried) < 300_000
