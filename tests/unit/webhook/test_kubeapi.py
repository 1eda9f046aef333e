"""KubeApi against an HTTP server on loopback: requests, answers, and errors for people."""

import asyncio
import json
import socket

import pytest
from aiohttp import web

from tests.unit.webhook.answering import Start
from tests.unit.webhook.api_server import client
from webhook.common import kubeapi
from webhook.common.kubeapi import ApiError


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
    ("header", "seconds"),
    [("7", 7), ("0", 0), ("99999999999", 0), ("3600", 60), ("-1", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0), (None, 0)],
)
@pytest.mark.parametrize("text", ["{}", "slow down"])
async def test_how_long_a_server_wants_to_be_left_alone_is_known_and_bounded(
    start: Start, header: str | None, seconds: float, text: str
) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=429, text=text, headers={} if header is None else {"Retry-After": header})

    with pytest.raises(ApiError) as caught:
        await (await start(busy)).get("/api/v1/pods")
    assert caught.value.retry_after_s == seconds


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
    api = client("http://127.0.0.1:1")
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
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        api = client(f"https://127.0.0.1:{frozen.getsockname()[1]}")
        with pytest.raises(ApiError) as caught:
            await api.create("/api/v1/x", {})
        await api.close()
    assert (caught.value.status, caught.value.reason) == (0, "Unreachable")
