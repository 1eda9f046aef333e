"""Two reconcilers on one node."""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from reconciler.kernel.errors import ShapingError
from reconciler.node_lock import acquire_node_lock


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


HOLDER = """
import asyncio, pathlib, sys
from reconciler.node_lock import acquire_node_lock
held = asyncio.run(acquire_node_lock(asyncio.Event(), pathlib.Path(sys.argv[1])))
print("mine", flush=True)
sys.stdin.read()
"""


async def test_the_second_waits_says_so_once_and_works_when_the_first_was_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(tmp_path), stdin=PIPE, stdout=PIPE)
    assert first.stdout is not None
    assert await first.stdout.readline() == b"mine\n"
    with caplog.at_level(logging.WARNING):
        second = asyncio.create_task(acquire_node_lock(asyncio.Event(), tmp_path))
        done, _ = await asyncio.wait({second}, timeout=0.35)
        assert not done
        first.kill()
        await first.communicate()
        held = await second
    assert held is not None
    os.close(held)
    assert caplog.messages == ["a reconciler works on this node: waiting for its end"]


async def test_one_that_is_told_to_stop_while_it_waits_stops(tmp_path: Path) -> None:
    stopping = asyncio.Event()
    held = await acquire_node_lock(stopping, tmp_path)
    assert held is not None
    second = asyncio.create_task(acquire_node_lock(stopping, tmp_path))
    await asyncio.sleep(0)
    stopping.set()
    assert await second is None
    os.close(held)


async def test_the_turn_comes_again_when_it_was_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        held = await acquire_node_lock(asyncio.Event(), tmp_path)
        assert held is not None
        os.close(held)


async def test_a_folder_that_cannot_be_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(ShapingError, match=r"nri, the folder of --nri-socket: No such file or directory; mount"):
        await acquire_node_lock(asyncio.Event(), tmp_path / "nri")
    assert not (tmp_path / "nri").exists()


async def test_one_that_does_not_end_is_told_of_and_not_waited_for(tmp_path: Path) -> None:
    held = await acquire_node_lock(asyncio.Event(), tmp_path)
    assert held is not None
    before = descriptors()
    with pytest.raises(ShapingError, match=r"another reconciler has held .* for 0 s, and does not end.*`lslocks`"):
        await acquire_node_lock(asyncio.Event(), tmp_path, 0.2)
    assert descriptors() == before
    os.close(held)
