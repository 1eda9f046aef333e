"""The catalogue, and how cells are chosen."""

from tests.bench import cells


def test_names_are_unique() -> None:
    names = [cell.name for cell in cells.CATALOGUE]
    assert len(set(names)) == len(names)


def test_every_shaper_has_a_name_for_people() -> None:
    assert {cell.shaper for cell in cells.CATALOGUE} == set(cells.NAMES)


def test_every_rate_is_measured_both_ways() -> None:
    ours = {(cell.limit, cell.direction) for cell in cells.select(["accuracy/*/ours"])}
    assert ours == {(limit, way) for limit in ("100k", "1M", "10M", "100M", "1G") for way in ("ingress", "egress")}


def test_a_change_goes_from_each_rate_to_each_other() -> None:
    for cell in cells.select(["change"]):
        steps = set(zip((cell.limit, *cell.changes), cell.changes, strict=False))
        assert len(steps) == len(cell.changes) == 6


def test_a_section_or_a_pattern_selects() -> None:
    assert {cell.section for cell in cells.select(["latency"])} == {"latency"}
    assert {cell.shaper for cell in cells.select(["*/cake"])} == {"cake"}
    assert cells.select([]) == list(cells.CATALOGUE)
    assert cells.select(["cost"]) == []


def test_what_was_disturbed_is_measured_again_whatever_its_shaper() -> None:
    ours, cake, fresh = cells.select(["latency/100M 8 flows/ingress/*"])[:3]
    results = {ours.name: {"stolen": 0.0101}, cake.name: {"stolen": 0.0099}}
    assert cells.disturbed([ours, cake, fresh], results, 1.0) == [ours, fresh]


def test_batches_keep_the_order_and_are_of_one_section_and_short() -> None:
    made = cells.batches(cells.CATALOGUE)
    assert [cell for batch in made for cell in batch] == list(cells.CATALOGUE)
    for batch in made:
        assert len({cell.section for cell in batch}) == 1
        assert sum(cell.expected_seconds for cell in batch) <= cells.BATCH_SECONDS


def test_all_of_it_takes_less_than_forty_five_minutes() -> None:
    boots = sum(
        cells.EMULATED_BOOT_SECONDS if batch[0].is_emulated else cells.BOOT_SECONDS
        for batch in cells.batches(cells.CATALOGUE)
    )
    assert sum(cell.expected_seconds for cell in cells.CATALOGUE) + boots < 45 * 60


def test_the_quick_choice_has_some_of_each_section_and_is_quick() -> None:
    chosen = cells.quick(cells.CATALOGUE)
    assert {cell.section for cell in chosen} == set(cells.SECTIONS) - {"cost", "cpu"}
    assert sum(cell.expected_seconds for cell in chosen) < 150
