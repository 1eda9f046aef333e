"""UDP in a Pod: `python -m tests.kernel.udp flood ADDRESS CPU SECONDS`, `... count SECONDS` and `... times SECONDS`.

flood: as many full packets as one CPU can send, once a line is read; prints how many. count: takes packets, and prints
the time (ns) and the bytes that eth0 has received by then, four times a second. times: prints for each packet the
kernel's receive time, and the wall and the monotonic clock when it was read (ns).
"""

import os
import socket
import struct
import sys
import time
from pathlib import Path

PORT = 5400
PAYLOAD = bytes(1472)  # 1514 bytes on the wire
SO_TIMESTAMPNS = 35
SO_SNDBUFFORCE = 32
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
            print(time.monotonic_ns(), RECEIVED.read_text().strip())
            time.sleep(0.25)


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


def receiver() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", PORT))
    return made


if __name__ == "__main__":
    {"flood": flood, "count": count, "times": times}[sys.argv[1]](*sys.argv[2:])
