"""`python -m tests.kernel.sniff ADDRESS SECONDS [LINK]`: time (ns), wire size and length of packets from an address.

On the wire, segments that are joined in one packet had headers of their own.
"""

import socket
import struct
import sys
import time

MSS = 1448
HEADERS = 66
SO_TIMESTAMPNS = 35


def wire_bytes(length: int) -> int:
    """Bytes on the wire of a TCP packet of this length, Ethernet header included."""
    payload = max(length - HEADERS, 0)
    return payload + HEADERS * max(1, -(-payload // MSS))


def main() -> None:
    source = socket.inet_aton(sys.argv[1])
    deadline = time.monotonic() + float(sys.argv[2])
    seen: list[tuple[int, int, int]] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003)) as sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        sniffer.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sniffer.settimeout(0.5)
        if sys.argv[3:]:
            sniffer.bind((sys.argv[3], 0x0003))
        print("ready", flush=True)
        while time.monotonic() < deadline:
            try:
                head, notes, _, _ = sniffer.recvmsg(64, 64, socket.MSG_TRUNC)
            except TimeoutError:
                continue
            seconds, nanoseconds = struct.unpack("qq", notes[0][2])  # when the kernel received it, not when we woke up
            at = seconds * 10**9 + nanoseconds
            if head[12:14] == b"\x08\x00" and head[26:30] == source:
                (total,) = struct.unpack("!H", head[16:18])
                seen.append((at, wire_bytes(total + 14), total + 14))
    sys.stdout.write("".join(f"{at} {size} {length}\n" for at, size, length in seen))


if __name__ == "__main__":
    main()
