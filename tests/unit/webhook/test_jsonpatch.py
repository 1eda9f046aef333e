"""JSON patches of maps, per key."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhook.json_patch import applied
from webhook.jsonpatch import escape, map_changes, unescape

MAPS = st.dictionaries(st.text("ab~/01", max_size=4), st.text(max_size=3), max_size=5)


def test_a_key_is_escaped_as_json_pointers_have_it() -> None:
    assert escape("a/b~c~1") == "a~1b~0c~01"
    assert unescape("a~1b~0c~01") == "a/b~c~1"


@given(st.text("a~/01"))
def test_an_escaped_key_reads_back_and_is_one_part_of_a_path(key: str) -> None:
    assert unescape(escape(key)) == key
    assert "/" not in escape(key)


def test_a_missing_map_is_made_before_its_keys_are() -> None:
    assert map_changes("/metadata/labels", None, {"a/b": "1"}) == (
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "add", "path": "/metadata/labels/a~1b", "value": "1"},
    )


def test_nothing_to_change_is_no_operation_not_even_an_empty_map() -> None:
    assert map_changes("/metadata/labels", None, {}) == ()
    assert map_changes("/metadata/labels", {"a": "1", "b": "2"}, {"a": "1"}) == ()


@given(st.none() | MAPS, MAPS)
def test_a_patch_sets_its_keys_and_leaves_the_others(before: dict[str, str] | None, changes: dict[str, str]) -> None:
    document = {"map": before}
    after = applied(list(map_changes("/map", before, changes)), document)
    assert (after["map"] or {}) == {**(before or {}), **changes}
