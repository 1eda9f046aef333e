"""The figures of `make bench-admission`, from what was measured."""

import argparse
import contextlib
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.bench.admission import __main__ as bench
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
    same = "1.000, 1.000 to 1.000 (1.000 to 1.000)"
    rate = "0.900, 0.900 to 0.900 (0.900 to 0.900)"
    assert f"| stored | 8 | ours | 100 | {same} | 900 | 2.00 | 5.00 | {rate} |" in text
    assert "| stored | 8 | no webhook |  |  | 1000 | 2.00 | 5.00 |  |" in text
    assert "Admitting a Pod takes 1.0 to 1.0 times the CPU time of a webhook in Go that does the same" in text


def test_the_target_is_told_as_reached_or_where_it_is_missed() -> None:
    assert ": missed in 1: stored, 8 workers (0.900)." in report.markdown(results(ours=900.0, go=1000.0))
    kept = results(ours=950.0, go=1000.0)
    kept["rounds"]["stored"]["1"] = results(ours=900.0, go=1000.0)["rounds"]["stored"]["8"]
    said = ": missed in 1: stored, 1 worker (0.900); reached in 1: stored, 8 workers (0.950)."
    assert said in report.markdown(kept)


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ([0.94], "missed"),
        ([0.95], "reached"),
        ([0.5, 0.9, 0.9, 0.9, 1.6], "missed"),
        ([0.6, 0.9, 0.94, 1.0, 1.1], "undecided"),
        ([0.6, 0.96, 0.97, 1.0, 1.1], "reached"),
    ],
)
def test_where_rounds_disagree_about_the_target_it_is_undecided(ratios: list[float], word: str) -> None:
    assert report.word(ratios) == word


def test_the_page_names_the_version_and_the_rounds_that_are_missing() -> None:
    kept = results(ours=900.0, go=1000.0)
    assert "version unknown: Pods" in report.markdown(kept)
    assert "in 3 interleaved rounds (it was not kept how many were asked for) of 3 s each" in report.markdown(kept)
    kept |= {"version": "abc", "rounds_wanted": 6}
    assert "version abc: Pods" in report.markdown(kept)
    assert "in 3 of 6 interleaved rounds (it did not come to its end) of 3 s each" in report.markdown(kept)
    kept |= {"rounds_wanted": 3}
    assert "in 3 of 3 interleaved rounds of 3 s each" in report.markdown(kept)


def test_each_variant_goes_first_as_often_as_the_others_and_each_round_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def load(*asked: Any) -> dict[str, float]:
        _, _, variant, *_ = asked
        said.append(variant)
        return {"rate": 1.0}

    monkeypatch.setattr(bench, "ControlPlane", lambda _: contextlib.nullcontext(MagicMock()))
    monkeypatch.setattr(bench, "_install", lambda _: None)
    monkeypatch.setattr(bench, "_load", load)
    monkeypatch.setattr(bench, "revision", lambda: "abc")
    options = argparse.Namespace(rounds=bench.ROUNDS, seconds=3.0, workers=[1])
    kept = list(bench._measure(Path(), options))
    assert [(each["version"], each["rounds_each"], each["rounds_wanted"]) for each in kept] == [
        ("abc", number, bench.ROUNDS) for number in range(1, bench.ROUNDS + 1)
    ]
    every = len(report.VARIANTS)
    first = said[every::every]  # after the warm-up
    assert {variant: first.count(variant) for variant in report.VARIANTS} == dict.fromkeys(
        report.VARIANTS, len(first) // every
    )
