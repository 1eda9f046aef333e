"""What is lost is lost: a second attempt is for what slowness may have brought about."""

import ast
import inspect
import re
import subprocess
import sys

import pytest

from tests.cluster import scenario, test_certificates, test_chaos, test_drain, traffic
from tests.cluster.chaos.meter import above_limit
from tests.cluster.layout import PROJECT
from tests.cluster.test_product.lab import best
from tests.cluster.traffic import Flow
from tests.kernel.held import check
from tests.kernel.lab import Transfer, limits
from tests.losses import Doubt, LostError, nothing_lost

SAME_TWICE = """
import pytest
from pathlib import Path
from tests.losses import Doubt, nothing_lost

@pytest.mark.parametrize("what", ["loss", "doubt", "both"])
def test_it(what):
    with Path(__file__).with_name(what).open("a") as attempts:
        attempts.write(".")
    nothing_lost({"loss": ["a Pod"], "doubt": [Doubt("slow")], "both": [Doubt("slow"), "a Pod"]}[what])
"""


def recipes():
    """The Makefile's targets that run tests in guests and on clusters, and what each has pytest run again."""
    makefile = (PROJECT / "Makefile").read_text().replace("\\\n", " ")
    variables = dict(re.findall(r"^([A-Z_]+) := (.*)", makefile, re.MULTILINE))
    found = {}
    for target, recipe in re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE):
        for line in recipe.splitlines():
            if re.search(r"-m tests\.kernel\b|pytest .*tests/cluster\b", line):
                named = re.findall(r"\$\((SECOND_CHANCE|UNLESS_LOST)\)", line)
                found[target] = [word for name in named for word in variables[name].split()]
    return found


def test_all_tests_in_guests_and_on_clusters_have_a_second_chance_alike():
    found = recipes()
    assert set(found) == {"test-kernel", "test-kernels", "test-cluster"}
    assert len(set(map(tuple, found.values()))) == 1


@pytest.mark.parametrize("target", ["test-kernel", "test-kernels", "test-cluster"])
def test_what_is_lost_is_not_tried_again_and_what_may_have_been_slow_is(tmp_path, target):
    (tmp_path / "test_it.py").write_text(SAME_TWICE)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *recipes()[target])
    ran = subprocess.run((*command, tmp_path), capture_output=True, text=True, check=False, cwd=PROJECT)
    assert "3 failed" in ran.stdout, ran.stdout + ran.stderr
    attempts = {each: len((tmp_path / each).read_text()) for each in ("loss", "doubt", "both")}
    assert attempts == {"loss": 1, "doubt": 2, "both": 1}


def test_a_doubt_is_told_as_a_loss_is():
    nothing_lost([])
    with pytest.raises(LostError, match=r"^slow; a Pod$"):
        nothing_lost(iter([Doubt("slow"), "a Pod"]))
    with pytest.raises(AssertionError, match=r"^slow") as raised:
        nothing_lost([Doubt("slow")])
    assert raised.type is AssertionError


@pytest.mark.parametrize("module", [test_certificates, test_chaos, test_drain])
def test_each_test_of_what_may_be_lost_says_so(module):
    tests = [function for name, function in inspect.getmembers(module) if name.startswith("test_")]
    assert tests
    assert all("nothing_lost(" in inspect.getsource(each) for each in tests)


def test_each_test_that_creates_pods_meanwhile_says_what_was_lost_of_them():
    found = {}
    for file in (PROJECT / "tests/cluster").rglob("test_*.py"):
        source = file.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{file.name}: {node.name}"] = ast.get_source_segment(source, node)
    creating = {name: text for name, text in found.items() if "Creating(" in text}
    assert creating
    assert [name for name, text in creating.items() if "nothing_lost(" not in text] == []


def test_a_transfer_above_the_limit_is_lost_whatever_the_next_one_carries(monkeypatch):
    flows = iter([Flow(19.0, (19.0, 25.0, 19.0)), Flow(19.0, (19.0, 19.0, 19.0))])
    monkeypatch.setattr(traffic, "measure", lambda *_, **__: next(flows))
    bounds = {"lowest": 18.9, "highest": 19.2, "limit": 20}
    with pytest.raises(LostError, match=r"1 second of the flow above the limit: 130\.\d% in second 1"):
        best(None, "a", "b", **bounds)
    best(None, "a", "b", **bounds)


def test_a_limit_that_the_kernel_no_longer_holds_is_lost(monkeypatch):
    held = {"egress": 20_000_000}
    monkeypatch.setattr(scenario, "kernel_limits", lambda *_: held)
    scenario.still_limited(None, "shop/a", {"egress": 20_000_000})
    with pytest.raises(LostError, match=r"^shop/a is limited to {'egress': 20000000}, no longer to {'ingress': 1}$"):
        scenario.still_limited(None, "shop/a", {"ingress": 1})


def test_a_second_above_the_limit_is_lost_in_the_guest_too_and_one_that_does_not_count_is_not():
    transfer = Transfer(19.0, (25.0, 19.0, 19.0, 24.0), 0.0)
    transfer.never_above(20, range(1, 3))
    with pytest.raises(LostError, match=r"^\[24\.0\] Mbit/s of 20 in seconds \[3\] of "):
        transfer.never_above(20, range(1, 4))


def test_seconds_above_a_limit_that_may_all_have_come_late_are_a_doubt():
    starved = (19.1, 12.0, 24.0)
    with pytest.raises(AssertionError, match=r"^\[24\.0\] Mbit/s of 20 in seconds \[2\] of ") as raised:
        Transfer(19, starved, 0.0).never_above(20, range(3))
    assert raised.type is AssertionError
    (doubt,), (loss,) = (above_limit(Flow(19, each), 20) for each in (starved, (*starved, 24.0)))
    assert isinstance(doubt, Doubt)
    assert not isinstance(loss, Doubt)
    assert "1 second of the flow above the limit" in doubt
    assert "2 seconds of the flow above the limit" in loss


def test_a_direction_that_is_without_its_limit_meanwhile_is_lost():
    before, wanted = limits(ingress="100M", egress="100M"), limits(egress="50M")
    for between in (before, wanted):
        check(before, between, wanted, "now")
    with pytest.raises(LostError, match=r"^egress is limited to None now$"):
        check(before, limits(ingress="100M"), wanted, "now")
