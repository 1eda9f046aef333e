"""What was sent past a limit is never overstated, whatever the figures were read."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.bypass import Traffic, sample, total, unshaped

NOTHING = Traffic()


def taken(*, charged, sent, queued=NOTHING, epoch=(1, 0, frozenset({2})), has_tunnel=False):
    return sample(
        epoch,
        charged=(charged, charged),
        queued=(queued, queued),
        sent=sent,
        largest_bytes=1514,
        has_tunnel=has_tunnel,
    )


BEFORE = taken(charged=Traffic(10_000, 10), sent=Traffic(50_000, 50))


def test_what_only_the_link_counts_was_sent_past_the_limit():
    after = taken(charged=Traffic(20_000, 20), sent=Traffic(63_000, 62))
    assert unshaped(BEFORE, after) == Traffic(3000, 2)


def test_what_both_count_was_not():
    assert unshaped(BEFORE, taken(charged=Traffic(20_000, 20), sent=Traffic(60_000, 60))) == NOTHING


def test_a_queue_that_drains_was_charged_before_and_is_no_bypass():
    full = taken(charged=Traffic(110_000, 110), queued=Traffic(100_000, 100), sent=Traffic(50_000, 50))
    assert unshaped(full, taken(charged=Traffic(110_000, 110), sent=Traffic(150_000, 150))) == NOTHING


def test_gso_packets_hide_packets_but_hardly_bytes():
    """45 segments of 1514 bytes are one packet of 65,226 bytes to the link."""
    after = taken(charged=Traffic(10_000 + 45 * 1514, 55), sent=Traffic(50_000 + 65_226 + 15_140, 61))
    assert unshaped(BEFORE, after) == Traffic(15_140 - 44 * 66, 9)


def test_nothing_is_said_without_a_sample_before_or_across_a_change_of_the_shaping():
    after = taken(charged=Traffic(), sent=Traffic(90_000, 90), epoch=(1, 1, frozenset({2})))
    assert unshaped(None, after) == NOTHING
    assert unshaped(BEFORE, after) == NOTHING


def test_beside_a_tunnel_a_little_more_on_the_link_may_be_headers_and_no_more_than_that():
    for more, had_tunnel, has_tunnel, told in (
        (5000, False, True, 0),
        (5000, True, False, 0),
        (5000, False, False, 5000),
        (9000, True, True, 9000),
    ):
        before = taken(charged=Traffic(10_000, 10), sent=Traffic(50_000, 50), has_tunnel=had_tunnel)
        after = taken(charged=Traffic(110_000, 110), sent=Traffic(150_000 + more, 150), has_tunnel=has_tunnel)
        assert unshaped(before, after).bytes == told


def test_the_traffic_of_some_links_is_summed_up():
    assert total({1: Traffic(5, 1), 2: Traffic(7, 2), 3: Traffic(9, 9)}, [1, 2, 4]) == Traffic(12, 3)


def test_a_queued_train_that_the_link_counts_as_its_segments_is_no_bypass():
    size = 43 * 1514
    train = taken(charged=Traffic(10_000 + size, 53), queued=Traffic(size, 1), sent=Traffic(50_000, 50))
    assert unshaped(train, taken(charged=Traffic(10_000 + size, 53), sent=Traffic(50_000 + size, 93))) == NOTHING


packets = st.tuples(st.integers(60, 1514), st.just(1)) | st.tuples(st.integers(576, 1514), st.integers(2, 43))
sizes = st.lists(packets, max_size=4)


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=10), st.integers(0, 100))
def test_traffic_between_and_during_the_readings_is_never_taken_for_a_bypass(rounds, waiting):
    """While figures are read packets are charged, queued, cut and sent; some wait all the time; none is sent past."""
    link, bucket, queue = Traffic(waiting * 1000, 7), Traffic(), []

    def step(charge, release):
        nonlocal link, bucket
        for size, segments in charge:
            bucket += Traffic(size * segments, segments)
            queue.append(Traffic(size * segments, segments))
        for _ in release:
            if queue:
                link += queue.pop(0)

    def waits():
        return Traffic(sum(each.bytes for each in queue), len(queue))

    earlier = None
    for charge, release in rounds:
        first = bucket
        step(charge, release)
        early = waits()
        step(charge, release)
        sent = link
        step(release, charge)
        late = waits()
        step(charge, release)
        later = sample((1, 0), charged=(first, bucket), queued=(early, late), sent=sent, largest_bytes=1514)
        assert unshaped(earlier, later) == NOTHING
        earlier = later
