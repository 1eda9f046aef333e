"""A controller that has been told of no Pods."""

import asyncio

import pytest

from tests.unit.reconciler.controller_bench import Bench


@pytest.fixture
async def bench():
    bench = Bench()
    task = asyncio.create_task(bench.controller.run())
    await bench.controller.on_synchronize([])
    await bench.settle()
    yield bench
    task.cancel()
