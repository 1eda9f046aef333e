"""The short-lived child that compiles and loads the shaper with bcc and hands the descriptors over (SCM_RIGHTS).

`python -m reconciler.kernel.compile SOCKET NAME ENTRIES`: libbcc costs 73 MB resident and compiling 127, so neither is
in the long-lived process. Failures go to standard error, with exit status 1. The name of the loaded variant is sent
with the descriptors: kernels without the helper bpf_skb_set_tstamp (before Linux 5.18) get the variant that writes the
stamp directly. The helper itself is probed, not the kernel's version, as distributions backport.

bcc wants the kernel's headers, but the shaper needs only a few types of them, and bcc brings its own
uapi/linux/bpf.h: a made-up tree in a temporary folder suffices, on any kernel, and no package of headers is needed.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from reconciler.kernel.bpf import Bpf

SOURCE: Final = Path(__file__).with_name("shaper.c")
HEADERS_PREFIX: Final = "ipvlan-bandwidth-"
MAPS: Final = ("limits", "state")
SET_TSTAMP: Final = b"set_tstamp"
PLAIN_WRITE: Final = b"plain_write"
BPF_FUNC_SKB_SET_TSTAMP: Final = 192

_INTEGERS: Final = "".join(
    f"typedef unsigned {base} __u{bits}; typedef signed {base} __s{bits}; typedef __u{bits} u{bits}; "
    f"typedef __s{bits} s{bits}; typedef __u{bits} __le{bits}; typedef __u{bits} __be{bits};\n"
    for bits, base in ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))
)
_INSTRUCTION_PARTS: Final = {
    "LD": 0x00, "LDX": 0x01, "ST": 0x02, "STX": 0x03, "ALU": 0x04, "JMP": 0x05,
    "W": 0x00, "H": 0x08, "B": 0x10, "IMM": 0x00, "ABS": 0x20, "IND": 0x40, "MEM": 0x60,
    "ADD": 0x00, "SUB": 0x10, "MUL": 0x20, "DIV": 0x30, "OR": 0x40, "AND": 0x50, "LSH": 0x60, "RSH": 0x70,
    "NEG": 0x80, "MOD": 0x90, "XOR": 0xA0, "JA": 0x00, "JEQ": 0x10, "JGT": 0x20, "JGE": 0x30, "JSET": 0x40,
    "K": 0x00, "X": 0x08,
}  # fmt: skip
_HEADERS: Final = {
    "linux/kconfig.h": (
        "#define CONFIG_BPF_SYSCALL 1\n#define __always_inline inline __attribute__((always_inline))\n"
    ),
    "linux/types.h": (
        "#pragma once\n" + _INTEGERS + "typedef __u64 __aligned_u64 __attribute__((aligned(8)));\n"
        "typedef __u16 __sum16;\ntypedef __u32 __wsum;\ntypedef _Bool bool;\nenum { false, true };\n"
        "typedef __SIZE_TYPE__ size_t;\ntypedef __UINTPTR_TYPE__ uintptr_t;\ntypedef __INTPTR_TYPE__ intptr_t;\n"
    ),
    "linux/version.h": (
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n#define LINUX_VERSION_CODE 0\n"
    ),
    "linux/bpf_common.h": "#define BPF_CLASS(code) ((code) & 0x07)\n"
    + "".join(f"#define BPF_{name} {value:#x}\n" for name, value in _INSTRUCTION_PARTS.items()),
    "linux/log2.h": "",
    "asm/page.h": "",
    "uapi/linux/bpf.h": "",
    "uapi/linux/if_packet.h": "",
}


def source() -> str:
    """The program's text."""
    return SOURCE.read_text(encoding="utf-8")


def _write_headers(root: Path) -> None:
    for name, text in _HEADERS.items():
        path = root / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Compile, load, hand over. Its arguments: a socket, the function's name, how many entries both maps have."""
    descriptor, name, entries = int(arguments[0]), arguments[1], int(arguments[2])
    with tempfile.TemporaryDirectory(prefix=HEADERS_PREFIX) as folder:
        _write_headers(Path(folder))
        os.environ["BCC_KERNEL_SOURCE"] = folder
        from bcc import BPF  # noqa: PLC0415 - it reads the environment, and only this child may load it

        text = source().replace("SHAPER_NAME", name)
        variant = SET_TSTAMP if Bpf().has_helper(BPF_FUNC_SKB_SET_TSTAMP) else PLAIN_WRITE
        flags = [f"-DENTRIES={entries}", *(["-DNO_SET_TSTAMP"] if variant == PLAIN_WRITE else [])]
        try:
            module = BPF(text=text.encode(), cflags=flags)
            program = module.load_func(name.encode(), BPF.SCHED_CLS)
            maps = [module[map_name.encode()].get_fd() for map_name in MAPS]
        except Exception as error:  # noqa: BLE001 - bcc raises nothing more precise
            sys.stderr.write(f"{error}\n")
            return 1
        with socket.socket(fileno=descriptor) as channel:
            socket.send_fds(channel, [variant], [program.fd, *maps])
        os.chdir("/")  # bcc may have left the working directory inside the folder that is now deleted
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
