"""What is lost is lost: a second attempt is for what slowness may have brought about."""

import ast
import inspect
import re
import subprocess
import sys

import pytest

from tests.cluster import test_certificates, test_chaos, test_drain
from tests.cluster.layout import PROJECT
from tests.cluster.losses import Doubt, LostError, nothing_lost

SAME_TWICE = """
import pytest
from pathlib import Path
from tests.cluster.losses import Doubt, nothing_lost

@pytest.mark.parametrize("what", ["loss", "doubt", "both"])
def test_it(what):
    with Path(__file__).with_name(what).open("a") as attempts:
        attempts.write(".")
    nothing_lost({"loss": ["a Pod"], "doubt": [Doubt("slow")], "both": [Doubt("slow"), "a Pod"]}[what])
"""


def options():
    """What `make test-cluster` has pytest run again."""
    makefile = (PROJECT / "Makefile").read_text()
    (line,) = re.findall(r"pytest tests/unit/manifests tests/cluster (.*)", makefile)
    for name, value in re.findall(r"^([A-Z_]+) := (.*)", makefile, re.MULTILINE):
        line = line.replace(f"$({name})", value)
    return line.split()


def test_what_is_lost_is_not_tried_again_and_what_may_have_been_slow_is(tmp_path):
    (tmp_path / "test_it.py").write_text(SAME_TWICE)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options())
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
