"""The optional policies at a real API server: what stolen tokens could write, and what the programs really write."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from certs.store import CredentialStore
from reconciler.events import Events
from reconciler.model import ProblemKind
from reconciler.pods import PodView
from reconciler.report import Notice, Reason
from tests import waiting
from tests.cluster import layout
from tests.cluster.api_only import ApiOnly
from webhook.certificates import KubeBundle, KubeSecret
from webhook.common.event import event
from webhook.common.kubeapi import ApiError, KubeApi

until = partial(waiting.until, seconds=60)
MANIFESTS = layout.PROJECT / "manifests"
OURS = "ipvlan-bandwidth"
SECRETS, EVENTS = f"/api/v1/namespaces/{OURS}/secrets", "/api/v1/namespaces/{}/events"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REFUSED = "denied request"
TLS = {"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}
TOKEN = {
    "type": "kubernetes.io/service-account-token",
    "metadata": {"annotations": {"kubernetes.io/service-account.name": "reconciler"}},
}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ApiOnly]:
    made = ApiOnly(tmp_path)
    try:
        await asyncio.to_thread(made.start)
        await asyncio.to_thread(install, made)
        yield made
    finally:
        made.kill()


def install(plane: ApiOnly) -> None:
    """Rights and objects of the manifests, and a Pod of each program: nobody runs them."""
    for file in ("namespace", "webhook-rbac", "reconciler-rbac", "webhook-configuration"):
        plane.kubectl("apply", "-f", str(MANIFESTS / "base" / f"{file}.yaml"))
    for node in ("one", "two"):
        plane.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "Node", **named(node)}))
    plane.kubectl("create", "namespace", "shop")
    for program in ("webhook", "reconciler"):
        spec = {"serviceAccountName": program, "nodeName": "one", "containers": [{"name": "a", "image": "b"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", **named(program, namespace=OURS), "spec": spec}
        plane.kubectl("create", "-f", "-", text=json.dumps(pod))


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **more}}


@asynccontextmanager
async def acting_as(plane: ApiOnly, program: str, *bound: str) -> AsyncIterator[KubeApi]:
    """With a token such as kubelet gets for a program's Pod."""
    token = await asyncio.to_thread(plane.kubectl, "-n", OURS, "create", "token", program, *bound)
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.strip()}
    file = plane.folder / f"{program}.kubeconfig"
    file.write_text(json.dumps(config))
    api = await KubeApi.connect(user_agent="test", environ={"KUBECONFIG": str(file)})
    try:
        yield api
    finally:
        await api.close()


def of_its_pod(program: str) -> tuple[str, str]:
    return "--bound-object-kind=Pod", f"--bound-object-name={program}"


async def answer(api: KubeApi, path: str, body: dict[str, Any]) -> str:
    """What the API server says to a create that it would carry out, or why not."""
    try:
        await api.create(f"{path}?dryRun=All", body)
    except ApiError as error:
        return str(error)
    return "created"


def secret(name: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body.get("metadata", {}), "name": name, **more}}


def forged(about: dict[str, str], *, host: str = "one", **changed: Any) -> dict[str, Any]:
    made = event(
        about, event_type="Warning", reason="Evicted", message="", instance=host, host=host, now=NOW, suffix="1"
    )
    return made | changed


POD = {"kind": "Pod", "name": "web-0", "namespace": "shop"}
OWNED = {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none"}]}
FORGED_SECRETS = {
    "webhook writes no Secret but webhook-certs": secret("another", TLS),
    "no Secret but of type kubernetes.io/tls": secret("webhook-certs", TOKEN),
    "Secret of the webhook has no owner": secret("webhook-certs", TLS, **OWNED),
}
FORGED_EVENTS = {
    "reports as the component ipvlan-bandwidth": [
        forged(POD, reportingComponent="kubelet"),
        forged(POD, source={"component": "kubelet", "host": "one"}),
        forged(POD, source={}),
    ],
    "reports as the node that its token was issued for": [
        forged(POD, host="two"),
        forged(POD, reportingInstance="two"),
        forged(POD, source={"component": OURS, "host": "two"}),
    ],
    "reports on Pods and on its own Node": [
        forged({"kind": "Node", "name": "two"}),
        forged({"kind": "Secret", "name": "webhook-certs", "namespace": OURS}),
    ],
}


async def apply_policies(plane: ApiOnly, webhook: KubeApi, reconciler: KubeApi | None = None) -> None:
    """Also waits until the API server has read them."""
    await asyncio.to_thread(plane.kubectl, "apply", "-k", str(MANIFESTS / "admission-policies"))
    tries = [(webhook, SECRETS, secret("another", TLS)), (reconciler, EVENTS.format("shop"), forged(POD, host="two"))]
    async with asyncio.timeout(60):
        for api, path, body in tries:
            # What is waited for is in the API server's memory.
            while api is not None and REFUSED not in await answer(api, path, body):  # noqa: ASYNC110
                await asyncio.sleep(0.2)


async def test_what_a_stolen_token_could_write_is_refused_and_what_the_webhook_writes_is_not(plane: ApiOnly) -> None:
    async with acting_as(plane, "webhook", *of_its_pod("webhook")) as api:
        for body in FORGED_SECRETS.values():
            assert await answer(api, SECRETS, body) == "created"  # RBAC alone lets it pass
        await apply_policies(plane, api)
        for why, body in FORGED_SECRETS.items():
            said = await answer(api, SECRETS, body)
            assert REFUSED in said
            assert why in said
        assert "no Secret but webhook-certs" in await answer(
            api, SECRETS, TLS | {"metadata": {"generateName": "webhook-"}}
        )
        late = timedelta()
        store = CredentialStore(
            secret=(kept := KubeSecret(api, OURS, "webhook-certs")),
            bundle=KubeBundle(api, OURS),
            names=["webhook.ipvlan-bandwidth.svc"],
            utcnow=lambda: NOW + late,
        )
        made = await store.establish()
        late = timedelta(days=300)
        renewed = await store.establish(made)
        assert renewed.serving.certificate_pem() != made.serving.certificate_pem()
        stored = await kept.read()
        assert stored is not None
        owned = replace(stored, resource={**stored.resource, "metadata": stored.resource["metadata"] | OWNED})
        with pytest.raises(ApiError, match="Secret of the webhook has no owner"):
            await kept.replace(owned, owned.data)
    # Nobody else is held to it.
    plane.kubectl("-n", OURS, "create", "secret", "generic", "pull")


async def test_a_reconciler_reports_on_pods_and_its_own_node_and_in_nobody_elses_name(plane: ApiOnly) -> None:
    paths = [
        (EVENTS.format(each["metadata"]["namespace"]), why, each)
        for why, all_ in FORGED_EVENTS.items()
        for each in all_
    ]
    async with (
        acting_as(plane, "webhook", *of_its_pod("webhook")) as webhook,
        acting_as(plane, "reconciler", *of_its_pod("reconciler")) as api,
    ):
        for path, _, body in paths:
            assert await answer(api, path, body) == "created"  # RBAC alone lets it pass
        await apply_policies(plane, webhook, api)
        for path, why, body in paths:
            said = await answer(api, path, body)
            assert REFUSED in said
            assert why in said
        dropped: list[None] = []
        events = Events(
            api,
            node="one",
            utcnow=lambda: datetime.now(UTC),
            monotonic=asyncio.get_running_loop().time,
            sleep=asyncio.sleep,
            suffix=lambda: secrets.token_hex(8),
            on_dropped=lambda: dropped.append(None),
        )
        for reason in (*Reason, *ProblemKind):
            events.record(PodView("u1", "shop", "web-0"), Notice(reason, "told"))
            events.record_node(Notice(reason, "told"))
        async with waiting.background(events.run()):
            await until(lambda: not events._unposted)
        assert dropped == []
        # The webhook's own are another's, and so no matter of this policy.
        about = {"kind": "Deployment", "name": "webhook", "namespace": OURS}
        assert await answer(webhook, EVENTS.format(OURS), forged(about)) == "created"
    posted = json.loads(await asyncio.to_thread(plane.kubectl, "get", "events", "-A", "-o", "json"))["items"]
    assert len([each for each in posted if each["message"] == "told"]) == 2 * len({*Reason, *ProblemKind})


async def test_a_token_that_is_of_no_pod_reports_nothing(plane: ApiOnly) -> None:
    async with acting_as(plane, "webhook") as webhook, acting_as(plane, "reconciler") as api:
        await apply_policies(plane, webhook, api)
        for body in (forged(POD), forged(POD, host="")):
            assert "node that its token was issued for" in await answer(api, EVENTS.format("shop"), body)
