"""Sends full packets past a Pod's filters: `python -m tests.kernel.bypass COUNT PERIOD`, the period in seconds."""

import socket
import sys
import time

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
EXPERIMENTAL = 0x88B5  # IEEE 802's ethertype for local experiments


def main(count: int, period: float) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sender.bind(("eth0", 0))
        own = sender.getsockname()[4]
        print("ready", flush=True)
        for _ in range(count):
            sender.send(b"\xff" * 6 + own + EXPERIMENTAL.to_bytes(2, "big") + bytes(1500))
            time.sleep(period)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
