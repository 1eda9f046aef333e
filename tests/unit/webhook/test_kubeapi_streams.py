"""KubeApi against an HTTP server on loopback: lists and watches, which are read while they come."""

import asyncio
import json
import re
import tracemalloc
from contextlib import aclosing

import pytest
from aiohttp import web

from tests.unit.webhook.answering import Handler, Start, forbidden
from webhook.common import kubeapi
from webhook.common.kubeapi import ApiError, KubeApi

ETCDS_LARGEST = 1.5 * 2**20  # what it takes of one object, by default


async def listed(api: KubeApi) -> tuple[list[object], dict[str, object]]:
    taken: list[object] = []
    return taken, await api.read_list("/api/v1/pods", {"labelSelector": "a=b"}, taken.append)


async def test_the_items_of_a_list_are_taken_and_all_else_is_given(start: Start) -> None:
    async def pods(request: web.Request) -> web.Response:
        assert (request.path_qs, request.headers["Authorization"]) == (
            "/api/v1/pods?labelSelector=a%3Db",
            "Bearer secret",
        )
        return web.json_response({"items": [{"a": 1}, None], "metadata": {"resourceVersion": "7"}})

    expected = [{"a": 1}, None], {"items": [], "metadata": {"resourceVersion": "7"}}
    assert await listed(await start(pods)) == expected


async def test_a_list_of_large_objects_takes_no_more_memory_than_one_of_them(start: Start) -> None:
    item = json.dumps({"env": [{"name": f"A{number}"} for number in range(78_000)]}).encode()
    assert 0.95 < len(item) / ETCDS_LARGEST < 1

    async def pods(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"items":[' + item)
        for _ in range(int(request.query["more"])):
            await response.write(b"," + item)
        await response.write(b"]}")
        return response

    async def peak(more: int) -> int:
        api = await start(pods)
        tracemalloc.start()
        try:
            await api.read_list("/api/v1/pods", {"more": str(more)}, lambda _: None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert await peak(3) < 1.3 * await peak(0)


async def test_a_compressed_list_is_read_as_well(start: Start) -> None:
    async def pods(request: web.Request) -> web.Response:
        response = web.json_response({"items": [{"a": "x" * 2**20}] * 3})
        response.enable_compression(web.ContentCoding.gzip)
        assert "gzip" in request.headers["Accept-Encoding"]
        return response

    assert [len(str(each)) for each in (await listed(await start(pods)))[0]] == [2**20 + 9] * 3


@pytest.mark.parametrize("text", ["<html>", "[]", '{"items":[{}', '{"items":[{},]}'])
async def test_a_list_that_is_no_json_object_is_an_error_and_quoted(start: Start, text: str) -> None:
    async def odd(_: web.Request) -> web.Response:
        return web.Response(text=text)

    with pytest.raises(
        ApiError, match=r"answer to GET /api/v1/pods is no JSON object: .*: b'" + re.escape(text)
    ) as caught:
        await listed(await start(odd))
    assert (caught.value.status, caught.value.reason) == (0, "NotJSON")


async def test_a_list_that_is_refused_is_raised_with_its_status(start: Start) -> None:
    with pytest.raises(ApiError) as caught:
        await listed(await start(forbidden))
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


async def test_a_connection_lost_within_a_list_is_unreachable(start: Start) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"items":[{}')
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(ApiError) as caught:
        await listed(await start(cut))
    assert (caught.value.status, caught.value.reason) == (0, "Unreachable")


def streaming(*chunks: bytes, cut: bool = False) -> Handler:
    async def stream(request: web.Request) -> web.StreamResponse:
        assert request.query["watch"] == "true"
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.002)
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    return stream


async def watched(api: KubeApi) -> list[str]:
    async with aclosing(api.watch("/api/v1/pods", {"resourceVersion": "1", "timeoutSeconds": "5"})) as events:
        return [f"{event['type']} {event['object']['n']}" async for event in events]


async def test_events_are_whole_however_the_network_cuts_them(start: Start) -> None:
    text = (
        b'{"type":"ADDED","object":{"n":1}}\n{"type":"MODIFIED","object":{"n":2}}\n\n{"type":"ADDED","object":{"n":3}}'
    )
    for size in (3, 34, 1000):
        api = await start(streaming(*(text[i : i + size] for i in range(0, len(text), size))))
        assert await watched(api) == ["ADDED 1", "MODIFIED 2", "ADDED 3"]


async def test_an_event_of_a_megabyte_arrives(start: Start) -> None:
    large = json.dumps({"type": "ADDED", "object": {"n": 1, "padding": "x" * 2**20}}).encode() + b"\n"
    assert await watched(await start(streaming(large))) == ["ADDED 1"]


async def test_an_endless_event_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeapi, "_LONGEST_EVENT_BYTES", 100)
    with pytest.raises(ApiError, match="more than 100 bytes"):
        await watched(await start(streaming(b"x" * 101)))


async def test_an_event_that_is_nested_too_deep_costs_only_itself(start: Start) -> None:
    deep = b'{"type":"ADDED","object":{"n":' + b"[" * 3000 + b"]" * 3000 + b"}}\n"
    whole = b'{"type":"ADDED","object":{"n":1}}\n' + deep + b'{"type":"ADDED","object":{"n":2}}\n'
    assert await watched(await start(streaming(whole))) == ["ADDED 1", "ADDED 2"]


async def test_an_event_that_is_not_utf_8_costs_nobody_anything(start: Start) -> None:
    event = b'{"type":"ADDED","object":{"n":1,"f:\xff\xed\xa0\x80":{}}}\n'
    assert await watched(await start(streaming(event))) == ["ADDED 1"]


async def test_an_error_event_is_raised_with_its_code(start: Start) -> None:
    gone = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n'
    with pytest.raises(ApiError) as caught:
        await watched(await start(streaming(b'{"type":"ADDED","object":{"n":1}}\n', gone)))
    assert (caught.value.status, caught.value.reason) == (410, "Expired")


async def test_a_refused_watch_is_raised_with_its_status(start: Start) -> None:
    with pytest.raises(ApiError) as caught:
        await watched(await start(forbidden))
    assert caught.value.status == 403


async def test_a_connection_lost_within_a_watch_is_unreachable(start: Start) -> None:
    with pytest.raises(ApiError) as caught:
        await watched(await start(streaming(b'{"type":"ADDED","object":{"n":1}}\n', cut=True)))
    assert caught.value.status == 0


@pytest.mark.parametrize("line", [b"garbage\n", b'{"type":"ADDED"}\n', b'{"object":{}}\n'])
async def test_something_else_than_events_is_an_error(start: Start, line: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        await watched(await start(streaming(line)))
    assert caught.value.reason == "NotJSON"
