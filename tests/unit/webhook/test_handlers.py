"""What the webhook answers over HTTPS: to reviews, to what is none, and what it logs and counts."""

import asyncio
import base64
import json
import logging
import ssl
import warnings
from collections.abc import AsyncIterator

import pytest
from prometheus_client import generate_latest

from tests.unit.webhook.running_server import GOOD, REFUSED, Running, review, serving
from webhook import handlers, namespaces, request_bodies
from webhook.common.logs import LINE_EVERY_S, LINES_AT_ONCE
from webhook.metrics import NO_DECISION, Metrics
from webhook.policy import Policy
from webhook.review import asked, respond


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with serving() as server_:
        yield server_


async def test_a_pod_is_admitted_with_its_network_and_normalised_limit(up: Running) -> None:
    answer = await up.answer(review(GOOD))
    assert (answer["uid"], answer["allowed"], answer["patchType"]) == ("u-1", True, "JSONPatch")
    patched = {each["path"]: each["value"] for each in json.loads(base64.b64decode(answer["patch"]))}
    assert patched["/metadata/annotations/kubernetes.io~1ingress-bandwidth"] == "100M"
    assert patched["/metadata/annotations/v1.multus-cni.io~1default-network"] == "kube-system/ipvlan"


async def test_a_refusal_is_an_answer_and_one_line_in_the_log(up: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "webhook.handlers"):
        answer = await up.answer(review(REFUSED))
    assert not answer["allowed"]
    (record,) = caplog.records
    told = vars(record)
    assert (told["namespace"], told["pod"], told["reasons"]) == ("shop", "web-*", ["InvalidBandwidth"])
    assert told["refusal"] == answer["status"]["message"]


def test_of_many_refusals_some_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    admission = handlers.Admission(None, None, None, monotonic=lambda: now)
    reviewed = respond(asked(review(REFUSED)), Policy())
    with caplog.at_level(logging.INFO, "webhook.handlers"):
        for _ in range(100):
            admission._log(reviewed)
        now = LINE_EVERY_S
        admission._log(reviewed)
    *first, last = caplog.records
    assert len(first) == LINES_AT_ONCE
    assert vars(last)["suppressed"] == 100 - LINES_AT_ONCE
    assert vars(last)["pod"] == "web-*"


async def test_admissions_are_counted_by_operation_outcome_and_reason(up: Running) -> None:
    await up.answer(review(GOOD))
    await up.answer(review(REFUSED))
    await up.post(b"garbage")
    text = (await up.get("/metrics"))[1]
    counted = 'ipvlan_bandwidth_admissions_total{operation="CREATE",outcome='
    assert f'{counted}"mutated",reason=""}} 1.0' in text
    assert f'{counted}"refused",reason="InvalidBandwidth"}} 1.0' in text
    assert 'ipvlan_bandwidth_admissions_total{operation="",outcome="error",reason="400"} 1.0' in text
    assert "ipvlan_bandwidth_admission_duration_seconds_count 2.0" in text
    assert "ipvlan_bandwidth_namespace_watch_restarts_total 0.0" in text
    (expiry,) = [line for line in text.splitlines() if line.startswith("ipvlan_bandwidth_certificate_expiry")]
    assert float(expiry.split()[1]) > 1.7e9


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"[]", 400, "expected an object of kind AdmissionReview, got a list"),
        (b"{}", 400, "expected apiVersion admission.k8s.io/v1"),
        (b"x" * (request_bodies.LARGEST_REVIEW_BYTES + 1), 413, "more than 8388608 bytes"),
    ],
)
async def test_a_body_that_is_no_review_is_a_clear_client_error(
    up: Running, body: bytes, status: int, says: str
) -> None:
    response = await up.post(body)
    assert response.status == status
    text = await response.text()
    assert says in text
    assert "Traceback" not in text


async def test_another_content_type_method_or_path_is_a_client_error(up: Running) -> None:
    response = await up.post(review(), headers={"Content-Type": "text/plain"})
    assert (response.status, await response.text()) == (
        415,
        "ipvlan-bandwidth: expected Content-Type application/json, got text/plain",
    )
    base = f"https://127.0.0.1:{up.settings.port}"
    for method, path, status in (("GET", "/mutate", 405), ("POST", "/", 404), ("GET", "/metrics", 404)):
        async with up.session.request(
            method, base + path, ssl=up.trusting(), server_hostname="webhook.ipvlan-bandwidth.svc"
        ) as response:
            assert response.status == status


async def test_the_health_side_says_what_it_has(up: Running) -> None:
    base = f"http://127.0.0.1:{up.settings.health_port}"
    for method, path, status, says in (
        ("HEAD", "/healthz", 200, ""),
        ("POST", "/healthz", 405, "only GET, HEAD"),
        ("GET", "/", 404, 'there is no "/" here, only /healthz, /readyz, /metrics'),
    ):
        async with up.session.request(method, base + path) as response:
            assert (response.status, says in await response.text()) == (status, True)
    async with up.session.get(f"{base}/metrics") as response:
        # Clients that heed the version take the page for unknown with a newer one.
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "ipvlan_bandwidth_webhook_ready 1.0" in await response.text()


async def test_a_namespace_that_cannot_be_read_is_a_refusal_for_now_whose_author_reads_why(
    up: Running, caplog: pytest.LogCaptureFixture
) -> None:
    up.api.down = True
    answer = await up.answer(review(GOOD, where="unknown"))
    assert (answer["uid"], answer["allowed"], answer["status"]) == (
        "u-1",
        False,
        {
            "status": "Failure",
            "reason": "ServiceUnavailable",
            "code": 503,
            "message": "cannot read the Pod's Namespace just now, try again: no answer (Unreachable)",
        },
    )
    (record,) = (each for each in caplog.records if each.name == "webhook.handlers")
    assert vars(record)["error"] == answer["status"]["message"]
    errors = 'ipvlan_bandwidth_admissions_total{operation="",outcome="error",reason="NoDecision"}'
    assert f"{errors} 1.0" in (await up.get("/metrics"))[1]
    assert 'reason="503"' not in (await up.get("/metrics"))[1]


async def test_too_many_unknown_namespaces_at_once_are_refused_for_now_with_the_reason(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "MOST_WAITING", 0)
    answer = await up.answer(review(GOOD, where="unknown"))
    assert (answer["allowed"], answer["status"]["code"]) == (False, 503)
    assert "too many Namespaces" in answer["status"]["message"]


async def test_a_defect_is_told_without_a_traceback_and_the_server_goes_on(
    up: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handlers, "respond", lambda *_: 1 // 0)
    response = await up.post(review(GOOD))
    assert (response.status, "ZeroDivisionError" in await response.text()) == (500, False)
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert (await up.answer(review(GOOD)))["allowed"]


def test_of_requests_that_are_wrong_some_are_in_the_log_with_the_number_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    admission = handlers.Admission(None, metrics := Metrics(), None, monotonic=lambda: now)
    for _ in range(100):
        assert admission._wrong(400, "no JSON").status == 400
    now = LINE_EVERY_S
    for _ in range(10):
        admission._wrong(400, "no JSON")
    admission._wrong(503, "no Namespace")
    *first, last, other = caplog.records
    assert len(first) == LINES_AT_ONCE
    assert not any("suppressed" in vars(each) for each in first)
    assert vars(last)["suppressed"] == 100 - LINES_AT_ONCE
    assert vars(other)["error"] == "no Namespace"
    assert b'outcome="error",reason="400"} 110.0' in generate_latest(metrics.registry)


def test_bodies_that_had_to_give_way_are_not_counted_as_undecided_nor_keep_those_from_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = handlers.Admission(None, metrics := Metrics(), None, monotonic=lambda: 0.0)
    for _ in range(100):
        admission._wrong(503, "too many")
    admission._failed(NO_DECISION, 503, "no Namespace")
    *_, last = caplog.records
    assert (vars(last)["reason"], vars(last)["error"]) == (NO_DECISION, "no Namespace")
    text = generate_latest(metrics.registry)
    assert b'outcome="error",reason="503"} 100.0' in text
    assert b'outcome="error",reason="NoDecision"} 1.0' in text


async def test_tls_older_than_1_2_is_refused(up: Running) -> None:
    context = up.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("127.0.0.1", up.settings.port, ssl=context, server_hostname="webhook")
