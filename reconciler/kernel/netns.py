"""Network namespaces by path: whether it is one, whether it is the node's own, and a socket inside it.

A socket stays in the namespace in which it was opened, and keeps that namespace alive, so it is closed after each use.
The calling thread enters the namespace for as long as it takes to open the socket (setns(2) moves one thread alone).
"""

import ctypes
import errno
import fcntl
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reconciler import paths
from reconciler.kernel.errors import HostNetnsError, NetnsGoneError, ShapingError

logger = logging.getLogger(__name__)
CLONE_NEWNET: Final = 0x40000000
NETNS_FOLDER: Final = Path(paths.NETNS_FOLDER)
NS_GET_NSTYPE: Final = 0xB703
"""ioctl_nsfs(2): the kind of a descriptor's namespace."""


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the network namespace at `path`.

    Raises NetnsGoneError when there is none, HostNetnsError when it is the node's own, and ShapingError when that
    is unknown.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _not_opened(path, error) from error
    try:
        try:
            kind = fcntl.ioctl(descriptor, NS_GET_NSTYPE)
        except OSError as error:
            raise NetnsGoneError(f"{path} is not a network namespace: it was unmounted, or is another file") from error
        if kind != CLONE_NEWNET:
            raise NetnsGoneError(f"{path} is a namespace, but not of the network")
        if os.path.samestat(os.fstat(descriptor), _own()):
            raise HostNetnsError(f"{path} is the node's own network namespace, which is never limited")
        yield descriptor
    finally:
        os.close(descriptor)


def inode(path: str) -> int | None:
    """The inode of the namespace at `path`, which identifies it while it exists; None when there is none.

    Cheap, as the garbage collector asks for all of a node's regularly: a stat, no open. Raises ShapingError.
    """
    own = _own()
    try:
        found = os.stat(path)  # noqa: PTH116 - takes 2 us, Path.stat 6
    except OSError as error:
        failure = _not_opened(path, error)
        if isinstance(failure, NetnsGoneError):
            return None
        raise failure from error
    return found.st_ino if found.st_dev == own.st_dev and found.st_ino != own.st_ino else None


def created_s(path: str) -> float:
    """The namespace at `path` did not exist before this time, in seconds since the epoch by the present clock.

    While a namespace is mounted, its inode stays and has its creation times, which nsfs does not let anyone change;
    without a mount, the kernel makes the inode anew, with new times, whenever it is asked for. No namespace is older
    than the node's boot: so a clock that was set forward since adds no years.
    """
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        return max(booted_s, os.stat(path).st_mtime)  # noqa: PTH116 - as above
    except OSError:
        return booted_s


@functools.cache
def _own() -> os.stat_result:
    """The stat of this process's network namespace, which the process never leaves."""
    return os.fstat(_own_descriptor())


@functools.cache
def _own_descriptor() -> int:
    """A descriptor of the same, which stays open. Raises ShapingError."""
    try:
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShapingError(f"cannot look into the node's own network namespace: {error.strerror}") from error


def mounted(folder: Path = NETNS_FOLDER) -> dict[int, str]:
    """The paths of all namespaces mounted in a folder, by inode. Raises ShapingError when it cannot be read."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names suffice, no Paths are needed
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise ShapingError(f"cannot look into {folder}: {error.strerror}") from error
    there = [f"{folder}/{name}" for name in names]
    return {found: path for path in there if (found := inode(path)) is not None}


def _not_opened(path: str, error: OSError) -> ShapingError:
    """Only an absent path means gone: if out of descriptors or memory, or forbidden, it may be a Pod's with limits."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NetnsGoneError(f"no network namespace at {path}: {error.strerror}")
    return ShapingError(f"cannot look into the network namespace {path}: {error.strerror}")


def open_netlink_here() -> socket.socket:
    """A netlink socket inside the network namespace of this process. Raises ShapingError."""
    return _opened("open a netlink socket")


def open_netlink(descriptor: int) -> socket.socket:
    """A netlink socket inside the network namespace of `descriptor`. Raises ShapingError."""
    return _opened_after("enter the network namespace", lambda libc: int(libc.setns(descriptor, CLONE_NEWNET)))


def open_netlink_in_new() -> socket.socket:
    """A netlink socket inside a new network namespace, which nothing else holds. Raises ShapingError."""
    return _opened_after("make a network namespace to try things in", lambda libc: int(libc.unshare(CLONE_NEWNET)))


def _opened_after(what: str, move: Callable[[ctypes.CDLL], int]) -> socket.socket:
    """A netlink socket, opened where `move` takes this thread, which comes back: `move` returns 0, or sets errno.

    A thread of its own would cost more than all else that is asked of a Pod's namespace at a time.
    """
    own = _own_descriptor()
    if move(_libc()) != 0:
        code = ctypes.get_errno()
        hint = "; give CAP_SYS_ADMIN" if code == errno.EPERM else ""
        raise ShapingError(f"cannot {what}: {os.strerror(code)}{hint}")
    try:
        return _opened(what)
    finally:
        if _libc().setns(own, CLONE_NEWNET) != 0:
            # Out of memory. Whatever this thread did next to the node, it would do to a Pod, or the other way round.
            logger.critical("cannot return to the node's network namespace: %s", os.strerror(ctypes.get_errno()))
            os._exit(1)


def _opened(what: str) -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:  # out of descriptors or memory
        raise ShapingError(f"cannot {what}: {error.strerror}") from error


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
