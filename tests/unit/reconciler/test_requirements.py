"""What the kernel lacks is said in full: the option, the module, what is lost, what to do."""

import pytest
from prometheus_client import CollectorRegistry, Gauge

from reconciler.kernel.errors import ShapingError
from reconciler.kernel_check import AGAIN_S, KernelCheck
from reconciler.requirements import REQUIREMENTS, Feature, lacks


def test_a_kernel_that_has_all_lacks_nothing():
    assert lacks({}) == ()


def test_a_missing_module_is_named_with_its_option_and_what_is_lost():
    (lack,) = lacks({Feature.IFB: "Operation not supported"})
    assert lack.is_vital
    assert lack.message == (
        "this node's kernel has no ifb interfaces (CONFIG_IFB), so no ingress limit can be kept: load ifb "
        "(modprobe -a; where a node loads no modules on demand, by its configuration), or install the package of the "
        "kernel that has it [Operation not supported]"
    )


def test_what_limits_need_comes_before_what_they_can_do_without():
    found = lacks({Feature.JIT: "", Feature.REDIRECT: "x", Feature.SET_TSTAMP: "", Feature.FQ: "y"})
    assert [lack.feature for lack in found] == [Feature.FQ, Feature.REDIRECT, Feature.SET_TSTAMP, Feature.JIT]
    assert [lack.is_vital for lack in found] == [True, True, False, False]
    assert found[2].message.endswith("receive times (SO_TIMESTAMP) in their Pods")


@pytest.mark.parametrize("feature", Feature)
def test_every_feature_has_words(feature):
    (lack,) = lacks({feature: "cause"})
    assert REQUIREMENTS[feature].option in lack.message
    assert len(lack.message) < 400


class Bench:
    """A check whose tries give these results in turn."""

    def __init__(self, *results):
        self.results, self.told, self.slept = list(results), [], []
        self.registry = CollectorRegistry()
        self.check = KernelCheck(
            self._probe,
            record_node=lambda notice: self.told.append(notice.reason),
            gauge=Gauge("lacks", "", ["feature", "vital"], registry=self.registry),
            sleep=self._sleep,
        )
        self.reasons, self.noted, self.noting = [], [], ()

    def _probe(self):
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def lacks(self, feature):
        """Of the series that is vital, and of the one that is not."""
        return tuple(
            self.registry.get_sample_value("lacks", {"feature": feature, "vital": vital}) for vital in ("yes", "no")
        )

    async def _sleep(self, seconds):
        self.slept.append(seconds)
        self.noted.append(tuple(self.lacks(feature) for feature in self.noting))
        self.reasons.append(self.check.why_not_ready())


async def test_a_kernel_that_has_all_is_tried_once_and_nobody_is_told():
    bench = Bench({})
    await bench.check.run()
    assert (bench.told, bench.slept, bench.check.why_not_ready()) == ([], [], None)


async def test_the_node_is_not_ready_until_the_module_is_there_and_each_is_told_once():
    bench = Bench({Feature.IFB: "x"}, {Feature.IFB: "x", Feature.FQ: "y"}, {Feature.JIT: ""})
    await bench.check.run()
    assert bench.slept == [AGAIN_S] * 2
    assert "CONFIG_IFB" in bench.reasons[0]
    assert bench.told == ["KernelLacks", "KernelLacks", "KernelLacks", "KernelReady"]
    assert bench.check.why_not_ready() is None
    values = {feature: bench.lacks(feature) for feature in ("ifb", "fq", "jit")}
    assert values == {"ifb": (None, None), "fq": (None, None), "jit": (None, 1)}


async def test_what_limits_can_do_without_is_told_and_no_reason_to_wait():
    bench = Bench({Feature.SET_TSTAMP: ""})
    await bench.check.run()
    assert (bench.told, bench.slept, bench.check.why_not_ready()) == (["KernelLacks"], [], None)


async def test_a_module_that_limits_can_do_without_is_no_reason_to_wait_but_looked_for_again():
    bench = Bench({Feature.TBF: "x"}, {})
    await bench.check.run()
    assert (bench.told, bench.slept, bench.reasons) == (["KernelLacks"], [AGAIN_S], [None])
    assert bench.lacks("tbf") == (None, None)


async def test_the_metric_tells_what_limits_need_from_what_they_can_do_without():
    bench = Bench({Feature.FQ: "x", Feature.IFB: "x", Feature.SET_TSTAMP: ""}, {Feature.IFB: "x"}, {})
    bench.noting = ("ifb", "set_tstamp")
    await bench.check.run()
    assert bench.noted == [((1, None), (None, 1)), ((1, None), (None, None))]


async def test_when_nothing_can_be_tried_nothing_is_said_to_be_missing_and_it_is_tried_again():
    bench = Bench(ShapingError("no CAP_SYS_ADMIN"), {Feature.JIT: ""})
    await bench.check.run()
    assert (bench.told, bench.slept, bench.reasons) == (["KernelLacks"], [AGAIN_S], [None])
