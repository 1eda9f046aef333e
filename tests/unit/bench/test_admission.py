"""The figures of `make bench-admission`, from what was measured."""

from typing import Any

import pytest

from tests.bench.admission import report


def results(ours: float, go: float) -> dict[str, Any]:
    def rounds(rate: float) -> list[dict[str, float]]:
        return [{"rate": rate * part, "p50_ms": 2.0, "p99_ms": 5.0, "cpu_us": 100.0} for part in (0.5, 1.0, 2.0)]

    variants = {report.NONE: rounds(1000), report.GO: rounds(go), report.OURS: rounds(ours)}
    return {
        "date": "2026-01-01 00:00 UTC",
        "machine": "on 2 processors",
        "rounds_each": 3,
        "seconds": 3.0,
        "rounds": {"stored": {"8": variants}},
    }


def test_a_round_is_told_in_rate_quantiles_and_processor_time() -> None:
    measured = report.round_of(2.0, [float(each) for each in range(100, 0, -1)], 0.05)
    assert measured == {"rate": 50.0, "p50_ms": 50.0, "p99_ms": 99.0, "cpu_us": pytest.approx(500.0)}


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 1), (0.51, 2), (1.0, 2)])
def test_a_quantile_is_one_of_the_values(part: float, value: float) -> None:
    assert report.quantile([1, 2], part) == value


def test_the_ratio_is_round_by_round_so_that_a_slow_machine_is_in_both() -> None:
    text = report.markdown(results(ours=900.0, go=1000.0))
    assert "| stored | 8 | ours | 900 | 2.00 | 5.00 | 100 | 0.900 (0.900 to 0.900) |" in text
    assert "| stored | 8 | no webhook | 1000 | 2.00 | 5.00 |  |  |" in text


def test_the_target_is_told_as_reached_or_where_it_is_missed() -> None:
    assert "not reached: stored, 8 workers (0.900)." in report.markdown(results(ours=900.0, go=1000.0))
    assert "reached everywhere." in report.markdown(results(ours=950.0, go=1000.0))
