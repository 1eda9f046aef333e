"""`python -m tests.bench.admission`: what admission costs, beside no webhook and beside one in Go that does the same.

etcd, kube-apiserver, both webhooks and the load run in a network namespace of their own; nothing is left behind.
Results in tests/bench/results/admission.json and admission.md.
"""

import argparse
import base64
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.admission import report
from tests.cluster import launch
from tests.cluster.control_plane import ADDRESS, ALONE, CONFIGURATIONS, OURS, ControlPlane, ControlPlaneError
from tests.revision import revision

PROJECT = Path(__file__).parents[3]
RESULTS = PROJECT / "tests" / "bench" / "results"
INSIDE = "IPVLAN_BANDWIDTH_BENCH_NAMESPACE"
NAMESPACES = {report.NONE: "none", report.GO: "go", report.OURS: "ours"}
STORED, DRY_RUN = "stored", "dry run"
NETWORK = "kube-system.ipvlan"
PORTS = {"webhook": 8443, "go-webhook": 8445}
WARM_UP_S = 2.0
# Each variant goes first as often as the others only in a multiple of them.
ROUNDS = 2 * len(report.VARIANTS)


def main() -> int:
    """Exit with 0 when all was measured, however it came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32], help="at once (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    if os.environ.get(INSIDE) is None:
        command = [*ALONE, sys.executable, "-m", "tests.bench.admission", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        try:
            for results in _measure(Path(folder), options):
                options.results.mkdir(parents=True, exist_ok=True)
                text = json.dumps(results, indent=1) + "\n"
                (options.results / "admission.json").write_text(text, encoding="utf-8")
                (options.results / "admission.md").write_text(report.markdown(results), encoding="utf-8")
        except ControlPlaneError as error:
            print(error, file=sys.stderr)
            return 1
    print((options.results / "admission.md").read_text(encoding="utf-8"))
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What was measured so far, after each round."""
    rounds: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {
        how: {str(workers): {variant: [] for variant in report.VARIANTS} for workers in options.workers}
        for how in (STORED, DRY_RUN)
    }
    version = revision()
    with ControlPlane(folder) as control_plane:
        _install(control_plane)
        for variant in report.VARIANTS:
            _load(control_plane, DRY_RUN, variant, max(options.workers), WARM_UP_S)
        for number in range(options.rounds):
            for how, by_workers in rounds.items():
                for workers, variants in by_workers.items():
                    # In each round another one goes first.
                    for turn in range(len(report.VARIANTS)):
                        variant = report.VARIANTS[(number + turn) % len(report.VARIANTS)]
                        measured = _load(control_plane, how, variant, int(workers), options.seconds)
                        variants[variant].append(measured)
                        print(
                            f"{number + 1}: {how}, {workers} workers, {variant}: {measured['rate']:.0f}/s", flush=True
                        )
            for namespace in NAMESPACES.values():
                control_plane.delete(f"/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=0")
            yield {
                "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
                "machine": f"on {os.cpu_count()} processors",
                "version": version,
                "rounds_each": number + 1,
                "rounds_wanted": options.rounds,
                "seconds": options.seconds,
                "rounds": rounds,
            }


def _install(control_plane: ControlPlane) -> None:
    """Three namespaces, and for two of them a webhook each."""
    control_plane.add_namespace(OURS, {})
    for namespace in NAMESPACES.values():
        labels = {"ipvlan-bandwidth.io/network": NETWORK} if namespace == "ours" else {"bench": namespace}
        control_plane.add_namespace(namespace, labels)
    for name, port in PORTS.items():
        control_plane.add_service(name)
        control_plane.add_endpoint(name, port)
    ours = control_plane.add_configuration()
    control_plane.run_webhook("webhook", PORTS["webhook"])
    name = "go-webhook.ipvlan-bandwidth.svc"
    command = [launch.program("admission-webhook"), f"{ADDRESS}:{PORTS['go-webhook']}", name, "go=kube-system/ipvlan"]
    printed = control_plane.run("go-webhook", command)
    control_plane.post(CONFIGURATIONS, _as_go(ours, control_plane, printed))
    for namespace in ("go", "ours"):
        control_plane.wait_until(
            f"the webhook of namespace {namespace}", lambda ns=namespace: _admits(control_plane, ns)
        )
    (control_plane.folder / "pod.json").write_text(json.dumps(_pod()), encoding="utf-8")


def _as_go(ours: dict[str, Any], control_plane: ControlPlane, printed: Path) -> dict[str, Any]:
    """Our configuration for the Go webhook: the same rules and conditions, another Service, label and certificate."""
    pem = control_plane.wait_until("certificate of the Go webhook", lambda: _certificate(printed))
    configuration: dict[str, Any] = json.loads(json.dumps({**ours, "metadata": {"name": "go"}}))
    (webhook,) = configuration["webhooks"]
    webhook["name"] = "pods.go.example"
    webhook["clientConfig"]["service"]["name"] = "go-webhook"
    webhook["clientConfig"]["caBundle"] = base64.b64encode(pem).decode()
    webhook["namespaceSelector"] = {"matchLabels": {"bench": "go"}}
    return configuration


def _certificate(printed: Path) -> bytes:
    pem = printed.read_bytes()
    if b"-----END CERTIFICATE-----" not in pem:
        raise ControlPlaneError("it has printed none")
    return pem


def _admits(control_plane: ControlPlane, namespace: str) -> None:
    made = control_plane.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", _pod())
    annotations = made["metadata"]["annotations"]
    if annotations.get("v1.multus-cni.io/default-network") != "kube-system/ipvlan":
        raise ControlPlaneError(f"a Pod of namespace {namespace} got no network: {annotations}")
    if annotations["kubernetes.io/ingress-bandwidth"] != "100M":
        raise ControlPlaneError(f"a Pod of namespace {namespace} was not normalised: {annotations}")


def _load(control_plane: ControlPlane, how: str, variant: str, workers: int, seconds: float) -> dict[str, float]:
    program = {report.GO: "go-webhook", report.OURS: "webhook"}.get(variant)
    before = control_plane.cpu_seconds(program) if program else 0.0
    url = f"https://{ADDRESS}:6443/api/v1/namespaces/{NAMESPACES[variant]}/pods"
    command = [
        launch.program("admission-load"),
        f"-pki={control_plane.folder}",
        f"-pod={control_plane.folder}/pod.json",
        f"-url={url}{'?dryRun=All' if how == DRY_RUN else ''}",
        f"-workers={workers}",
        f"-for={seconds:g}s",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ControlPlaneError(f"creating Pods in namespace {NAMESPACES[variant]}: {ran.stderr.strip()}")
    cpu = control_plane.cpu_seconds(program) - before if program else 0.0
    said = json.loads(ran.stdout)
    return report.round_of(said["seconds"], said["milliseconds"], cpu)


def _pod() -> dict[str, Any]:
    """As a Deployment's, with both limits, one of them not in its normal form."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-6b7f675859-",
            "labels": {"app": "web", "pod-template-hash": "6b7f675859"},
            "annotations": {"kubernetes.io/ingress-bandwidth": "0.1G", "kubernetes.io/egress-bandwidth": "100M"},
        },
        "spec": {
            "containers": [
                {
                    "name": "web",
                    "image": "registry.example/web:1",
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "MODE", "value": "production"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }
            ]
        },
    }


if __name__ == "__main__":
    sys.exit(main())
