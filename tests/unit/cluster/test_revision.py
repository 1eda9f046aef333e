"""Which version a result is said to be of."""

import subprocess

import pytest

from tests import revision


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a program and a result, both committed."""
    monkeypatch.setattr(revision, "PROJECT", tmp_path)
    for path in ("program.py", "tests/bench/results/results.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("before")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "why")):
        subprocess.run(("git", *command), check=True, cwd=tmp_path)
    return tmp_path


def test_a_program_that_differs_from_its_commit_is_dirty_and_results_are_no_part_of_it(checkout):
    committed = revision.revision()
    (checkout / "tests/bench/results/results.json").write_text("after")
    assert revision.revision() == committed
    (checkout / "program.py").write_text("after")
    assert revision.revision() == f"{committed}-dirty"


def test_outside_of_a_repository_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(revision, "PROJECT", tmp_path)
    assert revision.revision() == "unknown"


def test_without_git_nobody_knows(checkout, monkeypatch):
    assert revision.revision() != "unknown"
    monkeypatch.setenv("PATH", str(checkout))
    assert revision.revision() == "unknown"
