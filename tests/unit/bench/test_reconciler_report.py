from tests.bench.reconciler.report import FIRST_START_MEMORY, rows, slowness, text

GUEST = {
    "pods": 250,
    "kernel": "6.1",
    "restart_s": 7.5,
    "restart_cpu_s": 6.0,
    "idle_cpu_percent": 0.05,
    "resident_mib": 60.0,
    "most_resident_mib": 90.0,
    "changes_ms": [float(number) for number in range(1, 101)],
    "change_cpu_ms": 2.0,
    "hooks_ms": [3.0, 4.0, 5.0],
    "first_start_s": 20.0,
    "calibration_us": {"python_loop": 30.0, "stat": 40.0},
}
NATIVE = {
    "pods": 250,
    "imports": {"cpu_s": 0.3},
    "survey_s": 0.4,
    "looks_s": 0.5,
    "calibration_us": {"python_loop": 15.0, "stat": 2.0},
}


def test_each_figure_with_a_target_has_a_verdict_and_says_where_it_was_measured():
    verdicts = {(row.what, row.where): row.verdict for row in rows(GUEST, NATIVE)}
    assert verdicts["restart to converged, all limits other ones", "guest, the whole"] == "no"
    assert verdicts["imports + looking into all + a look at each", "machine, in parts"] == ""
    assert verdicts["idle CPU, with the kubelet's probes", "guest, the whole"] == "yes"
    assert verdicts["resident memory at its most, from a restart on", "guest, the whole"] == "no"
    assert verdicts["a change, p99", "guest, the whole"] == "no"
    assert verdicts["a change, p50", "guest, the whole"] == ""


def test_slowness_is_a_factor_for_each_kind_of_work():
    assert slowness(GUEST["calibration_us"], NATIVE["calibration_us"]) == {"python_loop": 2.0, "stat": 20.0}


def test_the_page_says_how_slow_the_guest_is():
    page = text({"guest": GUEST, "native": NATIVE, "date": "2026-11-25", "version": "abc", "kernel": "6.18"})
    assert "python loop 2.0, stat 20.0" in page
    assert "| idle CPU, with the kubelet's probes | guest, the whole | 0.05 % | at most 0.1 % | yes |" in page


def test_the_memory_of_a_first_start_is_told_with_its_compiler_where_it_was_measured():
    def told(**more):
        return next(row for row in rows({**GUEST, **more}, NATIVE) if row.what == FIRST_START_MEMORY)

    assert (told().figure, told().verdict) == ("not measured", "")
    measured = told(first_start_most_resident_mib=181.25)
    assert (measured.figure, measured.target, measured.verdict) == ("181 MiB", "", "")
