"""Restarts: what is found in force stays, until somebody who knows better says otherwise."""

import asyncio

import pytest

from reconciler.counters import DirectionCounters, PodCounters
from reconciler.sandboxes import Key
from tests.unit.reconciler.controller_bench import (
    M20,
    M100,
    STARTED,
    A,
    B,
    Bench,
    api_pod,
    sandbox,
    unshaped_seconds,
)
from webhook.common.contract import Direction, Limits


async def test_a_program_that_is_taken_over_has_the_slots_of_pods_that_ended_meanwhile(begin):
    bench = Bench()
    bench.kernel.held = {Key("u9", B): Limits(ingress=M20)}
    bench.kernel.gone = {B}
    await begin(bench)
    await bench.controller.on_synchronize([sandbox()])
    bench.on_pods([api_pod(ingress="100M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M100)}


@pytest.mark.parametrize(
    ("found", "limits"),
    [(Limits(), Limits()), (Limits(ingress=M20), Limits(ingress=M20)), (None, Limits(ingress=M20))],
    ids=["nothing in force", "a limit", "what cannot be read"],
)
async def test_what_is_left_of_a_limit_that_nobody_wants_any_more_is_taken_away_after_a_restart(begin, found, limits):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): found}
    bench.kernel.held = {Key("u1", A): limits}
    bench.gate = asyncio.Event()
    await begin(bench)
    await bench.controller.on_synchronize([sandbox(ingress=None), sandbox("s2", uid="u2", path=B, ingress=None)])
    await bench.settle()
    # A limit may have been added while the Pod ran, which the API server knows and the runtime does not.
    assert bench.kernel.held == {("u1", A): limits}
    assert Limits() not in [asked for _, _, asked in bench.kernel.calls]
    bench.on_pods([api_pod("u1"), api_pod("u2")])
    await bench.settle()
    assert bench.kernel.calls[-1] == ("u1", A, Limits())
    assert {uid for uid, _, _ in bench.kernel.calls} == {"u1"}


@pytest.mark.parametrize("by_an_older_program", [True, False])
async def test_limits_changed_while_the_pod_ran_outlast_a_restart_while_the_api_server_is_away(
    begin, by_an_older_program
):
    bench = Bench()
    bench.kernel.held = {Key("u1", A): Limits(egress=M20)}
    if by_an_older_program:
        bench.kernel.found = bench.kernel.held
    else:
        figures = DirectionCounters(20_000_000, bytes=0, packets=0, drops=0, marks=0)
        bench.kernel.counters = lambda _owners=None: [
            PodCounters("u1", A, {Direction.EGRESS: figures}),
            PodCounters("u2", None, {Direction.EGRESS: figures}),
        ]
    await begin(bench)
    for _ in range(2):
        await bench.controller.on_synchronize([sandbox(ingress="100M")])
        await bench.settle()
        assert bench.kernel.held == {("u1", A): Limits(egress=M20)}
    assert bench.told.notices == []
    bench.on_pods([api_pod(ingress="20M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert bench.told.notices == [("shop/web-0", "BandwidthChanged")]


async def test_what_an_older_program_holds_that_cannot_be_read_stays_until_the_api_server_has_told_of_its_pod(begin):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): None}
    bench.kernel.held = {Key("u1", A): Limits(ingress=M20)}
    bench.gate = asyncio.Event()
    await begin(bench)
    for _ in range(2):
        await bench.controller.on_synchronize([sandbox(ingress="100M")])
        await bench.settle()
        assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    bench.kernel.held.clear()  # so that it is seen to be written: the program is another
    bench.on_pods([api_pod(ingress="20M", status=STARTED)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}
    assert bench.told.notices == [("shop/web-0", "BandwidthLimited")], "nobody knows that it ran without its limits"
    assert unshaped_seconds(bench) == 0


async def test_what_cannot_be_read_is_not_taken_off_by_the_runtimes_word_however_long_the_api_server_is_away(begin):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): None}
    bench.kernel.held = {Key("u1", A): Limits(ingress=M20)}
    await begin(bench)
    await bench.controller.on_synchronize([sandbox(ingress=None), sandbox("s2", uid="u2", path=B)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20), ("u2", B): Limits(ingress=M100)}
    bench.on_pods([])  # as of a static Pod, of which the API server has but an image
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(), ("u2", B): Limits(ingress=M100)}


async def test_what_cannot_be_read_waits_for_no_second_list(begin):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): None}
    bench.kernel.held = {Key("u1", A): Limits(ingress=M20)}
    bench.on_pods([api_pod()])
    await begin(bench)
    await bench.controller.on_synchronize([sandbox(ingress=None)])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits()}


async def test_a_direction_that_could_not_be_attached_is_not_given_up_by_a_restart(begin):
    bench = Bench()
    figures = DirectionCounters(20_000_000, bytes=0, packets=0, drops=0, marks=0)
    both = {Direction.EGRESS: figures, Direction.INGRESS: figures}
    bench.kernel.counters = lambda _owners=None: [PodCounters("u1", A, both)]
    bench.kernel.found = {Key("u1", A): Limits(egress=M20)}  # of the filters there are
    await begin(bench)
    await bench.controller.on_synchronize([sandbox(ingress="100M", egress="100M")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20, egress=M20)}


async def test_the_last_good_limit_of_an_older_program_stays_when_the_annotation_turned_bad(begin):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): Limits(ingress=M20)}
    await begin(bench)
    await bench.controller.on_synchronize([sandbox(ingress="100m")])
    await bench.settle()
    assert bench.kernel.held == {("u1", A): Limits(ingress=M20)}


@pytest.mark.parametrize("listed", ["before the runtime's list", "while the program loads", "at last"])
async def test_those_that_run_without_their_limits_come_before_those_that_have_them(begin, listed):
    bench = Bench()
    bench.kernel.found = {Key("u1", A): Limits(ingress=M100)}
    pods = [api_pod("u1", ingress="100M"), api_pod("u2", ingress="100M")]
    await begin(bench)
    bench.gate = asyncio.Event()
    if listed == "before the runtime's list":
        bench.on_pods(pods)
    await bench.settle()
    await bench.controller.on_synchronize([sandbox(), sandbox("s2", uid="u2", path=B)])
    if listed == "at last":
        await bench.settle()
        bench.kernel.calls.clear()
    bench.on_pods(pods)
    await bench.settle()
    assert bench.kernel.calls[0] == ("u2", B, Limits(ingress=M100))
