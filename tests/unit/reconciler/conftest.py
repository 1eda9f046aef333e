"""Controllers at work."""

from contextlib import AsyncExitStack

import pytest

from tests.unit.reconciler.controller_bench import Bench
from tests.waiting import background


@pytest.fixture
async def begin():
    """Puts the controller of a bench to work, until the test is over."""
    async with AsyncExitStack() as at_the_end:

        async def at_work(bench):
            await at_the_end.enter_async_context(background(bench.controller.run()))

        yield at_work


@pytest.fixture
async def bench(begin):
    """A controller that has been told of no Pods."""
    bench = Bench()
    await begin(bench)
    await bench.controller.on_synchronize([])
    await bench.settle()
    return bench
