"""`python -m tests.kernel.frames ADDRESS MAC COUNT [bypass]`: full UDP frames through a packet socket on eth0.

With `bypass` past all of traffic control (packet(7), PACKET_QDISC_BYPASS), which CAP_NET_RAW is enough for.
"""

import socket
import struct
import sys

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
PAYLOAD = bytes(1472)


def frame(mac: str, source: bytes, address: str) -> bytes:
    """Ethernet, IPv4 with its checksum, UDP without one."""
    udp = struct.pack("!HHHH", 5401, 5401, 8 + len(PAYLOAD), 0)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp) + len(PAYLOAD), 0, 0, 64, socket.IPPROTO_UDP, 0)
    head += source + socket.inet_aton(address)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
    own = bytes(6)  # ipvlan sends with its master's address, whatever stands here
    return bytes.fromhex(mac.replace(":", "")) + own + struct.pack("!H", 0x0800) + head + udp + PAYLOAD


def main() -> None:
    address, mac, count = sys.argv[1:4]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect((address, 9))
        source = socket.inet_aton(route.getsockname()[0])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        if "bypass" in sys.argv:
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        sender.settimeout(1)
        sender.bind(("eth0", 0))
        whole = frame(mac, source, address)
        for _ in range(int(count)):
            try:
                sender.send(whole)
            except OSError:
                # The shaper's queue is full: what else would come of it is known by now.
                continue


if __name__ == "__main__":
    main()
