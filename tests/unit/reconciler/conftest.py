"""A controller that has been told of no Pods."""

import pytest

from tests.unit.reconciler.controller_bench import Bench
from tests.waiting import background


@pytest.fixture
async def bench():
    bench = Bench()
    async with background(bench.controller.run()):
        await bench.controller.on_synchronize([])
        await bench.settle()
        yield bench
