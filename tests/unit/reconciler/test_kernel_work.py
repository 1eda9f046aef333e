"""The thread that works on the kernel: one call at a time, and what is said when one does not return."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.kernel_work import HANGS_S, LOAD_HANGS_S, KernelWork


class Hanging:
    """A call that is at work on the thread until it is let go."""

    def __init__(self):
        self.entered, self.let_go = threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        self.let_go.wait()
        return "done"


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def work(now):
    with ThreadPoolExecutor(1) as executor:
        yield KernelWork(executor, lambda: now[0])


async def test_a_call_that_does_not_return_is_told_until_it_does(work, now):
    hang = Hanging()
    call = asyncio.create_task(work.do(hang))
    await asyncio.to_thread(hang.entered.wait)
    now[0] = HANGS_S - 1
    told = [work.trouble]
    now[0] = HANGS_S + 1
    told.append(work.trouble)
    hang.let_go.set()
    assert await call == "done"
    told.append(work.trouble)
    assert [text and text[:38] for text in told] == [None, "the kernel has not answered for 31 s: ", None]


async def test_a_caller_that_gives_up_does_not_hide_that_its_call_hangs(work, now):
    hang = Hanging()
    call = asyncio.create_task(work.do(hang))
    await asyncio.to_thread(hang.entered.wait)
    call.cancel()
    await asyncio.wait([call])
    now[0] = HANGS_S
    assert work.trouble
    hang.let_go.set()
    assert await work.do(lambda: "the next") == "the next"


async def test_a_compiler_that_takes_long_is_no_kernel_that_does_not_answer(work, now):
    compiles = Hanging()
    call = asyncio.create_task(work.load(compiles))
    await asyncio.to_thread(compiles.entered.wait)
    now[0] = LOAD_HANGS_S - 1
    told = [work.trouble]
    now[0] = LOAD_HANGS_S
    told.append(work.trouble)
    compiles.let_go.set()
    await call
    assert [bool(text) for text in told] == [False, True]
