"""The program's maps may be out of reach for a moment; tests/kernel has all else of the shaper, on real ipvlan."""

import struct
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from errno import ENOMEM
from itertools import pairwise
from pathlib import Path

import pytest

from reconciler.backoff import MAX_DELAY_S, RETRY_S
from reconciler.bypass import Traffic, unshaped
from reconciler.counters import slots_in
from reconciler.kernel.apply import AttachedProgram
from reconciler.kernel.buckets import Counters
from reconciler.kernel.errors import KernelLacksError, ShapingError
from reconciler.model import EGRESS_PRIORITY, HANDLE_CLSACT_OURS, Filter, LimitEntry, ObservedShaping
from reconciler.netns_scan import NetnsScan
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper
from reconciler.slots import SlotOwner, SlotTable
from reconciler.steps import AttachRedirect, AttachShaper, CreateIfb, SetRoot
from tests.unit.reconciler.controller_bench import raised
from tests.unit.reconciler.link_messages import Kernel as Links
from tests.unit.reconciler.link_messages import link
from tests.unit.reconciler.plans import SLAVE
from tests.unit.reconciler.simulated_kernel import FILTER_NAME, PROGRAM_ID, simulate
from webhook.common.contract import Direction, Limits, Quantity


class Program:
    """Has maps that cannot be read."""

    slots = 1
    closed = 0
    program_id = PROGRAM_ID
    attached = AttachedProgram(0, FILTER_NAME)

    def read_counters(self, _class_id):
        raise OSError(ENOMEM, "Cannot allocate memory")

    read_limit = read_counters

    def altered(self):
        raise OSError(ENOMEM, "Cannot allocate memory")

    def close(self):
        self.closed += 1


@pytest.fixture
def netns(monkeypatch, tmp_path):
    """The path of an empty file, which is taken for a network namespace with no links."""

    @contextmanager
    def opened(path):
        with Path(path).open() as file:
            yield file.fileno()

    monkeypatch.setattr("reconciler.shaping.netns.opened", opened)
    monkeypatch.setattr("reconciler.shaping.Netlink.inside", nullcontext)
    monkeypatch.setattr("reconciler.shaping.observe_netns", lambda _: ObservedShaping(()))
    path = tmp_path / "netns"
    path.touch()
    return str(path)


@pytest.fixture
def shaper(netns):
    """One that limits the Pod u1."""
    owner = SlotOwner("u1", Path(netns).stat().st_ino)
    slots = SlotTable(1)
    slots.assign(owner)
    return Shaper(Program(), slots, NetnsScan({owner: netns}), adopted=True)


def test_a_program_that_cannot_be_taken_over_is_let_go_as_it_is_tried_again_and_again(monkeypatch):
    program = Program()
    monkeypatch.setattr("reconciler.shaping.scan_netns", lambda *_: NetnsScan(program_ids=(7,)))
    monkeypatch.setattr("reconciler.shaping.Program.adopt", lambda *_: program)
    with pytest.raises(OSError, match="Cannot allocate"):
        Shaper.start(slots=1)
    assert program.closed == 1


def test_maps_that_cannot_be_read_are_told_in_words_by_whatever_reads_them(shaper, netns):
    with pytest.raises(ShapingError, match="cannot read the limits back from the kernel: Cannot allocate memory"):
        shaper.audit()
    with pytest.raises(ShapingError, match="cannot read the counters back"):
        shaper.counters()
    with pytest.raises(ShapingError, match="cannot read the limits back"):
        shaper.shape("u1", netns, Limits(egress=Quantity(20_000_000)))
    with pytest.raises(ShapingError, match="cannot read the limits back"):
        shaper.sample("u1", netns, ["eth0"])
    shaper._program.read_limit = lambda _: LimitEntry(20_000_000, 1, "u1", 1)
    with pytest.raises(ShapingError, match="cannot read the counters back"):
        shaper.sample("u1", netns, ["eth0"])


@pytest.fixture
def unplaced(monkeypatch):
    """One that limits the Pod u1 in the netns with inode 7, of which it could not tell where it is mounted."""
    monkeypatch.setattr("reconciler.shaping.netns.mounted", lambda: {7: "/run/netns/b"})
    monkeypatch.setattr("reconciler.shaping.netns.inode", {"/run/netns/b": 7, "/run/netns/c": 8}.get)
    slots = SlotTable(1)
    slots.assign(SlotOwner("u1", 7))
    return Shaper(Working(), slots, NetnsScan(), adopted=True)


def test_an_earlier_sandbox_that_goes_takes_no_slot_from_one_that_is_elsewhere(unplaced):
    for elsewhere in ("/run/netns/gone", "/run/netns/c"):
        assert not unplaced.release("u1", elsewhere)
    assert unplaced.slot_owners() == [SlotOwner("u1", 7)]


def test_a_sandbox_that_goes_leaves_its_slot_though_nobody_knew_where_it_was(unplaced, monkeypatch):
    monkeypatch.setattr("reconciler.shaping.netns.opened", lambda _: raised(ShapingError("too many open files")))
    assert unplaced.release("u1", "/run/netns/b")
    assert unplaced.slot_owners() == []


def test_a_sandbox_that_goes_leaves_its_slot_though_a_defect_comes_up(unplaced, monkeypatch, caplog):
    monkeypatch.setattr("reconciler.shaping.netns.opened", lambda _: raised(ValueError("odd")))
    assert unplaced.release("u1", "/run/netns/b")
    assert unplaced.slot_owners() == []
    assert "please report it: ValueError('odd')" in str([vars(record) for record in caplog.records])


def test_one_that_is_mounted_nowhere_has_gone_with_whatever_sandbox_of_its_pod_goes(unplaced, monkeypatch):
    monkeypatch.setattr("reconciler.shaping.netns.mounted", dict)
    unplaced.release("u1", "/run/netns/gone")
    assert unplaced.slot_owners() == []


def test_no_slot_is_taken_where_it_cannot_be_told_which_network_namespaces_there_are(unplaced, monkeypatch):
    monkeypatch.setattr("reconciler.shaping.netns.mounted", lambda: raised(ShapingError("forbidden")))
    with pytest.raises(ShapingError, match="forbidden"):
        unplaced.release("u1", "/run/netns/gone")
    assert unplaced.slot_owners() == [SlotOwner("u1", 7)]


class Adopted(Program):
    """Has two sandboxes of one Pod, the later one in the lower slot, as it was free again by then."""

    slots = 2

    def read_limit(self, class_id):
        slot, is_ingress = divmod(class_id, 2)
        return None if is_ingress else LimitEntry(20_000_000, {1: 9, 2: 8}[slot], "u1", slot)

    def read_counters(self, class_id):
        return Counters(self.read_limit(class_id & ~1).generation, 100, 1, 0, 0)

    def read_figures(self, class_id, _bits_per_second):
        return self.read_counters(class_id), 0


def test_what_is_counted_after_an_adoption_tells_which_sandbox_is_the_later():
    program = Adopted()
    shaper = Shaper(program, slots_in(program), NetnsScan(), adopted=True)
    assert [(counted.pod_uid, counted.generation) for counted in shaper.counters()] == [("u1", 9), ("u1", 8)]


class Working(Program):
    """Has maps, and nothing in them but what is written."""

    def __init__(self):
        self.written = {}

    def read_limit(self, class_id):
        return self.written.get(class_id)

    def write_limit(self, class_id, entry):
        self.written[class_id] = entry


class Simulated:
    """A network namespace that is only remembered, of a kernel that lacks some kinds of steps."""

    def __init__(self, monkeypatch, *lacks):
        self.kernel, self.lacks, self.refused, self.now_s = ObservedShaping((SLAVE,)), lacks, 0, 1000.0
        monkeypatch.setattr("reconciler.shaping.monotonic", lambda: self.now_s)
        monkeypatch.setattr("reconciler.shaping.observe_netns", lambda _: self.kernel)
        monkeypatch.setattr("reconciler.shaping.apply", self.apply)
        monkeypatch.setattr("reconciler.shaping.migrate_state", lambda *_: None)

    def apply(self, step, _netlink, _program):
        if any(lacked(step) for lacked in self.lacks):
            self.refused += 1
            raise KernelLacksError("CONFIG_X (module x)", f"{step}: Operation not supported")
        self.kernel = simulate(self.kernel, step)


def no_ifb(step):
    return isinstance(step, CreateIfb)


def no_mirred(step):
    return isinstance(step, AttachRedirect)


def no_tbf(step):
    return isinstance(step, SetRoot) and step.splitting is not None


SLOW = Limits(ingress=Quantity(20_000_000), egress=Quantity(20_000_000))


@pytest.mark.parametrize("lacks", [(no_ifb,), (no_mirred,), (no_tbf, no_mirred)])
def test_a_kernel_that_cannot_limit_ingress_limits_egress_and_ingress_too_as_soon_as_it_can(netns, monkeypatch, lacks):
    simulated = Simulated(monkeypatch, *lacks)
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    first = shaper.shape("u1", netns, SLOW)
    assert first.missing == {Direction.INGRESS: ("eth0",)}
    assert "the node's kernel needs CONFIG_X (module x)" in str(first.lack)
    assert simulated.kernel.links[0].ours(Direction.EGRESS)
    simulated.now_s += RETRY_S[0]
    again = shaper.shape("u1", netns, SLOW)
    assert (again.steps, again.missing, str(again.lack)) == ((), first.missing, str(first.lack))
    simulated.lacks = ()
    simulated.now_s += RETRY_S[0]
    able = shaper.shape("u1", netns, SLOW)
    assert (able.missing, able.lack) == ({}, None)
    assert simulated.kernel.links[0].ours(Direction.INGRESS)
    shaper.shape("u1", netns, Limits())
    assert simulated.kernel.links == (SLAVE,)
    assert shaper._lacks == {}


def test_what_the_kernel_had_not_is_not_tried_when_a_change_is_heard_as_the_try_itself_is_one(netns, monkeypatch):
    simulated = Simulated(monkeypatch, no_mirred)
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    first = shaper.shape("u1", netns, SLOW)
    tried = simulated.refused
    simulated.now_s += MAX_DELAY_S
    again = shaper.shape("u1", netns, SLOW)
    assert simulated.refused == tried
    assert (again.missing, again.lack) == (first.missing, first.lack)
    assert shaper.shape("u1", netns, Limits(egress=SLOW.egress)).lack is None


@pytest.mark.parametrize("lacks", [no_ifb, no_mirred])
def test_a_kernel_that_cannot_limit_ingress_fails_where_nothing_else_is_asked_for(netns, monkeypatch, lacks):
    simulated = Simulated(monkeypatch)
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    shaper.shape("u1", netns, Limits(egress=SLOW.egress))
    simulated.lacks = (lacks,)
    for _ in range(2):
        with pytest.raises(KernelLacksError, match="CONFIG_X"):
            shaper.shape("u1", netns, Limits(ingress=SLOW.ingress))
        assert not simulated.kernel.links[0].filters, "the egress limit goes all the same"


def test_what_no_limit_can_do_without_is_no_limit(netns, monkeypatch):
    Simulated(monkeypatch, lambda step: isinstance(step, SetRoot))
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    with pytest.raises(KernelLacksError, match="CONFIG_X"):
        shaper.shape("u1", netns, SLOW)


def test_a_pod_keeps_its_slot_while_it_fails_and_it_is_told_once_when_that_is_free(netns, monkeypatch):
    simulated = Simulated(monkeypatch, lambda step: isinstance(step, SetRoot))
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    with pytest.raises(KernelLacksError):
        shaper.shape("u1", netns, SLOW)
    assert [shaper.shape("u1", netns, Limits()).slot_freed for _ in range(2)] == [True, False]
    simulated.lacks = ()
    assert not shaper.shape("u1", netns, SLOW).slot_freed


def test_a_link_that_is_not_looked_at_is_among_the_others(netns, monkeypatch):
    simulated = Simulated(monkeypatch)
    simulated.kernel = ObservedShaping((replace(SLAVE, index=2),), unseen_others={3: "v0"})
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    outcome = shaper.shape("u1", netns, Limits(egress=SLOW.egress))
    assert (outcome.indexes, outcome.others) == ({2}, {3: "v0"})


class Counting(Working):
    """Has charged nothing."""

    def read_counters(self, _class_id):
        return Counters(1, 0, 0, 0, 0)


def test_what_a_renamed_link_has_ever_sent_is_not_counted_when_its_new_name_is_known(netns, monkeypatch):
    def link_of(index, name, size):
        return link(index, name, "veth", mtu=1500, stats=struct.pack("=QQQQ", 0, size // 1000, 0, size))

    links = Links()
    Simulated(monkeypatch)
    monkeypatch.setattr("reconciler.shaping.Netlink.inside", lambda _: nullcontext(links))
    shaper = Shaper(Counting(), SlotTable(1), NetnsScan(), adopted=False)
    shaper.shape("u1", netns, Limits(egress=SLOW.egress))
    samples = []
    for held, known in (("veth0", "veth0"), ("v0", "veth0"), ("v0", "v0")):
        links.links = (link_of(2, "eth0", 5000), link_of(3, held, 9_000_000))
        samples.append(shaper.sample("u1", netns, ("eth0", known)))
    assert [unshaped(*pair) for pair in pairwise(samples)] == [Traffic(), Traffic()]
    links.links = (link_of(2, "eth0", 7000), link_of(3, "v0", 9_000_000))
    assert unshaped(samples[-1], shaper.sample("u1", netns, ("eth0", "v0"))) == Traffic(2000, 2)


class Older(Working):
    """Of another version, which keeps something else of a Pod's packets."""

    program_id = 3
    state = None


@pytest.fixture
def older(netns, monkeypatch):
    """A program that shapes the Pod u1, and the kernel where it does."""
    program = Older()
    program.written[6] = LimitEntry(20_000_000, 1, "u1", Path(netns).stat().st_ino)
    monkeypatch.setattr("reconciler.migration.Program.adopt", lambda program_id: program if program_id == 3 else None)
    held = Filter(Direction.EGRESS, "bpf", EGRESS_PRIORITY, HANDLE_CLSACT_OURS, FILTER_NAME, 3, 6)
    simulated = Simulated(monkeypatch)
    simulated.kernel = ObservedShaping((replace(SLAVE, classifier="clsact", filters=(held,)),))
    return program, simulated


@pytest.mark.parametrize("wanted", [Limits(egress=Quantity(50_000_000)), Limits()], ids=["changed", "taken away"])
def test_a_pod_that_leaves_an_older_program_leaves_no_limit_there_for_who_takes_that_over_again(older, netns, wanted):
    program, _ = older
    Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False).shape("u1", netns, wanted)
    assert program.written == {6: None}


def test_a_pod_that_cannot_leave_an_older_program_keeps_its_limit(older, netns):
    program, simulated = older
    simulated.lacks = (lambda step: isinstance(step, AttachShaper),)
    with pytest.raises(KernelLacksError):
        Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False).shape(
            "u1", netns, Limits(egress=Quantity(50_000_000))
        )
    assert program.written[6].bits_per_second == 20_000_000


def test_limits_that_cannot_be_cleared_in_an_older_program_keep_no_pod_from_its_own(older, netns, caplog):
    program, simulated = older
    program.write_limit = lambda *_: raised(OSError(ENOMEM, "Cannot allocate memory"))
    Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False).shape("u1", netns, Limits(egress=Quantity(50_000_000)))
    assert simulated.kernel.links[0].ours(Direction.EGRESS).program_id == PROGRAM_ID
    (warning,) = [record for record in caplog.records if record.message == "an older program keeps a Pod's limits"]
    assert (warning.pod_uid, warning.error) == ("u1", "[Errno 12] Cannot allocate memory")


def test_a_limit_that_cannot_be_cleared_in_an_older_program_keeps_no_other_one_there(older, netns):
    program, simulated = older
    tried = []

    def write_limit(class_id, _entry):
        tried.append(class_id)
        raise OSError(ENOMEM, "Cannot allocate memory")

    program.write_limit = write_limit
    program.written[7] = program.written[6]
    (link,) = simulated.kernel.links
    other = replace(
        link,
        link=replace(link.link, name="eth1"),
        filters=(replace(link.filters[0], class_id=7),),
    )
    simulated.kernel = ObservedShaping((link, other))
    Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False).shape("u1", netns, Limits(egress=Quantity(50_000_000)))
    assert sorted(tried) == [6, 7]


def test_the_slots_of_those_that_are_there_are_kept_without_looking_for_their_namespaces_again(
    shaper, netns, monkeypatch
):
    monkeypatch.setattr("reconciler.kernel.netns.inode", lambda path: Path(path).stat().st_ino)
    live = shaper.inodes([("u1", netns), ("u2", netns)])
    monkeypatch.setattr("reconciler.kernel.netns.inode", lambda path: raised(AssertionError(path)))
    assert shaper.collect(live) == 0


def test_a_new_pod_keeps_its_slot_though_its_netns_has_the_inode_of_one_that_went_after_it_was_looked_up(
    netns, monkeypatch
):
    Simulated(monkeypatch)
    shaper = Shaper(Working(), SlotTable(1), NetnsScan(), adopted=False)
    shaper.shape("u2", netns, SLOW)
    inode = Path(netns).stat().st_ino
    live = {Key("u1", "/run/netns/gone"): inode}
    monkeypatch.setattr("reconciler.kernel.netns.inode", {netns: inode}.get)
    assert shaper.collect(live) == 0
    monkeypatch.setattr("reconciler.kernel.netns.inode", lambda _: None)
    assert shaper.collect(live) == 1
