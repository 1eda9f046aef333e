"""The figures: what a limit lets TCP carry, from the first second on, in each direction."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.model import ProblemKind
from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.lab import Pod, limits, transfer


@contextmanager
def two_pods(mode: str) -> Iterator[tuple[Pod, Pod]]:
    """Two Pods on one master, in an ipvlan mode."""
    limited = lab.pod("limited", "eA", "172.51.0.100", mode=mode)
    neighbour = lab.pod("neighbour", "eA", "172.51.0.101", mode=mode)
    with limited as first, neighbour as second:
        yield first, second


def best(client: Pod, server: Pod, lowest: float, *arguments: str, seconds: int = 8) -> lab.Transfer:
    """The best of up to six transfers: a busy machine makes the guest slow, but never the limit higher.

    Of 8 s each: the first packet leaves at once, and one of 45 segments is 0.3 % of what 20M carries in that time.
    """
    measured = [transfer(client, server, *arguments, seconds=seconds)]
    while not measured[-1].reaches(lowest) and len(measured) < 6:
        measured.append(transfer(client, server, *arguments, seconds=seconds))
    return max(measured, key=lambda one: one.goodput)


def carries_100m(client: Pod, server: Pod) -> bool:
    """Whether a transfer carries what a limit of 100M lets it carry, and no more."""
    measured = best(client, server, 94.5)
    return measured.reaches(94.5) and measured.goodput <= 96


@pytest.mark.parametrize(("rate", "lowest", "highest"), [("100M", 94.5, 96), ("20M", 18.9, 19.2)])
def test_egress_carries_what_the_limit_lets_tcp_carry(  # noqa: PLR0917 - fixtures and figures
    shaper: Shaper, limited: Pod, peer: Pod, rate: str, lowest: float, highest: float
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress=rate))
    measured = best(limited, peer, lowest)
    assert measured.reaches(lowest), measured
    assert measured.goodput <= highest, measured
    assert measured.seconds[0] <= highest * 100 / 96, measured


@pytest.mark.parametrize(("rate", "lowest", "highest"), [("100M", 94.5, 96), ("20M", 18.9, 19.2)])
def test_ingress_carries_what_the_limit_lets_tcp_carry(  # noqa: PLR0917 - fixtures and figures
    shaper: Shaper, limited: Pod, peer: Pod, rate: str, lowest: float, highest: float
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(ingress=rate))
    measured = best(peer, limited, lowest)
    assert measured.reaches(lowest), measured
    assert measured.goodput <= highest, measured
    assert measured.seconds[0] <= highest * 100 / 96, measured


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize(("rate", "bits_per_second"), [("100k", 1e5), ("1M", 1e6)])
def test_packets_of_64_kib_keep_a_low_limit_however_many_come(  # noqa: PLR0917 - fixtures and figures
    shaper: Shaper, limited: Pod, peer: Pod, rate: str, bits_per_second: float, direction: str
) -> None:
    shaper.shape(limited.uid, limited.netns, limits(**{direction: rate}))
    sender, receiver = (limited, peer) if direction == "egress" else (peer, limited)
    with lab.Module(receiver, "tests.kernel.udp", "take", "14") as taking:
        with lab.Module(sender, "tests.kernel.udp", "segments", receiver.address, "20", "13") as sending:
            sending.go()
            sending.lines()
        carried = lab.carried(taking.lines(), after=0, until=13) * 1e6
    one_packet = 43 * 1514 * 8 / 13
    print(f"SEGMENTS {rate} {direction}: {carried / bits_per_second:.3f} of the limit")
    assert carried <= bits_per_second * 1.01 + one_packet
    assert carried >= bits_per_second * 0.5


def test_a_limit_on_one_side_leaves_the_other_free(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="10M"))
    assert transfer(peer, limited, seconds=2).goodput > 100
    assert 5 < transfer(limited, peer, seconds=2).goodput < 10


def test_a_pod_on_the_same_master_is_limited_as_any_other(shaper: Shaper, limited: Pod) -> None:
    with lab.pod("neighbour", "eA", "172.51.0.101") as neighbour:
        shaper.shape(limited.uid, limited.netns, limits(egress="100M", ingress="100M"))
        assert carries_100m(limited, neighbour)
        assert carries_100m(neighbour, limited)


@pytest.mark.usefixtures("wire")
def test_mode_l3_is_limited_both_ways(shaper: Shaper) -> None:
    with two_pods("l3") as (limited, neighbour):
        outcome = shaper.shape(limited.uid, limited.netns, limits(egress="100M", ingress="100M"))
        assert outcome.problems == ()
        assert carries_100m(limited, neighbour)
        assert carries_100m(neighbour, limited)


@pytest.mark.usefixtures("wire")
def test_mode_l3s_is_limited_on_egress_and_warns_of_ingress(shaper: Shaper) -> None:
    with two_pods("l3s") as (limited, neighbour):
        outcome = shaper.shape(limited.uid, limited.netns, limits(egress="100M", ingress="100M"))
        assert [problem.kind for problem in outcome.problems] == [ProblemKind.L3S_INGRESS]
        assert carries_100m(limited, neighbour)


def test_a_paced_flow_keeps_its_rate_beside_a_bulk_flow(shaper: Shaper, limited: Pod, peer: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, limits(egress="100M"))
    with lab.serving(peer, 5301), lab.bulk(limited, peer, 5301, seconds=60):
        paced = best(limited, peer, 9.5, "--fq-rate", "10M", seconds=5)
    assert paced.reaches(9.5), paced
    assert paced.goodput <= 10.1, paced


def test_no_100_ms_window_of_most_transfers_exceeds_the_limit_from_the_first_packet_on(
    shaper: Shaper, limited: Pod, peer: Pod
) -> None:
    """A machine that stands still for longer than lab.STALL_NS holds packets back, and lets them go in one window."""
    shaper.shape(limited.uid, limited.netns, limits(egress="100M"))
    windows = [lab.largest_window(limited, peer, window_seconds=0.1, seconds=2) for _ in range(3)]
    assert statistics.median(windows) <= 105, f"{windows} Mbit/s in one window of 100 ms"
