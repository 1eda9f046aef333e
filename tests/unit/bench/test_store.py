"""Which result of a cell is kept."""

from tests.bench.__main__ import Store


def test_what_is_measured_again_replaces_what_was_there(tmp_path):
    store = Store(tmp_path / "results.json")
    store.add("cell", {"stolen": 0.01, "goodput": 1})
    store.add("cell", {"stolen": 0.02, "goodput": 2})
    kept = Store(tmp_path / "results.json").content["cell"]
    assert (kept["goodput"], "times" in kept) == (2, False)


def test_of_what_was_disturbed_the_least_disturbed_counts_however_it_came_out(tmp_path):
    store = Store(tmp_path / "results.json", keeps_calmer=True)
    for stolen, goodput in ((0.02, 3), (0.01, 1), (0.03, 2)):
        store.add("cell", {"stolen": stolen, "goodput": goodput})
    kept = store.content["cell"]
    assert (kept["goodput"], kept["stolen"], kept["times"]) == (1, 0.01, 3)


def test_a_result_is_better_than_none(tmp_path):
    store = Store(tmp_path / "results.json", keeps_calmer=True)
    store.add("cell", {"error": "lost"})
    store.add("cell", {"stolen": 0.5})
    assert store.content["cell"]["stolen"] == 0.5
