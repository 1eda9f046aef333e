"""The memory of a process and of those that it has started, of real ones."""

import asyncio
import os
import sys

from tests.bench.reconciler import family

HOLDS = "held = bytearray(b'x') * (64 << 20)"
STARTS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', \"{HOLDS}; import time; time.sleep(0.5)\"])"


async def test_what_a_process_starts_counts_and_is_told_after_its_end(monkeypatch):
    monkeypatch.setattr(family, "EVERY_S", 0.01)
    async with family.watching(os.getpid()) as peak:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTS)
        assert await process.wait() == 0
    assert 64 < peak.mib < 512
    assert process.pid not in family.descendants(os.getpid())


def test_of_a_process_that_has_ended_nothing_is_told():
    assert family.most_resident_mib(2**30) == 0
    assert family.descendants(2**30) == []
