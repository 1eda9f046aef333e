"""The guests of tests/kernel, by scripts in their place: where one has its memory, and what is said of a lost one."""

import os
import re

import pytest

from tests.kernel import guest, uml
from tests.kernel.guest import GuestLostError, GuestNotUpError

GUEST = """#!/bin/sh
echo guest is up
echo "memory in $TMPDIR"
echo guest exit status 3
"""
OTHERS = "dev /dev devtmpfs rw 0 0\n/dev/vda / ext4 rw 0 0\n"


class Filesystem:
    """What statvfs tells of one."""

    f_frsize = 4096

    def __init__(self, free_mib, flag=0):
        self.f_bavail, self.f_flag = free_mib * 256, flag


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Starts a guest of 1024 MiB on a machine with this /dev/shm; gives the folder of its memory, and /dev/shm."""
    shm, program = tmp_path / "shm", tmp_path / "bin/linux.uml"
    program.parent.mkdir()
    shm.mkdir()
    program.write_text(GUEST)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(uml, "SHARED_MEMORY", shm)
    monkeypatch.setattr(uml, "MOUNTS", tmp_path / "mounts")

    def start(*kinds, free_mib=2000, flag=0):
        mounts = "".join(f"shm {shm} {kind} rw 0 0\n" for kind in kinds)
        (tmp_path / "mounts").write_text(OTHERS + mounts)
        said = []
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda _: Filesystem(free_mib, flag))
            status = uml.UserModeLinux().run(["true"], environment={}, folder=tmp_path, shared=shm, tell=said.append)
        assert status == 3
        return said[-1].removeprefix("memory in "), str(shm)

    return start


@pytest.mark.parametrize("kinds", [["tmpfs"], ["ext4", "tmpfs"]])
def test_a_guests_memory_is_no_file_of_a_disk(machine, kinds):
    memory, shm = machine(*kinds)
    assert memory == shm


@pytest.mark.parametrize(
    ("kinds", "filesystem"),
    [
        ((), {}),
        (["ext4"], {}),
        (["tmpfs", "ext4"], {}),
        (["tmpfs"], {"free_mib": 64}),
        (["tmpfs"], {"free_mib": 1024}),
        (["tmpfs"], {"flag": os.ST_NOEXEC}),
    ],
    ids=["none", "disk", "disk over it", "a container's", "no more than its memory", "noexec"],
)
def test_a_guest_starts_in_a_folder_of_its_own_where_the_shared_memory_will_not_do(machine, kinds, filesystem):
    memory, _ = machine(*kinds, **filesystem)
    assert "/uml-" in memory


def stream(script, timeout_seconds=60):
    said = []
    noise = re.compile("^$")
    status = guest.stream(
        ["sh", "-c", script], timeout_seconds=timeout_seconds, environment=os.environ, noise=noise, tell=said.append
    )
    return status, said


@pytest.mark.parametrize("up", ["", "echo guest is up; "])
def test_a_guest_that_takes_too_long_is_said_to(up):
    with pytest.raises(GuestLostError, match=r"took longer than 1 s") as raised:
        stream(f"{up}exec sleep 9", timeout_seconds=1)
    assert raised.type is GuestLostError, "no other boot is tried"


def test_a_guest_that_ends_too_soon_is_said_to():
    with pytest.raises(GuestNotUpError):
        stream("exit 124")
    with pytest.raises(GuestLostError, match=r"ended before its command did"):
        stream("echo guest is up; exit 137")


def test_a_guest_that_says_its_commands_exit_status_is_not_lost():
    assert stream("echo guest is up; echo hello; echo guest exit status 0; exit 1") == (0, ["hello"])
    assert stream("echo guest is up; echo guest exit status 5; exec sleep 9", timeout_seconds=1) == (5, [])
