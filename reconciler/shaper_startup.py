"""Starts the Shaper in two steps, as compiling its program takes seconds, and many on a busy node.

The first needs nothing from the runtime, so it is done before connecting to it: once connected, the runtime relies on
us, and lets Pods start that asked not to start without their limits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from reconciler.kernel.program import Program
from reconciler.netns_scan import program_ids
from reconciler.program_record import ProgramRecord
from reconciler.sandboxes import Key
from reconciler.shaping import Shaper


class ShaperStartup:
    """Gets the program ready, then takes over what the network namespaces hold."""

    def __init__(self, slots: int, folder: Path, record: ProgramRecord) -> None:
        """`folder`: it may have network namespaces that the runtime does not name. `record`: what may be adopted."""
        self._slots, self._folder, self._record = slots, folder, record
        self._ready: Program | None = None
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """Load the program, unless what is in force can be adopted. Raises ShapingError or OSError."""
        recorded = self._record.programs()
        with closing(program_ids(self._folder)) as found:
            in_force = next(filter(None, (Program.adopt(each, self._slots, recorded) for each in found)), None)
        if in_force is None:
            self._ready = self._compiled(self._slots)
        else:
            in_force.close()

    def start(self, keys: Iterable[Key]) -> Shaper:
        """As Shaper.start, for the sandboxes known by now."""
        shaper = Shaper.start(
            slots=self._slots, netns_paths=keys, folder=self._folder, load=self._load, record=self._record
        )
        if self._ready is not None:  # a program was adopted from a netns outside the folder
            self._ready.close()
            self._ready = None
        return shaper

    def stop(self) -> None:
        """Stop a compile, from another thread: else the process would wait for it when it ends."""
        self._stopping.set()

    def _load(self, slots: int) -> Program:
        ready, self._ready = self._ready, None
        return ready or self._compiled(slots)

    def _compiled(self, slots: int) -> Program:
        return Program.load(slots, is_over=self._stopping.is_set)
