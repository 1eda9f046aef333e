"""UDP in a Pod: `python -m tests.kernel.udp flood ADDRESS CPU SECONDS`, and so on.

flood: as many full packets as one CPU can send, once a line is read; prints how many. count: takes packets, and prints
the time (ns) and the bytes that eth0 has received by then, four times a second. take: likewise, but the bytes on the
wire of what reached the socket, past an ingress limit. times: prints for each packet the
kernel's receive time, and the wall and the monotonic clock when it was read (ns). many ADDRESS FLOWS MBITS SECONDS: as
many flows of full packets, so much together, once a line is read. segments ADDRESS EACH SECONDS: packets of 43 segments
(UDP_SEGMENT), of four flows, so many a second of each, once a line is read. echo SECONDS: answers. ask ADDRESS TIMES:
asks that, each time from another port; prints the ms that each answer took. later ADDRESS TIMES SECONDS: sends that
often, each time from another port, what is to leave only so many seconds later (SO_TXTIME), once a line is read.
stream ADDRESS SECONDS: sends by a connected socket, which waits while its buffer is full, once a line is read; prints
how many. serve ADDRESS CLIENTS OTHER: one socket of a server that never waits (O_NONBLOCK) answers so many clients at
one address and, after each ten, one at another; prints how many of its answers to that one the kernel would not take,
and the most bytes of its buffer that were in use. cast OWN TIMES: sends that often 100 bytes to a group of
multicast by the interface of its OWN address, once a line is read. join OWN SECONDS: is a member there; prints how
many came.
"""

import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
import time
from pathlib import Path

from tests.kernel.clock import stamped, until
from tests.kernel.frames import ETH_P_IP, NOBODY, frame

PORT = 5400
ECHO_PORT = 5401
GROUP = "239.1.1.1"
PAYLOAD = bytes(1472)  # 1514 bytes on the wire
ANSWER = bytes(58)  # 100
SO_TIMESTAMPNS = 35
SO_SNDBUFFORCE = 32
UDP_SEGMENT = 103
SEGMENTS = 43
SO_TXTIME = SCM_TXTIME = 61
RECEIVED = Path("/sys/class/net/eth0/statistics/rx_bytes")


def flood(address: str, cpu: str, seconds: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        # So much that the sender is never put to sleep until its packets have left.
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 26)
        print("ready", flush=True)
        sys.stdin.readline()
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            for _ in range(16):
                sender.sendto(PAYLOAD, (address, PORT))
            sent += 16
    print(sent)


def count(seconds: str) -> None:
    with receiver():
        print("ready", flush=True)
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            at, size = stamped(RECEIVED.read_text)
            print(at, size.strip())
            time.sleep(0.25)


def take(seconds: str) -> None:
    with receiver() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        taken.settimeout(0.05)
        print("ready", flush=True)
        deadline, size, told = time.monotonic() + float(seconds), 0, 0.0
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                size += len(taken.recv(2048)) + 42
            if time.monotonic() - told >= 0.25:
                told = time.monotonic()
                print(time.monotonic_ns(), size)


def times(seconds: str) -> None:
    with receiver() as taken:
        taken.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        taken.settimeout(0.2)
        print("ready", flush=True)
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            try:
                _, notes, _, _ = taken.recvmsg(2048, 64)
            except TimeoutError:
                continue
            whole, nanoseconds = struct.unpack("qq", notes[0][2])
            print(whole * 10**9 + nanoseconds, time.time_ns(), time.monotonic_ns())


def many(address: str, number: str, megabits: str, seconds: str) -> None:
    """By a packet socket, as packets keep their sockets on the lab's wire: of UDP's, the shaper lets few wait."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
        first.connect((address, PORT))
        first.send(PAYLOAD)
        source = socket.inet_aton(first.getsockname()[0])
        until(lambda: address in neighbours(), seconds=5)
    mac = neighbours()[address]
    packets = [frame(mac, source, address, ports=(20_000 + flow, PORT)) for flow in range(int(number))]
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind(("eth0", ETH_P_IP))
    gap_s = (len(PAYLOAD) + 42) * 8 / (float(megabits) * 1e6)
    print("ready", flush=True)
    sys.stdin.readline()
    due = time.monotonic()
    deadline = due + float(seconds)
    while due < deadline:
        for packet in packets:
            time.sleep(max(0.0, due - time.monotonic()))
            sender.send(packet)
            due += gap_s


def neighbours() -> dict[str, str]:
    rows = [line.split() for line in Path("/proc/net/arp").read_text().splitlines()[1:]]
    return {row[0]: row[3] for row in rows if row[3] != NOBODY}


def segments(address: str, each: str, seconds: str) -> None:
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    for sender in senders:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(PAYLOAD))
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 26)
        sender.setblocking(False)
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline:
        for sender in senders:
            with contextlib.suppress(OSError):  # as many as fit
                sender.sendto(SEGMENTS * PAYLOAD, (address, PORT))
        time.sleep(1 / float(each))


def echo(seconds: str) -> None:
    with receiver(ECHO_PORT) as taken:
        taken.settimeout(0.2)
        print("ready", flush=True)
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            try:
                asked, source = taken.recvfrom(2048)
            except TimeoutError:
                continue
            taken.sendto(asked, source)


def ask(address: str, number: str) -> None:
    print("ready", flush=True)
    for _ in range(int(number)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            began = time.monotonic()
            asking.sendto(b"?", (address, ECHO_PORT))
            with contextlib.suppress(TimeoutError):
                asking.recv(2048)
            print(f"{1000 * (time.monotonic() - began):.2f}")
        time.sleep(0.02)


def later(address: str, number: str, seconds: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(number)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, SO_TXTIME, struct.pack("Ii", time.CLOCK_MONOTONIC, 0))
            leaves = struct.pack("Q", time.monotonic_ns() + int(float(seconds) * 10**9))
            sender.sendmsg([PAYLOAD], [(socket.SOL_SOCKET, SCM_TXTIME, leaves)], 0, (address, PORT))


def stream(address: str, seconds: str) -> None:
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, PORT))
        print("ready", flush=True)
        sys.stdin.readline()
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            sender.send(PAYLOAD)
            sent += 1
    print(sent)


def serve(address: str, clients: str, other: str) -> None:
    refused = most = 0
    with receiver() as server:
        server.setblocking(False)
        print("ready", flush=True)
        sys.stdin.readline()
        for client in range(int(clients)):
            with contextlib.suppress(BlockingIOError):
                server.sendto(ANSWER, (address, 10_000 + client))
            if client % 10 == 9:
                try:
                    server.sendto(ANSWER, (other, ECHO_PORT))
                except BlockingIOError:
                    refused += 1
                used = fcntl.ioctl(server, termios.TIOCOUTQ, bytes(4))
                most = max(most, *struct.unpack("i", used))
                time.sleep(0.001)
    print(refused, most)


def cast(own: str, number: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(number)):
            sender.sendto(ANSWER, (GROUP, PORT))


def join(own: str, seconds: str) -> None:
    with receiver() as member:
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(own))
        member.settimeout(0.2)
        print("ready", flush=True)
        deadline, taken = time.monotonic() + float(seconds), 0
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                taken += len(member.recv(2048)) == len(ANSWER)
    print(taken)


def receiver(port: int = PORT) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", port))
    return made


if __name__ == "__main__":
    everything = (flood, count, take, times, many, segments, echo, ask, later, stream, serve, cast, join)
    {each.__name__: each for each in everything}[sys.argv[1]](*sys.argv[2:])
