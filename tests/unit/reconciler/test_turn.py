"""Two reconcilers on one node."""

import asyncio
import logging
import sys
import uuid
from asyncio.subprocess import PIPE

import pytest

from reconciler.turn import take_turn

HOLDER = """
import asyncio, sys
from reconciler.turn import take_turn
held = asyncio.run(take_turn(asyncio.Event(), name=sys.argv[1]))
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4()}"


async def test_the_second_waits_says_so_once_and_works_when_the_first_was_killed(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, name, stdin=PIPE, stdout=PIPE)
    assert first.stdout is not None
    assert await first.stdout.readline() == b"mine\n"
    with caplog.at_level(logging.WARNING):
        second = asyncio.create_task(take_turn(asyncio.Event(), name=name))
        done, _ = await asyncio.wait({second}, timeout=0.35)
        assert not done
        first.kill()
        await first.communicate()
        held = await second
    assert held is not None
    held.close()
    assert caplog.messages == ["another reconciler works on this node: waiting for its end"]


async def test_one_that_is_told_to_stop_while_it_waits_stops(name: str) -> None:
    stopping = asyncio.Event()
    held = await take_turn(stopping, name=name)
    assert held is not None
    second = asyncio.create_task(take_turn(stopping, name=name))
    await asyncio.sleep(0)
    stopping.set()
    assert await second is None
    held.close()


async def test_the_turn_comes_again_when_it_was_given_back(name: str) -> None:
    for _ in range(2):
        held = await take_turn(asyncio.Event(), name=name)
        assert held is not None
        held.close()
