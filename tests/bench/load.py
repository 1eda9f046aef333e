"""Senders and receivers of bulk traffic: many flows in one process each, made light for a guest with one slow CPU.

iperf3 has at most 128 flows, and copies what it receives: sendfile(2) and MSG_TRUNC (tcp(7)) spare both copies. All
processes share the kernel's monotonic clock, so they agree on when to begin, and from when to when bytes count.
"""

import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tests.bench.cells import Flows
from tests.bench.stats import BIN_NS
from tests.bench.tasks import Ready
from tests.kernel.sniff import MSS, wire_bytes

CHUNK = 1 << 18
MOST_EVENTS = 1024
DATAGRAM = 1472
WIRE_DATAGRAM = 1514
UDP_SEGMENT, UDP_GRO = 103, 104
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS, SO_MAX_PACING_RATE = 32, 33, 35, 47
_ACCEPT_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0: a struct sock_filter (linux/filter.h)
_ABORT = struct.pack("ii", 1, 0)
_DELIVERED_AT = 192  # of struct tcp_info (uapi/linux/tcp.h)


@dataclass(slots=True)
class Arrivals:
    """What came on one port. Times in ns of the monotonic clock; `marked` is what counts, by flow."""

    first_at: int = 0
    first_bytes: int = 0
    bins: dict[int, int] = field(default_factory=dict)
    marked: dict[int, int] = field(default_factory=dict)
    marked_first_at: int = 0
    marked_last_at: int = 0
    marked_first: int = 0
    marked_last: int = 0

    def add(self, flow: int, size: int, at: int, mark: tuple[int, int]) -> None:
        """Count what a flow brought."""
        if not self.first_at:
            self.first_at, self.first_bytes = at, size
        index = (at - self.first_at) // BIN_NS
        self.bins[index] = self.bins.get(index, 0) + size
        if not mark[0] <= at < mark[1]:
            return
        self.marked[flow] = self.marked.get(flow, 0) + size
        if not self.marked_first_at:
            self.marked_first_at, self.marked_first = at, size
        self.marked_last_at, self.marked_last = at, size

    @property
    def bits_per_second(self) -> float:
        """The rate between the first and the last arrival that count, each of which is half inside: at a low rate a
        big packet takes seconds, and a shaper may let it wait for its own time or the next one for it."""
        elapsed = self.marked_last_at - self.marked_first_at
        inside = sum(self.marked.values()) - (self.marked_first + self.marked_last) / 2
        return inside * 8e9 / elapsed if elapsed else 0.0

    @property
    def series(self) -> list[int]:
        """Bytes of each bin from the first arrival on."""
        return [self.bins.get(index, 0) for index in range(max(self.bins, default=-1) + 1)]


@dataclass(frozen=True, slots=True)
class Sent:
    """What a group of TCP flows got across while it counted, by flow: bytes of payload."""

    elapsed_ns: int
    delivered: list[int]

    @property
    def bits_per_second(self) -> float:
        """All together."""
        return sum(self.delivered) * 8e9 / self.elapsed_ns


def receive(
    ready: Ready, ports: Mapping[int, str], mark: tuple[int, int], pause_seconds: float, origin_ns: int = 0
) -> dict[int, Arrivals]:
    """Take all that comes on the ports ("udp" or TCP) until the mark's end. Bins count from `origin_ns` if not 0."""
    arrivals = {port: Arrivals(first_at=origin_ns) for port in ports}
    poll = select.epoll()
    listeners: dict[int, tuple[socket.socket, int]] = {}
    flows: dict[int, tuple[socket.socket, Arrivals]] = {}
    for port, kind in ports.items():
        listener = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        listener.bind(("", port))
        listener.setblocking(False)
        poll.register(listener, select.EPOLLIN)
        if kind == "udp":
            listener.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
            # By default it holds 15 ms of 100M: a receiver that the guest lets wait for longer would lose the rest.
            listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
            flows[listener.fileno()] = (listener, arrivals[port])
        else:
            listener.listen(4096)
            listeners[listener.fileno()] = (listener, port)
    ready()
    nowhere = bytearray(CHUNK)
    while (left := mark[1] - time.monotonic_ns()) > 0:
        time.sleep(pause_seconds)
        for descriptor, _ in poll.poll(left / 1e9, MOST_EVENTS):
            if descriptor in listeners:
                listener, port = listeners[descriptor]
                for accepted in _accept_all(listener):
                    poll.register(accepted, select.EPOLLIN)
                    flows[accepted.fileno()] = (accepted, arrivals[port])
                continue
            flow, counted = flows[descriptor]
            try:
                size = flow.recv_into(nowhere, CHUNK, socket.MSG_TRUNC)
            except OSError:  # the sender aborts its flows when it is done
                size = 0
            if size:
                counted.add(descriptor, size, time.monotonic_ns(), mark)
            else:
                poll.unregister(descriptor)
    return arrivals


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    accepted: list[socket.socket] = []
    while True:
        try:
            flow, _ = listener.accept()
        except BlockingIOError:
            return accepted
        flow.setblocking(False)
        accepted.append(flow)


def _delivered(flow: socket.socket) -> int:
    """Packets that the receiver has, those behind a gap included, each once (tcpi_delivered, Linux 4.18)."""
    info = flow.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DELIVERED_AT + 4)
    return int.from_bytes(info[_DELIVERED_AT : _DELIVERED_AT + 4], sys.byteorder)


def pause_seconds(flows: Iterable[Flows]) -> float:
    """How long sender and receiver sleep before each look, so that packets wake them less often: many flows, or a long
    round trip, have enough in their buffers for that, and the guest's CPU is slow at waking."""
    return 0.003 if all(each.count >= 64 or each.rtt_ms >= 10 for each in flows) else 0


def send(ready: Ready, address: str, port: int, wanted: Flows, period: tuple[int, int, int]) -> Sent:
    """TCP flows, at full speed or paced together to a rate, from a moment until another; counted from one between."""
    begin_ns, count_from_ns, until_ns = period
    source = os.memfd_create("zeros")
    os.ftruncate(source, CHUNK)
    poll = select.epoll()
    ready()
    time.sleep(max(0, begin_ns - time.monotonic_ns()) / 1e9)
    flows = {}
    for _ in range(wanted.count):
        flow = _connecting(address, port, wanted)
        flows[flow.fileno()] = flow
        poll.register(flow, select.EPOLLOUT)
    pause = pause_seconds([wanted])
    before: list[int] = []
    began = 0
    while (now := time.monotonic_ns()) < until_ns:
        if not before and now >= count_from_ns:
            began, before = now, [_delivered(flow) for flow in flows.values()]
        time.sleep(pause)
        for descriptor, _ in poll.poll(((until_ns if before else count_from_ns) - now) / 1e9, MOST_EVENTS):
            try:
                os.sendfile(descriptor, source, 0, CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                poll.unregister(descriptor)
    elapsed, after = time.monotonic_ns() - began, [_delivered(flow) for flow in flows.values()]
    for flow in flows.values():
        flow.close()
    return Sent(elapsed, [(late - early) * MSS for early, late in zip(before, after, strict=True)])


def _connecting(address: str, port: int, wanted: Flows) -> socket.socket:
    flow = socket.socket()
    flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, wanted.kind.encode())
    if wanted.bits_per_second:
        flow.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, wanted.bits_per_second // 8 // wanted.count)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    flow.setblocking(False)
    flow.connect_ex((address, port))
    return flow


def flood(ready: Ready, address: str, port: int, wanted: Flows, period: tuple[int, int, int]) -> None:
    """UDP at a rate on the wire, whatever becomes of it."""
    (begin_ns, _, until_ns), bits_per_second = period, wanted.bits_per_second
    segments = 1 if bits_per_second < 50e6 else 8 if bits_per_second < 500e6 else 32
    payload = bytes(DATAGRAM * segments)
    gap_ns = WIRE_DATAGRAM * 8 * segments * 10**9 // bits_per_second
    with socket.socket(type=socket.SOCK_DGRAM) as flow:
        flow.connect((address, port))
        flow.setblocking(False)
        flow.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 25)
        flow.setsockopt(socket.SOL_UDP, UDP_SEGMENT, DATAGRAM)
        ready()
        due = begin_ns
        while (now := time.monotonic_ns()) < until_ns:
            if due > now:
                time.sleep((due - now) / 1e9)
                continue
            due = max(due, now - 20_000_000) + gap_ns  # after a stall no more than 20 ms are made up for
            with suppress(OSError):  # dropped on the spot
                flow.send(payload)


def _sleep_until(at_ns: int) -> None:
    time.sleep(max(0, at_ns - time.monotonic_ns()) / 1e9)


def sniff(ready: Ready, device: str, address: str, period: tuple[int, int], read_at_ns: int) -> list[tuple[int, int]]:
    """Time (ns since the epoch) and wire size of each TCP packet from an address that a device sees in a period.

    The period is in ns of the monotonic clock. They are read when all is over, as that would slow the guest down.
    """
    nothing = ctypes.create_string_buffer(_ACCEPT_NOTHING)
    source = socket.inet_aton(address)
    seen: list[tuple[int, int]] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003)) as sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        sniffer.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        deaf = struct.pack("HP", 1, ctypes.addressof(nothing))
        sniffer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, deaf)
        sniffer.bind((device, 0x0003))
        ready()
        _sleep_until(period[0])
        sniffer.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        _sleep_until(period[1])
        sniffer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, deaf)
        _sleep_until(read_at_ns)
        sniffer.setblocking(False)
        while True:
            try:
                head, notes, _, _ = sniffer.recvmsg(64, 64, socket.MSG_TRUNC)
            except BlockingIOError:
                return seen
            if head[12:14] == b"\x08\x00" and head[26:30] == source and head[23] == socket.IPPROTO_TCP:
                seconds, nanoseconds = struct.unpack("qq", notes[0][2])
                (total,) = struct.unpack("!H", head[16:18])
                seen.append((seconds * 10**9 + nanoseconds, wire_bytes(total + 14)))
