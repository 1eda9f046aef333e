"""In which order `make test-cluster` runs its tests."""

import itertools
import subprocess
import sys

import pytest

from tests.cluster.layout import PROJECT

COLLECT = (sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def order():
    """The modules in the order of their tests, as often as another one comes between."""
    collected = subprocess.run(
        (*COLLECT, "tests/unit/manifests", "tests/cluster"), capture_output=True, text=True, check=True, cwd=PROJECT
    )
    tests = [line.partition("::")[0] for line in collected.stdout.splitlines() if "::" in line]
    return [name for name, _ in itertools.groupby(tests)]


def test_what_needs_no_common_cluster_comes_before_it(order):
    """The stand-in's own clusters too; then comes what the common one is, then the product on it."""
    own = "tests/cluster/test_cluster.py"
    first, second = (place for place, name in enumerate(order) if name == own)
    alone = {f"tests/cluster/test_{name}.py" for name in ("apply", "drain", "older_containerd", "webhook_away")}
    assert alone <= set(order[first:second])
    shared = {
        f"tests/cluster/test_{name}.py" for name in ("cert_manager", "certificates", "chaos", "product/test_admission")
    }
    assert shared <= set(order[second:])


def test_the_product_is_uninstalled_when_all_of_its_folder_is_done(order):
    *others, last = (name for name in order if "/test_product/" in name)
    assert len(others) == 3
    assert last == "tests/cluster/test_product/test_uninstall.py"


def test_tests_of_other_folders_come_first_and_as_they_were(order):
    manifests = [name for name in order if "/manifests/" in name]
    assert manifests
    assert order[: len(manifests)] == sorted(manifests)
