"""The thread that works on the kernel: one call at a time, and what is said when one does not return."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from reconciler.kernel_work import HANGS_S, LOAD_HANGS_S, KernelWork


async def test_a_call_that_does_not_return_is_told_until_it_does():
    now, entered, release = [0.0], threading.Event(), threading.Event()

    def hang():
        entered.set()
        release.wait()
        return "done"

    with ThreadPoolExecutor(1) as executor:
        work = KernelWork(executor, lambda: now[0])
        call = asyncio.create_task(work.do(hang))
        await asyncio.to_thread(entered.wait)
        now[0] = HANGS_S - 1
        told = [work.trouble]
        now[0] = HANGS_S + 1
        told.append(work.trouble)
        release.set()
        assert await call == "done"
        told.append(work.trouble)
    assert [text and text[:38] for text in told] == [None, "the kernel has not answered for 31 s: ", None]


async def test_a_caller_that_gives_up_does_not_hide_that_its_call_hangs():
    now, entered, release = [0.0], threading.Event(), threading.Event()

    def hang():
        entered.set()
        release.wait()

    with ThreadPoolExecutor(1) as executor:
        work = KernelWork(executor, lambda: now[0])
        call = asyncio.create_task(work.do(hang))
        await asyncio.to_thread(entered.wait)
        call.cancel()
        await asyncio.wait([call])
        now[0] = HANGS_S
        assert work.trouble
        release.set()
        assert await work.do(lambda: "the next") == "the next"


async def test_a_compiler_that_takes_long_is_no_kernel_that_does_not_answer():
    now, entered, release = [0.0], threading.Event(), threading.Event()

    def compiles():
        entered.set()
        release.wait()

    with ThreadPoolExecutor(1) as executor:
        work = KernelWork(executor, lambda: now[0])
        call = asyncio.create_task(work.load(compiles))
        await asyncio.to_thread(entered.wait)
        now[0] = LOAD_HANGS_S - 1
        told = [work.trouble]
        now[0] = LOAD_HANGS_S
        told.append(work.trouble)
        release.set()
        await call
    assert [bool(text) for text in told] == [False, True]
