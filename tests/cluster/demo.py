"""`make demo`: the main job, shown as a person would do it, with figures in tests/cluster/results."""

import datetime as dt
import json
import sys
import time
from typing import Any

from tests.cluster import demo_report, scenario, traffic
from tests.cluster.cluster import Cluster, wait_for
from tests.cluster.layout import PROJECT
from tests.cluster.scenario import limits
from tests.cluster.traffic import Flow
from tests.revision import revision

DEMO, OPEN = "demo", "demo-open"
SECONDS = 10
RESULTS = PROJECT / "tests" / "cluster" / "results"


class Demo:
    """Runs the steps in order, prints what a person would see, collects the figures."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.flows: dict[str, Any] = {}
        self.figures: dict[str, Any] = {
            "day": dt.datetime.now(dt.UTC).date().isoformat(),
            "revision": revision(),
            "flows": self.flows,
        }

    def run(self) -> None:
        """All of it; takes about two minutes on a cluster that is up."""
        self._install()
        self._workload()
        self._bandwidth()
        self._change()
        self._refusals()
        self._look()
        demo_report.write(RESULTS, self.figures)
        self._say(f"the figures, which are in {RESULTS.relative_to(PROJECT)}/demo.md too")
        print(demo_report.table(self.flows), flush=True)

    def _say(self, text: str) -> None:
        print(f"\n== {text}", flush=True)

    def _show(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        """Run kubectl and print the command and what it says."""
        print(f"\n$ kubectl {' '.join(argv)}", flush=True)
        done = self.cluster.kubectl(*argv, check=check, input=stdin)
        text = done.stdout + done.stderr
        print(text.rstrip(), flush=True)
        return text

    def _install(self) -> None:
        self._say("install, and opt a namespace in")
        began = time.monotonic()
        print("\n$ kubectl apply -k manifests", flush=True)
        scenario.install(self.cluster)
        self._show("-n", scenario.OWN, "get", "pods", "-o", "wide")
        self.figures["installed_after_seconds"] = round(time.monotonic() - began, 1)
        for name in (DEMO, OPEN):
            self._show("create", "namespace", name)
            self._show("label", "namespace", name, f"{scenario.LABEL}={scenario.NETWORK}")

    def _workload(self) -> None:
        self._say("a Deployment limited to 100M each way, with no network named; and one without limits")
        for name, annotations in ((DEMO, limits("100M", "100M")), (OPEN, {})):
            self._apply(scenario.deployment("test", namespace=name, annotations=annotations))
        for name in (DEMO, OPEN):
            self.cluster.kubectl("-n", name, "rollout", "status", "deployment/test", "--timeout=90s")
        self.limited = scenario.pods_of(self.cluster, DEMO, "test")
        self.open = scenario.pods_of(self.cluster, OPEN, "test")
        metadata = self.cluster.pod(self.limited[1])["metadata"]
        print(f"\n$ kubectl -n {DEMO} get pod {metadata['name']} -o yaml")
        for kind in ("annotations", "labels"):
            print(f"  {kind}:")
            for key, value in metadata[kind].items():
                if key != scenario.STATUS:
                    print(f"    {key}: {value}")
        self.figures["injected"] = metadata["annotations"].get(scenario.DEFAULT_NETWORK)

    def _bandwidth(self) -> None:
        self._say(f"iperf3 between Pods, {SECONDS} s each, at the receiver: mean, and each second, in Mbit/s")
        for name, client, server in (
            ("unlimited", self.open[1], self.open[2]),
            ("both limited to 100M, across nodes", self.limited[1], self.limited[2]),
            ("egress limited to 100M", self.limited[1], self.open[2]),
            ("ingress limited to 100M", self.open[1], self.limited[2]),
            ("egress limited to 100M, same node", self.limited[1], self.open[1]),
            ("ingress limited to 100M, same node", self.open[2], self.limited[2]),
        ):
            self._flow(name, traffic.measure(self.cluster, client, server, seconds=SECONDS))

    def _flow(self, name: str, flow: Flow) -> None:
        print(f"  {name:38} {flow}", flush=True)
        self.flows[name] = {"mean_mbit": round(flow.mean, 2), "seconds_mbit": [round(x, 2) for x in flow.intervals]}

    def _change(self) -> None:
        self._say("the limit changed to 20M while the Pods run, over one open TCP connection")
        transfer = traffic.start(self.cluster, self.limited[1], self.open[2], seconds=12)
        time.sleep(4)
        for pod in self.limited.values():
            both = [f"{key}={value}" for key, value in limits("20M", "20M").items()]
            self._show("-n", DEMO, "annotate", "pod", pod.split("/")[1], "--overwrite", *both)
        self._flow(demo_report.CHANGED, transfer.result())
        self._flow("egress limited to 20M", traffic.measure(self.cluster, self.limited[1], self.open[2]))

    def _refusals(self) -> None:
        self._say("a mistyped limit never becomes a Pod")
        wrong = scenario.deployment("mistyped", namespace=DEMO, annotations=limits("100m", "100m"), replicas=1)
        self._apply(wrong)
        probe = ("-n", DEMO, "describe", "rs", "-l", "app=mistyped")
        wait_for("the refusal", lambda: "FailedCreate" in self.cluster.kubectl(*probe).stdout, 30)
        text = self._show(*probe)
        self.figures["refusal"] = next(line.strip() for line in text.splitlines() if "FailedCreate" in line)
        bare = scenario.pod("bare", namespace=DEMO, annotations=limits(egress="100Mbps"))
        print("\n(a bare Pod with kubernetes.io/egress-bandwidth: 100Mbps)")
        self._show("apply", "-f", "-", stdin=json.dumps(bare), check=False)

    def _look(self) -> None:
        self._say("what people see")
        pod = self.limited[1].split("/")[1]
        text = self.cluster.kubectl("-n", DEMO, "describe", "pod", pod).stdout
        events = text[text.index("Events:") :].rstrip()
        print(f"\n$ kubectl -n {DEMO} describe pod {pod}\n...\n{events}")
        self.figures["events"] = events
        there = scenario.reconciler_on(self.cluster, 1)
        print(f"\n$ kubectl -n {scenario.OWN} exec {there} -- python3 -m reconciler observe")
        table = scenario.observe(self.cluster, 1)
        print(table)
        self.figures["observe"] = table

    def _apply(self, manifest: dict[str, Any]) -> None:
        print(f"\n$ kubectl apply -f {manifest['metadata']['name']}.yaml", flush=True)
        print(self.cluster.kubectl("apply", "-f", "-", input=json.dumps(manifest)).stdout.rstrip(), flush=True)


def main() -> int:
    """Start a cluster of its own, show everything, take it away."""
    began = time.monotonic()
    cluster = Cluster("demo", say=lambda line: print(line, file=sys.stderr, flush=True))
    with cluster.running():
        Demo(cluster).run()
    print(f"\ndone in {time.monotonic() - began:.0f} s; the cluster is gone again")
    return 0
