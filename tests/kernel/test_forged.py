"""A Pod's own BPF program in the place of ours, as CAP_BPF and CAP_NET_ADMIN let a Pod attach one."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from reconciler.kernel import buckets, netns
from reconciler.kernel.apply import AttachedProgram, apply
from reconciler.kernel.bpf import BPF_MAP_TYPE_ARRAY, Bpf
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.program import Program, identity
from reconciler.model import HANDLE_CLSACT_OURS, LimitEntry
from reconciler.netns_scan import scan_netns
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from reconciler.steps import AttachShaper
from tests.kernel import lab
from tests.kernel.lab import Pod, limits
from webhook.common.contract import Limits

SLOTS = 8
ENTRIES = 2 * (SLOTS + 1)
BOTH = limits(ingress="100M", egress="100M")
FASTER = limits(egress="500M")
PERCPU_ARRAY, SCHED_CLS, HASH = 6, 3, 1

Forge = Callable[..., int]


def loaded(kind: int, key_bytes: int) -> tuple[int, list[int]]:
    """A program that drops everything, with maps named as ours, of which the limits are of this type; and these."""
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    create = library.bpf_map_create
    maps = [
        create(kind, b"limits", key_bytes, buckets.LIMIT_BYTES, ENTRIES, None),
        create(BPF_MAP_TYPE_ARRAY, b"state", 4, buckets.STATE_BYTES, ENTRIES, None),
    ]
    assert min(maps) >= 0, os.strerror(ctypes.get_errno())
    uses = b"".join(struct.pack("=BBhiBBhi", 0x18, 0x11, 0, each, 0, 0, 0, 0) for each in maps)  # r1 = map
    code = uses + struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # return TC_ACT_SHOT
    name = f"ivbw_{identity(SLOTS)}"[:15].encode()
    program = library.bpf_prog_load(SCHED_CLS, name, b"GPL", code, len(code) // 8, None)
    assert program >= 0, os.strerror(ctypes.get_errno())
    return program, maps


@pytest.fixture
def forge(peer: Pod) -> Iterator[Forge]:
    """Attaches such a program in the Pod `peer`, at a class id; returns the program's id."""
    with ExitStack() as opened:

        def attach(
            *, kind: int = BPF_MAP_TYPE_ARRAY, key_bytes: int = 4, class_id: int = 2, uid: str | None = None
        ) -> int:
            program, maps = loaded(kind, key_bytes)
            for each in (program, *maps):
                opened.callback(os.close, each)
            if kind == BPF_MAP_TYPE_ARRAY:
                inode = netns.inode(peer.netns) or 0
                entry = LimitEntry(FASTER.egress.bits_per_second if FASTER.egress else 0, 3, uid or peer.uid, inode)
                Bpf().update(maps[0], 2, buckets.encode_limit(entry))
            with netns.opened(peer.netns) as descriptor, Netlink.inside(descriptor) as netlink:
                step = AttachShaper("eth0", HANDLE_CLSACT_OURS, class_id, with_clsact=True)
                apply(step, netlink, AttachedProgram(program, "ipvlan-bandwidth:x"))
            return Bpf().program_info(program).loaded.program_id

        yield attach


@pytest.mark.parametrize("made", [(PERCPU_ARRAY, 4), (HASH, 64)], ids=["per CPU", "long keys"])
def test_maps_of_another_kind_are_not_read_and_the_pod_gets_its_limit(
    shaper: Shaper, limited: Pod, peer: Pod, forge: Forge, made: tuple[int, int]
) -> None:
    kind, key_bytes = made
    shaper.shape(limited.uid, limited.netns, BOTH)
    assert Program.adopt(forge(kind=kind, key_bytes=key_bytes)) is None
    keys = [Key(pod.uid, pod.netns) for pod in (peer, limited)]
    assert scan_netns(keys).held == {keys[0]: None, keys[1]: BOTH}
    assert shaper.shape(peer.uid, peer.netns, BOTH).missing == {}
    assert scan_netns(keys).held == dict.fromkeys(keys, BOTH)


@pytest.mark.parametrize("leads", [(2, FASTER), (ENTRIES, None), (0xFFFF, None)], ids=["a limit", "beyond", "far"])
def test_a_program_with_our_name_is_replaced_and_put_on_no_pod(
    shaper: Shaper, limited: Pod, peer: Pod, forge: Forge, leads: tuple[int, Limits | None]
) -> None:
    class_id, found = leads
    shaper.shape(limited.uid, limited.netns, BOTH)
    forged = forge(class_id=class_id)
    keys = [Key(pod.uid, pod.netns) for pod in (peer, limited)]  # the forged one is found first
    heir = Shaper.start(slots=SLOTS, netns_paths=keys, record=lab.RECORD)
    try:
        assert heir.adopted
        assert heir.found == {keys[0]: found, keys[1]: BOTH}
        assert heir._program.program_id == shaper._program.program_id
        assert heir.shape(limited.uid, limited.netns, BOTH).steps == ()
        assert heir.shape(peer.uid, peer.netns, limits(egress="100M")).missing == {}
        assert forged not in scan_netns(keys).program_ids
    finally:
        heir.release(peer.uid, peer.netns)
        heir.close()


def test_a_program_of_its_own_cannot_say_that_the_netns_is_another_pods(
    shaper: Shaper, limited: Pod, peer: Pod, forge: Forge
) -> None:
    """Where the runtime does not name it: that Pod's limits, or none, would be put on this one."""
    shaper.shape(limited.uid, limited.netns, BOTH)
    forge(uid=limited.uid)
    heir = Shaper.start(slots=SLOTS, folder=netns.NETNS_FOLDER, record=lab.RECORD)
    try:
        assert heir.found == {Key("", peer.netns): None, Key(limited.uid, limited.netns): BOTH}
    finally:
        heir.close()
