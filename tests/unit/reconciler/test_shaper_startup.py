"""The program is there before anybody is told of Pods, and none is compiled or kept in vain."""

from pathlib import Path

import pytest

from reconciler import shaper_startup, shaping
from reconciler.kernel.errors import ShapingError
from reconciler.netns_scan import NetnsScan
from reconciler.sandboxes import Key
from reconciler.shaper_startup import ShaperStartup
from reconciler.slots import SlotTable

FOLDER = Path("/run/netns")


class Node:
    """A node whose network namespaces hold these programs, by where one looks: in the folder, or at what is named."""

    def __init__(self, monkeypatch, *, in_folder=(), named=()):
        self.in_folder, self.named = in_folder, named
        self.loaded, self.closed = [], []
        monkeypatch.setattr(shaping, "scan_netns", self._scan_netns)
        monkeypatch.setattr(shaper_startup, "program_ids", self._program_ids)
        for module in (shaping, shaper_startup):
            monkeypatch.setattr(module, "Program", self)
        monkeypatch.setattr(shaping, "slots_in", lambda _program: SlotTable(1))

    def _scan_netns(self, keys, folder, recorded):
        assert folder == FOLDER
        assert isinstance(recorded, frozenset)
        return NetnsScan(program_ids=self.named if list(keys) else self.in_folder)

    def _program_ids(self, folder):
        assert folder == FOLDER
        yield from self.in_folder

    def adopt(self, program_id, _slots, recorded):
        return Held(self, "adopted") if program_id in recorded else None

    def load(self, slots, *, is_over):
        assert not is_over()
        self.loaded.append(slots)
        return Held(self, f"loaded {len(self.loaded)}")


class Record:
    """The programs on record."""

    def __init__(self, *known):
        self.known, self.added = known, []

    def programs(self):
        return frozenset(self.known)

    def add(self, program):
        self.added.append(program.name)


class Held:
    def __init__(self, node, name):
        self.node, self.name = node, name

    def close(self):
        self.node.closed.append(self.name)


def test_a_program_that_is_prepared_is_used_once(monkeypatch):
    node = Node(monkeypatch)
    start = ShaperStartup(1, FOLDER, Record(7))
    start.prepare()
    assert node.loaded == [1]
    first = start.start([Key("u1", "/run/netns/a")])
    assert (node.loaded, first.adopted) == ([1], False)
    first.close()  # as when the limits cannot be read
    start.start([])
    assert (node.loaded, node.closed) == ([1, 1], ["loaded 1"])


def test_what_can_be_adopted_is_not_compiled(monkeypatch):
    node = Node(monkeypatch, in_folder=(7,), named=(7,))
    start = ShaperStartup(1, FOLDER, Record(7))
    start.prepare()
    assert start.start([Key("u1", "/run/netns/a")]).adopted
    assert (node.loaded, node.closed) == ([], ["adopted"])


def test_what_pods_have_but_no_reconciler_recorded_is_not_adopted_and_what_is_loaded_is_recorded(monkeypatch):
    node, record = Node(monkeypatch, in_folder=(7,), named=(7,)), Record(6, 8)
    start = ShaperStartup(1, FOLDER, record)
    start.prepare()
    assert not start.start([Key("u1", "/run/netns/a")]).adopted
    assert (node.loaded, record.added) == ([1], ["loaded 1"])


def test_what_was_compiled_in_vain_is_let_go(monkeypatch):
    node = Node(monkeypatch, named=(7,))
    start = ShaperStartup(1, FOLDER, Record(7))
    start.prepare()
    assert start.start([Key("u1", "/proc/1/ns/net")]).adopted
    assert (node.loaded, node.closed) == ([1], ["loaded 1"])


def test_what_could_not_be_prepared_is_tried_at_the_start(monkeypatch):
    node = Node(monkeypatch)
    load, failures = node.load, [ShapingError("no")]
    node.load = lambda slots, **how: load(slots, **how) if not failures else (_ for _ in ()).throw(failures.pop())
    start = ShaperStartup(1, FOLDER, Record(7))
    with pytest.raises(ShapingError):
        start.prepare()
    assert not start.start([]).adopted
    assert node.loaded == [1]


def test_whoever_stops_has_what_compiles_given_up(monkeypatch):
    node = Node(monkeypatch)
    start, asked = ShaperStartup(1, FOLDER, Record(7)), []
    node.load = lambda _slots, *, is_over: asked.append(is_over())
    start.prepare()
    start.stop()
    start.prepare()
    assert asked == [False, True]
