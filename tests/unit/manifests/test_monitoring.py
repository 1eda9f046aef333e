"""What Prometheus is to scrape and to warn of: it fits the installation, and the metrics that the programs have.

What the alerts say, and when, is in tests/prometheus.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

import reconciler.metrics
import webhook.metrics
from reconciler.model import ProblemKind
from reconciler.node_state import PodCounts
from reconciler.report import Notice, Reason
from reconciler.requirements import REQUIREMENTS
from tests.unit.manifests.overlays import block, blocks, patched
from tests.unit.manifests.test_manifests import INSTALLED, MANIFESTS, ROOT, Object, objects, one, rendered
from webhook.common.event import COMPONENT

FOLDER = MANIFESTS / "monitoring"
(RULES,) = objects(FOLDER / "rules.yaml")
(GROUP,) = RULES["spec"]["groups"]
MONITORS = objects(FOLDER / "podmonitors.yaml")
PAGES = {page.stem: page.read_text() for page in (ROOT / "docs").glob("*.md")}
_SERIES = re.compile(
    r"\b((?:ipvlan_bandwidth|apiserver|kube_node|kube_daemonset|kube_pod)_[a-z_]+|up(?=\{))(?:\{([^}]*)\})?"
)
# Kubernetes', with its labels (k8s.io/apiserver, pkg/admission/metrics/metrics.go).
REJECTIONS = "apiserver_admission_webhook_rejection_count"
# Those of kube-state-metrics, with those of its labels that name something (docs/metrics/cluster/node-metrics.md,
# workload/daemonset-metrics.md, workload/pod-metrics.md).
FOREIGN = {
    REJECTIONS: {"name", "type", "operation", "error_type", "rejection_code"},
    # Prometheus' own, with those labels that our PodMonitor of the reconciler gives it.
    "up": {"namespace", "pod", "node"},
    "kube_node_created": {"node"},
    "kube_daemonset_status_desired_number_scheduled": {"namespace", "daemonset"},
    "kube_daemonset_status_current_number_scheduled": {"namespace", "daemonset"},
    "kube_pod_info": {"namespace", "pod", "uid", "node", "created_by_kind", "created_by_name"},
    "kube_pod_status_ready": {"namespace", "pod", "uid", "condition"},
}

each_rule = pytest.mark.parametrize("rule", GROUP["rules"], ids=lambda rule: rule["alert"])


def samples(registry: CollectorRegistry) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All series that a program can have, by name, with the labels that are its own."""
    for collector in registry._collector_to_names:
        for family in collector.collect():
            names = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            for suffix in {"counter": ("_total",), "histogram": ("_count", "_sum", "_bucket")}.get(family.type, ("",)):
                yield family.name + suffix, names


def programs() -> dict[str, dict[str, set[str]]]:
    """The metrics of each, with their own labels."""
    registries = {"reconciler": reconciler.metrics.Metrics().registry, "webhook": webhook.metrics.Metrics().registry}
    return {program: {name: set(labels) for name, labels in samples(each)} for program, each in registries.items()}


def known() -> dict[str, set[str]]:
    ours = programs()
    return ours["reconciler"] | ours["webhook"] | FOREIGN


def target_labels(name: str) -> list[set[str]]:
    """What a scrape by our PodMonitors adds to a metric, of each program that has it, and rules may speak of."""
    added = []
    for program in (program for program, metrics in programs().items() if name in metrics):
        (endpoint,) = one("PodMonitor", program, MONITORS)["spec"]["podMetricsEndpoints"]
        added.append({"namespace", "pod"} | {relabel["targetLabel"] for relabel in endpoint.get("relabelings", [])})
    return added


@each_rule
def test_a_rule_is_about_metrics_and_labels_that_there_are(rule: Object) -> None:
    series = _SERIES.findall(rule["expr"])
    assert series
    for name, matchers in series:
        assert name in known()
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= known()[name]
    ours = [known()[name] | added for name, _ in series for added in target_labels(name)]
    # Of an expression that has none of ours, what it is grouped by is left, if one of its series has that.
    grouped = {label for by in re.findall(r"by \((.*?)\)", rule["expr"]) for label in by.split(", ")}
    theirs = set.union(*(known()[name] for name, _ in series))
    left = set.intersection(*ours) if ours else grouped & theirs if grouped else theirs
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        assert label in left


def states_in(expression: str) -> set[str]:
    (states,) = re.findall(r'state=~"(.*?)"', expression)
    return set(states.split("|"))


def test_every_state_but_those_that_are_wished_for_raises_the_alert_and_stops_a_rollout() -> None:
    amiss = set(PodCounts._fields) - {"wanted", "shaped"}
    assert states_in(rule_of("IpvlanBandwidthPodsNotLimited")["expr"]) == amiss
    (said,) = re.findall(r"`ipvlan_bandwidth_pods` of the states (.*?) is 0", PAGES["operations"])
    assert set(re.findall(r"`(\w+)`", said)) == amiss


def test_slots_run_out_by_the_query_that_the_reference_has() -> None:
    expression = rule_of("IpvlanBandwidthSlotsRunOut")["expr"]
    assert states_in(expression) < set(PodCounts._fields)
    (query,) = [query for query in queries() if query.endswith("ipvlan_bandwidth_slots")]
    assert query.split(" / ")[0] == expression.split(" > ")[0]


def test_the_events_that_say_why_a_pod_is_not_limited_are_asked_for_by_what_they_have() -> None:
    (row,) = [line for line in PAGES["monitoring"].splitlines() if "| `IpvlanBandwidthPodsNotLimited` |" in line]
    (selector,) = re.findall(r"get events -A --field-selector (\S+)`", row)
    asked = dict(field.split("=") for field in selector.split(","))
    assert asked == {"type": "Warning", "source": COMPONENT, "involvedObject.kind": "Pod"}
    (reasons,) = re.findall(r"Pod` \((.*?)\)", row)
    for reason in re.findall(r"`(\w+)`", reasons):
        assert Notice(reason, "").type == asked["type"]
        assert reason in {*Reason, *ProblemKind}


def test_a_prometheus_gets_the_right_to_find_our_pods_and_no_other() -> None:
    text = block("docs/monitoring.md", "A Prometheus without rights in the namespace", "RoleBinding")
    role, binding = yaml.safe_load_all(text)
    namespace = one("PodMonitor", "webhook", MONITORS)["metadata"]["namespace"]
    assert [each["metadata"]["namespace"] for each in (role, binding)] == [namespace] * 2
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


@pytest.mark.parametrize("alert", ["IpvlanBandwidthReconcilerAway", "IpvlanBandwidthReconcilerNotScheduled"])
def test_the_reconciler_that_is_away_is_the_one_that_is_installed(alert: str) -> None:
    daemon_set = one("DaemonSet", "reconciler")["metadata"]
    for name, matchers in _SERIES.findall(rule_of(alert)["expr"]):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
        if (name, matchers) == ("kube_daemonset_status_desired_number_scheduled", ""):  # whether there are any
            continue
        if labels.get("namespace") is None:  # whether conditions are kept at all: seen by few Pods', not by all
            assert matchers == f'namespace=~"{daemon_set["namespace"]}|kube-system",condition="true"'
            continue
        assert labels["namespace"] == daemon_set["namespace"]
        if name == "kube_pod_info":
            assert (labels["created_by_kind"], labels["created_by_name"]) == ("DaemonSet", daemon_set["name"])
        elif name.startswith("kube_daemonset_"):
            assert labels["daemonset"] == daemon_set["name"]


@each_rule
def test_a_rule_says_how_urgent_it_is_and_what_is_lost_and_the_page_what_to_do(rule: Object) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert len(rule["annotations"]["summary"]) < 200
    assert f"| `{rule['alert']}` |" in PAGES["monitoring"]


def test_no_other_alert_is_told_of() -> None:
    alerts = {rule["alert"] for rule in GROUP["rules"]}
    assert set(re.findall(r"^\| `(Ipvlan\w+)` \|", PAGES["monitoring"], re.MULTILINE)) == alerts


def queries() -> list[str]:
    """Those that the reference gives, one a line."""
    (found,) = blocks("docs/reference.md", "Queries")
    return found.splitlines()


@pytest.mark.parametrize("query", queries())
def test_a_query_of_the_reference_is_about_metrics_and_labels_that_there_are(query: str) -> None:
    series = _SERIES.findall(query)
    assert series
    for name, matchers in series:
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= known()[name]


def rule_of(alert: str) -> Object:
    (rule,) = [rule for rule in GROUP["rules"] if rule["alert"] == alert]
    return dict(rule)


def test_a_replica_that_is_not_ready_is_as_good_as_none() -> None:
    """Until it has a certificate it has all its series already; only this one is no number."""
    expression = rule_of("IpvlanBandwidthWebhookAway")["expr"]
    (expiry, _), (ready, _) = _SERIES.findall(expression)
    assert expression == f"absent({expiry} > time() unless on(namespace, pod) {ready} == 0)"
    lines = generate_latest(webhook.metrics.Metrics().registry).decode().splitlines()
    said = {name: value for name, _, value in (line.partition(" ") for line in lines) if name in {expiry, ready}}
    assert said == {expiry: "NaN", ready: "0.0"}


def test_calls_that_fail_are_those_of_our_webhook() -> None:
    (ours,) = one("MutatingWebhookConfiguration", "ipvlan-bandwidth")["webhooks"]
    for series, matchers in _SERIES.findall(rule_of("IpvlanBandwidthCallsFail")["expr"]):
        assert series == REJECTIONS
        assert f'name="{ours["name"]}"' in matchers


def test_reviews_without_a_decision_are_counted_by_the_reason_that_they_alone_have() -> None:
    series = _SERIES.findall(rule_of("IpvlanBandwidthNoDecision")["expr"])
    matchers = f'outcome="error",reason="{webhook.metrics.NO_DECISION}"'
    assert set(series) == {("ipvlan_bandwidth_admissions_total", matchers)}


def test_an_alert_that_asks_whether_it_fires_asks_for_itself() -> None:
    for rule in GROUP["rules"]:
        assert set(re.findall(r'alertname="(\w+)"', rule["expr"])) <= {rule["alert"]}


def test_kernels_that_are_supported_but_lack_what_is_not_vital_raise_no_alert() -> None:
    assert 'ipvlan_bandwidth_kernel_lacks{vital="yes"}' in rule_of("IpvlanBandwidthKernelLacks")["expr"]
    assert {feature for feature, wanted in REQUIREMENTS.items() if not wanted.is_vital} == {"tbf", "set_tstamp", "jit"}


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "webhook"), ("DaemonSet", "reconciler")])
def test_every_program_is_scraped_by_the_port_and_labels_that_its_pods_have(kind: str, name: str) -> None:
    monitor = one("PodMonitor", name, MONITORS)
    template = one(kind, name)["spec"]["template"]
    assert monitor["metadata"]["namespace"] == one(kind, name)["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = template["spec"]["containers"]
    (port,) = [port for port in container["ports"] if port["name"] == endpoint["port"]]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert endpoint.get("honorLabels", False) is (name == "reconciler")


def test_the_installation_itself_does_not_need_the_operator() -> None:
    assert not [o for o in INSTALLED if o["apiVersion"].startswith("monitoring.coreos.com")]


def test_kubectl_renders_it_without_a_warning() -> None:
    manifests = rendered(FOLDER)
    assert {(o["kind"], o["metadata"]["name"]) for o in manifests} == {
        ("PodMonitor", "webhook"),
        ("PodMonitor", "reconciler"),
        ("PrometheusRule", "ipvlan-bandwidth"),
    }
    assert one("PrometheusRule", "ipvlan-bandwidth", manifests)["spec"] == RULES["spec"]


def test_an_overlay_gives_all_of_it_the_label_that_a_prometheus_selects_by(tmp_path: Path) -> None:
    overlay = block("docs/monitoring.md", "Alerts", "release:")
    manifests = patched(overlay, FOLDER, tmp_path)
    assert len(manifests) == 3
    for each in manifests:
        assert each["metadata"]["labels"] == {
            "app.kubernetes.io/part-of": "ipvlan-bandwidth",
            "release": "kube-prometheus-stack",
        }
    assert one("PrometheusRule", "ipvlan-bandwidth", manifests)["spec"] == RULES["spec"]


def test_the_check_of_the_monitoring_is_of_our_namespace_and_has_as_many_rules_as_there_are() -> None:
    scraped, taken = block("docs/monitoring.md", "Alerts", "rule_group").splitlines()
    assert f'namespace="{one("PodMonitor", "webhook", MONITORS)["metadata"]["namespace"]}"' in scraped
    # A group's label is its file and its name, with a semicolon between (prometheus, rules/group.go).
    assert taken == f'prometheus_rule_group_rules{{rule_group=~".*;{GROUP["name"]}"}}'
    (rules,) = re.findall(r"of (\d+)\s+rules", PAGES["monitoring"])
    assert int(rules) == len(GROUP["rules"])


@pytest.mark.parametrize("page", ["operations", "monitoring", "troubleshooting"])
def test_a_page_names_no_metric_and_no_alert_that_there_is_not(page: str) -> None:
    assert set(re.findall(r"`(Ipvlan\w+)`", PAGES[page])) <= {rule["alert"] for rule in GROUP["rules"]}
    names = set(re.findall(r"`(ipvlan_bandwidth_\w+)", PAGES[page]))
    assert names <= known().keys()
