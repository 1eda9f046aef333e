"""What the images are called, and what they say of themselves."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.unit.manifests.test_manifests import CONTAINERS, MANIFESTS, ROOT
from webhook.common.version import VERSION

CONTAINERFILE = (MANIFESTS / "images/Containerfile").read_text()
BUILD = (MANIFESTS / "images/build").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_containerfile_has_a_target_for_every_image_and_names_the_version_users_build() -> None:
    for container in CONTAINERS:
        target = container.spec["image"].rsplit(":", 1)[0].rsplit("/", 1)[1]
        assert f" AS {target}\n" in CONTAINERFILE
        assert container.spec["image"] in CONTAINERFILE


def test_the_build_gives_the_images_the_names_of_the_manifests() -> None:
    assert "name=ipvlan-bandwidth.invalid/$target:$version\n" in BUILD
    (reads,) = re.findall(r"^version=\$\((.*)\)$", BUILD, re.MULTILINE)
    assert sh(f"root={ROOT}; {reads}") == VERSION


@pytest.mark.parametrize("target", ["webhook", "reconciler"])
def test_an_image_says_what_it_is_and_its_program_of_which_commit_it_is(target: str) -> None:
    stage = re.split(rf"^FROM .* AS {target}$", CONTAINERFILE, flags=re.MULTILINE)[1].split("\nFROM ")[0]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*?)"', stage))
    licence = {"webhook": "Apache-2.0", "reconciler": PROJECT["license"]}[target]
    title = f"ipvlan-bandwidth {target}"
    assert labels == {"title": title, "version": VERSION, "revision": "${REVISION}", "licenses": licence}
    code = re.split(rf"^FROM .* AS {target}-code$", CONTAINERFILE, flags=re.MULTILINE)[1].split("\nFROM ")[0]
    assert 'echo "${REVISION}" > /opt/ipvlan-bandwidth/code/webhook/common/revision' in code
    assert "ARG REVISION=unknown\n" in stage
    assert "ARG REVISION=unknown\n" in code


def sh(script: str) -> str:
    return subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout.strip()


def revision(root: Path) -> str:
    (function,) = re.findall(r"^revision\(\) \{\n.*?^\}\n", BUILD, re.MULTILINE | re.DOTALL)
    return sh(f"root={root}\n{function}revision")


def commit(root: Path) -> str:
    git = f"git -C {root} -c user.name=a -c user.email=a@example.com"
    return sh(f"{git} add . && {git} commit -q -m why && {git} rev-parse HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    sh(f"git init -q {tmp_path}")
    (tmp_path / "webhook/common").mkdir(parents=True)
    (tmp_path / "webhook/common/version.py").write_text("before")
    return tmp_path


def test_the_revision_is_of_the_last_commit_that_changed_what_is_in_the_images(checkout: Path) -> None:
    first = commit(checkout)
    (checkout / "README.md").write_text("more")
    assert (revision(checkout), commit(checkout) == first) == (first, False)
    assert revision(checkout) == first
    (checkout / "webhook/more.py").write_text("new")
    assert revision(checkout) == f"{first}-dirty"


def test_without_git_or_a_commit_nobody_knows_the_revision(checkout: Path) -> None:
    assert revision(checkout) == "unknown"
    shutil.rmtree(checkout / ".git")
    assert revision(checkout) == "unknown"
    assert sh(f"PATH=\n{BUILD[BUILD.index('revision() {') : BUILD.index('revision=$(revision)')]}root=/\nrevision") == (
        "unknown"
    )


MAKES_THE_BASE = BUILD[BUILD.index("image_id() {") : BUILD.index("wheels=$cache/")]
"""Asks for the base's id, and makes the base where there is none."""
STORAGE = """
say() { :; }
fail() { exit 1; }
mmdebstrap() { :; }
run() {
    case $1 in
        inspect) cat "$cache/id" 2> /dev/null ;;
        commit) echo "$made" > "$cache/id" ;;
    esac
}
"""


def inputs(cache: Path, made: str) -> str:
    (function,) = re.findall(r"^inputs\(\) \{\n.*?^\}\n", BUILD, re.MULTILINE | re.DOTALL)
    given = f"root={ROOT} cache={cache} made={made} revision=same"
    return sh(f"{given}\n{STORAGE}\n{MAKES_THE_BASE}\n{function}inputs certs webhook")


def test_a_base_that_was_made_anew_means_new_archives(tmp_path: Path) -> None:
    before = inputs(tmp_path, "first")
    assert inputs(tmp_path, "never") == before
    (tmp_path / "id").unlink()
    assert inputs(tmp_path, "second") != before
