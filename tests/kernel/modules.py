"""The kernel's modules: taken out, and kept out as on a machine that has them not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.clock import until
from tests.kernel.lab import GONE_WITHIN_S, run

MODPROBE = Path("/proc/sys/kernel/modprobe")


@contextmanager
def kept_out(*modules: str) -> Iterator[None]:
    """None of them is loaded as long as the block lasts, and the kernel cannot load any, nor another."""
    before = MODPROBE.read_text()
    MODPROBE.write_text("/bin/false")
    try:
        unload(*modules)
        yield
    finally:
        MODPROBE.write_text(before)


def unload(*modules: str) -> None:
    """Repeated: the last test's namespaces, which need them, are taken down in the background."""

    def loaded() -> set[str]:
        return set(modules) & {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}

    def unloaded() -> bool:
        for module in modules:
            run("rmmod", module, check=False)
        return not loaded()

    until(unloaded, seconds=GONE_WITHIN_S, show=loaded)
