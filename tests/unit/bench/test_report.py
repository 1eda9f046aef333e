"""Verdicts, tables and plots, from results that are made up."""

from xml.etree import ElementTree as ET

import pytest

from tests.bench import cells, report, verdict
from tests.bench.plots import plots
from tests.bench.pooled import pooled
from tests.bench.svg import decades, figure, linear, logarithmic
from tests.bench.verdict import count, verdicts
from tests.unit.bench.made_up import FLOODED, result, results


def test_nothing_measured_is_nothing_reached() -> None:
    made = verdicts({})
    assert all(each.reached is None for each in made)
    assert count(made) == f"0 of {len(made)} reached, {len(made)} not measured"


def test_figures_that_are_all_good_are_all_reached() -> None:
    made = verdicts(results())
    assert [each for each in made if not each.reached] == []
    assert count(made) == f"{len(made)} of {len(made)} reached"


@pytest.mark.parametrize(
    ("name", "worse", "missed"),
    [
        ("accuracy/1M 1 flow/egress/ours", {"share": 0.98}, "1M: goodput in all 2 cells"),
        ("accuracy/1M 1 flow/egress/ours", {"share": 1.03}, "first second of a connection, all cells"),
        ("latency/100M 8 flows/ingress/ours", {"wait": 0.2}, "100M 8 flows, ingress: ping, added p99"),
        ("latency/100M 8 flows/egress/ours", {"wait": 0.11}, "100M 8 flows, egress: UDP, added p50"),
        ("latency/100M 8 flows/ingress/ours", {"wait": 0.2}, "100M 8 flows, ingress: UDP, added p99"),
        ("latency/100M 8 flows/ingress/ours", {"share": 0.99}, "100M 8 flows, ingress: goodput"),
        ("latency/1G 64 flows/ingress/ours", {"wait": 0.2}, "1G 64 flows, ingress: ping, added p99"),
        ("latency/1G 64 flows/ingress/ours", {"wait": 0.2}, "1G 64 flows, ingress: UDP, added p99"),
        ("latency/1G 64 flows/ingress/ours", {"share": 0.8}, "1G 64 flows, ingress: goodput"),
        ("fairness/64 flows, 10M/ingress/ours", {"wait": 0.1}, "64 flows, 10M: Jain's index"),
        # Two full packets take 2.4 ms at 10M, 0.24 at 100M.
        (
            "fairness/2 TCP beside UDP at 10x, 10M/ingress/ours",
            {"wait": 0.98},
            f"{FLOODED}, 10M, ingress: ping, added p99",
        ),
        (
            "fairness/2 TCP beside UDP at 10x, 100M/ingress/ours",
            {"wait": 0.25},
            f"{FLOODED}, 100M, ingress: ping, added p99",
        ),
        ("fairness/2 TCP beside UDP at 10x, 100M/egress/ours", {"share": 0.5}, f"{FLOODED}, 100M, egress"),
        (
            "change/1M 100M 1G/egress/ours",
            {"wait": 1.5},
            "egress lowered from 1G to 1M: new rate is not exceeded by more than 10 %",
        ),
    ],
)
def test_a_figure_that_is_missed_is_told(name: str, worse: dict[str, float], missed: str) -> None:
    (cell,) = (each for each in cells.CATALOGUE if each.name == name)
    made = verdicts(results() | {name: result(cell, **worse)})
    assert missed in {each.what for each in made if each.reached is False}


def test_a_failed_cell_is_not_measured() -> None:
    name = "latency/100M 8 flows/ingress/cake"
    made = verdicts(results() | {name: {"error": "no"}})
    assert {each.wanted for each in made if each.reached is None} == {"below cake's", "above cake's"}


def test_a_rate_that_never_holds_is_told_so() -> None:
    found = results()
    for change in found["change/1M 100M 1G/ingress/ours"]["changes"]:
        change["held_after"] = None
    missed = [each for each in verdicts(found) if not each.reached]
    assert [each.measured for each in missed] == ["not within the 5 s watched"] * 2
    assert "never" in report.markdown(found)


def test_cost_is_compared_less_an_empty_program() -> None:
    times = {"empty": 20.0, "ours": 60.0, "edt_fifo": 40.0}
    assert verdict.cost_ratio(times) == 2
    assert verdict.cost_ratio(times, net=False) == 1.5
    within_only_as_they_are = {"empty": 33.0, "ours": 76.0, "edt_fifo": 66.0}
    found = results()
    found["cost"]["variants"][0]["idle"] = within_only_as_they_are
    (missed,) = (each for each in verdicts(found) if not each.reached)
    assert missed.measured == "1.30 (76 to 66 ns as they are: 1.15)"


def test_the_report_has_a_row_for_every_cell_and_says_what_failed() -> None:
    text = report.markdown(results() | {"latency/100M 1 flow/ingress/ours": {"error": "no"}})
    assert "Not measured, as it failed: latency/100M 1 flow/ingress/ours" in text
    rows = [row for row in text.splitlines() if row.startswith("| 100M 8 flows | ingress |")]
    assert len(rows) == len(cells.select(["latency/100M 8 flows/ingress/*"]))
    assert "of" in report.summary(results())


def test_an_empty_report_is_one() -> None:
    assert "Nothing is measured yet" in report.files({})["README.md"]
    assert plots({}) == {}


@pytest.mark.parametrize("cell", cells.CATALOGUE[::9], ids=lambda cell: cell.name)
def test_every_result_makes_one_line(cell: cells.Cell) -> None:
    assert "\n" not in report.line(result(cell))
    assert report.line({"error": "why"}) == "failed: why"


def test_plots_are_well_formed_and_name_every_shaper() -> None:
    made = plots(results())
    assert set(made) == {"latency.svg", "loads.svg", "fairness.svg"}
    for text in made.values():
        ET.fromstring(text)  # noqa: S314 - our own
    for cell in cells.select(["latency/100M 8 flows/ingress/*"]):
        assert cells.NAMES[cell.shaper] in made["latency.svg"]


def test_scales_stay_within_their_ends() -> None:
    assert linear(0, 10, 100, 200)(5) == 150
    assert linear(0, 10, 100, 200)(11) == 200
    assert logarithmic(1, 100, 0, 200)(10) == pytest.approx(100)
    assert logarithmic(1, 100, 0, 200)(-5) == 0
    assert decades(0.02, 150) == pytest.approx([0.1, 1, 10, 100])
    assert [figure(value) for value in (0.123, 12.34, 1234.5)] == ["0.12", "12.3", "1234"]


def test_cpu_time_is_told_beside_that_of_senders_without_a_shaper() -> None:
    text = report.markdown(results())
    assert " | 50.0 | -50 % | 6.1 |" in text
    assert " | 500.0 | -9 % | 6.1 |" in text
    controls = [row for row in text.splitlines() if "no shaper, paced senders" in row and row.endswith("| 6.1 |")]
    assert len(controls) == 4
    assert all("| +0 % |" in row for row in controls)


def test_each_section_names_the_versions_and_days_of_its_figures() -> None:
    found = results()
    for name in found:
        found[name] |= {"at": "2026-01-02T03:04:05+00:00", "revision": "abc"}
    found["cost"] |= {"at": "2026-02-03T03:04:05+00:00", "revision": "def-dirty"}
    text = report.markdown(found)
    assert text.count(" of version abc, 2026-01-02.\n") == 5
    assert text.count("Figures: 1 of version def-dirty, 2026-02-03.\n-dirty: with changes that no commit has") == 1


def test_pings_are_compared_with_what_all_cells_have_without_load() -> None:
    found = results()
    unlucky = found["latency/100M 8 flows/ingress/ours"]["probes"]["ping"]
    unlucky |= {"p99": -2.0, "unloaded_p99": 12.3 + 0.9}  # 11.2 under load, beside a median of 10.3 without
    made = {(each.what, each.wanted): each for each in verdicts(found)}
    judged = made["100M 8 flows, ingress: ping, added p99", "at most 0.5 ms"]
    assert (judged.measured, judged.reached) == ("0.900 ms", False)
    assert "p99 10.30 ms (10.30 to 13.20)" in report.markdown(found)
    assert pooled(pooled(found)) == pooled(found)


def test_udps_requests_are_compared_likewise_and_slow_fetches_with_the_cells_own_median() -> None:
    found = results()
    probes = found["latency/100M 8 flows/ingress/ours"]["probes"]
    # One request took 18 ms without load, and the slowest fetch 31.
    probes["dns"] = {**probes["dns"], "p50": 0.0, "p99": -7.0, "largest": -6.0, "unloaded_p99": 18.0}
    probes["fetch"] = {**probes["fetch"], "p50": 13.0, "p99": 11.0, "largest": 11.0, "unloaded_p99": 31.0}
    text = report.markdown(found)
    assert " | 0.00 / 0.70 / 1.70 | 13.00 / 32.00 | 0 |" in text
    assert "UDP's requests at an RTT of 10 ms" in text
    assert pooled(pooled(found)) == pooled(found)


def test_two_figures_are_told_with_the_digits_that_tell_them_apart() -> None:
    found = results()
    for shaper, jain in (("ours", 0.99986), ("cake", 0.99994)):
        found[f"fairness/8 flows, 100M/ingress/{shaper}"]["groups"][0]["jain"] = jain
        found[f"fairness/64 flows, 10M/ingress/{shaper}"]["groups"][0]["jain"] = 1.0
    made = {each.what: each for each in verdicts(found)}
    assert made["8 flows, 100M: 1 - Jain's index"].measured == "0.00014 against 0.00006"
    equal = made["64 flows, 10M: 1 - Jain's index"]
    assert (equal.measured, equal.reached) == ("0.000 against as much", False)


def test_the_page_says_how_many_cells_were_measured_again() -> None:
    measured = results()
    assert "again" not in report.files(measured)["README.md"].split("\n## ")[0]
    measured["latency/100M 8 flows/ingress/ours"]["times"] = 2
    assert (
        " cells, 1 were measured again; the least disturbed result counts.\n"
        in report.files(measured)["README.md"].split("\n## ")[0]
    )


CUT = "ingress lowered from 100M to 1M: "


def cut(**figures):
    """The verdicts on the cut from 100M to 1M with other figures than good ones, by what they are about."""
    found = results()
    changes = found["change/1M 100M 1G/ingress/ours"]["changes"]
    (change,) = (each for each in changes if (each["from"], each["to"]) == ("100M", "1M"))
    change |= figures
    return {each.what.removeprefix(CUT): each for each in verdicts(found) if each.what.startswith(CUT)}, found


def test_a_cut_to_a_hundredth_is_judged_too():
    made, _ = cut(held_after=1.5, half_after=None, silence=2.0)
    assert {what: each.reached for what, each in made.items()} == {
        "new rate is not exceeded by more than 10 %": False,
        "half of the new rate is carried again": False,
        "ping answers": False,
    }


@pytest.mark.parametrize(
    ("figures", "half"),
    [
        ({"captured": 0}, None),
        ({"captured": 0, "carried": 0.0, "half_after": None}, False),
        ({"carried": 0.0, "half_after": None}, False),
    ],
)
def test_where_nothing_was_captured_nobody_knows_whether_the_rate_was_held(figures, half):
    made, found = cut(**figures)
    rate = made["new rate is not exceeded by more than 10 %"]
    assert (rate.measured, rate.reached) == ("not measured", None)
    assert made["half of the new rate is carried again"].reached is half
    text = report.markdown(found)
    assert "not measured, half " in text
    assert "100M->1M not measured" in report.line(found["change/1M 100M 1G/ingress/ours"])


def test_a_capture_that_has_something_is_judged():
    assert all(each.reached for each in cut(captured=1514)[0].values())
