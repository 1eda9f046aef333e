"""The bpf system call as the long-lived reconciler needs it, through the small libbpf (see bpf(2), libbpf's bpf.h).

Loading is not here: compiling costs more than 100 MB and happens in a child (`compile.py`).
"""

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from reconciler.kernel.errors import ShapingError

_NAME_BYTES: Final = 16
_MOST_MAPS: Final = 16
_BPF_PROG_TYPE_SCHED_CLS: Final = 3
BPF_MAP_TYPE_ARRAY: Final = 2
INDEX_BYTES: Final = 4
"""The size of an array map's key."""


class _ProgramInfo(ctypes.Structure):
    """The head of struct bpf_prog_info (uapi/linux/bpf.h): the kernel fills as much as is asked for."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * _NAME_BYTES),
    )


class _MapInfo(ctypes.Structure):
    """The head of struct bpf_map_info."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * _NAME_BYTES),
    )


class LoadedProgram(NamedTuple):
    """What no other program of this boot has: the kernel's id, and when it was loaded, in ns since the boot."""

    program_id: int
    loaded_ns: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A loaded program: which it is, the name of its function (15 characters), and the ids of the maps it uses."""

    loaded: LoadedProgram
    name: str
    map_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map: its name (15 characters), its type, the sizes of a key and a value in bytes, and the number of entries."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int


class Bpf:
    """libbpf, loaded. All methods raise OSError with the kernel's errno; descriptors returned are the caller's.

    Those that read or write entries take the descriptor of an array map, and the size of its values. The kernel copies
    as many bytes as the map's own type and sizes say, so with any other map it would write past our buffers.
    """

    def __init__(self) -> None:
        """Raises ShapingError when the library is not there."""
        try:
            self._library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise ShapingError(f"cannot load libbpf: {error}; install Debian's libbpf1") from error

    def has_helper(self, helper: int) -> bool:
        """Whether the verifier knows a helper function, tested with a program that calls it.

        Needs CAP_SYS_ADMIN or CAP_BPF. True if unknown: loading the real program will show it.
        """
        return bool(self._library.libbpf_probe_bpf_helper(_BPF_PROG_TYPE_SCHED_CLS, helper, None) != 0)

    def program_by_id(self, program_id: int) -> int:
        """A descriptor of a loaded program (needs CAP_SYS_ADMIN)."""
        return self._checked(self._library.bpf_prog_get_fd_by_id(ctypes.c_uint32(program_id)))

    def map_by_id(self, map_id: int) -> int:
        """A descriptor of a map (needs CAP_SYS_ADMIN)."""
        return self._checked(self._library.bpf_map_get_fd_by_id(ctypes.c_uint32(map_id)))

    def program_info(self, descriptor: int) -> ProgramInfo:
        """The info of a program, by its descriptor."""
        map_ids = (ctypes.c_uint32 * _MOST_MAPS)()
        info = _ProgramInfo(nr_map_ids=_MOST_MAPS, map_ids=ctypes.addressof(map_ids))
        self._info(descriptor, info)
        loaded = LoadedProgram(info.id, info.load_time)
        return ProgramInfo(loaded, info.name.decode(), tuple(map_ids[: min(info.nr_map_ids, _MOST_MAPS)]))

    def map_info(self, descriptor: int) -> MapInfo:
        """The info of a map, by its descriptor."""
        info = _MapInfo()
        self._info(descriptor, info)
        return MapInfo(info.name.decode(), info.type, info.key_size, info.value_size, info.max_entries)

    def lookup(self, descriptor: int, index: int, value_bytes: int) -> bytes:
        """An entry of an array map."""
        value = ctypes.create_string_buffer(value_bytes)
        self._checked(self._library.bpf_map_lookup_elem(descriptor, ctypes.byref(ctypes.c_uint32(index)), value))
        return value.raw

    def lookup_all(self, descriptor: int, entries: int, value_bytes: int) -> bytes:
        """All entries of an array map, in one call (Linux 5.6). A value's size is a multiple of 8 bytes."""
        keys = (ctypes.c_uint32 * entries)()
        values = ctypes.create_string_buffer(entries * value_bytes)
        count, position = ctypes.c_uint32(entries), ctypes.c_uint32()
        call = self._library.bpf_map_lookup_batch
        result = call(descriptor, None, ctypes.byref(position), keys, values, ctypes.byref(count), None)
        if result < 0 and (ctypes.get_errno() or -result) != errno.ENOENT:  # ENOENT: that was the last entry
            self._checked(result)
        return values.raw

    def update(self, descriptor: int, index: int, value: bytes) -> None:
        """Write an entry of an array map."""
        key = ctypes.byref(ctypes.c_uint32(index))
        self._checked(self._library.bpf_map_update_elem(descriptor, key, value, ctypes.c_uint64(0)))

    def _info(self, descriptor: int, info: Any) -> None:
        length = ctypes.c_uint32(ctypes.sizeof(info))
        call = self._library.bpf_obj_get_info_by_fd
        self._checked(call(descriptor, ctypes.byref(info), ctypes.byref(length)))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno() or -result
            raise OSError(code, os.strerror(code))
        return result
