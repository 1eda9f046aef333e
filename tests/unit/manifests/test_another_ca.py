"""The way to another CA in docs/operations.md: it has the names that there are, and its check notices the former CA."""

import base64
import shlex
import subprocess
from pathlib import Path

import pytest

from certs.changes import Kind
from tests.unit.certs.clients import fresh
from tests.unit.manifests.overlays import block, blocks
from tests.unit.manifests.test_manifests import ROOT, one
from webhook import certificate_events
from webhook.settings import CONFIGURATION, SECRET

PAGE, HEADING = "docs/operations.md", "Another CA at once"
LEAKED, NEW = fresh().trusted_pem(), fresh().trusted_pem()


def test_it_takes_away_what_the_webhook_keeps_its_ca_in_and_waits_for_its_pods() -> None:
    commands = [shlex.split(line, comments=True) for line in block(PAGE, HEADING, "scale").splitlines()[2:]]
    deleted = [command[command.index("delete") + 1 :] for command in commands if "delete" in command]
    assert deleted == [["secret", SECRET], ["mutatingwebhookconfiguration", CONFIGURATION]]
    (selector,) = one("Deployment", "webhook")["spec"]["selector"]["matchLabels"].items()
    (waits,) = [command for command in commands if "--for=delete" in command]
    assert waits[waits.index("-l") + 1] == "=".join(selector)


def test_it_speaks_of_the_events_that_there_are() -> None:
    section = (ROOT / PAGE).read_text().split(f"## {HEADING}")[1]
    for kind in (Kind.MADE, Kind.RESTORED):
        assert certificate_events._EVENTS[kind][1] in section


@pytest.mark.parametrize(
    ("before", "after", "is_another"),
    [(LEAKED, NEW, True), (LEAKED, LEAKED, False), (LEAKED, LEAKED + NEW, False), (LEAKED, b"", False)],
    ids=["another", "restored", "both", "none"],
)
def test_its_check_notices_the_former_ca(before: bytes, after: bytes, is_another: bool, tmp_path: Path) -> None:
    bundle, kubectl = tmp_path / "bundle", tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\ncat {bundle}\n")
    kubectl.chmod(0o755)
    bundle.write_bytes(base64.b64encode(before))
    (tmp_path / "after").write_bytes(base64.b64encode(after))
    remembers = "\n".join(block(PAGE, HEADING, "scale").splitlines()[:2])
    (check,) = [each for each in blocks(PAGE, HEADING) if each.startswith("[ ")]
    script = f"PATH={tmp_path}:$PATH\n{remembers}\ncp {tmp_path}/after {bundle}\n{check}"
    done = subprocess.run(["sh", "-uc", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == ((0, "another CA\n", "") if is_another else (1, "", ""))
