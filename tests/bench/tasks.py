"""Functions that run in a Pod's network namespace, each in a forked process, and what they return."""

import ctypes
import gc
import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kernel.lab import Pod

_CLONE_NEWNET = 0x40000000
_READY = b"\x01"
Ready = Callable[[], None]


def at_once(process: int = 0) -> None:
    """Let a process run whenever it can: what else the guest's one CPU has to do is no matter of the shaper."""
    os.sched_setscheduler(process, os.SCHED_FIFO, os.sched_param(10))


class Task:
    """A function at work in a Pod. It gets, before its own arguments, a function to call when it is ready."""

    def __init__(self, pod: Pod, function: Callable[..., Any], *arguments: Any) -> None:
        self._name = f"{function.__name__} in {pod.name}"
        self._results, ours = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._results)
            _child(pod, ours, function, arguments)
        os.close(ours)

    def ready(self, timeout: float = 20) -> "Task":
        """Wait until the function says so."""
        assert select.select([self._results], [], [], timeout)[0], f"{self._name} does not get ready"
        said = os.read(self._results, 1)
        assert said == _READY, f"{self._name} failed: {self._drained(said).decode(errors='replace')}"
        return self

    def result(self, timeout: float = 60) -> Any:
        """What the function returned."""
        deadline = time.monotonic() + timeout
        received = b""
        while select.select([self._results], [], [], max(0, deadline - time.monotonic()))[0]:
            part = os.read(self._results, 1 << 16)
            if not part:
                break
            received += part
        else:
            self.stop()
            raise AssertionError(f"{self._name} does not end")
        self.stop()
        good, value = pickle.loads(received.lstrip(_READY)) if received else (False, "it died")  # noqa: S301 - our own
        assert good, f"{self._name} failed: {value}"
        return value

    def stop(self) -> None:
        """End the process."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._results)
            self._pid = 0

    def _drained(self, said: bytes) -> bytes:
        while part := os.read(self._results, 1 << 16):
            said += part
        return said


def _child(pod: Pod, channel: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Never returns."""
    status = 1
    try:
        gc.disable()  # no pauses while measuring
        with Path(pod.netns).open("rb") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET) == 0, "setns failed"
        answer = (True, function(lambda: os.write(channel, _READY), *arguments))
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent
        answer = (False, traceback.format_exc())
    try:
        left = pickle.dumps(answer)
        while left:
            left = left[os.write(channel, left) :]
    finally:
        os._exit(status)
