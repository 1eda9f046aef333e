"""`python -m tests.bench.cost_run PROGRAM BUCKETS`: loads one instrumented program, times it; JSON on standard output.

Runs in the folder that `cost.py` made: `reconciler` is its copy there.
"""

import ctypes
import json
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from reconciler.kernel.program import Program
from reconciler.model import LimitEntry
from tests.bench import edt

RUNS = 9
IDLE_REPEATS, BACKLOG_REPEATS = 300_000, 15_000
IDLE_BITS = 10**15
# 0.15 us a packet over all buckets together: 15,000 packets make a queue of 2 ms at most, too short for any signal.
BACKLOG_BITS = 80 * 10**9
SLOTS = 1024
_BPF, _PROG_TEST_RUN, _SHOT = 321, 10, 2
_PACKET_BYTES = 1514
_MARK = struct.Struct("=8xI")  # the head of struct __sk_buff


class _Attributes(ctypes.Structure):
    """The part of union bpf_attr (bpf(2)) that BPF_PROG_TEST_RUN has."""

    _fields_ = (
        ("descriptor", ctypes.c_uint32),
        ("returned", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


def packet() -> bytes:
    """A full TCP packet over IPv4."""
    ethernet = bytes(12) + b"\x08\x00"
    addresses = socket.inet_aton("172.51.0.101") + socket.inet_aton("172.51.0.100")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, _PACKET_BYTES - 14, 0, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    tcp = struct.pack("!HHIIBBHHH", 1024, 5201, 0, 0, 0x50, 0x10, 65535, 0, 0)
    return (ethernet + ip + tcp).ljust(_PACKET_BYTES, b"\0")


def nanoseconds(descriptor: int, repeat: int) -> int:
    """The mean of a number of runs."""
    data, context = packet(), _MARK.pack(2)
    data_buffer = ctypes.create_string_buffer(data, len(data))
    context_buffer = ctypes.create_string_buffer(context, len(context))
    attributes = _Attributes(
        descriptor=descriptor,
        data_size_in=len(data),
        data_in=ctypes.addressof(data_buffer),
        repeat=repeat,
        ctx_size_in=len(context),
        ctx_in=ctypes.addressof(context_buffer),
    )
    library = ctypes.CDLL(None, use_errno=True)
    failed = library.syscall(_BPF, _PROG_TEST_RUN, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if failed:
        raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
    assert attributes.returned != _SHOT, "the last packet was dropped: this is not the path that was meant"
    return int(attributes.duration)


def loaded(name: str) -> tuple[int, Callable[[int, int], None]]:
    """A program's descriptor, and what sets the limit of an entry and empties its queue."""
    if name == "ours":
        program = Program.load(SLOTS)
        generations = iter(range(1, sys.maxsize))

        def write(entry: int, bits: int) -> None:
            program.write_limit(entry, LimitEntry(bits, next(generations), "bench", 1))

        return program.descriptor, write
    module, (descriptor,) = edt.load(Path(f"{name}.c").absolute().read_text(), (name,), 2 * SLOTS + 2)
    if name == "empty":
        return descriptor, lambda _entry, _bits: None
    timelines = module[b"timelines"].get_fd()
    KEPT.append(module)  # it closes its descriptors when it goes
    return descriptor, lambda entry, bits: edt.write(timelines, entry, bits)


KEPT: list[object] = []


def main(name: str, buckets: int) -> None:
    folder = Path.cwd()
    descriptor, write = loaded(name)
    assert folder.exists()
    times: dict[str, list[int]] = {"idle": [], "backlog": []}
    for _ in range(RUNS):
        for state, bits, repeats in (
            ("idle", IDLE_BITS, IDLE_REPEATS),
            ("backlog", BACKLOG_BITS // buckets, BACKLOG_REPEATS),
        ):
            for bucket in range(buckets):
                write(2 * (1 + bucket), bits)
            times[state].append(nanoseconds(descriptor, repeats))
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
