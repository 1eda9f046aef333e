"""What the kernel refuses, loses or shows oddly is an error with a name for one Pod, and the next try succeeds."""

import errno
import os
import resource
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from reconciler.kernel.errors import NetlinkError, NetnsGoneError, ShapingError
from reconciler.kernel.monitor import Changes, Monitor
from reconciler.kernel.netlink import Netlink
from reconciler.shaping import Shaper
from tests.kernel import lab
from tests.kernel.held import BOTH, NOTHING, OTHERS, PLANS, check, in_force
from tests.kernel.lab import Pod

SO_RCVBUFFORCE = 33


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENOMEM, errno.ENOBUFS])
@pytest.mark.parametrize("kind", ["first shaping", "other rates", "removal"])
def test_a_request_that_fails_once_is_an_error_or_nothing_and_the_next_try_succeeds(
    shaper: Shaper, limited: Pod, monkeypatch: pytest.MonkeyPatch, code: int, kind: str
) -> None:
    plan = PLANS[kind]
    send = Netlink._send
    number = failed = 0
    goes_on = True
    while goes_on:
        shaper.shape(limited.uid, limited.netns, plan.before)
        before, sent, goes_on = in_force(limited), 0, False

        def refuse(self: Netlink, data: bytes, refused: int = number) -> None:
            nonlocal sent, goes_on
            sent += 1
            if sent == refused + 1:
                goes_on = True
                raise NetlinkError(code, os.strerror(code))
            send(self, data)

        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "_send", refuse)
            try:
                shaper.shape(limited.uid, limited.netns, plan.wanted)
                raised = False
            except ShapingError:
                raised = True
        failed += raised
        between = in_force(limited)
        check(before, between, plan.wanted, f"with request {number} refused")
        assert raised or between == plan.wanted
        shaper.shape(limited.uid, limited.netns, plan.wanted)
        assert in_force(limited) == plan.wanted
        shaper.shape(limited.uid, limited.netns, NOTHING)
        number += 1
    print(f"REFUSED each of {number - 1} requests, {failed} of them for good")
    assert number > 4
    # A step is tried again, and the look at what is there, which comes before every kind of plan, is not.
    assert failed > 0


def test_a_netns_that_goes_in_the_midst_of_a_plan_is_gone_when_it_ends(shaper: Shaper, wire: None) -> None:  # noqa: ARG001
    shaper.collect({})
    taken = len(shaper.counters())
    do = shaper._do
    for number in range(10):
        with lab.pod("midway", "eA", "172.51.0.130") as pod:
            done = 0

            def vanish(*arguments: object, after: int = number) -> None:
                nonlocal done
                do(*arguments)
                if done == after:
                    lab.run("ip", "netns", "del", "midway")
                done += 1

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(shaper, "_do", vanish, raising=True)
                try:
                    shaper.shape(pod.uid, pod.netns, BOTH)
                except ShapingError as error:
                    print(f"GONE after {number} steps: {error}")
            assert shaper.inodes([(pod.uid, pod.netns)]) == {(pod.uid, pod.netns): None}
            shaper.release(pod.uid, pod.netns)
            assert len(shaper.counters()) == taken


def test_notifications_that_overrun_their_buffer_are_told_and_later_ones_are_heard(
    shaper: Shaper, limited: Pod
) -> None:
    with closing(Monitor()) as monitor:
        monitor.watch(limited.netns)
        monitor._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4096)
        for _ in range(20):
            shaper.shape(limited.uid, limited.netns, BOTH)
            shaper.shape(limited.uid, limited.netns, NOTHING)
        assert monitor.read().overrun
        assert monitor.read() == Changes(frozenset())
        monitor._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        shaper.shape(limited.uid, limited.netns, BOTH)
        assert monitor.read() == Changes(frozenset({limited.netns}))
    shaper.release(limited.uid, limited.netns)


def test_out_of_descriptors_is_an_error_that_says_so_and_no_pod_counts_as_gone(shaper: Shaper, limited: Pod) -> None:
    shaper.shape(limited.uid, limited.netns, BOTH)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open("rb") as lowest:
        free = lowest.fileno()
    try:
        for allowed in (free, free + 1):  # for the netns, and for the socket in it
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            with pytest.raises(ShapingError, match="Too many open files") as caught:
                shaper.shape(limited.uid, limited.netns, OTHERS)
            assert not isinstance(caught.value, NetnsGoneError)
            assert None not in shaper.inodes([(limited.uid, limited.netns)]).values()
            with suppress(ShapingError):
                assert shaper.collect({}) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert in_force(limited) == BOTH
    assert shaper.shape(limited.uid, limited.netns, OTHERS).steps
    assert in_force(limited) == OTHERS
    shaper.release(limited.uid, limited.netns)
