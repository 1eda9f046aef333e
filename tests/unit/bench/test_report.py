"""Verdicts, tables and plots, from results that are made up."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.bench import cells, report, verdict
from tests.bench.plots import plots
from tests.bench.pooled import pooled
from tests.bench.svg import decades, figure, linear, logarithmic
from tests.bench.verdict import carried, count, verdicts

PROBE = {"count": 800, "lost": 0, "unloaded_p50": 10.0, "unloaded_p99": 10.3}


def result(cell: cells.Cell, *, share: float = 1.0, wait: float = 0.0) -> dict[str, Any]:
    """A cell that came out well; or with another share of what can be carried, and other waits in ms."""
    if cell.section == "change":
        steps = zip((cell.limit, *cell.changes), cell.changes, strict=False)
        held = [
            {
                "from": before,
                "to": after,
                "took": 0,
                "held_after": wait,
                "half_after": wait,
                "silence": wait,
                "carried": 1.0,
            }
            for before, after in steps
        ]
        return {"changes": held, "stolen": 0.0, "kernel": "6.1"}
    each = share * carried(cell) / len(cell.flows)
    groups = [
        {"goodput": each, "first_second": each, "jain": 1 - wait / 10, "flows": flows.count, "silent_flows": 0}
        for flows in cell.flows
    ]
    made = {"groups": groups, "goodput": share * carried(cell), "kernel": "6.1", "stolen": 0.01}
    if cell.is_emulated:
        # A low limit costs more for each byte, so that only a control of the same limit tells anything.
        made["cpu_seconds_a_gigabyte"] = (500.0 if cell.limit == "20M" else 50.0) + 10 * wait
    if cell.probed:
        probe = {"p50": wait, "p99": 3 * wait, "largest": 4 * wait, **PROBE}
        made["probes"] = {"ping": probe, "dns": probe, "fetch": probe}
    return made


def results() -> dict[str, Any]:
    """Ours better than all others, and two that share with a flood share 3 to 1."""
    made = {}
    for cell in cells.CATALOGUE:
        ours = cell.shaper == "ours"
        made[cell.name] = result(cell, share=1.0 if ours else 0.9, wait=0.0 if ours else 5.0)
        if "RTT" in cell.case and not ours:
            made[cell.name]["groups"][0]["goodput"] *= 3
        if "UDP at" in cell.case:
            made[cell.name]["groups"][0]["goodput"] *= 1.5
    plain = {"empty": 20.0, "ours": 60.0, "edt_fifo": 55.0}  # 1.14
    variants = [{"flows": 1, "buckets": 1, "idle": plain, "backlog": plain}]
    made["cost"] = {"kernel": "6.18", "jit": True, "variants": variants}
    return made


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
        ("latency/100M 8 flows/ingress/ours", {"share": 0.99}, "100M 8 flows, ingress: goodput"),
        ("latency/1G 64 flows/ingress/ours", {"wait": 0.2}, "1G 64 flows, ingress: ping, added p99"),
        ("latency/1G 64 flows/ingress/ours", {"share": 0.8}, "1G 64 flows, ingress: goodput"),
        ("fairness/64 flows, 10M/ingress/ours", {"wait": 0.1}, "64 flows, 10M: Jain's index"),
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


COMPARED = [f"latency/100M 8 flows/ingress/{shaper}" for shaper in ("ours", "cake")]
PINGED = [cell.name for cell in cells.CATALOGUE if cell.probed and not cell.changes and cell.name not in COMPARED]


def compared(ours, cake, apart=PINGED[::3]):
    """A verdict on two p99, where some of the cells, a third for example, are 1.5 ms apart from all others."""
    found = results()
    for name, p99 in zip(COMPARED, (ours, cake), strict=True):
        ping = {**PROBE, "p50": 0, "p99": p99, "largest": 9}
        found[name]["probes"]["ping"] = ping
    for name in apart:
        found[name]["probes"]["ping"] |= {"unloaded_p99": 11.8}
    key = "100M 8 flows, ingress: ping, added p99", "below cake's"
    made = verdicts(found)
    return next(each for each in made if (each.what, each.wanted) == key), count(made), report.markdown(found)


@pytest.mark.parametrize(("ours", "cake", "reached"), [(0.0, 2.0, True), (2.0, 0.0, False)])
def test_pings_that_are_far_enough_apart_are_compared(ours, cake, reached):
    made, _, text = compared(ours, cake)
    assert (made.reached, made.undecided) == (reached, False)
    assert "differ by less than 1.50 ms" in text


@pytest.mark.parametrize(("ours", "cake", "reached"), [(0.0, 0.3, True), (0.3, 0.0, False)])
def test_one_hiccup_of_the_machine_leaves_no_loss_undecided(ours, cake, reached):
    made, counted, text = compared(ours, cake, apart=PINGED[:1])
    assert (made.reached, made.undecided) == (reached, False)
    assert "undecided" not in counted
    assert "differ by less than 0.00 ms" in text


def test_of_no_results_or_one_nothing_is_apart():
    assert verdict.spread_ms({}) == verdict.spread_ms({COMPARED[0]: results()[COMPARED[0]]}) == 0


@pytest.mark.parametrize(("ours", "cake"), [(0.0, 1.4), (1.4, 0.0), (0.0, 0.0)])
def test_pings_that_differ_by_less_than_the_cells_do_without_load_are_undecided(ours, cake):
    made, counted, text = compared(ours, cake)
    assert (made.reached, made.undecided) == (None, True)
    assert ", 1 undecided" in counted
    assert "not measured" not in counted
    assert "| undecided |" in text


@pytest.mark.parametrize(
    ("ours", "control", "reached", "said"),
    [
        (0.9, 1.2, None, "0.900 ms; 1.200 ms without a shaper"),
        (0.9, 0.1, False, "0.900 ms"),
        (0.9, None, False, "0.900 ms"),
        (0.1, 1.2, True, "0.100 ms"),
    ],
)
@pytest.mark.parametrize("case", ["100M 8 flows", "100M 1000 flows"])
def test_what_the_guest_adds_without_a_shaper_is_not_laid_to_the_shaper(case, ours, control, reached, said):
    found = results()
    for shaper, p99 in (("ours", ours), ("paced", control)):
        if p99 is None:
            del found[f"latency/{case}/ingress/{shaper}"]
        else:
            found[f"latency/{case}/ingress/{shaper}"]["probes"]["ping"] = {**PROBE, "p50": 0, "p99": p99, "largest": 9}
    (made,) = (
        each
        for each in verdicts(found)
        if each.what == f"{case}, ingress: ping, added p99" and each.wanted.startswith("at most")
    )
    assert (made.measured, made.reached, made.undecided) == (said, reached, reached is None)
