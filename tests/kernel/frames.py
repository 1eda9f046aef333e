"""`python -m tests.kernel.frames ADDRESS MAC COUNT HOW`: full UDP frames through a packet socket on eth0.

HOW, of which CAP_NET_RAW is enough for all: `plain` says that they are IPv4; `bypass` goes past all of traffic control
(packet(7), PACKET_QDISC_BYPASS); `unnamed` does not say what they are, and ipvlan does not look (it has no
header_ops.parse_protocol), so that filters see no IP; `control` has the priority of a node's own control traffic,
which fq lets go first and never holds back (net/sched/sch_fq.c, fq_classify), and which any kind of socket may have;
`forged` are 64 KiB of TCP each that say they are to be cut into segments of 4 bytes (packet(7), PACKET_VNET_HDR;
linux/virtio_net.h); `neighbour` are such frames, 16 ms apart, to a Pod of the same node: ipvlan hands over what is
from and to its master's address, uncut.
"""

import socket
import struct
import sys
import time

ETH_P_IP = 0x0800
SOL_PACKET, PACKET_VNET_HDR, PACKET_QDISC_BYPASS = 263, 15, 20
VIRTIO_NEEDS_CHECKSUM, VIRTIO_TCP_IPV4 = 1, 1
FORGED_SEGMENT = 4
NEIGHBOURS_PAUSE_S = 0.016
TC_PRIO_CONTROL = 7
PAYLOAD = bytes(1472)
NOBODY = "00:00:00:00:00:00"


def frame(mac: str, source: bytes, address: str, *, ports: tuple[int, int] = (5401, 5401)) -> bytes:
    """A UDP packet without a checksum."""
    udp = struct.pack("!HHHH", *ports, 8 + len(PAYLOAD), 0)
    return packet(mac, source, address, socket.IPPROTO_UDP, udp + PAYLOAD)


def forged(mac: str, source: bytes, address: str, *, own: str = NOBODY) -> bytes:
    """As HOW says: the virtio header, and the longest packet there can be."""
    virtio = struct.pack("=BBHHHH", VIRTIO_NEEDS_CHECKSUM, VIRTIO_TCP_IPV4, 54, FORGED_SEGMENT, 34, 16)
    tcp = struct.pack("!HHIIBBHHH", 5401, 5401, 1, 1, 5 << 4, 0x10, 1024, 0, 0)
    return virtio + packet(mac, source, address, socket.IPPROTO_TCP, tcp + bytes(65_000), own=own)


def packet(mac: str, source: bytes, address: str, protocol: int, content: bytes, *, own: str = NOBODY) -> bytes:
    """Ethernet, IPv4 with its checksum, and what is in it. On the wire, ipvlan sends with its master's address."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, 64, protocol, 0)
    head += source + socket.inet_aton(address)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
    return bytes.fromhex((mac + own).replace(":", "")) + struct.pack("!H", ETH_P_IP) + head + content


def main() -> None:
    address, mac, count, how = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect((address, 9))
        source = socket.inet_aton(route.getsockname()[0])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        if how == "bypass":
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        is_forged, is_neighbours = how in {"forged", "neighbour"}, how == "neighbour"
        if is_forged:
            sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        if how == "control":
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, TC_PRIO_CONTROL)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        sender.settimeout(1)
        sender.bind(("eth0", 0 if how == "unnamed" else ETH_P_IP))
        own = mac if is_neighbours else NOBODY
        whole = forged(mac, source, address, own=own) if is_forged else frame(mac, source, address)
        for _ in range(int(count)):
            if is_neighbours:
                time.sleep(NEIGHBOURS_PAUSE_S)
            try:
                sender.send(whole)
            except OSError:
                # The shaper's queue is full: what else would come of it is known by now.
                continue


if __name__ == "__main__":
    main()
