"""The lock that lets one reconciler work on a node: a second one waits until the first has ended, in whatever way.

Two would each give the same free slot to different Pods, and each would undo the other's work; one would undo that of
`clean`, which waits too. When two overlap in an update, the second is already loaded when the first ends. It is a lock
(flock(2)) on the folder of the runtime's socket: the kernel releases it with the process, nothing is left behind, and
it takes access to the host's folder to hold it.
"""

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import Final

from reconciler.kernel.errors import ShapingError

logger = logging.getLogger(__name__)
_RETRY_S: Final = 0.1


async def acquire_node_lock(stopping: asyncio.Event, folder: Path) -> int | None:
    """Wait for the lock. Close the returned descriptor to release it; None when `stopping` was set first.

    Raises ShapingError when the folder cannot be opened.
    """
    held = _opened(folder)
    told = False
    while not stopping.is_set():
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                logger.warning("a reconciler works on this node: waiting for its end")
                told = True
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
