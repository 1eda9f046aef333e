"""Taking over a program, or loading one, is tried again and again: whatever fails leaves no descriptor behind."""

import os
import socket
import sys
import time
from errno import EMFILE, ENOMEM
from itertools import chain, repeat
from pathlib import Path

import pytest

from reconciler.kernel import buckets, program
from reconciler.kernel.bpf import BPF_MAP_TYPE_ARRAY, LoadedProgram, MapInfo, ProgramInfo
from reconciler.kernel.errors import ShapingError
from reconciler.kernel.program import Program

SLOTS = 2
ENTRIES = 2 * (SLOTS + 1)
LOADED = LoadedProgram(7, 5_000_000_000)
FAILING = "sleep 0.5; echo no such type >&2; exit 1"
MAPS = {1: ("limits", buckets.LIMIT_BYTES), 2: ("state", buckets.STATE_BYTES), 3: ("another", 8)}


class Bpf:
    """A kernel with one program of ours, whose calls fail from the n-th on. Its descriptors are real."""

    kind, key_bytes, entries = BPF_MAP_TYPE_ARRAY, 4, ENTRIES

    def __init__(self, works=10**6, *, name=None, maps=(1, 2, 3)):
        self.left, self.name, self.maps = works, name or f"ivbw_{program.identity(SLOTS)}"[:15], maps
        self.of = {}

    def _call(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(ENOMEM, "Cannot allocate memory")

    def program_by_id(self, _program_id):
        self._call()
        return os.open(os.devnull, os.O_RDONLY)

    def map_by_id(self, map_id):
        descriptor = self.program_by_id(map_id)
        self.of[descriptor] = map_id
        return descriptor

    def program_info(self, _descriptor):
        self._call()
        return ProgramInfo(LOADED, self.name, self.maps)

    def map_info(self, descriptor):
        self._call()
        name, value_bytes = MAPS[self.of.get(descriptor, 1)]
        return MapInfo(name, self.kind, self.key_bytes, value_bytes, self.entries)

    def lookup_all(self, _descriptor, entries, value_bytes):
        self._call()
        return bytes(entries * value_bytes)

    def lookup(self, _descriptor, _index, value_bytes):
        self._call()
        return bytes(value_bytes)

    def update(self, _descriptor, _index, _value):
        self._call()


def descriptors():
    return set(Path("/proc/self/fd").iterdir())


def test_a_program_whose_adoption_fails_at_any_call_leaves_no_descriptor(monkeypatch):
    before, failed, adopted = descriptors(), 0, None
    while adopted is None:
        monkeypatch.setattr(program, "Bpf", lambda works=failed: Bpf(works))
        try:
            adopted = Program.adopt(7, SLOTS, {LOADED})
        except OSError:
            assert descriptors() == before, f"after {failed} calls"
        else:
            assert adopted or descriptors() == before, f"after {failed} calls"
        failed += adopted is None
    assert failed > 9  # the program, what it is, three maps and what they are, how large they are, their limits
    assert len(descriptors()) == len(before) + 3
    adopted.close()
    assert descriptors() == before


@pytest.mark.parametrize("recorded", [set(), {LoadedProgram(7, 6_000_000_000)}], ids=["none", "one of another time"])
def test_a_program_that_no_reconciler_recorded_is_not_put_on_pods_whatever_its_name_is(monkeypatch, caplog, recorded):
    before = descriptors()
    monkeypatch.setattr(program, "Bpf", Bpf)
    assert Program.adopt(7, SLOTS, recorded) is None
    assert Program.adopt(7, SLOTS) is None
    assert descriptors() == before
    assert caplog.messages == ["program 7 has our name, but no reconciler recorded it: it is replaced"] * 2


@pytest.mark.parametrize("other", [Bpf(name="cil_from_netdev"), Bpf(maps=(1, 3))], ids=["another's", "other maps"])
def test_a_program_that_is_not_ours_is_let_go(monkeypatch, other):
    before = descriptors()
    monkeypatch.setattr(program, "Bpf", lambda: other)
    assert Program.adopt(7, SLOTS, {LOADED}) is None
    assert descriptors() == before


@pytest.mark.parametrize(
    "made", [{"kind": 6}, {"key_bytes": 64}, {"entries": 1 << 22}], ids=["per CPU", "long keys", "huge"]
)
@pytest.mark.parametrize("slots", [None, SLOTS])
def test_maps_that_are_not_as_ours_are_not_read_as_the_kernel_would_write_past_what_is_ours(monkeypatch, made, slots):
    forged = Bpf()
    for name, value in made.items():
        setattr(forged, name, value)
    forged.lookup = forged.lookup_all = lambda *_: pytest.fail("read")
    before = descriptors()
    monkeypatch.setattr(program, "Bpf", lambda: forged)
    assert Program.adopt(7, slots, {LOADED}) is None
    assert descriptors() == before


def test_of_a_program_that_keeps_another_state_the_limits_alone_are_read(monkeypatch):
    before = descriptors()
    monkeypatch.setitem(MAPS, 2, ("state", buckets.STATE_BYTES + 8))  # a look-up would write past what is ours
    monkeypatch.setattr(program, "Bpf", Bpf)
    assert Program.adopt(7, SLOTS, {LOADED}) is None
    older = Program.adopt(7)
    assert older.read_limit(2) is None
    for use in (older.read_state, older.read_counters):
        with pytest.raises(OSError, match="another version's"):
            use(2)
    older.close()
    assert descriptors() == before


def test_of_any_programs_limits_no_copy_is_made_as_a_pod_may_bring_thousands_of_programs(monkeypatch):
    bpf = Bpf()
    bpf.lookup_all = lambda *_: pytest.fail("read")
    monkeypatch.setattr(program, "Bpf", lambda: bpf)
    found = Program.adopt(7)
    found.write_limit(2, None)
    assert found.written == b""
    found.close()


def test_out_of_descriptors_in_the_midst_of_an_adoption_leaves_none_behind(monkeypatch):
    before, dup, failing = descriptors(), os.dup, [False, True]

    def duplicate(descriptor):
        if failing.pop(0):
            raise OSError(EMFILE, "Too many open files")
        return dup(descriptor)

    monkeypatch.setattr(program, "Bpf", Bpf)
    monkeypatch.setattr(os, "dup", duplicate)
    assert Program.adopt(7, SLOTS, {LOADED}) is None
    assert failing == []
    assert descriptors() == before


@pytest.mark.parametrize(("sent", "works"), [(3, 0), (2, 9)], ids=["its id cannot be read", "a map is missing"])
def test_a_program_that_was_loaded_in_vain_leaves_no_descriptor(monkeypatch, sent, works):
    def run_child(channel, _slots, _is_over):
        with Path(os.devnull).open() as null:
            socket.send_fds(channel, [b"x"], [null.fileno()] * sent)
        return "what the compiler said"

    monkeypatch.setattr(program, "_run_child", run_child)
    monkeypatch.setattr(program, "Bpf", lambda: Bpf(works))
    before = descriptors()
    with pytest.raises((OSError, ShapingError)):
        Program.load(SLOTS)
    assert descriptors() == before


def test_what_the_compiler_says_again_is_the_same_text_though_its_headers_are_in_another_folder(monkeypatch):
    told = []
    for folder in ("ipvlan-bandwidth-ab_c1234", "ipvlan-bandwidth-x9z0w_12"):
        said = f"/var/{folder}/include/linux/types.h:3: error: no such type\n"
        monkeypatch.setattr(program, "_run_child", lambda _channel, _slots, _is_over, said=said: said)
        with pytest.raises(ShapingError) as failed:
            Program.load(SLOTS)
        told.append(str(failed.value))
    assert told[0] == told[1]
    assert "types.h:3: error: no such type" in told[0]


@pytest.fixture
def compiling(monkeypatch, tmp_path):
    """Has the compiler's process run a shell script."""

    def by(script):
        compiler = tmp_path / "compiler"
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(compiler))

    return by


def test_a_compiler_is_killed_when_nobody_waits_for_it_any_more(monkeypatch, tmp_path, compiling):
    started = tmp_path / "started"
    compiling(f"echo $$ > {started}\nexec sleep 1000")
    monkeypatch.setattr(program, "COMPILE_TIMEOUT_SECONDS", 30)
    before, began_s = descriptors(), time.monotonic()
    with pytest.raises(ShapingError, match="stopped, as the reconciler ends"):
        Program.load(SLOTS, is_over=lambda: started.exists() and started.read_text() != "")
    assert time.monotonic() - began_s < 20
    assert not Path(f"/proc/{started.read_text().strip()}").exists()
    assert descriptors() == before


def test_a_compiler_that_takes_too_long_is_killed_and_that_is_told(monkeypatch, compiling):
    compiling("exec sleep 1000")
    monkeypatch.setattr(program, "COMPILE_TIMEOUT_SECONDS", 0)
    with pytest.raises(ShapingError, match="not done after 0 s"):
        Program.load(SLOTS)


def test_a_compiler_that_uses_too_much_of_a_cpu_is_ended_and_that_is_told(monkeypatch, compiling):
    compiling("while :; do :; done")
    monkeypatch.setattr(program, "COMPILE_CPU_SECONDS", 1)
    with pytest.raises(ShapingError, match="not done after 1 s of CPU time"):
        Program.load(SLOTS)


def test_a_compiler_that_gets_little_of_a_cpu_has_minutes(monkeypatch, compiling):
    compiling(FAILING)
    clock = chain([0.0], repeat(590.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(ShapingError, match="cannot compile or load the shaper: no such type"):
        Program.load(SLOTS)


def test_what_a_compiler_says_is_told(compiling):
    compiling(FAILING)
    with pytest.raises(ShapingError, match="cannot compile or load the shaper: no such type"):
        Program.load(SLOTS)


def test_of_what_it_says_the_end_is_told_in_one_line_and_fits_into_an_event(compiling):
    compiling("seq 5000 >&2\necho 'invalid access to packet\nPermission denied' >&2\nexit 1")
    with pytest.raises(
        ShapingError, match=r"shaper: [\d ]+ 5000 invalid access to packet Permission denied$"
    ) as caught:
        Program.load(SLOTS)
    assert len(str(caught.value)) < 800


def test_a_compiler_that_is_killed_for_want_of_memory_is_told_apart(compiling):
    compiling("kill -9 $$")
    with pytest.raises(ShapingError, match="shaper: killed: if for want of memory, raise the container's limit"):
        Program.load(SLOTS)


def test_its_name_is_computed_once_as_each_look_compares_it(monkeypatch):
    read = []

    def source():
        read.append("once")
        return "int shaper;"

    monkeypatch.setattr(program, "source", source)
    program.identity.cache_clear()
    named = Program(Bpf(), SLOTS, 7, 0, 0, 0, bytearray())
    assert named.attached == named.attached
    program.identity.cache_clear()
    assert read == ["once"]
