"""KubeApi against an HTTP server on loopback: requests, answers, and errors for people."""

import asyncio
import json
import re
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from webhook import kubeapi
from webhook.endpoint import Endpoint
from webhook.kubeapi import ApiError, KubeApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Start = Callable[[Handler], Awaitable[KubeApi]]
ETCDS_LARGEST = 1.5 * 2**20  # what it takes of one object, by default


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server with one handler for everything, and gives a KubeApi that calls it."""
    opened: list[KubeApi] = []
    servers: list[TestServer] = []

    async def starter(handler: Handler) -> KubeApi:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(application)
        await server.start_server()
        servers.append(server)

        async def authorization() -> str:
            return "Bearer secret"

        endpoint = Endpoint(f"http://127.0.0.1:{server.port}", ssl.create_default_context, authorization)
        api = KubeApi(endpoint, user_agent="t/1")
        opened.append(api)
        return api

    yield starter
    for api in opened:
        await api.close()
    for server in servers:
        await server.close()


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.path_qs,
            "type": request.headers.get("Content-Type"),
            "agent": request.headers["User-Agent"],
            "authorization": request.headers["Authorization"],
            "body": json.loads(body) if body else None,
        }
    )


async def forbidden(_: web.Request) -> web.Response:
    return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)


async def test_each_call_is_the_request_that_the_api_has_for_it(start: Start) -> None:
    api = await start(echo)
    got = await api.get("/api/v1/pods", {"labelSelector": "a=b,c"})
    assert (got["method"], got["path"]) == ("GET", "/api/v1/pods?labelSelector=a%3Db,c")
    created = await api.create("/api/v1/x", {"a": 1})
    assert (created["method"], created["type"], created["body"]) == ("POST", "application/json", {"a": 1})
    replaced = await api.replace("/api/v1/x/y", {"a": 2})
    assert (replaced["method"], replaced["path"], replaced["body"]) == ("PUT", "/api/v1/x/y", {"a": 2})
    patched = await api.patch("/api/v1/x/y", {"a": 3}, content_type="application/merge-patch+json")
    assert (patched["method"], patched["type"]) == ("PATCH", "application/merge-patch+json")
    assert (got["agent"], got["authorization"]) == ("t/1", "Bearer secret")


async def test_a_status_becomes_an_error_with_its_reason(start: Start) -> None:
    async def conflict(_: web.Request) -> web.Response:
        status = {"kind": "Status", "code": 409, "reason": "Conflict", "message": "it was modified"}
        return web.json_response(status, status=409)

    with pytest.raises(ApiError) as caught:
        await (await start(conflict)).replace("/api/v1/x/y", {})
    assert (caught.value.status, caught.value.reason, caught.value.message) == (409, "Conflict", "it was modified")
    assert str(caught.value) == "it was modified (409 Conflict)"
    assert caught.value.causes == []


@pytest.mark.parametrize(
    ("details", "causes"),
    [
        ({"causes": [{"reason": "ResourceVersionTooLarge", "message": "?"}, {}]}, ["ResourceVersionTooLarge", "None"]),
        ({"causes": ["?"]}, []),
        ({"causes": {"reason": "?"}}, []),
        (["?"], []),
    ],
)
async def test_a_status_tells_its_causes_whatever_else_is_in_their_place(
    start: Start, details: object, causes: list[str]
) -> None:
    async def future(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 504, "details": details}, status=504)

    api = await start(future)
    with pytest.raises(ApiError) as caught:
        await api.get("/api/v1/pods")
    assert caught.value.causes == causes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>Bad Gateway", "<html>Bad Gateway"),
        ("", "no message"),
        ("[]", "[]"),
        ("{}", "no message"),
        ("[" * 3000 + "]" * 3000, "[" * 200),
    ],
)
async def test_a_proxy_that_answers_instead_is_quoted(start: Start, text: str, message: str) -> None:
    async def proxy(_: web.Request) -> web.Response:
        return web.Response(status=502, text=text)

    with pytest.raises(ApiError) as caught:
        await (await start(proxy)).get("/api/v1/pods")
    assert (caught.value.status, caught.value.reason, caught.value.message) == (502, "Unknown", message)


@pytest.mark.parametrize("text", ["<html>", "[]", "3"])
async def test_an_answer_that_is_no_json_object_is_an_error(start: Start, text: str) -> None:
    async def odd(_: web.Request) -> web.Response:
        return web.Response(text=text)

    with pytest.raises(ApiError, match="is no JSON"):
        await (await start(odd)).get("/api/v1/pods")


async def test_an_answer_that_is_nested_too_deep_is_an_error_and_quoted(start: Start) -> None:
    async def deep(_: web.Request) -> web.Response:
        return web.Response(text='{"n":' + "[" * 3000 + "]" * 3000 + "}")

    with pytest.raises(ApiError, match=r"answer to GET /api/v1/pods/x is nested too deep: .*\[\[\[") as caught:
        await (await start(deep)).get("/api/v1/pods/x")
    assert (caught.value.status, caught.value.reason) == (0, "NotJSON")


async def test_a_server_that_is_not_there_is_status_0_and_named() -> None:
    async def nobody() -> None:
        return None

    api = KubeApi(Endpoint("http://127.0.0.1:1", ssl.create_default_context, nobody), user_agent="t/1")
    for call in (api.get("/api"), anext(api.watch("/api", {}))):
        with pytest.raises(ApiError, match=r"no answer from the API server http://127\.0\.0\.1:1") as caught:
            await call
        assert (caught.value.status, caught.value.reason) == (0, "Unreachable")
    await api.close()


async def test_a_call_that_is_not_answered_says_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeapi, "_CALL_TIMEOUT_S", 0.2)
    over = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.method == "PUT":
            await response.prepare(request)
        await over.wait()
        return response

    api = await start(hang)
    for call in (api.create("/api/v1/x", {}), api.replace("/api/v1/x", {})):
        with pytest.raises(ApiError, match=r"no answer from .* to P[A-Z]+ /api/v1/x within 0\.2 s") as caught:
            await call
        assert (caught.value.status, caught.value.reason) == (0, "Timeout")
    over.set()


async def test_a_server_that_is_connected_to_and_never_says_who_it_is_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kubeapi, "_CONNECT_TIMEOUT_S", 0.2)

    async def nobody() -> None:
        return None

    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"https://127.0.0.1:{frozen.getsockname()[1]}"
        api = KubeApi(Endpoint(url, ssl.create_default_context, nobody), user_agent="t/1")
        with pytest.raises(ApiError) as caught:
            await api.create("/api/v1/x", {})
        await api.close()
    assert (caught.value.status, caught.value.reason) == (0, "Unreachable")


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
