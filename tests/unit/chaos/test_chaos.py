"""What `make chaos` judges by: seconds above and below a limit, the table."""

import json

import pytest

from tests.cluster.chaos import registry
from tests.cluster.chaos.__main__ import RESULTS
from tests.cluster.chaos.lab import told
from tests.cluster.chaos.meter import WIRE, Line, Measured
from tests.cluster.chaos.registry import Outcome, Scenario
from tests.cluster.chaos.report import RULE, Row, merge, read, write
from tests.cluster.traffic import Flow
from tests.losses import Doubt

LINE = Line("egress", "a/b", "a/c", 20)


def measured(*shares, busy=(), stolen=0.0):
    seconds = tuple(share * 20 / WIRE for share in shares)
    return Measured(LINE, Flow(sum(seconds) / len(seconds), seconds, stolen), frozenset(busy))


def test_a_second_above_102_percent_is_lost():
    assert measured(1, 1.019, 1).lost == ()
    assert measured(1, 1.0, 1.03).above == (2,)
    assert "103.0% in second 2 after 100.0% 100.0%" in measured(1, 1.0, 1.03).lost[0]


def test_what_a_second_brought_late_does_not_count_against_the_next_but_a_tenth_at_most():
    assert measured(1, 0.95, 1.05, 1).above == ()
    assert measured(1, 0.95, 1.05, 1.05).above == (3,)
    assert measured(1, 0.9, 1.03, 1.05).above == ()
    assert measured(1, 0.9, 1.05, 1.05, 1.05).above == (4,)
    assert measured(1, 0.5, 0.5, 1.05, 1.1).above == (4,)
    assert measured(1, 0.5, 1.13).above == (2,)


def test_a_second_below_90_percent_is_lost_but_the_first_and_that_of_a_machine_whose_cpu_was_stolen():
    assert measured(0.5, 0.91, 1).below() == ()
    assert "75.0% in second 1" in measured(1, 0.75, 1).below()[0]
    assert measured(1, 0.75, 1, stolen=0.1).below() == ()


def test_a_second_of_a_busy_machine_is_held_to_half_of_the_limit():
    assert measured(1, 0.6, 0.55, 0.6, busy={1, 2, 3}).below() == ()
    assert measured(1, 0.3, 0.9, busy={1}).below() == ()
    low = measured(1, 0.3, 0.2, 0.7, 0.7, busy={1, 2}).below()
    assert low == (
        "2 seconds of egress below 90% of the limit: 70.0% in second 3, 70.0% in second 4",
        "2 seconds of egress below 50% of the limit: 30.0% in second 1, 20.0% in second 2",
    )


@pytest.mark.parametrize(
    ("shares", "still"),
    [
        ((1, 1, 1, 0, 0, 1, 1, 1), "2 seconds of egress below 50% of the limit: 0.0% in second 3, 0.0% in second 4"),
        ((1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1), "6 seconds of egress below 50% of the limit: 0.0% in second 2, "),
        ((1, 1, 0, 1, 1), "1 second of egress below 50% of the limit: 0.0% in second 2"),
    ],
)
def test_a_second_that_stands_still_is_lost_on_a_busy_machine_too_and_beside_full_ones(shares, still):
    (said,) = measured(*shares, busy=range(len(shares))).below()
    assert said.startswith(still)
    assert measured(*(max(share, 0.1) for share in shares), busy=range(len(shares))).below() == ()


def test_a_second_that_stands_still_is_not_made_good_by_its_neighbour_where_the_cpu_was_stolen():
    assert measured(1, 0.03, 1.02, stolen=0.5).below()
    assert measured(1, 0.07, 1.02, stolen=0.5).below() == ()


def test_seconds_that_were_not_measured_are_lost():
    flow = measured(*[1] * 40).flow
    assert Measured(LINE, flow, lasted=44).below() == ()
    assert Measured(LINE, flow, lasted=60).below() == ("only 40 of 60 seconds of egress were measured",)
    assert Measured(LINE, Flow(0.0, ()), lasted=44).below() == ("only 0 of 44 seconds of egress were measured",)


def test_a_moment_without_a_cpu_is_not_lost_but_two_seconds_that_lack_a_little_are():
    assert measured(1, 0.85, 1).below() == ()
    assert "2 seconds of egress below 90% of the limit" in measured(1, 0.85, 0.88).below()[0]
    assert len(measured(1, 0.8).below()) == len(measured(1, 1, 0.7).below()) == 1


def test_the_text_has_the_extremes_of_the_seconds_that_count():
    assert str(measured(0.5, 0.95, 1.01)) == "egress: 3 s at 95.0% to 101.0% of 20M"
    assert str(measured(1, 0.3, 0.95, busy={1})) == (
        "egress: 3 s at 95.0% to 100.0% of 20M, 1 s without an idle CPU at 30.0% and more"
    )
    assert str(measured(1, 0.6, 0.7, busy={1, 2})) == (
        "egress: 3 s at no more than 100.0% of 20M, 2 s without an idle CPU at 60.0% and more"
    )


def row(name, *lost, day="2026-01-01", rule=RULE):
    return Row(name, f"does {name}", "seen | it", lost, 1.5, day, "abc", rule)


def test_rows_run_again_replace_the_old_ones_and_the_others_by_the_same_rule_stay_in_order(tmp_path):
    write(tmp_path, [row("a"), row("b", "something"), row("c", rule=RULE - 1), row("d")])
    stored = json.loads((tmp_path / "chaos.json").read_text())
    del stored["scenarios"][3]["rule"]  # as it is where none was kept
    (tmp_path / "chaos.json").write_text(json.dumps(stored))
    rows = merge(tmp_path / "chaos.json", {"b": row("b", day="2026-02-02")}, ("b", "c", "a", "d"))
    assert [(each.name, each.day, each.passed) for each in rows] == [
        ("b", "2026-02-02", True),
        ("a", "2026-01-01", True),
    ]


def test_the_table_says_what_was_lost_in_json_and_markdown(tmp_path):
    write(tmp_path, [row("a"), row("b", "one", "two")])
    stored = json.loads((tmp_path / "chaos.json").read_text())["scenarios"]
    assert [(each["name"], each["passed"]) for each in stored] == [("a", True), ("b", False)]
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "| `a`: does a | seen \\| it | nothing | 2 | 2026-01-01 | abc |" in lines
    assert any("**one; two**" in line for line in lines)


def test_scenarios_are_chosen_by_name_and_a_wrong_name_is_said():
    assert [each.name for each in registry.select(["probes", "webhook-rolled"])] == ["webhook-rolled", "probes"]
    assert all(each.quick for each in registry.select(["quick"]))
    assert set(registry.select([])) == set(registry.scenarios())
    with pytest.raises(KeyError, match="nonsense"):
        registry.select(["nonsense", "probes"])


@pytest.mark.parametrize(
    ("outcomes", "lost", "runs"),
    [
        ([Outcome("a", (), ("slow",)), Outcome("b")], (), 2),
        ([Outcome("a", (), ("slow",)), Outcome("b", (), ("again",))], ("again",), 2),
        ([Outcome("a", (), ("slow",)), Outcome("b", ("broken",))], ("broken",), 2),
        ([Outcome("a", ("broken",), ("slow",))], ("broken", "slow"), 1),
        ([Outcome("a")], (), 1),
    ],
)
def test_what_was_slow_is_lost_when_it_is_so_again_and_all_else_at_once(outcomes, lost, runs):
    left = iter(outcomes)
    outcome = registry.attempt(None, Scenario("a", "does a", lambda _: next(left), 1, quick=True))
    assert outcome.lost == lost
    assert {each for each in outcome.lost if isinstance(each, Doubt)} <= {"slow", "again"}
    assert not {each for each in outcome.lost if not isinstance(each, Doubt)} & {"slow", "again"}
    assert outcome.slow == ()
    assert list(left) == []
    assert outcome.seen == ("a" if runs == 1 else "b; once before: slow")


KEPT = {row.name: row for row in read(RESULTS / "chaos.json")}


@pytest.mark.parametrize("chosen", registry.scenarios(), ids=lambda each: each.name)
def test_a_scenario_takes_about_as_long_as_it_says(chosen):
    row = KEPT.get(chosen.name)
    if row is None or "; once before: " in row.seen:
        pytest.skip("no result of one run is kept")
    assert row.seconds / 1.5 <= chosen.seconds <= row.seconds * 1.5


def test_the_quick_ones_took_as_long_as_a_person_waits():
    assert sum(KEPT[each.name].seconds for each in registry.scenarios() if each.quick) <= 500


def test_limits_are_told_in_words():
    assert told({"ingress": 1e7, "egress": 100_000}) == "0.1M egress, 10M ingress"
    assert told({}) == "no limits"
    assert "asked" in told(None)
