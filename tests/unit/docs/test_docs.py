"""The documentation: its links lead somewhere, and its tables have all that the programs have."""

import argparse
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import reconciler.metrics
import webhook.metrics
from certs.changes import Kind
from reconciler.cli import _parser
from reconciler.kernel import errors
from reconciler.model import ProblemKind
from reconciler.node_state import PodCounts
from reconciler.report import Reason
from reconciler.requirements import REQUIREMENTS, Feature
from webhook import admission, certificate_events, review_command, settings
from webhook.common.contract import NETWORK_LABEL
from webhook.policy import Policy

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").glob("*/results/*.md")])
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
KERNELS = (ROOT / "docs/kernels.md").read_text()
_LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """Without what is indented as code."""
    return "\n".join(line for line in page.read_text().splitlines() if not line.startswith("    "))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        assert "://" not in target, "no address outside of the repository: it may become somebody else's"
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@each_page
def test_every_source_file_that_is_named_is_there(page: Path) -> None:
    named = set(re.findall(r"`((?:certs|reconciler|webhook)/[\w/]+\.(?:py|c))`", prose(page)))
    assert {path for path in named if not (ROOT / path).is_file()} == set()


def test_a_tag_for_the_images_says_whether_the_checkout_was_changed() -> None:
    """What was built of a changed one would else pass for the commit."""
    pages = "".join(file.read_text() for file in (*PAGES, ROOT / "manifests/images/Containerfile"))
    assert set(re.findall(r"git describe[^`)]*", pages)) == {"git describe --always --dirty"}


def test_every_page_of_docs_is_in_the_readmes_table() -> None:
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= set(_LINK.findall(README))


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "results" not in p.parts], ids=lambda page: str(page.relative_to(ROOT))
)
def test_prose_has_lines_that_fit(page: Path) -> None:
    assert [line for line in prose(page).splitlines() if len(line) > 120 and line[:1] != "|"] == []


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 210


@each_page
def test_no_rollout_is_waited_for_without_an_end(page: Path) -> None:
    """It never ends while a node is down."""
    commands = re.findall(r"kubectl .*rollout status.*", page.read_text())
    assert [command for command in commands if "--timeout=" not in command] == []


def test_no_registry_is_named() -> None:
    """Whoever has the name there would run as root on nodes."""
    manifests = [file for file in (ROOT / "manifests").rglob("*") if file.is_file()]
    for file in (*PAGES, *manifests, *ROOT.glob("*.lock")):
        assert not re.search(r"\b(ghcr|docker|quay|gcr)\.io\b", file.read_text()), file


def test_the_readmes_check_of_the_webhook_has_a_limit_that_is_refused_as_it_says() -> None:
    """One that is allowed would pass also where nobody asks the webhook."""
    found = re.search(
        r"denied the request: \.\.\. (.*?)`.*? run try .*? --annotations=(\S+?)=(\S+) ", README, re.DOTALL
    )
    assert found
    said, annotation, limit = found.groups()
    pod = {"kind": "Pod", "metadata": {"name": "try", "annotations": {annotation: limit}}, "spec": {}}
    printed, refused = review_command.review_text(json.dumps(pod).encode(), network=None)
    assert refused
    assert printed.endswith(f"{said}\n")


def test_the_readmes_check_is_made_in_a_namespace_that_is_labelled_before_and_deleted_afterwards() -> None:
    install = README.split("must be refused", 1)[1].split("\n## ")[0]
    (shown,) = re.findall(r"(?:^    kubectl .*\n)+", install, re.MULTILINE)
    create, label, tried, delete = (line.split() for line in shown.splitlines())
    namespace = create[-1]
    assert create == ["kubectl", "create", "namespace", namespace]
    assert label[:4] == ["kubectl", "label", "namespace", namespace]
    key, _, network = label[4].partition("=")
    assert key == NETWORK_LABEL
    assert Policy.from_label(namespace, network).problem is None
    assert tried[1:4] == ["-n", namespace, "run"]
    assert delete == ["kubectl", "delete", "namespace", namespace]


def test_the_network_that_a_namespace_is_labelled_with_is_looked_for_before() -> None:
    use = README.split("\n## Use\n", 1)[1]
    look, label = re.findall(r"^    kubectl .*$", use, re.MULTILINE)[:2]
    namespace, name = label.split(f"{NETWORK_LABEL}=")[1].split(".")
    assert look.split() == ["kubectl", "-n", namespace, "get", "net-attach-def", name]


def test_every_target_of_make_that_the_readme_names_is_there_and_says_the_same_of_test() -> None:
    makefile = (ROOT / "Makefile").read_text()
    documented = dict(re.findall(r"^([a-z-]+):.*?## (.*)$", makefile, re.MULTILINE))
    commands = re.findall(r"^    make [a-z-]+|`make [a-z-]+", README, re.MULTILINE)
    named = {command.split()[-1] for command in commands}
    assert named <= documented.keys()
    assert documented["test"] in README


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags(command)
        elif action.dest not in {"help", "version"}:
            yield from action.option_strings


def webhook_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    settings.add_arguments(parser)
    return parser


def review_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    review_command.add_arguments(parser)
    return parser


@pytest.mark.parametrize(
    ("heading", "parser"),
    [
        ("### `python3 -m webhook serve`", webhook_parser()),
        ("### `python3 -m webhook review`", review_parser()),
        ("### `python3 -m reconciler run`", _parser()),
    ],
    ids=["serve", "review", "reconciler"],
)
def test_the_reference_has_every_flag_and_no_other(heading: str, parser: argparse.ArgumentParser) -> None:
    section = REFERENCE.split(heading, 1)[1]
    if "reconciler" not in heading:  # its commands are the last sections
        section = section.split("\n### ", 1)[0]
    table = "\n".join(line for line in section.splitlines() if line[:1] == "|")
    first_cells = [line.rsplit("|", 2)[0] for line in table.splitlines()]
    named = set(re.findall(r"`(--[a-z-]+)", "\n".join(first_cells)))
    assert named == set(flags(parser))


@pytest.mark.parametrize("action", webhook_parser()._actions, ids=lambda action: action.dest)
def test_the_defaults_of_the_reference_are_the_webhooks(action: argparse.Action) -> None:
    if isinstance(action.default, str | int | float) and action.option_strings and action.dest != "help":
        assert (
            f"`{action.option_strings[0]} {action.default:{'g' if isinstance(action.default, float) else ''}}`"
            in REFERENCE
        )


def families(registry: CollectorRegistry) -> Iterator[str]:
    for collector in registry._collector_to_names:
        for family in collector.collect():
            if family.name.startswith("ipvlan_bandwidth_"):
                yield family.name + ("_total" if family.type == "counter" else "")


def test_the_reference_has_every_metric() -> None:
    section = REFERENCE.split("## Metrics", 1)[1].split("\n## ", 1)[0]
    named: set[str] = set()
    for line in (line for line in section.splitlines() if line.startswith("| `ipvlan_")):
        first, *further = re.findall(r"`(\w+)`", line.split("|")[1])
        named |= {first, *(re.sub(r"_[a-z]+_total$", "", first) + name for name in further)}
    ours = [reconciler.metrics.Metrics().registry, webhook.metrics.Metrics().registry]
    assert named == {name for registry in ours for name in families(registry)}


def test_the_reference_has_all_values_of_the_metrics_labels() -> None:
    kinds = {name for name in vars(errors) if name.endswith("Error") and not name.startswith("_")}
    reasons = {*admission.Reason, webhook.metrics.NO_DECISION}
    for metric, values in (
        ("ipvlan_bandwidth_admissions_total", reasons | {"CREATE", "UPDATE", "DELETE", "CONNECT"}),
        ("ipvlan_bandwidth_certificate_changes_total", set(Kind)),
        ("ipvlan_bandwidth_reconcile_errors_total", kinds),
        ("ipvlan_bandwidth_pods", set(PodCounts._fields)),
    ):
        (row,) = [line for line in REFERENCE.splitlines() if line.startswith(f"| `{metric}`")]
        assert {value for value in values if not re.search(rf"\b{value}\b", row)} == set()


def test_the_reference_has_every_status_that_an_admission_is_counted_by() -> None:
    sources = "".join((ROOT / f"webhook/{name}.py").read_text() for name in ("request_bodies", "handlers"))
    (row,) = [line for line in REFERENCE.splitlines() if line.startswith("| `ipvlan_bandwidth_admissions_total`")]
    (named,) = re.findall(r"HTTP status of the answer \(([\d, ]+)\)", row)
    assert set(named.split(", ")) == set(re.findall(r"(?:RequestError|_wrong)\((\d+),", sources))


def test_the_reference_has_every_event() -> None:
    rows = re.findall(r"^\| ([A-Z]\w+(?:, [A-Z]\w+)*) \|", REFERENCE, re.MULTILINE)
    named = {reason for row in rows for reason in row.split(", ")}
    assert named == {*Reason, *ProblemKind, *(reason for _, reason in certificate_events._EVENTS.values())}


@pytest.mark.parametrize("feature", Feature)
def test_every_feature_of_the_kernel_is_told_of_as_the_reconciler_does(feature: Feature) -> None:
    (row,) = [line for line in KERNELS.splitlines() if line.startswith(f"| {feature} |")]
    _, _, option, modules, vital, _, _ = (cell.strip() for cell in row.split("|"))
    wanted = REQUIREMENTS[feature]
    assert (option, modules, vital) == (wanted.option, wanted.modules, "yes" if wanted.is_vital else "no")


def test_the_pure_modules_of_the_makefile_are_those_that_may_do_no_io() -> None:
    (listed,) = re.findall(r"^PURE := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    covered = {path.replace("/", ".") for path in re.findall(r"([\w/]+)\.py", listed)}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (core,) = [each for each in contracts if each["name"] == "the functional core does no I/O"]
    assert covered == set(core["source_modules"])
