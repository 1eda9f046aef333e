"""Comparisons with cake and with the control, and which of them nobody can decide; from results that are made up."""

import pytest

from tests.bench import cells, report, verdict
from tests.bench.verdict import count, verdicts
from tests.unit.bench.made_up import FLOODED, PROBE, results

COMPARED = [f"latency/100M 8 flows/ingress/{shaper}" for shaper in ("ours", "cake")]
PINGED = [cell.name for cell in cells.CATALOGUE if cell.probed and not cell.changes and cell.name not in COMPARED]


def compared(ours, cake, apart=PINGED[::3], kind="ping"):
    """A verdict on two p99, where some of the cells, a third for example, are 1.5 ms apart from all others."""
    found = results()
    for name, p99 in zip(COMPARED, (ours, cake), strict=True):
        figures = {**PROBE, "p50": 0, "p99": p99, "largest": 9}
        found[name]["probes"][kind] = figures
    for name in apart:
        found[name]["probes"][kind] |= {"unloaded_p99": 11.8}
    key = f"100M 8 flows, ingress: {verdict.SPARSE[kind]}, added p99", "below cake's"
    made = verdicts(found)
    return next(each for each in made if (each.what, each.wanted) == key), count(made), report.markdown(found)


@pytest.mark.parametrize(("ours", "cake", "reached"), [(0.0, 2.0, True), (2.0, 0.0, False)])
def test_pings_that_are_far_enough_apart_are_compared(ours, cake, reached):
    made, _, text = compared(ours, cake)
    assert (made.reached, made.undecided) == (reached, False)
    assert "differ by less than 1.50 ms" in text


@pytest.mark.parametrize(
    ("ours", "cake", "reached"), [(0.0, 2.0, True), (2.0, 0.0, False), (0.0, 1.4, None), (1.4, 0.0, None)]
)
def test_udps_requests_are_compared_by_how_far_apart_they_are_themselves(ours, cake, reached):
    made, _, text = compared(ours, cake, kind="dns")
    assert (made.reached, made.undecided) == (reached, reached is None)
    assert "differ by less than 0.00 ms,\nand two of UDP's requests that differ by less than 1.50 ms" in text


def test_a_flood_whose_cell_failed_is_not_measured():
    name = f"fairness/{FLOODED}, 10M/ingress/ours"
    unknown = [each for each in verdicts(results() | {name: {"error": "no"}}) if each.reached is None]
    assert [each.wanted for each in unknown] == [
        "TCP together at least 60 % of the limit",
        "at most 2 full packets' time + 0.5 ms = 2.92 ms",
    ]


@pytest.mark.parametrize(("ours", "cake", "reached"), [(0.0, 0.3, True), (0.3, 0.0, False)])
def test_one_hiccup_of_the_machine_leaves_no_loss_undecided(ours, cake, reached):
    made, counted, text = compared(ours, cake, apart=PINGED[:1])
    assert (made.reached, made.undecided) == (reached, False)
    assert "undecided" not in counted
    assert "differ by less than 0.00 ms" in text


def test_of_no_results_or_one_nothing_is_apart():
    assert verdict.spread_ms({}, "ping") == verdict.spread_ms({COMPARED[0]: results()[COMPARED[0]]}, "ping") == 0


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
@pytest.mark.parametrize(("kind", "called"), [("ping", "ping"), ("dns", "UDP")])
def test_what_the_guest_adds_without_a_shaper_is_not_laid_to_the_shaper(
    *, kind, called, case, ours, control, reached, said
):
    found = results()
    for shaper, p99 in (("ours", ours), ("paced", control)):
        if p99 is None:
            del found[f"latency/{case}/ingress/{shaper}"]
        else:
            found[f"latency/{case}/ingress/{shaper}"]["probes"][kind] = {**PROBE, "p50": 0, "p99": p99, "largest": 9}
    (made,) = (
        each
        for each in verdicts(found)
        if each.what == f"{case}, ingress: {called}, added p99" and each.wanted.startswith("at most")
    )
    assert (made.measured, made.reached, made.undecided) == (said, reached, reached is None)
