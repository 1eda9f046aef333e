"""The command line explains itself and what was wrong."""

import json

import pytest

from reconciler.cli import main
from tests.unit.stopping import assert_ends_by_itself_at_sigterm

pytestmark = pytest.mark.usefixtures("root_logger")


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("run", "observe", "clean"))


def test_run_needs_to_know_which_node_it_is_on(monkeypatch, capsys):
    monkeypatch.delenv("NODE_NAME", raising=False)
    assert main(["run"]) == 2
    assert "NODE_NAME" in capsys.readouterr().err


@pytest.mark.parametrize("slots", ["0", "40000", "abc"])
def test_slots_are_bounded_by_the_class_id(slots, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--slots", slots])
    assert ended.value.code == 2
    assert f"'{slots}' is no number of slots: a whole number from 1 to 32000" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "observe"])
def test_help_says_where_the_nodes_name_is_taken_from(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "(if not given: the environment variable NODE_NAME)" in " ".join(capsys.readouterr().out.split())


def test_observe_and_clean_of_an_empty_node(tmp_path, capsys):
    assert main(["observe", "--json", "--netns-folder", str(tmp_path), "--node", ""]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["clean", "--netns-folder", str(tmp_path), "--nri-socket", str(tmp_path / "nri.sock")]) == 0


def test_the_log_level_may_follow_the_command_as_arguments_of_a_container_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "--log-level", "debug", "--node", ""]) == 2
    assert "which node is this" in capsys.readouterr().err


def test_sigterm_during_the_imports_ends_it_by_itself_as_for_the_first_process_of_a_container() -> None:
    assert_ends_by_itself_at_sigterm("reconciler", "run", "--node", "node1", importing="reconciler.daemon")
