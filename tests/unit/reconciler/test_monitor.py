"""What the kernel tells of the node's own interfaces; tests/kernel/test_monitor.py hears it of Pods' on real ipvlan."""

import struct
from contextlib import nullcontext

import pytest

from reconciler.kernel.errors import ShapingError
from reconciler.kernel.monitor import Changes, Monitor
from tests.unit.reconciler.controller_bench import raised
from tests.unit.reconciler.link_messages import Kernel, link

DELLINK, NEWQDISC = 17, 36


class Socket:
    """Has had these notifications; `nsid` is of the namespace that one came from."""

    def __init__(self):
        self.waiting = []

    def tell(self, message, nsid=None):
        notes = [] if nsid is None else [(270, 8, struct.pack("=i", nsid))]
        self.waiting.append((message, notes, 0, None))

    def recvmsg(self, *_):
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0)

    def setsockopt(self, *_):
        pass

    bind = setsockopt


@pytest.fixture
def kernel(monkeypatch):
    made = Socket()
    monkeypatch.setattr("reconciler.kernel.monitor.socket.socket", lambda *_: made)
    monkeypatch.setattr(
        "reconciler.kernel.monitor.Netlink.here", lambda: nullcontext(Kernel(link(2, "eno1", mtu=1500)))
    )
    return made


def test_another_mtu_of_an_interface_of_the_nodes_is_of_all_pods_concern(kernel):
    listening = Monitor()
    for mtu, changed in ((9000, True), (9000, False), (1500, True), (1500, False)):
        kernel.tell(link(2, "eno1", mtu=mtu))
        assert listening.read() == Changes(frozenset(), mtu_changed=changed)
        assert Changes(frozenset(), mtu_changed=changed).may_be_anywhere == changed


def test_one_that_is_new_has_no_other_mtu_than_before_nor_has_what_tells_of_something_else(kernel):
    listening = Monitor()
    kernel.tell(link(3, "eno2", mtu=1500))
    kernel.tell(link(2, "eno1", mtu=9000), nsid=4)  # a Pod's, of the same index
    kernel.tell(link(2, "eno1"))  # of a wireless link it tells so
    kernel.tell(link(2, "eno1", message_type=NEWQDISC, mtu=9000))
    assert listening.read() == Changes(frozenset())
    kernel.tell(link(3, "eno2", mtu=9000))
    assert listening.read().mtu_changed


def test_one_that_is_gone_is_forgotten(kernel):
    listening = Monitor()
    kernel.tell(link(2, "eno1", mtu=1500, message_type=DELLINK))
    listening.read()
    assert listening._mtus == {}
    kernel.tell(link(2, "new", mtu=9000))
    assert not listening.read().mtu_changed


def test_where_the_nodes_interfaces_cannot_be_listed_their_mtus_are_learnt_as_they_are_told(
    kernel, monkeypatch, caplog
):
    monkeypatch.setattr("reconciler.kernel.monitor.Netlink.here", lambda: raised(ShapingError("too many open files")))
    listening = Monitor()
    assert "too many open files" in caplog.text
    for mtu, changed in ((1500, False), (9000, True)):
        kernel.tell(link(2, "eno1", mtu=mtu))
        assert listening.read().mtu_changed == changed


def test_the_mtu_of_one_that_is_made_and_then_set_up_as_a_starting_pods_veth_is_concerns_no_pod(kernel):
    listening = Monitor()
    for mtu, is_up in ((1500, False), (9000, False), (9000, True)):
        kernel.tell(link(3, "lxc1", "veth", mtu=mtu, is_up=is_up))
        assert not listening.read().may_be_anywhere
    kernel.tell(link(3, "lxc1", "veth", mtu=1500))
    assert listening.read().mtu_changed


def test_another_mtu_of_one_that_is_down_is_told_when_it_is_up(kernel):
    listening = Monitor()
    for mtu, is_up, changed in ((1500, False, False), (9000, False, False), (9000, True, True), (9000, True, False)):
        kernel.tell(link(2, "eno1", mtu=mtu, is_up=is_up))
        assert listening.read().mtu_changed == changed
