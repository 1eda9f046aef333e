"""The record by which a restarted reconciler knows its programs again, whatever is there in its place."""

import os
from errno import EMFILE, ENOENT

import pytest

from reconciler import program_record
from reconciler.kernel.bpf import LoadedProgram, ProgramInfo
from reconciler.program_record import NAME, ProgramRecord

BOOT_ID = "0d1e2c5a-52cb-4f27-8a4e-6d2f3a1f3b11"


class Bpf:
    """A kernel with programs; for those of `failing` it is out of descriptors."""

    def __init__(self, *loaded, failing=()):
        self.loaded, self.failing, self.of = {each.program_id: each for each in loaded}, failing, {}

    def program_by_id(self, program_id):
        if program_id in self.failing:
            raise OSError(EMFILE, "Too many open files")
        if program_id not in self.loaded:
            raise OSError(ENOENT, "No such file or directory")
        descriptor = os.open(os.devnull, os.O_RDONLY)
        self.of[descriptor] = self.loaded[program_id]
        return descriptor

    def program_info(self, descriptor):
        return ProgramInfo(self.of[descriptor], "ivbw_0123456789", ())


class Program:
    def __init__(self, bpf, program_id):
        self.bpf, self.descriptor = bpf, bpf.program_by_id(program_id)


OLD, NEW = LoadedProgram(7, 5_000_000_000), LoadedProgram(9, 6_000_000_000)


@pytest.fixture(autouse=True)
def boot_id(tmp_path, monkeypatch):
    path = tmp_path / "boot_id"
    path.write_text(f"{BOOT_ID}\n")
    monkeypatch.setattr(program_record, "_BOOT_ID", path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nri").mkdir()
    return tmp_path / "nri"


def recorded(folder, bpf, *programs):
    record = ProgramRecord(folder)
    for each in programs:
        record.add(Program(bpf, each.program_id))
    return ProgramRecord(folder).programs()


def test_what_was_recorded_is_known_again_and_root_alone_can_read_or_write_it(folder):
    assert recorded(folder, Bpf(OLD, NEW), OLD, NEW) == {OLD, NEW}
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_nothing_is_known_before_anything_was_recorded_and_that_is_no_fault(folder, caplog):
    assert ProgramRecord(folder).programs() == set()
    assert caplog.messages == []


def test_after_another_boot_nothing_is_known_as_the_kernel_counts_anew(folder, boot_id):
    assert recorded(folder, Bpf(OLD), OLD) == {OLD}
    boot_id.write_text("another\n")
    assert ProgramRecord(folder).programs() == set()
    assert recorded(folder, Bpf(OLD, NEW), NEW) == {NEW}


@pytest.mark.parametrize(
    "contents",
    [
        b"\xff\xfe",
        f"{BOOT_ID}\n7\n".encode(),
        f"{BOOT_ID}\nseven 5000000000\n".encode(),
        f"{BOOT_ID}\n7 5000000000 1\n".encode(),
        f"{BOOT_ID}\n".encode() + b"7 5000000000\n" * 400,
    ],
    ids=["no text", "half a line", "no number", "more than a line", "too long"],
)
def test_of_what_we_did_not_write_nothing_is_believed(folder, caplog, contents):
    (folder / NAME).write_bytes(contents)
    (folder / NAME).chmod(0o600)
    assert ProgramRecord(folder).programs() == set()
    assert caplog.messages == ["the record of the shaper's programs cannot be read: none of them is adopted"]
    assert recorded(folder, Bpf(NEW), NEW) == {NEW}


def test_an_empty_file_has_no_programs(folder):
    (folder / NAME).touch(0o600)
    assert ProgramRecord(folder).programs() == set()


def test_what_others_could_have_written_is_not_believed(folder, tmp_path):
    assert recorded(folder, Bpf(OLD), OLD) == {OLD}
    (folder / NAME).chmod(0o660)
    assert ProgramRecord(folder).programs() == set()
    (folder / NAME).chmod(0o600)
    (folder / NAME).rename(tmp_path / "elsewhere")
    (folder / NAME).symlink_to(tmp_path / "elsewhere")
    assert ProgramRecord(folder).programs() == set()
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME, 0o600)
    assert ProgramRecord(folder).programs() == set()


def test_programs_that_are_no_more_are_forgotten_also_where_another_has_their_id(folder):
    bpf = Bpf(OLD, NEW)
    assert recorded(folder, bpf, OLD) == {OLD}
    bpf.loaded = {OLD.program_id: LoadedProgram(OLD.program_id, 8_000_000_000), NEW.program_id: NEW}
    assert recorded(folder, bpf, NEW) == {NEW}
    del bpf.loaded[OLD.program_id]
    third = LoadedProgram(11, 9_000_000_000)
    bpf.loaded[third.program_id] = third
    assert recorded(folder, bpf, third) == {NEW, third}


def test_a_program_is_not_forgotten_when_the_kernel_cannot_be_asked_for_it(folder):
    assert recorded(folder, Bpf(OLD), OLD) == {OLD}
    assert recorded(folder, Bpf(OLD, NEW, failing=[OLD.program_id]), NEW) == {OLD, NEW}


def test_the_record_does_not_grow_for_ever(folder):
    programs = [LoadedProgram(2**31 - 1 - number, 10**18 + number) for number in range(40)]
    assert recorded(folder, Bpf(*programs), *programs) == set(programs[-32:])


def test_what_a_killed_reconciler_left_half_written_is_in_nobodys_way(folder):
    (folder / f"{NAME}.new").write_text("half")
    assert recorded(folder, Bpf(OLD), OLD) == {OLD}


def test_a_record_that_cannot_be_written_is_told_with_what_to_do_and_shaping_goes_on(folder, caplog):
    (folder / f"{NAME}.new").mkdir()  # as root may write anywhere
    assert recorded(folder, Bpf(OLD), OLD) == set()
    (told,) = caplog.records
    assert "Mount the folder of --nri-socket writable" in told.message
    assert told.folder == str(folder)


def test_the_record_is_removed_with_what_a_killed_reconciler_left(folder):
    record = ProgramRecord(folder)
    assert record.remove() == []
    assert recorded(folder, Bpf(OLD), OLD) == {OLD}
    (folder / f"{NAME}.new").write_text("half")
    assert record.remove() == [folder / NAME, folder / f"{NAME}.new"]
    assert list(folder.iterdir()) == []
    assert ProgramRecord(folder / "missing").remove() == []
