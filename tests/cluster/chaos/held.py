"""Run on a node: what the kernel and the reconciler hold there, as JSON, read with the reconciler's own code."""

import json
import sys
from pathlib import Path

from reconciler.kernel import netns
from reconciler.kernel.errors import NetnsGoneError
from reconciler.kernel.netlink import Netlink
from reconciler.kernel.observe import observe_netns
from reconciler.kernel.program import Program
from reconciler.model import class_id
from webhook.common.contract import Direction


def reconciler() -> Path | None:
    """The /proc folder of the long-lived process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[1:4] == [b"-m", b"reconciler", b"run"]:
                return entry
    return None


def main() -> None:
    links, ids = 0, set()
    namespaces = sorted(Path("/run/netns").iterdir())
    for path in namespaces:
        try:
            with netns.opened(str(path)) as descriptor, Netlink.inside(descriptor) as netlink:
                observed = observe_netns(netlink).links
        except NetnsGoneError:
            continue
        links += len(observed)
        filters = (link.ours(Direction.EGRESS) for link in observed)
        ids |= {each.program_id for each in filters if each is not None and each.program_id is not None}
    slots = 0
    for number in ids:
        program = Program.adopt(number)
        if program is not None:
            numbers = range(1, program.slots + 1)
            slots += sum(any(program.read_limit(class_id(n, each)) for each in Direction) for n in numbers)
            program.close()
    held = {"slots": slots, "namespaces": len(namespaces), "links": links, "programs": len(ids)}
    process = reconciler()
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines()) if process else {}
    held["descriptors"] = len(list((process / "fd").iterdir())) if process else 0
    held["threads"] = int(status.get("Threads", 0))
    held["resident_kib"] = int(status.get("VmRSS", "0 kB").split()[0])
    json.dump(held, sys.stdout)


if __name__ == "__main__":
    main()
