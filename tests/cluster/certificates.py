"""The webhook's certificates on bad days, while Pods are created all the time: rotated, lost, damaged, overwritten.

Functions that take a cluster with the product installed, and give what was done, seen and lost, for the tests and for
longer runs alike.
"""

import base64
import contextlib
import http
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature

from certs.authority import make_authority
from certs.credentials import Lifetimes
from certs.rotation import next_step
from certs.secret import UnusableSecret, decode
from tests.cluster import scenario
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster, ClusterError, TimedOut, wait_for
from tests.cluster.creations import Creating, Creations
from tests.cluster.layout import HERE, PROJECT
from tests.cluster.scenario import OWN
from tests.losses import Doubt

SECRET = f"/api/v1/namespaces/{OWN}/secrets/webhook-certs"
CONFIGURATION = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{OWN}"
# A CA of 45 s is followed by the next when two thirds of that are over.
QUICK = ("--ca-lifetime=45s", "--certificate-lifetime=45s", "--overlap=5s", "--recheck-seconds=2")
ROTATION_S = 30.0
LOOK_S = 1.0
# docs/design.md: mended within a second while the watch stands. What the emulated nodes and this machine add.
MENDED_S = 5.0
# Fewer Pods than these, made while something was mended, show nothing: there is time for ten times as many.
LEAST_MADE = 5
SPACE = "certificates"
DELETED = "configuration deleted and applied again"


@dataclass(frozen=True)
class Outcome:
    """One row of a table: what was done, seen (figures by name), and lost, which should be nothing."""

    done: str
    seen: dict[str, float | int | str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def rotate(cluster: Cluster, *, seconds: float = 90) -> Outcome:
    """Rotate the CA every 30 s for so long.

    Lost is any creation or handshake that failed, and restarts; and rotations, creations and handshakes that were not
    made, as nothing would fail then.
    """
    scenario.namespace(cluster, SPACE)
    with _settings(cluster, QUICK):
        before = replicas(cluster)
        with _watching(cluster) as watched, Creating(cluster, SPACE) as creations:
            time.sleep(seconds)
        after = replicas(cluster)
    lost = [*creations.lost, *creations.refusals, *(f"a handshake failed: {each}" for each in watched.failures)]
    if after != before:
        lost.append(f"replicas changed or restarted: {before} before, {after} after")
    least = {
        "authorities": 1 + int(seconds / ROTATION_S * 0.8),
        "Pods": seconds,
        "handshakes": seconds,
        "looks": seconds / LOOK_S * 0.5,
    }
    done = {"authorities": len(watched.authorities), "Pods": creations.made}
    done |= {"handshakes": watched.handshakes, "looks": watched.looks}
    lost += [Doubt(f"only {done[what]} {what} in {seconds:.0f} s") for what in least if done[what] < least[what]]
    seen: dict[str, float | int | str] = {
        **_figures(creations),
        "authorities": len(watched.authorities),
        "certificates": len(watched.certificates),
        "caBundles": len(watched.bundles),
        "handshakes": watched.handshakes,
    }
    return Outcome(f"CA rotated every {ROTATION_S:.0f} s for {seconds:.0f} s", seen, tuple(lost))


def lose_the_secret(cluster: Cluster) -> list[Outcome]:
    """Delete and damage the Secret in every way. Lost is any creation that failed: replicas hold what they serve."""
    scenario.namespace(cluster, SPACE)
    with Api(cluster) as api:
        # What a rotation has left to do would mend the Secret by itself, under another name.
        wait_for("a time without a rotation", lambda: _is_settled(api), 120)
    return [_damaged_secret(cluster, what, damage) for what, damage in _damages().items()]


def lose_the_bundle(cluster: Cluster) -> list[Outcome]:
    """Take the caBundle away in every way.

    Creations fail until it is mended; lost is any that waited for longer, and any that nobody reviewed. Only while
    there is no configuration does the API server ask nobody: that is no loss of ours.
    """
    scenario.namespace(cluster, SPACE)
    foreign = base64.b64encode(_authority()[0]).decode()
    patches = {
        "caBundle emptied": lambda: _patch_bundle(cluster, ""),
        "caBundle overwritten with garbage": lambda: _patch_bundle(cluster, base64.b64encode(b"garbage").decode()),
        "caBundle overwritten with another CA": lambda: _patch_bundle(cluster, foreign),
        DELETED: lambda: _apply_configuration_again(cluster),
    }
    return [_damaged_bundle(cluster, what, damage) for what, damage in patches.items()]


def replicas(cluster: Cluster) -> dict[str, int]:
    """The webhook's Pods, and how often the container of each restarted."""
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in scenario.webhooks(cluster)
    }


def _figures(creations: Creations) -> dict[str, float | int | str]:
    return {
        "created": creations.made,
        "refused": len(creations.refusals),
        "unreviewed": len(creations.unreviewed),
        "longest creation s": round(creations.longest_s, 2),
    }


@contextlib.contextmanager
def _settings(cluster: Cluster, arguments: tuple[str, ...]) -> Iterator[None]:
    """The webhook with these flags within the block, and without them after it."""
    path = "/spec/template/spec/containers/0/args"

    def patch(operation: dict[str, Any]) -> None:
        cluster.kubectl("-n", OWN, "patch", "deployment", "webhook", "--type=json", "-p", json.dumps([operation]))
        scenario.roll_out_webhook(cluster)

    patch({"op": "add", "path": path, "value": list(arguments)})
    try:
        yield
    finally:
        patch({"op": "remove", "path": path})


@dataclass
class _Watched:
    """What was served and trusted meanwhile."""

    authorities: set[int] = field(default_factory=set)
    certificates: set[int] = field(default_factory=set)
    bundles: set[bytes] = field(default_factory=set)
    handshakes: int = 0
    looks: int = 0
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _watching(cluster: Cluster) -> Iterator[_Watched]:
    """Look at Secret and caBundle all the time, and shake hands with each replica, trusting the bundle last seen."""
    watched = _Watched()
    addresses = [pod["status"]["podIP"] for pod in scenario.webhooks(cluster)]
    client = cluster.node(1).popen("python3", str(HERE / "node" / "handshakes.py"))
    stop = threading.Event()

    def look() -> None:
        with Api(cluster) as api:
            while not stop.wait(LOOK_S):
                held, bundle = decode(api.get(SECRET)["data"]), _bundle(api)
                watched.authorities.add(held.authority.certificate.serial_number)
                watched.certificates.add(held.serving.certificate.serial_number)
                watched.bundles.add(bundle)
                assert client.stdin is not None
                client.stdin.write(json.dumps({"bundle": bundle.decode(), "addresses": addresses}) + "\n")
                client.stdin.flush()
                watched.looks += 1

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield watched
        finally:
            stop.set()
            failed = looking.exception()
            out, err = client.communicate(timeout=60)
    *failures, last = out.splitlines() or [""]
    if not last.isdigit():
        raise ClusterError(f"the client that shakes hands ended early: {out}{err}")
    if failed is not None:
        raise ClusterError(f"after {watched.looks} looks nobody looked at Secret and caBundle: {failed!r}") from failed
    watched.failures += failures
    watched.handshakes = int(last)


def _is_settled(api: Api) -> bool:
    """Whether replicas with the usual lifetimes have nothing to do soon.

    A former CA may be trusted for a year: that of a replica with those lifetimes, followed by that of one with short
    ones while the Deployment is rolled.
    """
    return next_step(decode(api.get(SECRET)["data"]), Lifetimes()) > datetime.now(UTC) + timedelta(minutes=10)


def _bundle(api: Api) -> bytes:
    (webhook,) = api.get(CONFIGURATION)["webhooks"]
    return base64.b64decode(webhook["clientConfig"].get("caBundle") or "")


def _authority() -> tuple[bytes, bytes]:
    """A CA and its key that have nothing to do with the webhook."""
    made = make_authority(datetime.now(UTC), timedelta(days=1))
    return made.certificate_pem(), made.key_pem()


def _damages() -> dict[str, Callable[[dict[str, str]], dict[str, str] | None]]:
    """What is done to the Secret's data, by name; None deletes it."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    certificate, key = (encoded(each) for each in _authority())
    return {
        "Secret deleted": lambda _: None,
        "Secret emptied": lambda data: dict.fromkeys(data, ""),
        "Secret filled with garbage": lambda data: dict.fromkeys(data, encoded(b"garbage")),
        "Secret with a foreign CA and key": lambda data: {**data, "ca.crt": certificate, "ca.key": key},
        "Secret with a foreign certificate": lambda data: {**data, "tls.crt": certificate, "tls.key": key},
        "Secret with a key that does not match": lambda data: {**data, "tls.key": key},
    }


def _damaged_secret(cluster: Cluster, what: str, damage: Callable[[dict[str, str]], dict[str, str] | None]) -> Outcome:
    with Api(cluster) as api:
        secret = api.get(SECRET)
        data = damage(secret["data"])

        def hurt() -> None:
            if data is None:
                status, answer = api.call("DELETE", SECRET)
            else:
                status, answer = api.call("PUT", SECRET, {**api.get(SECRET), "data": data})
            if status != http.HTTPStatus.OK:
                raise ClusterError(f"{what}: {answer.get('message')}")

        def restored() -> bool:
            found = api.get(SECRET)
            return found is not None and found["data"] != data and _is_whole(found["data"])

        creations, seen, late = _mended(cluster, api, what, hurt, restored)
    return Outcome(what, seen, (*creations.lost, *creations.refusals, *late))


def _damaged_bundle(cluster: Cluster, what: str, damage: Callable[[], None]) -> Outcome:
    with Api(cluster) as api:

        def restored() -> bool:
            return _bundle(api) == decode(api.get(SECRET)["data"]).trusted_pem()

        creations, seen, late = _mended(cluster, api, what, damage, restored)
    lost = [*late, *(creations.unmade if what == DELETED else creations.lost)]
    if creations.longest_s > MENDED_S:
        lost.append(Doubt(f"a creation waited for {creations.longest_s:.1f} s"))
    return Outcome(what, seen, tuple(lost))


def _mended(
    cluster: Cluster, api: Api, what: str, damage: Callable[[], None], restored: Callable[[], bool]
) -> tuple[Creations, dict[str, float | int | str], list[Doubt]]:
    """Do the damage while Pods are created, until it is mended and told: the Pods, figures, and what was late."""
    told = _events(api)
    late: list[Doubt] = []
    took, said = math.inf, []
    with Creating(cluster, SPACE) as creations:
        time.sleep(1)
        began = time.monotonic()
        damage()
        try:
            wait_for(f"{what}: mended", restored, MENDED_S, every=0.05)
            took = time.monotonic() - began
            said = wait_for(f"{what}: an event", lambda: _events(api)[len(told) :], 20)
        except TimedOut as error:
            late.append(Doubt(error))
        time.sleep(2)
    if creations.made < LEAST_MADE:
        late.append(Doubt(f"only {creations.made} Pods were made meanwhile"))
    return creations, {**_figures(creations), "mended after s": round(took, 2), "events": ", ".join(said)}, late


def _is_whole(data: dict[str, str]) -> bool:
    """Whether a Secret holds a CA and a certificate of it."""
    try:
        held = decode(data)
        held.serving.certificate.verify_directly_issued_by(held.authority.certificate)
    except (UnusableSecret, ValueError, InvalidSignature):
        return False
    return True


def _patch_bundle(cluster: Cluster, bundle: str) -> None:
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    cluster.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(patch))


def _apply_configuration_again(cluster: Cluster) -> None:
    file = str(PROJECT / "manifests" / "base" / "webhook-configuration.yaml")
    cluster.kubectl("delete", "-f", file)
    cluster.kubectl("apply", "-f", file)


def _events(api: Api) -> list[str]:
    """The reasons of the events about certificates on the webhook's Deployment, in the order of their making."""
    found = api.get(f"/api/v1/namespaces/{OWN}/events?fieldSelector=involvedObject.kind%3DDeployment")["items"]
    ours = [event for event in found if event["reportingComponent"] == OWN]
    return [event["reason"] for event in sorted(ours, key=lambda event: int(event["metadata"]["resourceVersion"]))]
