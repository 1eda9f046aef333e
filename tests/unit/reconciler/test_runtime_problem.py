"""A runtime that stays away is told of on the Node, once; one that is started again is not."""

from types import SimpleNamespace

import pytest

from reconciler.node_problems import POLL_S, of_runtime


class DoneError(Exception):
    """The looks are over."""


async def told(
    *connected: bool, registered: bool = False, trouble: str = "permission denied"
) -> list[tuple[str, str, str]]:
    """The notices told when the looks find this in turn."""
    reasons, looks = [], list(connected)
    runtime = SimpleNamespace(
        connected=True, registered=registered, trouble=trouble, socket_path="/var/run/nri/nri.sock"
    )

    async def sleep(seconds):
        assert seconds == POLL_S
        if not looks:
            raise DoneError
        runtime.connected = looks.pop(0)

    with pytest.raises(DoneError):
        await of_runtime(runtime).run(
            lambda notice: reasons.append((notice.type, notice.reason, notice.message)), sleep
        )
    return reasons


async def test_a_runtime_that_is_started_again_is_no_news():
    assert await told(True, False, False, True, False, True) == []


async def test_a_runtime_that_stays_away_is_told_once_and_so_is_its_return():
    (away, back) = await told(*[False] * 9, True, True)
    assert away[:2] == ("Warning", "RuntimeUnreachable")
    assert "not connected to the container runtime's NRI socket /var/run/nri/nri.sock: permission denied" in away[2]
    assert away[2].endswith("Until it is connected, Pods start without their limits, or not at all, as they ask")
    assert back[:2] == ("Normal", "RuntimeConnected")


async def test_a_cause_that_ends_in_a_question_gets_no_stop_behind_it():
    (away, _) = await told(*[False] * 9, True, trouble="refused (is NRI on?)?")
    assert "refused (is NRI on?)? Until it is connected" in away[2]


async def test_where_the_runtime_is_held_up_nothing_starts_so_nobody_is_told_that_pods_start_without_their_limits():
    (held_up,) = await told(*[False] * 9, registered=True, trouble="not told of its Pods yet")
    assert held_up[1] == "RuntimeUnreachable"
    assert "registered at the container runtime's NRI socket /var/run/nri/nri.sock: not told of its Pods" in held_up[2]
    assert "the runtime may start and stop nothing else on this node" in held_up[2]
    assert "without their limits" not in held_up[2]


async def test_a_runtime_that_stays_away_is_told_again_before_the_api_server_has_forgotten_it():
    an_hour = int(3600 / POLL_S)
    assert [reason for _, reason, _ in await told(*[False] * an_hour, True)] == [
        "RuntimeUnreachable",
        "RuntimeUnreachable",
        "RuntimeConnected",
    ]
