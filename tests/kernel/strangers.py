"""`python -m tests.kernel.strangers WHAT ADDRESS EACH SECONDS SOURCE ...`: what strangers send a Pod, so many a second.

resets: connections to closed ports, each from a port of its own, so that the Pod's kernel sends resets. echoes: pings,
from each source in turn. refused: connections that are waited for; prints how many were refused before a second SYN.
All begin once a line is read.
"""

import contextlib
import itertools
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable

CLOSED_PORT = 9


def ask_for_reset(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.connect((address, CLOSED_PORT))


def is_refused(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(0.9)
        try:
            client.connect((address, CLOSED_PORT))
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            pass
    return False


def pinging(sources: Iterable[str]) -> Callable[[str], None]:
    pingers = []
    for source in sources:
        pinger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        pinger.bind((source, 0))
        pinger.setblocking(False)
        pingers.append(pinger)
    turns = itertools.cycle(pingers)
    head = struct.pack("!BBHI", 8, 0, 0, 1)
    echo = head[:2] + struct.pack("!H", ~(8 * 256 + 1) & 0xFFFF) + head[4:] + bytes(56)

    def ping(address: str) -> None:
        with contextlib.suppress(OSError):
            next(turns).sendto(echo, (address, 0))

    return ping


def refused(_: str, address: str, each: str, seconds: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    count = 0
    for _ in range(int(each) * int(seconds)):
        count += is_refused(address)
        time.sleep(1 / int(each))
    print(count)


def main(what: str, address: str, each: str, seconds: str, *sources: str) -> None:
    send = ask_for_reset if what == "resets" else pinging(sources)
    print("ready", flush=True)
    sys.stdin.readline()
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < float(seconds):
        while sent < passed * float(each):
            send(address)
            sent += 1
        time.sleep(0.005)
    print(sent)


if __name__ == "__main__":
    (refused if sys.argv[1] == "refused" else main)(*sys.argv[1:])
