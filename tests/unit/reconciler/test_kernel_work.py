"""The thread that works on the kernel: one call at a time, and what is said when one does not return."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.kernel.errors import ShapingError
from reconciler.kernel_work import HANGS_S, LOAD_HANGS_S, KernelWork
from tests.unit.reconciler.controller_bench import raised


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


async def test_the_turn_of_a_caller_that_gives_up_lasts_until_the_thread_is_done_with_its_call(work):
    hang = Hanging()
    call = asyncio.create_task(work.do(hang))
    await asyncio.to_thread(hang.entered.wait)
    call.cancel()
    await asyncio.wait([call])
    following = asyncio.create_task(work.here(lambda: "in its turn"))
    await asyncio.sleep(0.05)
    waited = not following.done()
    hang.let_go.set()
    assert await asyncio.wait_for(following, 10) == "in its turn"
    assert waited


async def test_who_gives_up_while_others_are_at_work_takes_no_turn_and_holds_up_nobody(work):
    hang, done = Hanging(), []
    first = asyncio.create_task(work.do(hang))
    await asyncio.to_thread(hang.entered.wait)
    waiting = asyncio.create_task(work.do(lambda: done.append("waiting")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    hang.let_go.set()
    assert await first == "done"
    await asyncio.wait_for(work.do(done.append, "next"), 10)
    assert done == ["next"]


async def test_a_call_that_outlasts_the_loop_ends_in_silence(now, caplog):
    hang, executor = Hanging(), ThreadPoolExecutor(1)

    async def give_up():
        call = asyncio.create_task(KernelWork(executor, lambda: now[0]).do(hang))
        await asyncio.to_thread(hang.entered.wait)
        call.cancel()
        await asyncio.wait([call])

    await asyncio.to_thread(asyncio.run, give_up())
    hang.let_go.set()
    await asyncio.to_thread(executor.shutdown)
    assert caplog.text == ""


def divide():
    return 1 // 0


async def test_a_defect_is_told_as_one_in_whatever_has_its_turn_but_where_a_program_is_loaded(work, caplog):
    async with work.turn():
        with pytest.raises(ShapingError, match="please report it: ZeroDivisionError"):
            await work.within(divide)
    for guarded in (work.do, work.here):
        with pytest.raises(ShapingError, match="please report it: ZeroDivisionError"):
            await guarded(divide)
    assert caplog.text.count("ZeroDivisionError") >= 3
    with pytest.raises(ZeroDivisionError):
        await work.load(divide)
    with pytest.raises(ShapingError, match=r"^no$"):
        await work.do(raised, ShapingError("no"))
