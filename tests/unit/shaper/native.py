"""The shaper as a program of this machine, with a clock that stands until it is set: what it does to the nanosecond.

The same source as the kernel's, compiled by gcc. That the kernel's verifier takes it, and what fq makes of its stamps,
is for tests/kernel to show.
"""

import ctypes
import functools
import hashlib
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from reconciler.kernel import buckets
from reconciler.model import LimitEntry
from webhook.common.contract import Direction, Quantity

HERE: Final = Path(__file__).parent
SOURCE: Final = Path(buckets.__file__).with_name("shaper.c")
BUILT: Final = HERE.parents[2] / "build" / "shaper"
SLOT: Final = 1
IPV4: Final = 0x0800
ARP: Final = 0x0806
SECOND: Final = 1_000_000_000
MILLISECOND: Final = 1_000_000
_BEGIN: Final = 1_000 * SECOND
_HEADERS: Final = 66  # of a segment of TCP: Ethernet, IPv4, and timestamps
_PASS: Final = -1


class Socket(ctypes.Structure):
    """The socket that a packet is charged to: on egress one of the Pod or the node, on ingress of another Pod."""

    _fields_ = (("family", ctypes.c_uint32), ("type", ctypes.c_uint32), ("state", ctypes.c_uint32))


_ESTABLISHED: Final = 1
_CLOSE: Final = 7
"""The kernel's names are TCP's, for sockets of all types."""
UDP_SOCKET: Final = Socket(socket.AF_INET, socket.SOCK_DGRAM, _CLOSE)
CONNECTED_UDP_SOCKET: Final = Socket(socket.AF_INET, socket.SOCK_DGRAM, _ESTABLISHED)
TCP_SOCKET: Final = Socket(socket.AF_INET, socket.SOCK_STREAM, _ESTABLISHED)
CLOSED_TCP_SOCKET: Final = Socket(socket.AF_INET, socket.SOCK_STREAM, _CLOSE)
RAW_SOCKET: Final = Socket(socket.AF_INET, socket.SOCK_RAW, _CLOSE)
"""Also the kernel's own, for resets and ICMP."""
CONNECTED_RAW_SOCKET: Final = Socket(socket.AF_INET, socket.SOCK_RAW, _ESTABLISHED)
PACKET_SOCKET: Final = Socket(socket.AF_PACKET, socket.SOCK_RAW, _CLOSE)
TAP_SOCKET: Final = Socket(socket.AF_UNSPEC, socket.SOCK_RAW, _CLOSE)
"""Of a tap's queue, such as a virtual machine's (drivers/net/tap.c)."""


class _Packet(ctypes.Structure):
    _fields_ = (
        ("tstamp", ctypes.c_uint64),
        ("sk", ctypes.POINTER(Socket)),
        *((name, ctypes.c_uint32) for name in ("tc_classid", "len", "wire_len", "protocol", "hash")),
        *((name, ctypes.c_uint32) for name in ("gso_segs", "gso_size", "may_mark", "marked")),
    )


class Fate(NamedTuple):
    """What became of a packet: None in `wait_ns` when it was dropped, else how long it waits."""

    wait_ns: int | None
    marked: bool


@functools.cache
def _built() -> Path:
    stubs = HERE / "stubs.h"
    digest = hashlib.sha256(SOURCE.read_bytes() + stubs.read_bytes()).hexdigest()[:16]
    library = BUILT / f"{digest}.so"
    if not library.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        options = ("-O1", "-shared", "-fPIC", "-Werror", "-Wno-unknown-pragmas", "-DENTRIES=4", "-DSHAPER_NAME=shaper")
        subprocess.run(["gcc", *options, "-include", stubs, SOURCE, "-o", library], check=True)
    return library


class Native:
    """One slot's two buckets, and a clock in ns."""

    def __init__(self, limit: str, direction: Direction = Direction.EGRESS) -> None:
        self._library = ctypes.CDLL(str(_built()))
        self._bucket = 2 * SLOT + (direction is Direction.INGRESS)
        # The library is loaded once: what another test left.
        size = ctypes.c_size_t.in_dll(self._library, "state_bytes").value
        assert size == buckets.STATE_BYTES
        ctypes.memset(self._place("state_entries", size), 0, size)
        self._call: object = None
        self.now = _BEGIN
        self.limit(limit)

    def _place(self, name: str, size: int) -> int:
        return ctypes.addressof(ctypes.c_char.in_dll(self._library, name)) + self._bucket * size

    def limit(self, text: str) -> None:
        """Write another limit."""
        self.bits_per_second = Quantity.parse(text).bits_per_second
        entry = LimitEntry(self.bits_per_second, 1, "uid", 1)
        value = buckets.encode_limit(entry)
        assert len(value) == ctypes.c_size_t.in_dll(self._library, "limits_bytes").value
        ctypes.memmove(self._place("limits_entries", len(value)), value, len(value))

    def send(
        self,
        length: int = 1514,
        flow: int = 1,
        *,
        wire: int | None = None,
        ethertype: int = IPV4,
        stamp: int = 0,
        may_mark: bool = False,
        segments: int = 1,
        of: Socket | None = None,
    ) -> Fate:
        """One packet at this moment: `wire` bytes with the headers of its segments, and its sender's own stamp.

        The kernel says 0 `segments` of one that is not to be cut. What came by a wire is `of` no socket.
        """
        self._library.set_clock(ctypes.c_uint64(self.now))
        head = (stamp, of and ctypes.pointer(of), self._bucket, length, wire or length, ethertype, _hash(flow))
        packet = _Packet(*head, segments, max(1, length // segments - _HEADERS) if segments > 1 else 0, may_mark, 0)
        verdict = ctypes.c_int(self._library.shaper(ctypes.byref(packet))).value
        leaves = max(packet.tstamp, self.now)
        return Fate(leaves - self.now if verdict == _PASS else None, bool(packet.marked))

    def send_at_once(self, cpus: Sequence[int], number: int, length: int, *, may_mark: bool = False) -> tuple[int, int]:
        """So many packets of each of these CPUs at this moment, a flow each: how many pass, and how many are marked."""
        self._library.set_clock(ctypes.c_uint64(self.now))
        send_many = self._library.send_many  # ctypes lets go of Python's lock meanwhile
        send_many.restype = ctypes.c_uint64

        def of_one(cpu: int) -> tuple[int, int]:
            os.sched_setaffinity(0, {cpu})  # of this thread
            packet = _Packet(0, None, self._bucket, length, length, IPV4, _hash(1 + cpu), 1, 0, may_mark, 0)
            marked = ctypes.c_uint64()
            passed = send_many(ctypes.byref(packet), len(cpus), ctypes.c_uint64(number), ctypes.byref(marked))
            return passed, marked.value

        with ThreadPoolExecutor(len(cpus)) as pool:
            passed, marked = zip(*pool.map(of_one, cpus), strict=True)
        return sum(passed), sum(marked)

    def meanwhile(self, call: Callable[[], None]) -> None:
        """Have other CPUs do this while the next packet is on its way through the program."""
        self._call = ctypes.CFUNCTYPE(None)(call)
        self._library.set_meanwhile(self._call)

    def counters(self) -> buckets.Counters:
        """What it counted."""
        return buckets.decode_counters(self._head())

    @property
    def queue_ns(self) -> int:
        """How long a packet of a bulk flow would wait, as the metrics say it."""
        return buckets.queue_ns(self._head(), self.bits_per_second, self.now)

    def _head(self) -> bytes:
        return ctypes.string_at(self._place("state_entries", buckets.STATE_BYTES), buckets.STATE_BYTES)


def _hash(flow: int) -> int:
    """As spread as the kernel's."""
    return (flow * 0x9E3779B1) & 0xFFFFFFFF
