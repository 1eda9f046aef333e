"""What strangers send to the webhook, over TLS: a clear client error or a refusal each time, and the server goes on."""

import asyncio
import gc
import json
import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.unit.webhook.running_server import GOOD, HEAD, REFUSED, Raw, Running, review, serving
from tests.waiting import until
from webhook import request_bodies, server
from webhook.common.http_server import BoundedServer, Bounds
from webhook.review import MOST_VALUES, InvalidReview, parsed

PIECE = b" " * 0x10000
TINY_CHUNKS = b"1\r\n \r\n" * 1000  # and no end


def head(length: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % length


@pytest.fixture
async def up(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Running]:
    """A server that must have logged no traceback, and still admit a good Pod, when the test is over."""
    async with serving() as server_:
        yield server_
        assert (await server_.answer(review(GOOD)))["allowed"]
        assert not [record for record in caplog.records if record.exc_info]
        assert "Traceback" not in caplog.text


def with_object(**fields: object) -> bytes:
    document = review(GOOD)
    document["request"]["object"].update(fields)
    return json.dumps(document).encode()


def with_request(**fields: object) -> bytes:
    document = review(GOOD)
    document["request"].update(fields)
    return json.dumps(document).encode()


GOOD_BODY = json.dumps(review(GOOD)).encode()
NESTED: list[object] = []
for _ in range(900):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (GOOD_BODY.replace(b'"u-1"', b"NaN"), "it has NaN in it, which is no number there"),
        (GOOD_BODY.replace(b'"u-1"', b"-Infinity"), "it has -Infinity in it"),
        (GOOD_BODY.replace(b'"u-1"', b"9" * 5000), "too long a number"),
        (GOOD_BODY.replace(b'"u-1"', b"1e999999999"), "request.uid should be a string, and is a number"),
        (GOOD_BODY.replace(b"u-1", b"\xff"), "not UTF-8 at byte"),
        (GOOD_BODY.replace(b"u-1", b"\xed\xa0\x80"), "not UTF-8 at byte"),
        (GOOD_BODY.decode().encode("utf-16"), "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf" + GOOD_BODY, "no JSON"),
        (GOOD_BODY + b"{}", "Extra data"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b"[" + b"[]," * MOST_VALUES + b"0]", f"more than {MOST_VALUES} values"),
        (json.dumps({"kind": NESTED, "apiVersion": "x" * 10**6}).encode(), '…" and a list'),
        (with_request(kind={"group": NESTED}), "request.kind.group should be a string, and is a list"),
        (with_request(kind={"version": "v1", "kind": {}}), "request.kind.kind should be a string, and is an object"),
        (with_request(uid="x" * 257), "request.uid should have at most 256 characters, and has 257"),
        (with_request(uid=None), "request.uid should be a string, and is missing or null"),
        (
            with_request(operation="x" * 10**6),
            'request.operation should be CREATE, UPDATE, DELETE or CONNECT, and is "x',
        ),
        (with_request(subResource=[]), "request.subResource should be a string, and is a list"),
        (with_request(operation="UPDATE", oldObject=[1]), "request.oldObject should be an object, and is a list"),
        (with_request(namespace={}), "request.namespace should be a string, and is an object"),
        (with_request(namespace="../secrets"), 'should be the name of a Namespace, and is "../secrets"'),
        (with_request(namespace="shop\r\nX: y"), "should be the name of a Namespace"),
        (with_request(namespace="\ud800"), r'and is "\ud800"'),
        (with_request(namespace=""), "should be the name of a Namespace"),
        (with_object(metadata={"annotations": {"\ud800" * 10**5: 1}}), r'annotations["\ud800'),
        (with_object(metadata={"labels": {"a": None}}), 'labels["a"] should be a string (in quotes), and is missing'),
        (with_object(metadata=NESTED), "request.object.metadata should be an object, and is a list"),
        (with_object(spec={"hostNetwork": 1}), "spec.hostNetwork should be true or false, and is a number"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
async def test_a_hostile_body_is_a_client_error_in_a_short_sentence(up: Running, body: bytes, says: str) -> None:
    response = await up.post(body)
    text = await response.text()
    assert (response.status, says in text) == (400, True), text
    assert len(text) < 500
    assert text.isprintable()


@pytest.mark.parametrize("text", ["1" * 10**6, "\ud800", "1e999999999", "NaN", "\x00", "-0", "1" + "_" * 10**5])
async def test_a_hostile_limit_is_a_refusal_in_a_short_sentence(up: Running, text: str) -> None:
    answer = await up.answer(review({"kubernetes.io/ingress-bandwidth": text}))
    assert not answer["allowed"]
    assert len(answer["status"]["message"]) < 500


async def test_of_a_name_given_twice_the_last_counts_as_in_the_api_server(up: Running) -> None:
    good, bad = (json.dumps(annotations)[1:-1] for annotations in (GOOD, REFUSED))
    for first, last, allowed in ((good, bad, False), (bad, good, True)):
        body = GOOD_BODY.decode().replace(good, f"{first}, {last}").encode()
        assert (await up.answer_to(body))["allowed"] is allowed


async def test_what_strangers_choose_makes_no_metrics_and_no_calls_to_the_api_server(up: Running) -> None:
    before = (await up.get("/metrics"))[1].count("\nipvlan_bandwidth_admissions_total{")
    calls = len(up.api.calls)
    for number in range(10):
        await up.post(with_request(operation=f"CREATE{number}"))
        await up.post(with_request(namespace=f"x/../../secrets/{number}"))
    series = (await up.get("/metrics"))[1].count("\nipvlan_bandwidth_admissions_total{")
    assert (before, series) == (0, 1)
    # But for what it asks in any case: of its own namespace's Secret, and which namespaces are labelled.
    assert [call for call in up.api.calls[calls:] if "/namespaces/" in call and "/ipvlan-bandwidth/" not in call] == []


async def test_a_pod_s_name_of_any_length_is_cut_in_the_log(up: Running, caplog: pytest.LogCaptureFixture) -> None:
    document = review(REFUSED)
    document["request"]["object"]["metadata"].update(name="x" * 10**6)
    with caplog.at_level(logging.INFO, "webhook.handlers"):
        await up.answer(document)
    (record,) = caplog.records
    assert len(vars(record)["pod"]) == 253


async def test_a_body_that_says_it_is_too_large_is_not_read_at_all(up: Running) -> None:
    raw = await Raw.to(up)
    assert await raw.status_after(HEAD + b"Content-Length: 1000000000\r\n\r\n") == 413
    await raw.is_closed()


async def test_a_body_in_chunks_is_not_read_and_nobody_lingers_for_the_rest_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for_ever = Bounds(linger_s=600.0)
    monkeypatch.setattr(server, "BoundedServer", partial(BoundedServer, bounds=for_ever))
    monkeypatch.setattr(server, "HEALTH_BOUNDS", for_ever)
    async with serving() as up:
        raw = await Raw.to(up)
        assert await raw.status_after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + TINY_CHUNKS) == 411
        await raw.is_closed()
        raw = Raw(*await asyncio.open_connection("127.0.0.1", up.settings.health_port))
        question = b"GET /healthz HTTP/1.1\r\nHost: webhook\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await raw.status_after(question + TINY_CHUNKS) == 200
        await raw.is_closed()


async def test_at_the_bound_of_all_bodies_those_that_take_long_make_room_for_a_larger_one(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "ALL_BODIES_BYTES", 0x48000)
    strangers = [await Raw.to(up) for _ in range(4)]
    for raw in strangers:
        raw.writer.write(head(2 * len(PIECE)) + PIECE)
    await until(lambda: received() == 4 * len(PIECE))
    for each in comings():
        each.began_s -= 60
    good = await Raw.to(up)
    assert await good.status_after(head(2 * len(PIECE) + len(GOOD_BODY)) + PIECE, PIECE, GOOD_BODY) == 200
    for raw in (*strangers, good):
        raw.writer.close()


async def test_at_the_bound_of_all_bodies_the_largest_that_is_still_coming_makes_room(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "ALL_BODIES_BYTES", 0x48000)
    large, small, good = await Raw.to(up), await Raw.to(up), await Raw.to(up)
    for raw, pieces, more, left in ((large, 3, 1, 3), (small, 1, 1, 4), (good, 1, len(GOOD_BODY), 2)):
        raw.writer.write(head(pieces * len(PIECE) + more) + pieces * PIECE)
        await until(lambda left=left: received() == left * len(PIECE))
    assert await good.status_after(GOOD_BODY) == 200
    assert int((await large.reader.readuntil(b"\r\n")).split()[1]) == 503
    assert b"Retry-After: 1\r\n" in await large.reader.readuntil(b"\r\n\r\n")
    small.writer.write(b" ")
    assert int((await small.reader.readuntil(b"\r\n")).split()[1]) == 400  # a body of spaces
    last = await Raw.to(up)
    assert await last.status_after(head(7 * len(PIECE)), *[PIECE] * 6) == 503
    for raw in (large, small, good, last):
        raw.writer.close()


async def test_of_a_body_that_breaks_off_nothing_is_left_to_the_garbage_collector(up: Running) -> None:
    gc.disable()
    try:
        raw = await Raw.to(up)
        raw.writer.write(head(2 * len(PIECE)) + PIECE)
        await until(lambda: any(each.received for each in comings()))
        raw.writer.transport.abort()
        await until(lambda: not any(each.received for each in comings()))
    finally:
        gc.enable()


def comings() -> list[request_bodies._IncomingBody]:
    return [each for each in gc.get_objects() if isinstance(each, request_bodies._IncomingBody)]


def received() -> int:
    return sum(len(each.received) for each in comings())


async def test_a_compressed_body_is_not_unpacked(up: Running) -> None:
    bomb = zlib.compress(b" " * 10**7)
    response = await up.post(bomb, headers={"Content-Encoding": "deflate"})
    assert (response.status, "Content-Encoding" in await response.text()) == (415, True)


async def test_a_body_that_comes_too_slowly_is_given_up(up: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "BODY_S", 0.1)
    raw = await Raw.to(up)
    assert await raw.status_after(HEAD + b"Content-Length: 100\r\n\r\n{") == 408
    assert b"did not come within 0.1 s" in await raw.reader.read()
    raw.writer.close()


async def test_a_body_that_breaks_off_leaves_no_traceback(up: Running) -> None:
    raw = await Raw.to(up)
    raw.writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
    await until(lambda: received() == 1)
    raw.writer.transport.abort()
    raw = await Raw.to(up)
    assert 400 <= await raw.status_after(HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n") < 500
    await raw.is_closed()


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01 garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /mutate HTTP/9.9\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"X: " + b"x" * 10**4 + b"\r\n\r\n",
        HEAD + b"".join(b"X%d: 1\r\n" % n for n in range(1000)) + b"\r\n",
        b"POST /" + b"x" * 10**4 + b" HTTP/1.1\r\n\r\n",
        HEAD.replace(b"webhook", b"\xff\x00") + b"\r\n",
    ],
    ids=lambda head: repr(head[-30:]),
)
async def test_what_is_no_http_is_a_client_error(up: Running, head: bytes) -> None:
    raw = await Raw.to(up)
    assert 400 <= await raw.status_after(head) < 500
    assert b"Traceback" not in await raw.reader.read()
    raw.writer.close()


@pytest.mark.parametrize("text", [b"1,", b"[{", rb"\",", rb"\\\""])
def test_what_a_text_holds_is_no_value_and_costs_little(text: bytes) -> None:
    body = b'{"env": "' + text * (request_bodies.LARGEST_REVIEW_BYTES // len(text) - 10) + b'"}'
    tracemalloc.start()
    try:
        assert parsed(body)["env"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 * 2**20


@pytest.mark.parametrize("piece", [b"[],", b"1.5,", b'{"":{"":{"":0}}},'])
def test_no_body_takes_much_more_memory_than_its_own_size(piece: bytes) -> None:
    body = b"[" + piece * (request_bodies.LARGEST_REVIEW_BYTES // len(piece)) + b"0]"
    values = sum(piece.count(beginning) for beginning in (b",", b"[", b"{"))
    at_the_bound = b"[" + piece * (MOST_VALUES // values - 1) + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidReview, match="values"):
            parsed(body)
        parsed(at_the_bound)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 * 2**20
