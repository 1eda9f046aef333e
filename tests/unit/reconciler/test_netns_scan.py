"""What a reconciler that starts finds in its Pods' network namespaces, and what another version's shaper hands over."""

import os
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from errno import ENOENT, ENOMEM
from pathlib import Path

import pytest

from reconciler import inspection, netns_scan
from reconciler.inspection import Inspection, inspect
from reconciler.kernel import buckets, program
from reconciler.kernel.bpf import BPF_MAP_TYPE_ARRAY, LoadedProgram, MapInfo, ProgramInfo
from reconciler.migration import clear_left, migrate_state, older_buckets
from reconciler.model import HANDLE_CLSACT_OURS, Filter, LimitEntry, Link, ObservedLink, ObservedShaping
from reconciler.sandboxes import Key
from reconciler.slots import Assignment, SlotOwner
from tests.unit.reconciler.simulated_kernel import FILTER_NAME
from webhook.common.contract import Direction, Limits, Quantity

A = "/run/netns/a"
OWNER = SlotOwner("u1", 5)
LIMIT = buckets.encode_limit(LimitEntry(20_000_000, 3, OWNER.pod_uid, OWNER.netns_inode))
STATE = (3).to_bytes(8, sys.byteorder) + b"\1" * (buckets.STATE_BYTES - 8)
OURS, ANOTHERS = 7, 8
ENTRIES = 4


class Bpf:
    """A kernel with a program of ours, of another version, and another's. Its descriptors are real, as are duplicates.

    `values` are the names of maps, and what each of their entries holds.
    """

    def __init__(self, limit=LIMIT, state=STATE):
        self.values = {1: ("limits", limit), 2: ("state", state)}
        self.updated = []
        self.failure = None

    def program_by_id(self, ident):
        return os.memfd_create(str(ident))

    map_by_id = program_by_id

    def program_info(self, descriptor):
        name = "ivbw_0123456789" if _ident(descriptor) == OURS else "drop_all"
        return ProgramInfo(LoadedProgram(_ident(descriptor), 1), name, (1, 2))

    def map_info(self, descriptor):
        name, value = self.values[_ident(descriptor)]
        return MapInfo(name, BPF_MAP_TYPE_ARRAY, 4, len(value), ENTRIES)

    def lookup(self, descriptor, index, value_bytes):
        _, value = self.values[_ident(descriptor)]
        if index >= ENTRIES:
            raise OSError(ENOENT, "No such file or directory")
        if self.failure is not None:
            raise self.failure
        assert len(value) == value_bytes, "the kernel writes all of it, past what is ours"
        return value

    def lookup_all(self, descriptor, entries, value_bytes):
        return self.lookup(descriptor, 0, value_bytes) * entries

    def update(self, _descriptor, index, value):
        self.updated.append((index, value))


def _ident(descriptor):
    return int(Path(f"/proc/self/fd/{descriptor}").readlink().name.removeprefix("memfd:").split()[0])


def shaped(*, direction=Direction.EGRESS, by=OURS):
    """A link with our filter."""
    number = 2 + (direction is Direction.INGRESS)
    shaper = Filter(Direction.EGRESS, "bpf", 1, HANDLE_CLSACT_OURS, FILTER_NAME, program_id=by, class_id=number)
    return ObservedLink(Link(f"eth{number}", "ipvlan"), classifier="clsact", filters=(shaper,))


@pytest.fixture
def looking(monkeypatch):
    """Has network namespaces hold these links, and the kernel be this one."""

    def look_into(bpf, *links):
        monkeypatch.setattr(program, "Bpf", lambda: bpf)
        for module in (netns_scan, inspection):
            monkeypatch.setattr(module.netns, "opened", opened)
            monkeypatch.setattr(module.Netlink, "inside", nullcontext)
            monkeypatch.setattr(module, "observe_netns", lambda _: ObservedShaping(links))

    @contextmanager
    def opened(_path):
        with Path(os.devnull).open() as file:
            yield file.fileno()

    return look_into


@pytest.mark.parametrize("longer", [-8, 0, 8])
def test_limits_are_read_whatever_else_an_older_program_keeps(looking, longer):
    looking(Bpf(state=STATE[:longer] if longer < 0 else STATE + bytes(longer)), shaped())
    assert netns_scan.scan_netns([Key("u1", A)]).held == {("u1", A): Limits(egress=Quantity(20_000_000))}


@pytest.mark.parametrize(
    ("limit", "links"),
    [
        (LIMIT + bytes(8), [shaped()]),
        (LIMIT, [shaped(by=ANOTHERS)]),
        (LIMIT, [shaped(), shaped(direction=Direction.INGRESS, by=ANOTHERS)]),
    ],
    ids=["limits of another layout", "another's program", "one of two"],
)
def test_limits_that_cannot_be_read_are_not_taken_for_none(looking, limit, links):
    looking(Bpf(limit), *links)
    assert netns_scan.scan_netns([Key("u1", A)]).held == {("u1", A): None}


def test_what_one_pods_forged_filter_leads_to_keeps_no_other_from_being_found(looking, monkeypatch, caplog):
    looking(Bpf())
    forged = replace(shaped(), filters=(replace(shaped().filters[0], class_id=4),))  # beyond the map's entries
    each_in_turn = iter([ObservedShaping((forged,)), ObservedShaping((shaped(),))])
    monkeypatch.setattr(netns_scan, "observe_netns", lambda _: next(each_in_turn))
    held = netns_scan.scan_netns([Key("u2", "/run/netns/forged"), Key("u1", A)]).held
    assert held == {("u2", "/run/netns/forged"): None, ("u1", A): Limits(egress=Quantity(20_000_000))}
    assert [record.netns for record in caplog.records] == ["/run/netns/forged"]


def test_limits_that_cannot_be_read_for_lack_of_memory_are_not_given_up(looking):
    bpf = Bpf()
    looking(bpf, shaped())
    bpf.failure = OSError(ENOMEM, "Cannot allocate memory")
    with pytest.raises(OSError, match="Cannot allocate"):
        netns_scan.scan_netns([Key("u1", A)])


def test_a_netns_that_nobody_names_is_told_of_though_it_cannot_be_read_whose_it_is(looking, monkeypatch):
    monkeypatch.setattr(netns_scan, "_mounted", lambda _folder: {5: A})
    looking(Bpf(LIMIT + bytes(8)), shaped())
    assert netns_scan.scan_netns([], Path("/run/netns")).held == {("", A): None}
    looking(Bpf(), ObservedLink(Link("eth0", "ipvlan")))
    assert netns_scan.scan_netns([], Path("/run/netns")).held == {}
    monkeypatch.setattr(netns_scan, "observe_netns", lambda _: 1 / 0)
    assert netns_scan.scan_netns([], Path("/run/netns")).held == {("", A): None}


@pytest.mark.parametrize(
    ("recorded", "owner"),
    [([(OURS, 1)], "u1"), ([], "u1"), ([(ANOTHERS, 1)], ""), ([(OURS, 2)], "")],
    ids=["on record", "the first start", "another", "of the same number"],
)
def test_whose_a_netns_is_that_nobody_names_is_told_by_programs_on_record_alone(looking, monkeypatch, recorded, owner):
    """A Pod's own program could have another Pod's limits, or none, put on it."""
    inode = Path(os.devnull).stat().st_ino
    monkeypatch.setattr(netns_scan, "_mounted", lambda _folder: {inode: A})
    looking(Bpf(buckets.encode_limit(LimitEntry(20_000_000, 3, "u1", inode))), shaped())
    limits = Limits(egress=Quantity(20_000_000)) if owner else None
    found = netns_scan.scan_netns([], Path("/run/netns"), [LoadedProgram(*each) for each in recorded])
    assert found.held == {(owner, A): limits}
    assert found.paths == ({SlotOwner(owner, inode): A} if owner else {})


def test_a_filter_whose_slot_is_free_limits_nothing(looking):
    looking(Bpf(buckets.EMPTY_LIMIT), shaped())
    assert netns_scan.scan_netns([Key("u1", A)]).held == {("u1", A): Limits()}


def test_what_another_version_counts_is_shown_only_if_it_is_known_what_it_is_and_its_limits_are(looking):
    looking(Bpf(), shaped())
    assert inspect(A).counters.directions[Direction.EGRESS].packets
    looking(Bpf(state=STATE + bytes(8)), shaped())
    limits = {each: LimitEntry(20_000_000, 3, OWNER.pod_uid, OWNER.netns_inode) for each in Direction}
    assert inspect(A) == Inspection(("eth2",), None, limits)


def test_limits_that_cannot_be_read_are_not_shown(looking):
    for bpf, by in ((Bpf(LIMIT + bytes(8)), OURS), (Bpf(), ANOTHERS), (Bpf(buckets.EMPTY_LIMIT), OURS)):
        looking(bpf, shaped(by=by))
        assert inspect(A) == Inspection(("eth2",), None)


class Newer:
    """Keeps what is handed over."""

    program_id = 9

    def __init__(self):
        self.states = {}

    def write_state(self, class_id, state):
        self.states[class_id] = state


def test_what_an_older_program_keeps_of_packets_is_handed_over_where_an_entry_has_the_same_size(looking):
    looking(Bpf(), shaped())
    newer = Newer()
    migrate_state([shaped()], newer, OWNER, Assignment(4, 11))
    assert newer.states == {8: (11).to_bytes(8, sys.byteorder) + STATE[8:]}
    looking(Bpf(state=STATE + bytes(8)), shaped())
    newer = Newer()
    migrate_state([shaped()], newer, OWNER, Assignment(4, 11))
    assert newer.states == {}


def test_only_the_limits_of_the_one_who_left_an_older_program_are_cleared_there(looking):
    bpf = Bpf()
    looking(bpf, shaped())
    for links, owner in (
        ([shaped()], SlotOwner("u2", OWNER.netns_inode)),
        ([shaped()], SlotOwner(OWNER.pod_uid, 6)),
        ([shaped(by=ANOTHERS)], OWNER),
        ([shaped(by=Newer.program_id)], OWNER),
    ):
        clear_left(older_buckets(links, Newer()), owner)
    assert bpf.updated == []
    clear_left(older_buckets([shaped(), shaped()], Newer()), OWNER)
    assert bpf.updated == [(2, buckets.EMPTY_LIMIT)]
