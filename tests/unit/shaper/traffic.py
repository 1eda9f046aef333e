"""Who sends to the shaper in its tests. Times in ns."""

from collections.abc import Iterator

from tests.unit.shaper.native import IPV4, MILLISECOND, SECOND, Fate, Native

RATES = {"1M": 1_000_000, "10M": 10_000_000, "100M": 100_000_000}
PING, CALL, TCP, FLOOD = 7, 5, 1, 3
OTHER = 0x88B5  # an ethertype for experiments


def every(shaper: Native, period: int, seconds: float) -> Iterator[int]:
    """Set the clock forward step by step; gives the time since the beginning."""
    began = shaper.now
    while shaper.now < began + seconds * SECOND:
        shaper.now += period
        yield shaper.now - began


class Tcp:
    """A sender that opens its window by a packet a round trip of 20 ms, and halves it when one is lost or marked.

    Its packets come merged, `merged` of them and half a window at most.
    """

    ROUND_TRIP = 20 * MILLISECOND

    def __init__(self, shaper: Native, merged: int = 1) -> None:
        self._shaper, self._merged = shaper, merged
        self._window, self._under_way, self._deaf_until = 10.0, 0, 0
        self._due: list[tuple[int, int]] = []
        self.carried = 0

    def go_on(self) -> None:
        """Take the acknowledgements that are due, and send what the window lets."""
        now = self._shaper.now
        while self._due and abs(self._due[0][0]) <= now:
            due, count = self._due.pop(0)
            self._under_way -= count
            if due > 0:
                self.carried += count * 1514
                self._window += count / self._window
        while self._under_way + (count := min(self._merged, max(1, int(self._window / 2)))) <= int(self._window):
            wait = self._shaper.send(count * 1514, TCP, segments=count).wait_ns
            if wait is None and now > self._deaf_until:
                self._window, self._deaf_until = max(1.0, self._window / 2), now + self.ROUND_TRIP
            due = now + self.ROUND_TRIP + wait if wait is not None else -(now + self.ROUND_TRIP)
            self._due.append((due, count))
            self._due.sort(key=lambda each: abs(each[0]))
            self._under_way += count
            if wait is None:
                return


def tcp_beside_a_flood(
    shaper: Native,
    *,
    load: float,
    length: int,
    seconds: tuple[float, float],
    merged: int = 1,
    segments: int = 1,
    ethertype: int = IPV4,
) -> float:
    """The share of the limit that TCP gets beside a flood of `load` times the limit, between two moments."""
    tcp, flood, step = Tcp(shaper, merged), 0.0, 500 * SECOND // shaper.bits_per_second
    earlier = 0
    for passed in every(shaper, step, seconds[1]):
        tcp.go_on()
        flood += step * load * shaper.bits_per_second / 8 / SECOND
        while flood >= length:
            flood -= length
            shaper.send(length, FLOOD, segments=segments, ethertype=ethertype)
        if passed <= seconds[0] * SECOND:
            earlier = tcp.carried
    return (tcp.carried - earlier) * 8 / (seconds[1] - seconds[0]) / shaper.bits_per_second


def wait_of(fate: Fate) -> int:
    """A packet that was dropped has waited too long."""
    return SECOND if fate.wait_ns is None else fate.wait_ns
