"""The table that `make demo` leaves."""

import json

import pytest

from tests.cluster import demo_report
from tests.cluster.layout import PROJECT


def flow(*seconds):
    return {"mean_mbit": sum(seconds) / len(seconds), "seconds_mbit": list(seconds)}


ALL = {name: flow(95.5, 95.7) for name in demo_report.FLOWS} | {
    "unlimited": flow(7044.3, 3344.4),
    demo_report.CHANGED: flow(95.6, 95.7, 48.1, 19.1, 19.2),
}


def test_a_row_has_the_mean_and_the_first_second():
    lines = demo_report.table(ALL).splitlines()
    assert lines[2] == "| across nodes | none | 5194 | 7044 |"
    assert lines[4] == "| across nodes | 100M egress | 95.6 | 95.5 |"
    assert lines[-1] == (
        "| across nodes, changed on the open connection | 100M to 20M | 95.7, a second later 19.1 | |"
    )  # fmt: skip


@pytest.mark.parametrize("seconds", [(95.6, 95.7, 95.6), (19.0, 19.1), (95.6, 19.1, 19.1)])
def test_a_change_that_was_not_seen_is_not_made_up(seconds):
    assert demo_report.change(seconds) == "not seen"


def test_what_was_not_measured_has_no_row(tmp_path):
    demo_report.write(tmp_path, {"day": "2026-01-01", "revision": "abc", "flows": {"unlimited": flow(1, 2)}})
    page = (tmp_path / "demo.md").read_text()
    assert page.count("\n| ") == 2
    assert "2026-01-01, version abc" in page
    assert json.loads((tmp_path / "demo.json").read_text())["revision"] == "abc"


def test_before_the_first_demo_the_page_says_so():
    assert demo_report.page({}).endswith("Nothing is kept yet: run `make demo`.\n")


def test_the_readmes_table_is_the_demos():
    kept = json.loads((PROJECT / "tests/cluster/results/demo.json").read_text())
    text = (PROJECT / "README.md").read_text()
    section = text[text.index(demo_report.HEAD) :].split("\n\n", 1)[0]
    assert f"{section}\n" == demo_report.table(kept["flows"])
