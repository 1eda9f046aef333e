"""The alert rules, read and evaluated by Prometheus' own tool: what each says on bad days, and that none does on good.

The days are in the folder's YAML files; they are of series that the programs have.
"""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from reconciler.node_state import PodCounts
from reconciler.requirements import REQUIREMENTS
from tests.prometheus.promtool import promtool
from tests.unit.manifests.test_manifests import Object
from tests.unit.manifests.test_monitoring import FOREIGN, GROUP, RULES, known, queries, target_labels

FILES = sorted(Path(__file__).parent.glob("*.yaml"))
DAYS = [day for file in FILES for day in yaml.safe_load(file.read_text())["tests"]]
CASES = [case for day in DAYS for case in day.get("alert_rule_test", [])]
SERIES = {series["series"] for day in DAYS for series in day["input_series"]}
VALUES = {
    "state": set(PodCounts._fields),
    "feature": set(REQUIREMENTS),
    "vital": {"yes", "no"},
    "namespace": {"ipvlan-bandwidth"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules, as Prometheus takes them, and the days."""
    there = tmp_path_factory.mktemp("rules")
    (there / "rules.yaml").write_text(yaml.safe_dump(RULES["spec"]))
    for file in FILES:
        shutil.copy(file, there)
    return there


def test_the_rules_are_read_and_nothing_is_wrong_with_them(folder: Path) -> None:
    status, said = promtool("check", "rules", "--lint=all", "--lint-fatal", str(folder / "rules.yaml"))
    assert status == 0, said
    assert f"SUCCESS: {len(GROUP['rules'])} rules found" in said


def test_the_queries_of_the_reference_can_be_asked(tmp_path: Path) -> None:
    """As rules that record them, which are read alike."""
    rules = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    status, said = promtool("check", "rules", str(file))
    assert status == 0, said


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_day_has_the_alerts_that_it_should_have(folder: Path, file: Path) -> None:
    status, said = promtool("test", "rules", str(folder / file.name))
    assert status == 0, said


@pytest.mark.parametrize("rule", GROUP["rules"], ids=lambda rule: rule["alert"])
def test_every_alert_has_a_time_when_it_fires_and_one_when_it_does_not(rule: Object) -> None:
    cases = [case for case in CASES if case["alertname"] == rule["alert"]]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


@pytest.mark.parametrize("series", sorted(SERIES))
def test_the_days_are_of_series_that_there_are(series: str) -> None:
    name, matchers = re.fullmatch(r"(\w+)\{(.*)\}", series).groups()
    labels = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
    own = known()[name]
    if name in FOREIGN:
        assert set(labels) == own | {"instance"}
        return
    assert any(set(labels) == own | added for added in target_labels(name))
    for label, value in labels.items():
        if not (label == "namespace" and label in own):  # what is told of a Pod has its namespace
            assert value in VALUES.get(label, {value})
    if "feature" in labels:
        assert labels["vital"] == ("yes" if REQUIREMENTS[labels["feature"]].is_vital else "no")
