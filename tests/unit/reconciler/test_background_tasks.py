"""Work in the background is noticed when it fails, and only then."""

import asyncio

import pytest

from reconciler.background_tasks import BackgroundTasks


async def fail(text):
    raise ValueError(text)


async def test_the_first_failure_is_raised_and_what_ends_well_or_is_cancelled_is_none():
    background = BackgroundTasks()
    failure = asyncio.create_task(background.failure())
    background.spawn(asyncio.sleep(0))
    background.spawn(asyncio.sleep(60)).cancel()
    await asyncio.sleep(0.01)
    assert not failure.done()
    background.spawn(fail("first"))
    background.spawn(fail("second"))
    with pytest.raises(ValueError, match="first"):
        await failure
    assert not background._tasks


async def test_at_the_end_nothing_is_at_work_any_more():
    background, ended = BackgroundTasks(), []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what it holds is let go before that is closed
            ended.append("let go")

    for _ in range(2):
        background.spawn(work())
    await asyncio.sleep(0)
    await background.end()
    assert ended == ["let go"] * 2
    assert not background._tasks
