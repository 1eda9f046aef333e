"""`edt_fifo.c`, compiled and loaded, with its program and map handed over by path or by descriptor.

`python -m tests.bench.edt FOLDER` compiles it and pins both below a mounted bpffs: bcc is large, so it has a process of
its own.
"""

import os
import struct
import subprocess
import sys
import tempfile
from ctypes import CDLL, byref, c_uint32, c_uint64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.kernel import compile as shaper_compile

SOURCE = Path(__file__).with_name("edt_fifo.c")
PINS = Path("/sys/fs/bpf")
ENTRIES = 2048


def load(text: str, names: tuple[str, ...], entries: int = ENTRIES) -> Any:
    """Compile a text with bcc as the shaper is compiled: the module and its functions' descriptors."""
    with tempfile.TemporaryDirectory() as folder:
        shaper_compile._write_headers(Path(folder))
        os.environ["BCC_KERNEL_SOURCE"] = folder
        from bcc import BPF  # noqa: PLC0415 - it reads the environment

        module = BPF(text=text.encode(), cflags=[f"-DENTRIES={entries}"])
        functions = [module.load_func(name.encode(), BPF.SCHED_CLS) for name in names]
        os.chdir("/")
    return module, [function.fd for function in functions]


def timeline(bits_per_second: int) -> bytes:
    """A map entry of a limit on which nothing waits."""
    return struct.pack("=QQ", bits_per_second // 8, 0)


@dataclass(frozen=True, slots=True)
class Pinned:
    """The loaded program, by its path; limits are written by entry."""

    program: Path
    timelines: int

    @classmethod
    def load(cls) -> "Pinned":
        """Compile in a child, which pins."""
        if not PINS.is_mount():
            subprocess.run(("mount", "-t", "bpf", "bpf", str(PINS)), check=True)
        subprocess.run((sys.executable, "-m", "tests.bench.edt", str(PINS)), check=True)
        descriptor = CDLL("libbpf.so.1").bpf_obj_get(bytes(PINS / "timelines"))
        assert descriptor >= 0
        return cls(PINS / "edt_fifo", descriptor)

    def write(self, entry: int, bits_per_second: int) -> None:
        """Set a limit."""
        write(self.timelines, entry, bits_per_second)


def write(timelines: int, entry: int, bits_per_second: int) -> None:
    """Set a limit, by the map's descriptor."""
    library = CDLL("libbpf.so.1")
    value = timeline(bits_per_second)
    assert library.bpf_map_update_elem(timelines, byref(c_uint32(entry)), value, c_uint64(0)) == 0


def main(folder: str) -> int:
    module, (program,) = load(SOURCE.read_text(encoding="utf-8"), ("edt_fifo",))
    library = CDLL("libbpf.so.1")
    pinned = (
        library.bpf_obj_pin(program, os.fsencode(f"{folder}/edt_fifo")),
        library.bpf_obj_pin(module[b"timelines"].get_fd(), os.fsencode(f"{folder}/timelines")),
    )
    return int(any(pinned))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
