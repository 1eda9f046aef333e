"""The reflector against a scripted API: what its owner sees, what it asks for, and how long it waits.

Its twin against a real API server is in the cluster suite, where both of its users run.
"""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.webhook.reflector_script import FUTURE, GONE, UNREACHABLE, Json, Script, Watch, event, item, listed
from webhook.common.kubeapi import ApiError
from webhook.common.reflector import LONGEST_DELAY_S


async def test_it_lists_then_watches_from_the_version_of_the_list() -> None:
    script = Script([listed(7, "a", "b")], [Watch([event("ADDED", "c", 8), event("DELETED", "a", 9)])])
    await script.play()
    assert script.seen == ["sync a,b", "ADDED c", "DELETED a"]
    assert [asked["resourceVersion"] for asked in script.asked] == ["7", "9"]
    assert script.slept == []


async def test_a_watch_asks_for_bookmarks_the_same_selection_and_an_end_within_ten_minutes() -> None:
    script = Script([listed(7)], [])
    await script.play(uniform=1.0)
    (asked,) = script.asked
    assert asked["allowWatchBookmarks"] == "true"
    assert asked["fieldSelector"] == "spec.nodeName=n"
    assert asked["timeoutSeconds"] == "600"


async def test_it_is_synced_after_the_first_list_and_not_before() -> None:
    failed = Script([UNREACHABLE], [])
    assert not (await failed.play()).synced.is_set()
    assert (await Script([listed(7)], []).play()).synced.is_set()


async def test_it_is_connected_while_a_watch_stands_and_without_waiting_for_an_event() -> None:
    script = Script([UNREACHABLE, listed(7)], [Watch(error=UNREACHABLE), Watch(opens=False), Watch()])
    await script.play()
    failed, stands, lost, not_yet, again = script.states
    assert [failed[0], stands[0], lost[0], not_yet[0], again[0]] == [False, True, False, False, True]


async def test_a_refusal_is_known_until_a_watch_stands_or_the_server_says_something_else() -> None:
    forbidden, unauthorized = ApiError(403, "Forbidden", "?"), ApiError(401, "Unauthorized", "?")
    error = ApiError(500, "InternalError", "?")
    script = Script(
        [forbidden, UNREACHABLE, error, unauthorized, listed(7), listed(8)],
        [Watch(error=forbidden, opens=False), Watch()],
    )
    await script.play()
    assert [status for _, status in script.states] == [403, 403, 0, 401, 401, 403, 0]


async def test_an_empty_list_of_null_is_a_list() -> None:
    script = Script([{"metadata": {"resourceVersion": "7"}, "items": None}], [])
    await script.play()
    assert script.seen == ["sync "]


async def test_a_bookmark_moves_the_version_and_is_no_event() -> None:
    script = Script([listed(7)], [Watch([{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "50"}}}])])
    await script.play()
    assert script.seen == ["sync "]
    assert script.asked[-1]["resourceVersion"] == "50"


async def test_a_lost_connection_is_resumed_from_the_last_version_without_a_new_list() -> None:
    script = Script([listed(7)], [Watch([event("ADDED", "a", 8)], error=UNREACHABLE), Watch([event("ADDED", "b", 9)])])
    await script.play()
    assert script.seen == ["sync ", "ADDED a", "ADDED b"]
    assert script.asked[1]["resourceVersion"] == "8"
    assert len(script.told) == 1


@pytest.mark.parametrize("error", [GONE, ApiError(500, "InternalError", "?"), ApiError(403, "Forbidden", "?")])
async def test_a_version_that_is_too_old_or_a_refusal_leads_to_a_fresh_list(error: ApiError) -> None:
    script = Script([listed(7, "a"), listed(90, "b")], [Watch(error=error)])
    await script.play()
    assert script.seen == ["sync a", "sync b"]
    assert script.asked[-1]["resourceVersion"] == "90"
    assert script.slept == [10.0]


@pytest.mark.parametrize("status", [429, 503])
async def test_an_overloaded_server_is_not_asked_for_another_list(status: int) -> None:
    script = Script([listed(7)], [Watch(error=ApiError(status, "Busy", "later"))])
    await script.play()
    assert script.seen == ["sync "]


async def test_a_server_that_asks_for_time_is_given_it() -> None:
    script = Script(
        [listed(7)], [Watch(seconds=0, error=ApiError(429, "Busy", "later", retry_after_s=9)) for _ in range(2)]
    )
    await script.play(uniform=1.0)
    assert script.slept[:2] == [9.5, 10.0]


async def test_however_long_the_outage_it_is_resumed_without_a_list() -> None:
    outage = [Watch(seconds=0, error=UNREACHABLE) for _ in range(200)]
    script = Script([listed(700, "a")], [*outage, Watch([event("ADDED", "b", 701)])])
    await script.play()
    assert script.seen == ["sync a", "ADDED b"]
    assert len(script.listed) == 1


async def test_a_watch_without_a_word_leads_to_a_list_because_versions_may_have_begun_again() -> None:
    script = Script([listed(700, "a"), FUTURE, listed(3, "b")], [Watch(error=ApiError(0, "Silent", "nothing"))])
    await script.play()
    assert script.seen == ["sync a", "sync b"]
    assert script.asked[-1]["resourceVersion"] == "3"


async def test_lists_are_of_any_version_then_no_older_than_what_was_seen_and_the_newest_where_that_is_unknown() -> None:
    script = Script([UNREACHABLE, listed(700), UNREACHABLE, FUTURE, listed(3), listed(4)], [Watch(error=GONE)] * 2)
    await script.play()
    any_version, newest = {"resourceVersion": "0", "limit": "500"}, {"limit": "500"}
    not_older, later = {"resourceVersion": "700"}, {"resourceVersion": "3"}
    assert script.listed == [any_version, any_version, not_older, not_older, newest, later]


@pytest.mark.parametrize(
    "error",
    [
        ApiError(403, "Forbidden", "no role yet"),
        ApiError(500, "InternalError", "etcdserver: request timed out"),
        ApiError(504, "Timeout", "the server was unable to return a response in the time allotted"),
    ],
)
async def test_a_server_that_refuses_or_fails_is_not_asked_for_the_newest_which_it_would_read_from_etcd(
    error: ApiError,
) -> None:
    script = Script([error, listed(7), error, listed(8)], [Watch(error=GONE)])
    await script.play()
    assert [asked.get("resourceVersion") for asked in script.listed] == ["0", "0", "7", "7"]


@pytest.mark.parametrize(
    "unknown",
    [
        ApiError(504, "Timeout", "Timeout: Too large resource version: 700, current: 3"),
        ApiError(400, "BadRequest", 'invalid resource version "700"'),
    ],
)
async def test_a_server_that_names_no_cause_says_otherwise_that_it_does_not_know_a_version(unknown: ApiError) -> None:
    script = Script([listed(700), unknown, listed(3)], [Watch(error=GONE)])
    await script.play()
    assert script.listed[-1] == {"limit": "500"}


async def test_a_list_of_the_newest_is_asked_for_until_it_comes() -> None:
    error = ApiError(500, "InternalError", "?")
    script = Script([listed(700), GONE, error, listed(3)], [Watch(error=GONE)])
    await script.play()
    assert script.listed[-2:] == [{"limit": "500"}] * 2


async def test_a_list_comes_in_pages() -> None:
    first, last = listed(7, "a"), listed(7, "b")
    first["metadata"]["continue"] = "more"
    script = Script([first, last], [])
    await script.play()
    assert script.seen == ["sync a,b"]
    assert script.listed == [{"resourceVersion": "0", "limit": "500"}, {"continue": "more", "limit": "500"}]


async def test_a_page_that_expired_means_the_whole_list_again() -> None:
    first = listed(7, "a")
    first["metadata"]["continue"] = "more"
    script = Script([first, GONE, listed(8, "a", "b")], [])
    await script.play()
    assert script.seen == ["sync a,b"]
    assert script.listed[-1] == {"resourceVersion": "0", "limit": "500"}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"type": "ADDED", "object": {}},
        {"type": "ADDED", "object": {"metadata": None}},
        {"type": "MODIFIED", "object": {"metadata": {"name": 7}}},
        {"type": "BOOKMARK", "object": {}},
        {"type": "SURPRISE", "object": item("a", 8)},
    ],
)
async def test_an_event_that_is_none_leads_to_a_list_and_not_to_an_end(nonsense: Json) -> None:
    script = Script([listed(7), listed(9, "a")], [Watch([nonsense], seconds=0)])
    await script.play()
    assert script.seen == ["sync ", "sync a"]


async def test_an_event_without_a_version_leaves_the_version_as_it_was() -> None:
    script = Script([listed(7)], [Watch([{"type": "ADDED", "object": {"metadata": {"name": "a"}}}])])
    await script.play()
    assert script.seen == ["sync ", "ADDED a"]
    assert script.asked[-1]["resourceVersion"] == "7"


async def test_the_owner_gets_what_it_keeps_of_each_object_and_nothing_where_that_is_none() -> None:
    events = [{"type": "MODIFIED", "object": {"metadata": {"name": name, "resourceVersion": "8"}}} for name in "bc"]
    script = Script([listed(7, "a", "b", "c")], [Watch(events[::-1])])
    reflector = script.reflector()
    reflector._keep = lambda each: None if each["metadata"]["name"] == "b" else each["metadata"]["name"]
    reflector._on_sync = lambda kept: script.seen.append(f"sync {kept}")
    reflector._on_event = lambda kind, kept: script.seen.append(f"{kind} {kept}")
    await script.play_on(reflector)
    assert script.seen == ["sync ['a', 'c']", "MODIFIED c"]
    assert script.asked[-1]["resourceVersion"] == "8"


@pytest.mark.parametrize("items", [3, {"a": 1}, "text"])
async def test_a_list_whose_items_are_no_array_is_tried_again(items: Any) -> None:
    script = Script([{"metadata": {"resourceVersion": "7"}, "items": items}, listed(8, "a")], [])
    await script.play()
    assert (script.seen, len(script.told)) == (["sync a"], 1)


async def test_what_is_no_object_in_a_list_costs_only_itself() -> None:
    odd = {"metadata": {"resourceVersion": "7"}, "items": [None, 3, {}, {"metadata": {"name": None}}, item("a", 7)]}
    script = Script([odd], [])
    await script.play()
    assert script.seen == ["sync a"]


async def test_waits_double_up_to_half_a_minute() -> None:
    script = Script([UNREACHABLE] * 9, [])
    await script.play(uniform=1.0)
    assert script.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@settings(deadline=None)
@given(uniform=st.floats(0, 1), failures=st.integers(1, 40))
def test_waits_are_spread_over_all_their_length_and_never_longer_than_the_cap(uniform: float, failures: int) -> None:
    async def play() -> None:
        script = Script([UNREACHABLE] * failures, [])
        await script.play(uniform)
        for number, slept in enumerate(script.slept):
            whole = min(0.5 * 2**number, LONGEST_DELAY_S)
            assert slept == whole * uniform

    asyncio.run(play())


async def test_an_event_makes_the_next_wait_short_again() -> None:
    script = Script(
        [UNREACHABLE] * 5 + [listed(7)],
        [Watch([event("ADDED", "a", 8)], seconds=0, error=UNREACHABLE)],
    )
    await script.play()
    assert script.slept[-2:] == [8.0, 0.5]


async def test_a_long_quiet_watch_makes_the_next_wait_short_again() -> None:
    script = Script([UNREACHABLE] * 5 + [listed(7)], [Watch(seconds=60, error=UNREACHABLE)])
    await script.play()
    assert script.slept[-2:] == [8.0, 0.5]


async def test_a_server_that_ends_each_watch_at_once_is_not_asked_in_a_loop() -> None:
    script = Script([listed(7), listed(8)], [Watch(seconds=0.1) for _ in range(5)])
    await script.play()
    assert script.slept == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert len(script.told) == 5


async def test_an_answer_that_is_no_list_is_tried_again() -> None:
    script = Script([{"kind": "Status"}, listed(7, "a")], [])
    await script.play()
    assert script.seen == ["sync a"]


async def test_a_defect_in_a_callback_ends_the_run() -> None:
    script = Script([listed(7)], [Watch([event("ADDED", "a", 8)])])
    reflector = script.reflector()
    reflector._on_event = lambda kind, _: [][len(kind)]
    with pytest.raises(IndexError):
        await reflector.run()


async def test_cancelling_closes_the_watch() -> None:
    script = Script([listed(7)], [])
    await script.play()
    assert script.open == 0


async def test_failures_are_warnings_but_a_version_that_grew_old_is_news(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await Script([listed(7), listed(8)], [Watch(error=GONE), Watch(error=UNREACHABLE)]).play()
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]
