"""Probes of latency and what answers them: ping, a request like DNS over UDP, and a fetch of 10 kB over fresh TCP.

Times end when the kernel received the answer (SO_TIMESTAMPNS), so no wake-up of the prober counts. Probes are sent at
random intervals around their mean, so that they fall in step with nothing, and from many addresses: a shaper that
hashes flows lets some of them share the place of a bulk flow, and one address would show that never or always. (Of a
ping the kernel hashes only the addresses: skb_get_hash.)
"""

import random
import select
import socket
import struct
import time
from contextlib import suppress

from tests.bench.load import SO_TIMESTAMPNS
from tests.bench.tasks import Ready, at_once

UDP_PORT, TCP_PORT = 5353, 8080
REQUEST_BYTES, RESPONSE_BYTES, PAGE_BYTES = 40, 120, 10_000
PING_SECONDS, DNS_SECONDS, FETCH_SECONDS = 0.01, 0.025, 0.15
LAST_ANSWERS_SECONDS = 1.0
FIRST_ADDRESSES_SECONDS = 0.2
_ECHO_REQUEST, _ECHO_REPLY, _IP_HEADER = 8, 0, 20

Times = list[tuple[int, float | None]]
"""When each probe was sent (ns, CLOCK_REALTIME), and how many ms its answer took; None: no answer."""


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


def _echo_request(identifier: int, sequence: int) -> bytes:
    payload = bytes(56)
    unsummed = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, _checksum(unsummed), identifier, sequence) + payload


def _received_at(notes: list[tuple[int, int, bytes]]) -> int:
    seconds, nanoseconds = struct.unpack("qq", notes[0][2])
    return int(seconds) * 10**9 + int(nanoseconds)


class _Probe:
    """One kind of probe: what was sent, what came back."""

    def __init__(self, kind: tuple[int, int], sources: list[str], target: tuple[str, int], mean_seconds: float) -> None:
        self.flows = [socket.socket(socket.AF_INET, *kind) for _ in sources]
        for flow, source in zip(self.flows, sources, strict=True):
            flow.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            flow.setblocking(False)
            flow.bind((source, 0))
            flow.connect(target)
        self.sent: list[int] = []
        self.answered: dict[int, float] = {}
        self.due = 0.0
        self._mean = mean_seconds

    def request(self, sequence: int) -> bytes:
        return struct.pack("!I", sequence) + bytes(REQUEST_BYTES - 4)

    def sequence_of(self, answer: bytes) -> int | None:
        return int(struct.unpack("!I", answer[:4])[0])

    def send(self, now: float) -> None:
        self.due = max(self.due, now - self._mean) + self._mean * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        packet = self.request(len(self.sent))
        self.sent.append(time.clock_gettime_ns(time.CLOCK_REALTIME))
        with suppress(OSError):  # it counts as lost
            self.flows[len(self.sent) % len(self.flows)].send(packet)

    def receive(self, flow: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionError):
            answer, notes, _, _ = flow.recvmsg(2048, 64)
            sequence = self.sequence_of(answer)
            if sequence is not None and sequence < len(self.sent):
                self.answered.setdefault(sequence, (_received_at(notes) - self.sent[sequence]) / 1e6)

    def times(self) -> Times:
        return [(at, self.answered.get(sequence)) for sequence, at in enumerate(self.sent)]


class _Ping(_Probe):
    identifier = 0

    def request(self, sequence: int) -> bytes:
        return _echo_request(self.identifier, sequence)

    def sequence_of(self, answer: bytes) -> int | None:
        kind, _, _, identifier, sequence = struct.unpack("!BBHHH", answer[_IP_HEADER : _IP_HEADER + 8])
        return int(sequence) if kind == _ECHO_REPLY and identifier == self.identifier else None

    def meet(self) -> None:
        """Let the other end learn the link addresses of all sources, which takes it a round trip for each."""
        for flow in self.flows:
            flow.send(_echo_request(self.identifier ^ 1, 0))
        time.sleep(FIRST_ADDRESSES_SECONDS)


def probe(ready: Ready, sources: list[str], address: str, begin_ns: int, until_ns: int) -> dict[str, Times]:
    """Ping and ask between two moments of the monotonic clock."""
    at_once()
    ping = _Ping((socket.SOCK_RAW, socket.IPPROTO_ICMP), sources, (address, 0), PING_SECONDS)
    ping.identifier = random.getrandbits(16)
    ping.meet()
    dns = _Probe((socket.SOCK_DGRAM, 0), sources, (address, UDP_PORT), DNS_SECONDS)
    poll = select.epoll()
    owners = {flow.fileno(): (each, flow) for each in (ping, dns) for flow in each.flows}
    for descriptor in owners:
        poll.register(descriptor, select.EPOLLIN)
    ready()
    time.sleep(max(0, begin_ns - time.monotonic_ns()) / 1e9)
    until = until_ns / 1e9
    ping.due = dns.due = time.monotonic()
    while (now := time.monotonic()) < until + LAST_ANSWERS_SECONDS:
        if now < until:
            for each in (ping, dns):
                if each.due <= now:
                    each.send(now)
            timeout = min(ping.due, dns.due) - now
        else:
            if len(ping.answered) + len(dns.answered) == len(ping.sent) + len(dns.sent):
                break
            timeout = 0.05
        for descriptor, _ in poll.poll(max(0, timeout)):
            each, flow = owners[descriptor]
            each.receive(flow)
    return {"ping": ping.times(), "dns": dns.times()}


def fetch(ready: Ready, address: str, begin_ns: int, until_ns: int) -> Times:
    """Connect, ask, and read 10 kB to the end, one after the other; the time of all that."""
    at_once()
    ready()
    time.sleep(max(0, begin_ns - time.monotonic_ns()) / 1e9)
    times: Times = []
    while time.monotonic_ns() < until_ns:
        at, began = time.clock_gettime_ns(time.CLOCK_REALTIME), time.monotonic_ns()
        answered = False
        with suppress(OSError), socket.socket() as flow:
            flow.settimeout(LAST_ANSWERS_SECONDS)
            flow.connect((address, TCP_PORT))
            flow.sendall(bytes(REQUEST_BYTES))
            left = PAGE_BYTES
            while left > 0 and (part := flow.recv(left)):
                left -= len(part)
            answered = left == 0
        took = (time.monotonic_ns() - began) / 1e6
        times.append((at, took if answered else None))
        pause = FETCH_SECONDS * random.uniform(0.5, 1.5) - took / 1e3  # noqa: S311 - no secret
        time.sleep(max(0.01, pause))
    return times


def serve(ready: Ready) -> None:
    """Answer requests until killed."""
    at_once()
    poll = select.epoll()
    dns = socket.socket(type=socket.SOCK_DGRAM)
    dns.bind(("", UDP_PORT))
    web = socket.socket()
    web.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    web.bind(("", TCP_PORT))
    web.listen(256)
    for each in (dns, web):
        each.setblocking(False)
        poll.register(each, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    page = bytes(PAGE_BYTES)
    ready()
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == dns.fileno():
                request, sender = dns.recvfrom(2048)
                dns.sendto(request[:4] + bytes(RESPONSE_BYTES - 4), sender)
            elif descriptor == web.fileno():
                client, _ = web.accept()
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
            else:
                client = clients.pop(descriptor)
                poll.unregister(descriptor)
                with suppress(OSError):
                    client.recv(REQUEST_BYTES)
                    client.sendall(page)
                client.close()
