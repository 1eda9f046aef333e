"""What tests/kernel cannot bring about in network namespaces: refusals of the kernel, and an older clock."""

import contextlib
import ctypes
import errno
import os
import time

import pytest

from reconciler.kernel import netns
from reconciler.kernel.errors import NetnsGoneError, ShapingError
from reconciler.kernel.netns import created_s, inode, open_netlink, open_netlink_in_new, opened

OWN, POD, NEW = 40, 41, 42


class Libc:
    """Moves the thread between namespaces, unless it is to refuse one."""

    def __init__(self):
        self.moves, self.refused = [], {}

    def setns(self, descriptor, _):
        self.moves.append(descriptor)
        ctypes.set_errno(self.refused.get(descriptor, 0))
        return -1 if descriptor in self.refused else 0

    def unshare(self, kind):
        return self.setns(NEW, kind)


@pytest.fixture
def libc(monkeypatch):
    made = Libc()
    monkeypatch.setattr(netns, "_libc", lambda: made)
    monkeypatch.setattr(netns, "_own_descriptor", lambda: OWN)
    return made


def test_a_thread_that_has_opened_a_socket_elsewhere_comes_back(libc, monkeypatch):
    monkeypatch.setattr("socket.socket", lambda *_: tuple(libc.moves))
    assert open_netlink(POD) == (POD,)
    assert open_netlink_in_new() == (POD, OWN, NEW)
    assert libc.moves == [POD, OWN, NEW, OWN]


def test_so_does_one_that_could_open_none(libc, monkeypatch):
    def out_of_descriptors(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socket", out_of_descriptors)
    with pytest.raises(ShapingError, match="cannot enter the network namespace: Too many open files"):
        open_netlink(POD)
    assert libc.moves == [POD, OWN]


@pytest.mark.parametrize(
    ("code", "why"), [(errno.EPERM, "Operation not permitted; give CAP_SYS_ADMIN$"), (errno.ENOMEM, "memory$")]
)
def test_one_that_may_not_go_stays_and_says_why(libc, code, why):
    libc.refused[POD] = code
    with pytest.raises(ShapingError, match=why):
        open_netlink(POD)
    assert libc.moves == [POD]


def test_one_that_cannot_come_back_does_nothing_more(libc, monkeypatch, caplog):
    def ended(status):
        raise SystemExit(status)

    libc.refused[OWN] = errno.ENOMEM
    monkeypatch.setattr("socket.socket", lambda *_: None)
    monkeypatch.setattr("os._exit", ended)
    with pytest.raises(SystemExit, match="1"):
        open_netlink(POD)
    assert "cannot return to the node's network namespace: Cannot allocate memory" in caplog.text


def test_a_namespace_is_there_since_its_inode_was_made_and_never_since_before_the_node_started(tmp_path):
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    path = tmp_path / "netns"
    path.touch()
    made_s = path.stat().st_mtime
    assert created_s(str(path)) == made_s
    os.utime(path, (0, 0))  # as made before the clock was set
    assert abs(created_s(str(path)) - booted_s) < 1
    assert abs(created_s(str(tmp_path / "gone")) - booted_s) < 1


@pytest.mark.parametrize(
    "look", [lambda path: opened(path).__enter__(), inode, created_s], ids=lambda each: each.__name__
)
def test_a_path_is_taken_as_it_is_as_a_folder_that_a_user_names_may_be_below_any_var_run(monkeypatch, look):
    looked_at = []

    def no_file(path, *_):
        looked_at.append(path)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    netns._own()
    with monkeypatch.context() as patched:
        patched.setattr("reconciler.kernel.netns.os.open", no_file)
        patched.setattr("reconciler.kernel.netns.os.stat", no_file)
        with contextlib.suppress(NetnsGoneError):
            look("/var/run/netns/a")
    assert looked_at == ["/var/run/netns/a"]
