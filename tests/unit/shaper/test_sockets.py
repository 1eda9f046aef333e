"""What the shaper does with packets that are charged to another's socket while they wait. Times in ns."""

import heapq

import pytest

from tests.unit.shaper.native import (
    CLOSED_TCP_SOCKET,
    CONNECTED_RAW_SOCKET,
    CONNECTED_UDP_SOCKET,
    MILLISECOND,
    PACKET_SOCKET,
    RAW_SOCKET,
    SECOND,
    TAP_SOCKET,
    TCP_SOCKET,
    UDP_SOCKET,
    Native,
    Socket,
)
from tests.unit.shaper.traffic import CALL, FLOOD, PING, Tcp, every
from webhook.common.contract import Direction

DEFAULT_BUFFER = 212_992
"""net.core.wmem_default."""
ICMP_BUFFER = 132_000
"""What the kernel gives its sockets for ICMP (icmp_init)."""
TRAIN = 43 * 1514


def taken(length: int) -> int:
    """What a packet takes of its socket's buffer, about (its truesize)."""
    return 960 if length <= 150 else 1280 if length <= 512 else 2304 if length <= 1514 else length + 2000


def flooded(
    shaper: Native, length: int, of: Socket | None, *, flows: int, load: float, seconds: float
) -> tuple[int, float]:
    """The most that a flood takes of a socket's buffer at any moment, and how much of the limit it carries."""
    segments = -(-length // 1514)
    step = int(length * 8 * SECOND / shaper.bits_per_second / load)
    leaving: list[tuple[int, int]] = []
    held = most = left = 0
    for number, passed in enumerate(every(shaper, max(step, 1), seconds)):
        wait = shaper.send(length, 100 + number % flows, segments=segments, of=of).wait_ns
        if wait is not None:
            heapq.heappush(leaving, (shaper.now + wait, taken(length)))
            held += taken(length)
            left += length * (passed + wait <= seconds * SECOND)
        while leaving and leaving[0][0] <= shaper.now:
            held -= heapq.heappop(leaving)[1]
        most = max(most, held)
    return most, left * 8 / seconds / shaper.bits_per_second


@pytest.mark.parametrize("flows", [1, 100_000])
@pytest.mark.parametrize("length", [150, 1514, TRAIN])
@pytest.mark.parametrize(("limit", "seconds"), [("300k", 12), ("10M", 2), ("100M", 0.3), ("1G", 0.05)])
def test_what_waits_for_a_pod_leaves_a_neighbours_udp_socket_room_for_others(
    limit: str, seconds: float, length: int, flows: int
) -> None:
    shaper = Native(limit, Direction.INGRESS)
    most, carried = flooded(shaper, length, UDP_SOCKET, flows=flows, load=3, seconds=seconds)
    print(f"{limit} {length} {flows}: {most} {carried:.3f}")
    assert most <= (0.8 if length <= 1514 else 1) * DEFAULT_BUFFER
    assert carried >= 0.9


@pytest.mark.parametrize("length", [54, 98, 1514])
@pytest.mark.parametrize(("limit", "seconds"), [("250k", 12), ("1M", 5), ("10M", 1)])
def test_what_waits_for_the_wire_leaves_the_nodes_own_sockets_room_for_others(
    limit: str, seconds: float, length: int
) -> None:
    shaper = Native(limit)
    most, carried = flooded(shaper, length, RAW_SOCKET, flows=100_000, load=3, seconds=seconds)
    print(f"{limit} {length}: {most} {carried:.3f}")
    assert most <= 0.8 * ICMP_BUFFER
    assert carried >= 0.9


@pytest.mark.parametrize(
    ("direction", "of"),
    [
        *(
            (Direction.EGRESS, of)
            for of in (None, UDP_SOCKET, TCP_SOCKET, PACKET_SOCKET, TAP_SOCKET, CONNECTED_RAW_SOCKET)
        ),
        *((Direction.INGRESS, of) for of in (None, TCP_SOCKET, PACKET_SOCKET, TAP_SOCKET, CONNECTED_UDP_SOCKET)),
        (Direction.INGRESS, CLOSED_TCP_SOCKET),
    ],
)
def test_other_sockets_are_left_what_the_queue_holds(direction: Direction, of: Socket | None) -> None:
    most, _ = flooded(Native("10M", direction), 150, of, flows=100_000, load=3, seconds=1)
    assert most > 2 * DEFAULT_BUFFER


@pytest.mark.parametrize("merged", [1, 44])
@pytest.mark.parametrize("limit", ["100k", "1M", "10M"])
def test_an_answer_of_a_neighbours_dns_server_passes_however_much_of_tcp_waits(limit: str, merged: int) -> None:
    shaper, answers = Native(limit, Direction.INGRESS), []
    tcp, next_answer = Tcp(shaper, merged), 0
    for passed in every(shaper, 2000 * SECOND // shaper.bits_per_second, 20):
        tcp.go_on()
        if passed >= next_answer:
            next_answer += 100 * MILLISECOND
            answers.append(shaper.send(150, PING + passed, of=UDP_SOCKET).wait_ns)
    assert None not in answers


@pytest.mark.parametrize("trains_wait_in", [None, UDP_SOCKET, CONNECTED_UDP_SOCKET])
@pytest.mark.parametrize("answers", [1, 60])
@pytest.mark.parametrize(("limit", "seconds"), [("100M", 5), ("1G", 1)])
def test_answers_of_a_dns_server_pass_beside_tcp_and_another_neighbours_trains_of_udp(
    limit: str, seconds: int, answers: int, trains_wait_in: Socket | None
) -> None:
    """Of as many flows, at one moment: beside what a wire brings (None) and trains of a socket of its own."""
    shaper, waits = Native(limit, Direction.INGRESS), []
    tcp, next_train, next_answers = Tcp(shaper, 4), 0, 0
    for passed in every(shaper, 2000 * SECOND // shaper.bits_per_second, seconds):
        tcp.go_on()
        if passed >= next_train:
            next_train += 15 * MILLISECOND
            shaper.send(TRAIN, CALL, segments=43, of=trains_wait_in)
        if passed >= next_answers:
            next_answers += 100 * MILLISECOND if answers > 1 else 7 * MILLISECOND
            for number in range(4):  # ahead on the express timeline, which makes a lone one wait
                shaper.send(1514 if number < 2 and answers == 1 else 60, PING + 100_000 + passed + number)
            waits += [shaper.send(150, PING + passed + number, of=UDP_SOCKET).wait_ns for number in range(answers)]
    print(f"{limit} {answers}: {waits.count(None)} of {len(waits)} lost")
    assert None not in waits


@pytest.mark.parametrize(("limit", "seconds"), [("10M", 5), ("100M", 2)])
def test_pings_pass_on_egress_beside_a_flood_of_pings_that_waits(limit: str, seconds: int) -> None:
    shaper, waits = Native(limit), []
    step, next_pings = 98 * 8 * SECOND // shaper.bits_per_second // 2, 0
    for passed in every(shaper, step, seconds):
        shaper.send(98, FLOOD, of=RAW_SOCKET)
        if passed >= next_pings:
            next_pings += 100 * MILLISECOND
            waits += [shaper.send(98, PING + passed + number, of=RAW_SOCKET).wait_ns for number in range(40)]
    print(f"{limit}: {waits.count(None)} of {len(waits)} lost")
    assert None not in waits


def test_a_queue_that_has_become_short_is_not_taken_for_full_for_what_waited_in_a_long_one() -> None:
    shaper, lost = Native("100M", Direction.INGRESS), []
    each = 1514 * 8 * SECOND // shaper.bits_per_second
    while shaper.queue_ns < 140 * MILLISECOND:
        shaper.send(1514, PING + shaper.queue_ns)
    for _ in range(5):
        assert shaper.send(1514, CALL, of=UDP_SOCKET).wait_ns
    assert shaper.send(TRAIN, CALL, segments=43, of=UDP_SOCKET).wait_ns
    short = 40 * each
    shaper.now += shaper.queue_ns - short
    shaper.now -= each
    for number, passed in enumerate(every(shaper, each, 0.05)):
        if shaper.send(1514, CALL, of=None if number % 4 else UDP_SOCKET).wait_ns is None:
            lost.append(passed)
        while shaper.queue_ns < short:
            shaper.send(1514, FLOOD)
    assert max(lost, default=0) < 2 * short


@pytest.mark.parametrize("small", [98, 300, 512])
@pytest.mark.parametrize("limit", ["1M", "10M", "100M"])
def test_large_and_small_packets_together_leave_the_nodes_own_sockets_room_for_others(limit: str, small: int) -> None:
    """The small ones on the express timeline, of flows of their own."""
    shaper, leaving, held, most = Native(limit), list[tuple[int, int]](), 0, 0
    for number, _ in enumerate(every(shaper, small * 8 * SECOND // shaper.bits_per_second, 3)):
        for length, flow in ((small, 100 + number), (1514, CALL)):
            wait = shaper.send(length, flow, of=RAW_SOCKET).wait_ns
            if wait is not None:
                heapq.heappush(leaving, (shaper.now + wait, taken(length)))
                held += taken(length)
        while leaving and leaving[0][0] <= shaper.now:
            held -= heapq.heappop(leaving)[1]
        most = max(most, held)
    print(f"{limit} {small}: {most}")
    assert most < ICMP_BUFFER


@pytest.mark.parametrize(("limit", "megabits"), [("10M", 3), ("100M", 30), ("1G", 30)])
def test_a_neighbours_stream_of_udp_beside_tcp_loses_no_more_than_one_by_a_wire(limit: str, megabits: int) -> None:
    lost = []
    for of in (None, UDP_SOCKET):
        shaper = Native(limit, Direction.INGRESS)
        tcp, due, fates = Tcp(shaper, 4), shaper.now, []
        for passed in every(shaper, max(2000 * SECOND // shaper.bits_per_second, 4000), 2):
            tcp.go_on()
            while due <= shaper.now:
                due += 1400 * 8 * 1000 // megabits
                wait = shaper.send(1400, CALL, of=of).wait_ns
                if passed > SECOND:
                    fates.append(wait)
        lost.append(fates.count(None) / len(fates))
    print(f"{limit} {lost}")
    by_a_wire, by_a_socket = lost
    assert by_a_socket <= by_a_wire + 0.01
