"""The program's maps may be out of reach for a moment; tests/kernel has all else of the shaper, on real ipvlan."""

from contextlib import contextmanager, nullcontext
from errno import ENOMEM
from pathlib import Path

import pytest

from reconciler.counters import slots_in
from reconciler.kernel.buckets import Counters
from reconciler.model import LimitEntry, ObservedShaping
from reconciler.shaping import Shaper, ShapingError
from reconciler.slots import SlotTable, Tenant
from reconciler.survey import Survey
from webhook.contract import Limits, Quantity


class Program:
    """Has maps that cannot be read."""

    slots = 1
    closed = 0

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
    tenant = Tenant("u1", Path(netns).stat().st_ino)
    slots, _ = SlotTable(1).assign(tenant)
    return Shaper(Program(), slots, Survey({tenant: netns}), adopted=True)


def test_a_program_that_cannot_be_taken_over_is_let_go_as_it_is_tried_again_and_again(monkeypatch):
    program = Program()
    monkeypatch.setattr("reconciler.shaping.survey", lambda *_: Survey())
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
    shaper = Shaper(program, slots_in(program), Survey(), adopted=True)
    assert [(counted.pod_uid, counted.generation) for counted in shaper.counters()] == [("u1", 9), ("u1", 8)]
