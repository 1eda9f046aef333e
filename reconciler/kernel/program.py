"""The shaper's program and its two maps: loaded by a child, or adopted from the filters that hold them.

A loaded program is identified by name: the function's name has a hash of the source and the number of slots, so a
restarted reconciler knows whether the running program is the one it would load itself. Names are anybody's: that it is
one of ours is known from the record of those we loaded (`reconciler.program_record`). The variant (`compile.py`) is
not in the name: it depends on the kernel alone, and is always the same on a kernel.
"""

import errno
import functools
import hashlib
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from reconciler.kernel import buckets
from reconciler.kernel.apply import AttachedProgram
from reconciler.kernel.bpf import BPF_MAP_TYPE_ARRAY, INDEX_BYTES, Bpf, LoadedProgram, MapInfo
from reconciler.kernel.compile import HEADERS_PREFIX, MAPS, PLAIN_WRITE, source
from reconciler.kernel.errors import KernelLacksError, ShapingError
from reconciler.model import FILTER_NAME_PREFIX, LimitEntry

logger = logging.getLogger(__name__)
# It takes 2 s of a CPU, and a slow one's twentieth or less is all that it may get on a node that is saturated: given up
# early, it would never be done there.
COMPILE_CPU_SECONDS: Final = 120
COMPILE_TIMEOUT_SECONDS: Final = 600
_ASK_AGAIN_SECONDS: Final = 0.2
# What an event has room for beside our own words; the cause stands at the end.
_MESSAGE_BYTES: Final = 700
_FUNCTION_PREFIX: Final = "ivbw_"
_MOST_ENTRIES: Final = 1 << 16
"""A filter's class id, which is the index of an entry, reaches the program as 16 bits."""
_VALUE_BYTES: Final[Mapping[str, int]] = {"limits": buckets.LIMIT_BYTES, "state": buckets.STATE_BYTES}


@functools.cache
def identity(slots: int) -> str:
    """Ten hexadecimal digits that identify the program of this version for a number of slots."""
    return hashlib.sha256(f"{slots}\n{source()}".encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class Program:
    """The loaded program. Its descriptors live until `close`; the filters hold program and maps beyond that."""

    bpf: Bpf
    slots: int
    program_id: int
    descriptor: int
    limits: int
    state: int | None
    """None for another version's program whose state has a different layout."""
    written: bytearray = field(repr=False, compare=False)
    """What the limits map should hold: its contents when found, with what we have written since.

    Empty for a program that was taken with any number of slots: a Pod may bring thousands of them.
    """

    @classmethod
    def load(cls, slots: int, *, is_over: Callable[[], bool] = lambda: False) -> Self:
        """Compile and load in a child. Raises ShapingError or KernelLacksError with what bcc or the kernel said.

        The child is killed when `is_over` is true, which is polled.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            failure = _run_child(theirs, slots, is_over)
            ours.setblocking(False)
            try:
                variant, descriptors, _, _ = socket.recv_fds(ours, 16, 1 + len(MAPS))
            except OSError:
                variant, descriptors = b"", []
        with ExitStack() as opened:  # loading is retried: do not leak descriptors
            for descriptor in descriptors:
                opened.callback(os.close, descriptor)
                os.set_inheritable(descriptor, False)
            if len(descriptors) != 1 + len(MAPS):
                raise _load_error(failure)
            if variant == PLAIN_WRITE:
                logger.warning(
                    "this kernel has no bpf_skb_set_tstamp (Linux 5.18): packets that waited for an ingress limit"
                    " carry wrong receive times (SO_TIMESTAMP) in their Pods"
                )
            bpf = Bpf()
            program, limits, state = descriptors
            nothing = bytearray(_entries(slots) * buckets.LIMIT_BYTES)
            loaded = cls(bpf, slots, bpf.program_info(program).loaded.program_id, program, limits, state, nothing)
            opened.pop_all()
            return loaded

    @classmethod
    def adopt(cls, program_id: int, slots: int | None = None, recorded: Container[LoadedProgram] = ()) -> Self | None:
        """A program that a filter holds; None if it is not this version's, or not one of those `recorded`.

        `slots` None: recorded or not, with any number of slots, and of any version whose limits can be read, as it may
        be the Pod's own. Raises OSError when the limits cannot be read at the moment.
        """
        bpf = Bpf()
        with ExitStack() as opened:  # adopting is retried: do not leak descriptors
            try:
                descriptor = bpf.program_by_id(program_id)
            except OSError:
                return None
            opened.callback(os.close, descriptor)
            try:
                maps = _adopted_maps(bpf, descriptor, slots, recorded, opened)
            except OSError as error:
                logger.warning("the maps of program %d cannot be read: %s", program_id, error.strerror)
                return None
            if maps is None:
                return None
            found = bpf.map_info(maps["limits"]).entries // 2 - 1
            held = bpf.lookup_all(maps["limits"], _entries(found), buckets.LIMIT_BYTES) if slots else b""
            opened.pop_all()
            return cls(bpf, found, program_id, descriptor, maps["limits"], maps.get("state"), bytearray(held))

    @property
    def attached(self) -> AttachedProgram:
        """The program as filters name it."""
        return AttachedProgram(self.descriptor, FILTER_NAME_PREFIX + identity(self.slots))

    def read_limit(self, class_id: int) -> LimitEntry | None:
        """The limit of a bucket; None when its slot is free."""
        value = self.bpf.lookup(self.limits, class_id, buckets.LIMIT_BYTES)
        entry = buckets.decode_limit(value)
        return entry if entry is None or _is_exact(entry, value) else replace(entry, is_exact=False)

    def write_limit(self, class_id: int, entry: LimitEntry | None) -> None:
        """Write or clear the limit of a bucket."""
        value = buckets.EMPTY_LIMIT if entry is None else buckets.encode_limit(entry)
        self.bpf.update(self.limits, class_id, value)
        if self.written:
            self.written[class_id * buckets.LIMIT_BYTES : (class_id + 1) * buckets.LIMIT_BYTES] = value

    def altered(self) -> set[int]:
        """The buckets whose limit was overwritten by others. Writes to maps send no notification."""
        held = self.bpf.lookup_all(self.limits, _entries(self.slots), buckets.LIMIT_BYTES)
        if held == self.written:
            return set()
        size = buckets.LIMIT_BYTES
        places = ((class_id, slice(class_id * size, (class_id + 1) * size)) for class_id in range(len(held) // size))
        return {class_id for class_id, place in places if held[place] != self.written[place]}

    def read_counters(self, class_id: int) -> buckets.Counters:
        """What the shaper counted in a bucket."""
        return buckets.decode_counters(self.read_state(class_id))

    def read_figures(self, class_id: int, bits_per_second: int) -> tuple[buckets.Counters, int]:
        """The counters of a bucket, and how many ns a packet of a bulk flow would wait if it came now, at this limit.

        The shaper's clock is CLOCK_MONOTONIC.
        """
        state = self.read_state(class_id)
        return buckets.decode_counters(state), buckets.queue_ns(state, bits_per_second, time.monotonic_ns())

    def read_state(self, class_id: int) -> bytes:
        """All that the shaper keeps for a bucket. Raises OSError also if another version keeps it in its own layout."""
        return self.bpf.lookup(self._known_state(), class_id, buckets.STATE_BYTES)

    def write_state(self, class_id: int, state: bytes) -> None:
        """Write a bucket's state: only if no filter leads to it yet, as the shaper writes it without a lock."""
        self.bpf.update(self._known_state(), class_id, state)

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in (self.descriptor, self.limits, self.state):
            if descriptor is not None:
                os.close(descriptor)

    def _known_state(self) -> int:
        if self.state is None:
            raise OSError(errno.ENOTSUP, "what it keeps of a Pod's packets is another version's")
        return self.state


def _entries(slots: int) -> int:
    """How many entries the maps have: two a slot, and slot 0 stays unused."""
    return 2 * (slots + 1)


def _is_exact(entry: LimitEntry, value: bytes) -> bool:
    """Whether an entry is what we would write for its rate. An entry written by others may have an invalid rate."""
    return buckets.is_rate(entry.bits_per_second) and buckets.encode_limit(entry) == value


def _function_name(slots: int) -> str:
    return _FUNCTION_PREFIX + identity(slots)


def _run_child(channel: socket.socket, slots: int, is_over: Callable[[], bool]) -> str:
    """Run the compiler. Returns what it said on standard error."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "reconciler.kernel.compile"]
    with subprocess.Popen(  # noqa: S603 - our own module
        [*command, str(channel.fileno()), _function_name(slots), str(_entries(slots))],
        pass_fds=[channel.fileno()],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            _bound(child)
            return _said(child, is_over)
        finally:
            child.kill()  # does nothing to one that has ended


def _bound(child: subprocess.Popen[bytes]) -> None:
    """From here, as no code may run between fork and exec where there are threads. SIGXCPU is to leave no core file."""
    with suppress(OSError):  # it is forbidden to: the bound of time holds all the same
        resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(child.pid, resource.RLIMIT_CPU, (COMPILE_CPU_SECONDS, COMPILE_CPU_SECONDS + 1))


def _said(child: subprocess.Popen[bytes], is_over: Callable[[], bool]) -> str:
    until_s = time.monotonic() + COMPILE_TIMEOUT_SECONDS
    while not is_over():
        with suppress(subprocess.TimeoutExpired):
            said = child.communicate(timeout=_ASK_AGAIN_SECONDS)[1].decode(errors="replace")
            if child.returncode == -signal.SIGXCPU:
                return f"not done after {COMPILE_CPU_SECONDS} s of CPU time"
            if child.returncode == -signal.SIGKILL:
                return "killed: if for want of memory, raise the container's limit (it needs more with more --slots)"
            return said
        if time.monotonic() > until_s:
            return f"not done after {COMPILE_TIMEOUT_SECONDS} s"
    return "stopped, as the reconciler ends"


def _load_error(failure: str) -> ShapingError:
    # The compiler names its headers' folder, which differs each time: a repeated message must stay recognizable.
    failure = re.sub(rf"{re.escape(HEADERS_PREFIX)}\w+", HEADERS_PREFIX, failure)
    said = " ".join(failure.split())[-_MESSAGE_BYTES:] or "it said nothing"
    if "No module named 'bcc'" in failure:
        return ShapingError("cannot compile the shaper: Python has no module bcc; install Debian's python3-bpfcc")
    if "could not open bpf map" in failure and "Operation not permitted" in failure:
        return ShapingError(
            "the kernel does not let us make the shaper's maps; give CAP_SYS_ADMIN, and before Linux 5.11, where maps"
            f" count against RLIMIT_MEMLOCK, CAP_SYS_RESOURCE too: {said}"
        )
    if "Operation not permitted" in failure:
        return ShapingError(f"the kernel does not let us load the shaper; give CAP_SYS_ADMIN and CAP_NET_ADMIN: {said}")
    if "Function not implemented" in failure:
        return KernelLacksError("CONFIG_BPF_SYSCALL", f"cannot load the shaper: {said}")
    return ShapingError(f"cannot compile or load the shaper: {said}")


def _has_our_layout(held: MapInfo) -> bool:
    """Whether a map is as we make it: names are anybody's, as a Pod may load programs of its own (CAP_BPF)."""
    array = (held.kind, held.key_bytes) == (BPF_MAP_TYPE_ARRAY, INDEX_BYTES)
    return array and held.entries <= _MOST_ENTRIES and _VALUE_BYTES.get(held.name) == held.value_bytes


def _adopted_maps(
    bpf: Bpf, descriptor: int, slots: int | None, recorded: Container[LoadedProgram], kept: ExitStack
) -> dict[str, int] | None:
    """Descriptors, by name, of the program's maps that have the layout we know; `kept` closes them.

    None if it is not our program, or lacks one of them; for another version the limits map is enough.
    """
    info = bpf.program_info(descriptor)
    if not info.name.startswith(_function_name(slots) if slots else _FUNCTION_PREFIX):
        return None
    if slots and info.loaded not in recorded:
        logger.warning("program %d has our name, but no reconciler recorded it: it is replaced", info.loaded.program_id)
        return None
    found: dict[str, int] = {}
    with ExitStack() as opened:
        for map_id in info.map_ids:
            map_descriptor = bpf.map_by_id(map_id)
            opened.callback(os.close, map_descriptor)
            map_info = bpf.map_info(map_descriptor)
            if _has_our_layout(map_info):
                found[map_info.name] = map_descriptor
        if not found.keys() >= {*(MAPS if slots else ("limits",))}:
            return None
        for name, map_descriptor in found.items():
            found[name] = os.dup(map_descriptor)
            kept.callback(os.close, found[name])
        return found
