"""How slow a place is: the same few things timed on the machine and in the guest, in microseconds each."""

import os
import socket
import threading
import time
from collections.abc import Callable


def timed(work: Callable[[], object], times: int) -> float:
    """Microseconds of one call, the best of three rounds."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - began)
    return best / times * 1e6


def _loop() -> int:
    total = 0
    for number in range(1000):
        total += number
    return total


def _thread() -> None:
    thread = threading.Thread(target=_loop)
    thread.start()
    thread.join()


def _memory() -> bytearray:
    fresh = bytearray(1 << 20)
    fresh[:: 1 << 12] = b"\1" * (1 << 8)  # each page for the first time
    return fresh


def calibrate() -> dict[str, float]:
    """The interpreter alone, a system call, a system call that sends and receives, a thread, and fresh memory."""
    ours, theirs = socket.socketpair()

    def exchange() -> None:
        ours.send(b"x" * 1000)
        theirs.recv(1000)

    with ours, theirs:
        return {
            "python_loop": timed(_loop, 500),
            "stat": timed(lambda: os.stat("/proc/self"), 2000),  # noqa: PTH116 - the call itself is timed
            "socket_exchange": timed(exchange, 1000),
            "thread": timed(_thread, 100),
            "fresh_mebibyte": timed(_memory, 20),
        }
