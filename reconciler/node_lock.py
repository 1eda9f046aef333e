"""The lock that lets one reconciler work on a node: a second one waits until the first has ended, in whatever way.

The one before ends within its grace, so that none waits for longer than PATIENCE_S: kubelet's probes of the one that
waits are answered by the other, and would call it ready for ever.

Two would each give the same free slot to different Pods, and each would undo the other's work; one would undo that of
`clean`, which waits too. When two overlap in an update, the second is already loaded when the first ends. It is a lock
(flock(2)) on the folder of the runtime's socket: the kernel releases it with the process, nothing is left behind, and
it takes access to the host's folder to hold it.
"""

import asyncio
import fcntl
import logging
import math
import os
import time
from pathlib import Path
from typing import Final

from reconciler.kernel.errors import ShapingError

logger = logging.getLogger(__name__)
PATIENCE_S: Final = 60.0
_RETRY_S: Final = 0.1


async def acquire_node_lock(stopping: asyncio.Event, folder: Path, patience_s: float = math.inf) -> int | None:
    """Wait for the lock. Close the returned descriptor to release it; None when `stopping` was set first.

    Raises ShapingError when the folder cannot be opened, or the lock is not free after `patience_s`.
    """
    held = _opened(folder)
    told, until_s = False, time.monotonic() + patience_s
    while not stopping.is_set():
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                logger.warning("a reconciler works on this node: waiting for its end")
                told = True
            if time.monotonic() > until_s:
                os.close(held)
                raise ShapingError(
                    f"another reconciler has held {folder} for {patience_s:.0f} s, and does not end: is it one that "
                    "the runtime has forgotten? `lslocks` on the node names its process"
                ) from None
        else:
            return held
        try:
            await asyncio.wait_for(stopping.wait(), _RETRY_S)
        except TimeoutError:
            continue
    os.close(held)
    return None


def _opened(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        # Not made here: other reconcilers would not see a folder of this container's own.
        hint = "; mount the node's folder there (the volume nri of the DaemonSet)"
        if isinstance(error, PermissionError):
            hint = "; where SELinux enforces, seLinuxOptions: {type: spc_t} is needed"
        raise ShapingError(f"cannot open {folder}, the folder of --nri-socket: {error.strerror}{hint}") from error
