"""The thread that works on the kernel: one call at a time, and what is said when one does not return."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.kernel.errors import ShapingError
from reconciler.kernel.program import COMPILE_TIMEOUT_SECONDS
from reconciler.kernel_executor import HANGS_S, LOAD_HANGS_S, KernelExecutor
from tests.unit.reconciler.controller_bench import raised


class Hanging:
    """A call that is at work on the thread until it is let go."""

    def __init__(self):
        self.entered, self.let_go = threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        self.let_go.wait()
        return "done"


async def at_work(run, hang):
    """The task of a call that hangs on the thread by now."""
    call = asyncio.create_task(run(hang))
    await asyncio.to_thread(hang.entered.wait)
    return call


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def kernel(now):
    with ThreadPoolExecutor(1) as executor:
        yield KernelExecutor(executor, lambda: now[0])


async def test_a_call_that_does_not_return_is_told_until_it_does(kernel, now):
    hang = Hanging()
    call = await at_work(kernel.run, hang)
    now[0] = HANGS_S - 1
    told = [kernel.trouble]
    now[0] = HANGS_S + 1
    told.append(kernel.trouble)
    hang.let_go.set()
    assert await call == "done"
    told.append(kernel.trouble)
    assert [text and text[:38] for text in told] == [None, "the kernel has not answered for 31 s: ", None]


async def test_a_caller_that_gives_up_does_not_hide_that_its_call_hangs(kernel, now):
    hang = Hanging()
    call = await at_work(kernel.run, hang)
    call.cancel()
    await asyncio.wait([call])
    now[0] = HANGS_S
    assert kernel.trouble
    hang.let_go.set()
    assert await kernel.run(lambda: "the next") == "the next"


async def test_a_compiler_that_takes_long_is_no_kernel_that_does_not_answer(kernel, now):
    compiles = Hanging()
    call = await at_work(kernel.run_load, compiles)
    now[0] = LOAD_HANGS_S - 1
    told = [kernel.trouble]
    now[0] = LOAD_HANGS_S
    told.append(kernel.trouble)
    compiles.let_go.set()
    await call
    assert [bool(text) for text in told] == [False, True]


def test_a_compiler_is_given_up_before_the_kernel_is_said_not_to_answer():
    assert LOAD_HANGS_S > COMPILE_TIMEOUT_SECONDS + HANGS_S


async def test_the_turn_of_a_caller_that_gives_up_lasts_until_the_thread_is_done_with_its_call(kernel):
    hang = Hanging()
    call = await at_work(kernel.run, hang)
    call.cancel()
    await asyncio.wait([call])
    following = asyncio.create_task(kernel.run(lambda: "in its turn"))
    await asyncio.sleep(0.05)
    waited = not following.done()
    hang.let_go.set()
    assert await asyncio.wait_for(following, 10) == "in its turn"
    assert waited


async def test_who_gives_up_while_others_are_at_work_takes_no_turn_and_holds_up_nobody(kernel):
    hang, done = Hanging(), []
    first = await at_work(kernel.run, hang)
    waiting = asyncio.create_task(kernel.run(lambda: done.append("waiting")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    hang.let_go.set()
    assert await first == "done"
    await asyncio.wait_for(kernel.run(done.append, "next"), 10)
    assert done == ["next"]


async def test_a_call_that_outlasts_the_loop_ends_in_silence(now, caplog):
    hang, executor = Hanging(), ThreadPoolExecutor(1)

    async def give_up():
        call = await at_work(KernelExecutor(executor, lambda: now[0]).run, hang)
        call.cancel()
        await asyncio.wait([call])

    await asyncio.to_thread(asyncio.run, give_up())
    hang.let_go.set()
    await asyncio.to_thread(executor.shutdown)
    assert caplog.text == ""


def divide():
    return 1 // 0


async def test_a_defect_is_told_as_one_in_whatever_has_its_turn_but_where_a_program_is_loaded(kernel, caplog):
    async with kernel.lock():
        with pytest.raises(ShapingError, match="please report it: ZeroDivisionError"):
            await kernel.run_locked(divide)
    with pytest.raises(ShapingError, match="please report it: ZeroDivisionError"):
        await kernel.run(divide)
    assert caplog.text.count("ZeroDivisionError") >= 2
    with pytest.raises(ZeroDivisionError):
        await kernel.run_load(divide)
    with pytest.raises(ShapingError, match=r"^no$"):
        await kernel.run(raised, ShapingError("no"))
