"""Starts the Shaper in two steps, as compiling its program takes seconds, and many on a busy node.

The first needs no word of the runtime, and so is done before it is connected to: from then on it counts on us, and lets
go on those Pods that asked not to start without their limits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from reconciler.kernel.program import Program
from reconciler.netns_scan import program_ids
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper


class ShaperStartup:
    """Gets the program ready, then takes over what the network namespaces hold."""

    def __init__(self, slots: int, folder: Path) -> None:
        """`folder`: where there may be network namespaces that nobody names."""
        self._slots, self._folder = slots, folder
        self._ready: Program | None = None
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """Load the program, unless what is in force can be adopted. Raises ShapingError or OSError."""
        with closing(program_ids(self._folder)) as found:
            in_force = next(filter(None, (Program.adopt(self._slots, [each]) for each in found)), None)
        if in_force is None:
            self._ready = self._compiled(self._slots)
        else:
            in_force.close()

    def start(self, keys: Iterable[Key]) -> Shaper:
        """As Shaper.start, for the sandboxes that are known by now."""
        shaper = Shaper.start(slots=self._slots, netns_paths=keys, folder=self._folder, load=self._load)
        if self._ready is not None:  # what was in force is of a netns outside of the folder
            self._ready.close()
            self._ready = None
        return shaper

    def stop(self) -> None:
        """Give up what compiles, from another thread: a process that ends would wait for it."""
        self._stopping.set()

    def _load(self, slots: int) -> Program:
        ready, self._ready = self._ready, None
        return ready or self._compiled(slots)

    def _compiled(self, slots: int) -> Program:
        return Program.load(slots, is_over=self._stopping.is_set)
