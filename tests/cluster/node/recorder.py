"""Records when the packets of each IPv4 source leave an interface, until standard input ends: `recorder.py INTERFACE`.

Runs on a node, with the standard library alone. Prints JSON: {source: [[milliseconds, bytes on the wire], ...]}, the
times from the kernel's own stamps. A packet that leaves as one but will be cut into segments (GSO) counts the headers
of each segment, as the link does.
"""

import collections
import json
import socket
import struct
import sys
import threading

ETH_P_ALL = 3
ETHERNET_HEADER = 14
MTU = 1500
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4


def wire_bytes(packet: bytes, length: int) -> int:
    """Bytes that an Ethernet frame, or the segments it will be cut into, take on the link."""
    header = (packet[14] & 15) * 4
    if packet[23] == socket.IPPROTO_TCP:
        header += (packet[14 + header + 12] >> 4) * 4
    payload, room = length - ETHERNET_HEADER - header, MTU - header
    segments = max(1, -(-payload // room))
    return payload + segments * (header + ETHERNET_HEADER)


def main() -> None:
    sources: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        tap.bind((sys.argv[1], ETH_P_ALL))
        tap.settimeout(0.2)
        print("recording", file=sys.stderr, flush=True)
        wanted = threading.Thread(target=sys.stdin.read, daemon=True)
        wanted.start()
        while wanted.is_alive():
            try:
                packet, ancillary, _, address = tap.recvmsg(96, 64, socket.MSG_TRUNC)
            except TimeoutError:
                continue
            if packet[12:14] != b"\x08\x00" or address[2] != PACKET_OUTGOING:
                continue
            # With MSG_TRUNC recvmsg tells no length to Python: the IPv4 header has it.
            length = struct.unpack_from("!H", packet, 16)[0] + ETHERNET_HEADER
            stamp = next(data for _, kind, data in ancillary if kind == SO_TIMESTAMPNS)
            at_s, at_ns = struct.unpack("qq", stamp)
            sources[socket.inet_ntoa(packet[26:30])][at_s * 1000 + at_ns // 1_000_000] += wire_bytes(packet, length)
    json.dump({source: sorted(bins.items()) for source, bins in sources.items()}, sys.stdout)


if __name__ == "__main__":
    main()
