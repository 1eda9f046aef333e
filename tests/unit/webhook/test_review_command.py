"""`python3 -m webhook review`: what it reads from standard input, its exit status, and its help."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeAlias

import pytest

from tests.unit.webhook.objects import pod
from tests.unit.webhook.test_review_text import CART
from webhook.__main__ import main

UNLABELLED = "kind: Namespace\nmetadata: {name: shop}\n"
Review: TypeAlias = Callable[[str], tuple[int, tuple[str, ...]]]


@pytest.fixture
def review(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Review:
    """Runs the command on a text: its exit status, and what it printed on both streams."""

    def run(text: str) -> tuple[int, tuple[str, ...]]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        return main(["review"]), tuple(capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("text", "status", "printed"),
    [
        (CART, 0, ("Pod shop/cart: allowed", "")),
        (CART.replace("0.1G", "100m"), 1, ("Pod shop/cart: refused", "")),
        ("kind: Deployment", 2, ("", "webhook review: found no Pod, no workload with a template")),
        (f"{UNLABELLED}---{CART}", 2, ("", "webhook review: reviewed nothing")),
        (CART.replace("0.1G", "100000000"), 1, ("Pod shop/cart: refused", "")),
    ],
)
def test_the_exit_status_tells_allowed_refused_and_unreadable(
    review: Review, text: str, status: int, printed: tuple[str, str]
) -> None:
    told, streams = review(text)
    assert told == status
    for stream, start in zip(streams, printed, strict=True):
        assert stream.startswith(start)
        assert bool(stream) is bool(start)


@pytest.mark.parametrize(
    ("text", "status", "printed"),
    [
        (CART, 2, ("", "webhook review: standard input is no JSON, and to read YAML this Python lacks PyYAML")),
        (json.dumps(pod()), 0, ("Pod default/cart: allowed", "")),
    ],
    ids=["YAML", "JSON"],
)
def test_without_pyyaml_yaml_is_unreadable_not_refused(
    review: Review, monkeypatch: pytest.MonkeyPatch, text: str, status: int, printed: tuple[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)  # as if it were not installed
    told, streams = review(text)
    assert told == status
    for stream, start in zip(streams, printed, strict=True):
        assert stream.startswith(start)
        assert stream.count("\n") == bool(start)


@pytest.mark.parametrize(
    ("redirections", "status", "streams"),
    [
        ("<&-", 2, ("", "webhook review: found no Pod")),
        (">&-", 2, ("", "webhook review: cannot write to standard output: it is closed\n")),
        (">/dev/full", 2, ("", "webhook review: cannot write to standard output: No space left on device\n")),
        ("", 0, ("Pod default/caf\\xe9: allowed", "")),
    ],
)
def test_streams_that_are_closed_full_or_of_another_encoding_are_no_refusal(
    redirections: str, status: int, streams: tuple[str, str]
) -> None:
    run = subprocess.run(
        ["/bin/sh", "-c", f'PYTHONIOENCODING=ascii exec "{sys.executable}" -m webhook review {redirections}'],
        input=json.dumps(pod(name="café")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == status
    for stream, start in zip((run.stdout, run.stderr), streams, strict=True):
        assert stream.startswith(start)
        assert bool(stream) is bool(start)


def test_it_answers_without_loading_a_server_or_a_kubernetes_client() -> None:
    script = (
        "import sys\nfrom webhook.__main__ import main\n"
        "status = main(['review', '--network', 'kube-system.ipvlan'])\n"
        "heavy = {'aiohttp', 'kubernetes_asyncio', 'cryptography', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else status)"
    )
    run = subprocess.run([sys.executable, "-c", script], input=CART, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "kube-system/ipvlan" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["serve", "review", "COMMAND --help"]),
        (["review", "--help"], ["--network", "exit status: 0", "has no Pod", "< pod.yaml"]),
        (["serve", "--help"], ["--port"]),
    ],
)
def test_help_explains_itself(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
